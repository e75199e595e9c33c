"""Find what is wrong with a dataset, and with its fit to a config (docs/data.md).

    python tools/check_dataset.py bees.yaml
    python tools/check_dataset.py bees/train.json --images bees/images
    python tools/check_dataset.py bees.yaml --html report.html
    python tools/check_dataset.py bees.yaml --weights output/bees/model_final.pth --html report.html
    python tools/check_dataset.py bees.yaml --json report.json INPUT.MIN_SIZE_TRAIN "(640,)"

--fix FOLDER writes each dataset as a COCO json without what training would leave out or repair, and changes.csv with
every change. Images stay where they are.

A config is checked with all of DATASETS.TRAIN and DATASETS.TEST, in any format. An annotation file is a COCO json. The
exit status is 0 without findings or with warnings, 1 with errors (--strict: also with warnings), 2 for a wrong command
or config, and 3 if the check itself failed.
"""

# First, because the import runs the user's set-up code, if there is any.
import maskrcnn_benchmark.utils.env  # noqa: F401  # isort: skip
from maskrcnn_benchmark.engine import process  # isort: skip

process.before_torch()

import argparse
import json
import logging
import os
import sys

import yaml

from maskrcnn_benchmark.doctor.duplicates import duplicate_findings
from maskrcnn_benchmark.doctor.examine import config_of_file, examine, read_splits
from maskrcnn_benchmark.doctor.fix import write_clean
from maskrcnn_benchmark.doctor.mistakes import NoCommonClassError, load_predictor, mistake_findings
from maskrcnn_benchmark.doctor.page import to_html
from maskrcnn_benchmark.engine import launch, script
from maskrcnn_benchmark.utils.atomic_write import atomic_write, write_json
from maskrcnn_benchmark.utils.counted import counted

USAGE, FAILED = 2, 3


def parse_arguments() -> argparse.Namespace:
    parser = script.make_parser(__doc__)
    parser.add_argument("subject", metavar="CONFIG|ANNOTATIONS", help="YAML config, or COCO json")
    parser.add_argument("--images", metavar="FOLDER", help="image folder of ANNOTATIONS (default: beside the file)")
    parser.add_argument("--json", metavar="FILE", help="write the findings as JSON; - writes them to stdout")
    parser.add_argument("--html", metavar="FILE", help="write one HTML page with thumbnails of the worst images")
    parser.add_argument("--fix", metavar="FOLDER", help="write clean COCO files, and changes.csv, to a new folder")
    parser.add_argument("--weights", metavar="FILE", help="checkpoint whose model looks for mistakes of annotations")
    parser.add_argument("--no-duplicates", action="store_true", help="do not decode images to find near-duplicates")
    parser.add_argument("--strict", action="store_true", help="exit with status 1 for warnings too")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides")
    args = parser.parse_intermixed_args()
    if args.weights and not os.path.exists(args.weights):
        parser.error(f"--weights {args.weights} does not exist")
    args.is_config = args.subject.lower().endswith((".yaml", ".yml"))
    if args.images and args.is_config:
        parser.error("--images belongs to an annotation file; a config names its image folders in DATASETS")
    if args.fix and os.path.lexists(args.fix) and (not os.path.isdir(args.fix) or os.listdir(args.fix)):
        parser.error(f"--fix {args.fix} exists; give a new folder, or an empty one")
    return args


def load(args: argparse.Namespace):
    """Return the config of the command line."""
    if args.is_config:
        return launch.load_config(args.subject, args.opts)
    cfg = config_of_file(args.subject, args.images)
    cfg.merge_from_list(args.opts)
    return cfg


def describe_copies(copies, changes) -> str:
    """Return lines about the files that --fix wrote, with the block of each."""
    lines = ["", f"{counted(len(changes), 'changes')}, listed in changes.csv"]
    for copy in copies:
        if copy.path is None:
            lines.append(f"{copy.name}: not written: {copy.remark}")
            continue
        lines.append(f"{copy.path}: {counted(copy.images, 'images')}, {counted(copy.annotations, 'annotations')}")
        lines += [f"  {copy.remark}"] * bool(copy.remark)
        lines.append("  " + yaml.safe_dump(copy.block, default_flow_style=True, sort_keys=False, width=10**6).strip())
    return "\n".join(lines) + "\n"


def main() -> int:
    args = parse_arguments()
    logging.getLogger("maskrcnn_benchmark").setLevel(logging.ERROR)  # the report says it all
    try:
        cfg = load(args)
        if not cfg.DATASETS.TRAIN and not cfg.DATASETS.TEST:
            raise ValueError("DATASETS.TRAIN and DATASETS.TEST are both empty: name at least one dataset")
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    try:
        splits = read_splits(cfg, args.is_config)
        predictor = None
        if args.weights:
            try:
                predictor = load_predictor(cfg.clone() if args.is_config else None, args.weights, splits)
            except (OSError, ValueError) as error:
                print(f"error: {error}", file=sys.stderr)
                return USAGE
        diagnosis = examine(cfg, splits, args.subject, args.is_config)
        if not args.no_duplicates:
            diagnosis.add(duplicate_findings(splits))
        if predictor is not None:
            for split in splits:
                if split.table is not None and split.class_names:
                    diagnosis.add(mistake_findings(split, predictor))
        if args.html:
            with atomic_write(args.html) as file:
                file.write(to_html(diagnosis, splits).encode(errors="backslashreplace"))
        fixed = describe_copies(*write_clean(cfg, splits, args.fix)) if args.fix else ""
        if args.json == "-":
            print(json.dumps(diagnosis.to_json(), indent=1))
            return diagnosis.status(args.strict)
        if args.json:
            write_json(args.json, diagnosis.to_json(), indent=1)
        print(diagnosis.to_text())
        print(fixed, end="")
    except NoCommonClassError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except Exception as error:  # noqa: BLE001  # any failure has the status 3
        script.report(error, debug="--debug" in sys.orig_argv)
        return FAILED
    return diagnosis.status(args.strict)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # names in annotations may have letters that a terminal lacks
    script.run(main)
