"""Export a trained model to ONNX, OpenVINO or torch.export, and compare it with the original on real images.

    python tools/export.py --config-file FILE MODEL.WEIGHT model_final.pth --format onnx --output model.onnx

Without --config-file the configuration in the checkpoint is used: --weights model_final.pth. The command fails if the
exported model differs: in the number or labels of detections, in boxes by more than 0.01 pixels, in scores by more than
0.0001, or in masks by more than 0.001. With --int8 it also fails if a metric on DATASETS.TEST falls by more than
--max-loss.
"""

import os
import sys
import tempfile

import numpy as np
import torch

from maskrcnn_benchmark.engine import script
from maskrcnn_benchmark.engine.predictor_setup import load_model, setup_of
from maskrcnn_benchmark.engine.testing import make_test_loaders, run_test
from maskrcnn_benchmark.evaluation.coco_results import NOT_COMPUTED
from maskrcnn_benchmark.export import exporting, formats
from maskrcnn_benchmark.export.exported import ExportedModel, pixel_transforms
from maskrcnn_benchmark.export.parity import compare, compare_maps
from maskrcnn_benchmark.export.quantize import quantize
from maskrcnn_benchmark.export.versions import versions

CALIBRATION_IMAGES = 64
MAX_LOSS = 0.01
# the headline figures among those of a test
METRICS = ("AP", "mIoU", "PQ")


def make_parser():
    parser = script.make_parser(__doc__)
    parser.add_argument("--config-file", metavar="FILE", help="default: the configuration in --weights")
    parser.add_argument("--weights", metavar="FILE", help="checkpoint (default: MODEL.WEIGHT)")
    parser.add_argument(
        "--format", choices=list(formats.FORMATS), help="default: that of --output's suffix, without one onnx"
    )
    parser.add_argument("--output", metavar="FILE", help="default: OUTPUT_DIR/model with the format's suffix")
    parser.add_argument(
        "--fixed-size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), help="size of all images, for TensorRT and NPUs"
    )
    parser.add_argument("--batch", type=int, metavar="N", help="images of a batch with --fixed-size (default: 1)")
    parser.add_argument(
        "--dense-only", action="store_true", help="export backbone and dense head, without decoding and NMS"
    )
    parser.add_argument("--with-runtime", action="store_true", help="copy runtime.py, which runs the model, beside it")
    parser.add_argument(
        "--int8", action="store_true", help="also write the model in 8 bits, calibrated on DATASETS.TRAIN, as *_int8"
    )
    parser.add_argument(
        "--calibrate", type=int, metavar="N", help=f"images to calibrate on with --int8 (default: {CALIBRATION_IMAGES})"
    )
    parser.add_argument(
        "--max-loss",
        type=float,
        metavar="X",
        help=f"largest loss of AP, mIoU or PQ that --int8 may cost (default: {MAX_LOSS})",
    )
    parser.add_argument("--images", nargs="+", default=[], metavar="FILE", help="images to compare on")
    parser.add_argument("--compare", type=int, default=4, metavar="N", help="images of DATASETS.TEST to compare on")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="changes to the configuration")
    return parser


def main() -> int:
    args = make_parser().parse_intermixed_args()
    check_arguments(args)
    cfg, model, label_names, image_size = load_model(
        args.config_file, args.weights, args.opts, device="cpu", dtype="float32"
    )
    if not args.images and not cfg.DATASETS.TEST and args.compare:
        raise ValueError("DATASETS.TEST is empty: give --images FILES to compare the models on, or --compare 0")
    if args.int8 and not cfg.DATASETS.TRAIN:
        raise ValueError("DATASETS.TRAIN is empty: --int8 calibrates on its images")
    path, kind = formats.path_and_format(args.output or os.path.join(cfg.OUTPUT_DIR, "model"), args.format)
    formats.check_writable(path)
    size = tuple(args.fixed_size) if args.fixed_size else None
    parts = (cfg, model, label_names)
    exportable = exporting.export_model(
        *parts, path, kind, size, args.batch or 1, args.dense_only, image_size=image_size
    )
    print(f"Written: {path} ({os.path.getsize(path) / 2**20:.1f} MiB), outputs {', '.join(exportable.names)}")
    print(versions(kind))
    if args.with_runtime:
        print(f"Written: {exporting.copy_runtime(os.path.dirname(path) or '.')}")
    images = args.images
    if not images and args.compare:
        images = list(exporting.images_of_dataset(cfg, cfg.DATASETS.TEST[0], args.compare, cut=True))
    failures = []
    if images:
        setup = setup_of(*parts)
        exported = exporting.open_exported(path, threads=torch.get_num_threads())
        run = compare_maps if args.dense_only else compare
        parity = run(setup, exported, images, *[exportable] * args.dense_only)
        print("\n".join(parity.lines()))
        failures = parity.failures()
    else:
        print("Not compared with the original: --compare 0")
    if args.int8 and not failures:
        with tempfile.TemporaryDirectory() as folder:
            source = path
            if any(isinstance(module, torch.nn.GroupNorm) for module in model.modules()):
                source = os.path.join(folder, os.path.basename(path))
                exporting.export_model(*parts, source, kind, size, args.batch or 1, exact=False, image_size=image_size)
            failures = write_int8(cfg, path, source, args.calibrate or CALIBRATION_IMAGES, args.max_loss)
    for failure in failures:
        print(f"FAIL: {failure}", file=sys.stderr)
    return int(bool(failures))


def check_arguments(args) -> None:
    """Check the arguments before the model is loaded."""
    if not args.config_file and not args.weights:
        raise ValueError("give --config-file FILE, or --weights FILE of a checkpoint of tools/train_net.py")
    if args.batch is not None and not args.fixed_size:
        raise ValueError("--batch goes with --fixed-size: models of open sizes take batches of any size")
    if not args.int8 and not (args.calibrate is None and args.max_loss is None):
        raise ValueError("--calibrate and --max-loss go with --int8")
    for name in ("fixed_size", "batch", "calibrate"):
        given = getattr(args, name)
        if any(value is not None and value < 1 for value in np.atleast_1d(given)):
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {given}")
    if args.compare < 0:
        raise ValueError(f"--compare must be 0 (no comparison) or more, got {args.compare}")
    if lacking := [path for path in args.images if not os.path.isfile(path)]:
        raise FileNotFoundError(f"--images: there is no file {lacking[0]}; KEY VALUE pairs go before --images")
    _, kind = formats.path_and_format(args.output or "model", args.format)
    if args.int8 and (args.dense_only or kind == "torch_export"):
        raise ValueError("--int8 needs --format onnx or openvino, and no --dense-only")
    formats.need(*formats.PACKAGES[kind], *{"onnx": ["onnxruntime"], "openvino": ["nncf"]}.get(kind, []) * args.int8)


def write_int8(cfg, path: str, source: str, calibrate: int, max_loss: float | None) -> list[str]:
    """Quantize `source`, compare it with `path` on DATASETS.TEST, and return a message per loss above the limit."""
    stem, suffix = os.path.splitext(path)
    output, limit = f"{stem}_int8{suffix}", MAX_LOSS if max_loss is None else max_loss
    images = list(exporting.images_of_dataset(cfg, cfg.DATASETS.TRAIN[0], calibrate))
    kept = quantize(source, images, output)
    print(f"Written: {output}, 8 bits but for {kept} last layers of heads; calibrated on {len(images)} images")
    if not cfg.DATASETS.TEST:
        print("DATASETS.TEST is empty: what 8 bits lose is not known")
        return []
    before, after = (test_figures(cfg, exporting.open_exported(each)) for each in (path, output))
    failures = []
    for name, value in before.items():
        metric = name.rsplit("/", 1)[-1]
        if value == NOT_COMPUTED:
            continue
        if metric in (*METRICS, "AP50"):
            print(f"{name:<40} float32 {value:.4f}, 8 bits {after[name]:.4f}, difference {after[name] - value:+.4f}")
        if metric in METRICS and not value - after[name] <= limit:
            failures.append(f"8 bits cost {value - after[name]:.4f} of {name}, the limit is {limit:g} (--max-loss)")
    return failures


def test_figures(cfg, model) -> dict[str, float]:
    """Test an exported model on DATASETS.TEST; write nothing."""
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = ""
    loaders = make_test_loaders(cfg)
    for loader in loaders.values():
        loader.dataset.set_transforms(pixel_transforms(cfg))
    return run_test(cfg, ExportedModel(model), loaders, check_expected=False).figures


if __name__ == "__main__":
    script.run(main)
