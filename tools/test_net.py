"""Test a detector on DATASETS.TEST.

    python tools/test_net.py --config-file FILE [--ckpt CHECKPOINT] [KEY VALUE ...]
    torchrun --nproc_per_node=2 tools/test_net.py --config-file FILE ...

The weights are the first of: --ckpt, MODEL.WEIGHT on the command line, the last checkpoint in OUTPUT_DIR, MODEL.WEIGHT
of the config file. The log has the name of the file.
"""

# First, because the import runs the user's set-up code, if there is any.
import maskrcnn_benchmark.utils.env  # noqa: F401  # isort: skip
from maskrcnn_benchmark.engine import process  # isort: skip

process.before_torch()

import sys

from maskrcnn_benchmark.checkpoint.checkpointer import DetectronCheckpointer
from maskrcnn_benchmark.config import check_values
from maskrcnn_benchmark.data import check_label_names, label_names, resolve_num_classes
from maskrcnn_benchmark.engine import launch, script
from maskrcnn_benchmark.engine.testing import choose_weights, make_test_loaders, run_test
from maskrcnn_benchmark.export.exported import ExportedModel, config_of, open_whole, pixel_transforms
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.modeling.detector.strides import check_strides
from maskrcnn_benchmark.utils.comm import is_main_process


def main():
    parser = launch.make_parser(__doc__)
    parser.add_argument("--ckpt", default=None, metavar="FILE", help="checkpoint to test (default: see above)")
    parser.add_argument("--model", metavar="FILE", help="exported model to test instead: .onnx, .xml or .pt2")
    args = parser.parse_args()
    exported = None
    if args.model:
        exported, cfg = load_exported(args)
    else:
        cfg = launch.load_config(args.config_file, args.opts)
    logger = launch.start(cfg, args, log_dir="")
    if not cfg.DATASETS.TEST:
        raise ValueError("DATASETS.TEST is empty: set it to at least one dataset to test on")
    loaders = make_test_loaders(cfg)
    names = {name: label_names(loader.dataset) for name, loader in loaders.items()}
    first = next(iter(names))
    resolve_num_classes(
        cfg, loaders[first].dataset.class_names, f"DATASETS.TEST '{first}'", names[first].get("semantic_names")
    )
    cfg.freeze()
    if exported is not None:
        for loader in loaders.values():
            loader.dataset.set_transforms(pixel_transforms(cfg))
        check_label_names({kind: exported.metadata[kind] for kind in names[first]}, names, train_source=args.model)
        logger.info("Testing the exported model %s", args.model)
        return finish(cfg, run_test(cfg, ExportedModel(exported), loaders))

    model = build_detection_model(cfg).to(cfg.MODEL.DEVICE)
    check_strides(cfg, model)
    checkpointer = DetectronCheckpointer(cfg, model, save_dir=cfg.OUTPUT_DIR)
    weights = choose_weights(cfg, checkpointer, args.ckpt, args.opts)
    logger.info("Testing the weights of %s", weights or "a random initialisation")
    checkpoint = checkpointer.load(weights, use_latest=False)
    trained_on = {kind: checkpoint.get(kind, given) for kind, given in names[first].items()}
    check_label_names(
        trained_on, names, train_source=weights if trained_on.keys() & checkpoint.keys() else f"test set '{first}'"
    )

    finish(cfg, run_test(cfg, model, loaders))


def load_exported(args):
    """Open args.model; return it and its configuration, with the datasets of --config-file and the command line."""
    model = open_whole(args.model)
    cfg = config_of(model)
    if args.config_file:
        given = launch.load_config(args.config_file, [])
        cfg.DATASETS, cfg.OUTPUT_DIR = given.DATASETS, given.OUTPUT_DIR
    cfg.merge_from_list(args.opts)
    cfg.MODEL.DEVICE, cfg.DTYPE, cfg.TEST.COMPILE = "cpu", "float32", False
    check_values(cfg)
    return model, cfg


def finish(cfg, outcome):
    launch.leave_processes()
    if cfg.TEST.FAIL_ON_UNEXPECTED_RESULTS and is_main_process() and not outcome.as_expected:
        sys.exit("TEST.EXPECTED_RESULTS were not met; see the FAIL lines above")


if __name__ == "__main__":
    script.run(main)
