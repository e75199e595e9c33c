"""Write a dataset of any format that is read here as a COCO json, and say what was repaired or left out.

    python tools/convert_dataset.py "{FORMAT: yolo, DATA: bees/data.yaml, SPLIT: train}" --output bees/train.json
    python tools/convert_dataset.py "{FORMAT: labelme, ANNOTATIONS: bees/json}" --output bees/all.json
    python tools/convert_dataset.py "{FORMAT: coco, IMAGES: bees/images, ANNOTATIONS: export.json}" --output clean.json

The block is one of DATASETS.TRAIN in a config. Annotations are read by the same rules as in training and testing, and
written as they are used: boxes within their images, ids as numbers, file names as they are on the disk. Images stay
where they are; the last line is the block that reads the outcome.
"""

from __future__ import annotations

import os
import sys

import yaml

from maskrcnn_benchmark.config.errors import UnknownNameError
from maskrcnn_benchmark.data.build import build_dataset
from maskrcnn_benchmark.data.datasets.box_dataset import BoxDataset
from maskrcnn_benchmark.data.datasets.image_settings import EXIF_ROTATIONS, SIZE_MISMATCHES, ImageSettings
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.engine import script
from maskrcnn_benchmark.evaluation.coco_export import coco_content
from maskrcnn_benchmark.utils.atomic_write import write_json
from maskrcnn_benchmark.utils.counted import counted


def parse_block(text: str) -> dict:
    """Parse the dataset block of the command line.

    Raises:
        ValueError: the text is not a block.
    """
    try:
        block = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r} is not YAML: {error}") from None
    if not isinstance(block, dict):
        raise ValueError(f"{text!r} is no block; write {{FORMAT: yolo, DATA: data.yaml, SPLIT: train}}")
    return block


def main() -> int:
    parser = script.make_parser(__doc__)
    parser.add_argument("block", help="dataset block, as in DATASETS.TRAIN")
    parser.add_argument("--output", required=True, metavar="FILE", help="COCO json to write")
    parser.add_argument(
        "--root", default="", help='data folder for relative paths; default: $MB_DATASETS or "datasets"'
    )
    parser.add_argument("--exif-rotation", default="auto", choices=EXIF_ROTATIONS, help="DATASETS.EXIF_ROTATION")
    parser.add_argument("--size-mismatch", default="error", choices=SIZE_MISMATCHES, help="DATASETS.SIZE_MISMATCH")
    parser.add_argument("--crowd-as-objects", action="store_true", help="DATASETS.CROWD_AS_OBJECTS")
    parser.add_argument("--keep-placeholders", action="store_true", help="DATASETS.KEEP_PLACEHOLDER_CATEGORIES")
    args = parser.parse_args()
    images = ImageSettings(args.exif_rotation, args.size_mismatch)
    reading = Reading(crowd_as_objects=args.crowd_as_objects, keep_placeholder_categories=args.keep_placeholders)
    try:
        block = parse_block(args.block)
        (dataset,) = build_dataset([block], None, is_train=False, root=args.root, images=images, reading=reading)
        if not isinstance(dataset, BoxDataset):
            raise ValueError(f"FORMAT {block['FORMAT']} has no boxes to convert")
        content = coco_content(dataset)
        write_json(args.output, content)
    except (OSError, ValueError, UnknownNameError) as error:
        message = error.args[0] if isinstance(error, UnknownNameError) else error
        sys.exit(f"{parser.prog}: error: {message}")
    print(dataset.report)
    turned = sum(map(dataset.is_turned, range(len(dataset))))
    if turned:
        print(counted(turned, "images are turned as EXIF says: use DATASETS.EXIF_ROTATION: upright with the outcome"))
    counts = ", ".join(counted(len(content[key]), key) for key in ("images", "annotations", "categories"))
    print(f"{args.output}: {counts}")
    places = {"IMAGES": os.path.abspath(dataset.root), "ANNOTATIONS": os.path.abspath(args.output)}
    kind = "lvis" if block["FORMAT"] == "lvis" else "coco"
    outcome = {"FORMAT": kind, **places}
    print(yaml.safe_dump(outcome, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6).strip())
    return 0


if __name__ == "__main__":
    script.run(main)
