"""Export a trained model to ONNX, OpenVINO or torch.export, and compare it with the original on real images.

    python tools/export.py --config-file FILE MODEL.WEIGHT model_final.pth --format onnx --output model.onnx

Without --config-file the configuration in the checkpoint is used: --weights model_final.pth. The command fails if the
exported model differs: in the number or labels of detections, in boxes by more than 0.01 pixels, in scores by more than
0.0001, or in masks by more than 0.001.
"""

import os
import sys

import torch

from maskrcnn_benchmark.engine import script
from maskrcnn_benchmark.engine.predictor_setup import load_model, setup_of
from maskrcnn_benchmark.engine.testing import make_test_loaders, run_test
from maskrcnn_benchmark.export import exporting, formats
from maskrcnn_benchmark.export.exported import ExportedModel, pixel_transforms
from maskrcnn_benchmark.export.parity import compare, compare_maps
from maskrcnn_benchmark.export.quantize import quantize
from maskrcnn_benchmark.export.versions import versions


def make_parser():
    parser = script.make_parser(__doc__)
    parser.add_argument("--config-file", metavar="FILE", help="default: the configuration in --weights")
    parser.add_argument("--weights", metavar="FILE", help="checkpoint (default: MODEL.WEIGHT)")
    parser.add_argument("--format", choices=list(formats.FORMATS), default="onnx", help="default: %(default)s")
    parser.add_argument("--output", metavar="FILE", help="default: OUTPUT_DIR/model with the format's suffix")
    parser.add_argument(
        "--fixed-size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), help="size of all images, for TensorRT and NPUs"
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images of a batch with --fixed-size")
    parser.add_argument(
        "--dense-only", action="store_true", help="export backbone and dense head, without decoding and NMS"
    )
    parser.add_argument("--with-runtime", action="store_true", help="copy runtime.py, which runs the model, beside it")
    parser.add_argument(
        "--int8", action="store_true", help="also write the model in 8 bits, calibrated on DATASETS.TRAIN, as *_int8"
    )
    parser.add_argument("--calibrate", type=int, default=64, metavar="N", help="images to calibrate on with --int8")
    parser.add_argument("--images", nargs="+", default=[], metavar="FILE", help="images to compare on")
    parser.add_argument("--compare", type=int, default=4, metavar="N", help="images of DATASETS.TEST to compare on")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="changes to the configuration")
    return parser


def main() -> int:
    args = make_parser().parse_intermixed_args()
    if not args.config_file and not args.weights:
        raise ValueError("give --config-file FILE, or --weights FILE of a checkpoint of tools/train_net.py")
    cfg, model, label_names, _ = load_model(args.config_file, args.weights, args.opts, device="cpu", dtype="float32")
    if not args.images and not cfg.DATASETS.TEST and args.compare:
        raise ValueError("DATASETS.TEST is empty: give --images FILES to compare the models on, or --compare 0")
    if args.int8 and (args.dense_only or args.format == "torch_export" or not cfg.DATASETS.TRAIN):
        raise ValueError("--int8 needs --format onnx or openvino, no --dense-only, and DATASETS.TRAIN to calibrate on")
    path = formats.path_with_suffix(args.output or os.path.join(cfg.OUTPUT_DIR, "model"), args.format)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    fixed_size = tuple(args.fixed_size) if args.fixed_size else None
    exportable = exporting.export_model(
        cfg, model, label_names, path, args.format, fixed_size, args.batch, args.dense_only
    )
    print(f"Written: {path} ({os.path.getsize(path) / 2**20:.1f} MiB), outputs {', '.join(exportable.names)}")
    print(versions(args.format))
    if args.with_runtime:
        print(f"Written: {exporting.copy_runtime(os.path.dirname(path) or '.')}")
    images = args.images
    if not images and args.compare:
        images = list(exporting.images_of_dataset(cfg, cfg.DATASETS.TEST[0], args.compare, cut=True))
    if not images:
        print("Not compared with the original: --compare 0")
        return 0
    setup = setup_of(cfg, model, label_names)
    exported = exporting.open_exported(path, threads=torch.get_num_threads())
    parity = (compare_maps if args.dense_only else compare)(setup, exported, images, *[exportable] * args.dense_only)
    print("\n".join(parity.lines()))
    failures = parity.failures()
    for failure in failures:
        print(f"FAIL: {failure}", file=sys.stderr)
    if args.int8 and not failures:
        write_int8(cfg, path, args.calibrate)
    return int(bool(failures))


def write_int8(cfg, path: str, calibrate: int) -> None:
    """Quantize the exported model, and print what it loses on DATASETS.TEST."""
    stem, suffix = os.path.splitext(path)
    output = f"{stem}_int8{suffix}"
    kept = quantize(path, exporting.images_of_dataset(cfg, cfg.DATASETS.TRAIN[0], calibrate), output)
    print(f"Written: {output}, 8 bits but for {kept} last layers of heads; calibrated on {calibrate} images")
    if not cfg.DATASETS.TEST:
        print("DATASETS.TEST is empty: what 8 bits lose is not known")
        return
    before, after = (test_figures(cfg, exporting.open_exported(each)) for each in (path, output))
    for name, value in before.items():
        if value >= 0 and name.rsplit("/", 1)[-1] in ("AP", "AP50", "mIoU", "PQ"):
            print(f"{name:<40} float32 {value:.4f}, 8 bits {after[name]:.4f}, difference {after[name] - value:+.4f}")


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
