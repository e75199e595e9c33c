"""Train a detector and test it.

    python tools/train_net.py --config-file FILE [--skip-test] [KEY VALUE ...]
    torchrun --nproc_per_node=2 tools/train_net.py --config-file FILE ...

SIGTERM and Ctrl-C write a checkpoint and stop the training; a second Ctrl-C ends it at once. The same command then
resumes from the last checkpoint in OUTPUT_DIR. Without a checkpoint, the training starts from the weights in
MODEL.WEIGHT; other entries of that file are ignored.
"""

# First, because the import runs the user's set-up code, if there is any.
import maskrcnn_benchmark.utils.env  # noqa: F401  # isort: skip
from maskrcnn_benchmark.engine import process  # isort: skip

process.before_torch()

import os
import sys

import torch
from torch.nn.parallel import DistributedDataParallel

from maskrcnn_benchmark.checkpoint.checkpointer import DetectronCheckpointer
from maskrcnn_benchmark.data import (
    check_annotations,
    check_label_names,
    label_ids,
    label_names,
    make_data_loader,
    resolve_num_classes,
)
from maskrcnn_benchmark.data.label_space import describe_classes
from maskrcnn_benchmark.data.typical_size import typical_size
from maskrcnn_benchmark.engine import launch, script
from maskrcnn_benchmark.engine.rng_state import seed_everything
from maskrcnn_benchmark.engine.testing import make_test_loaders, run_test
from maskrcnn_benchmark.engine.trainer import do_train
from maskrcnn_benchmark.engine.training_options import TrainingOptions
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.modeling.detector.strides import check_strides
from maskrcnn_benchmark.solver import make_lr_scheduler, make_optimizer
from maskrcnn_benchmark.utils.comm import get_rank, get_world_size, is_main_process
from maskrcnn_benchmark.utils.compute_dtype import compute_dtype
from maskrcnn_benchmark.utils.miscellaneous import save_config, save_labels


def train(cfg, test_loaders, logger):
    """Train to MAX_ITER.

    Returns:
        The model, and the outcome of the test at MAX_ITER, or None if there was none.
    """
    distributed = get_world_size() > 1
    train_loader = make_data_loader(cfg, is_train=True, is_distributed=distributed)
    class_names, names = train_loader.dataset.class_names, label_names(train_loader.dataset)
    resolve_num_classes(cfg, class_names, semantic_names=names.get("semantic_names"))
    check_annotations(cfg, train_loader.dataset)
    check_label_names(names, {name: label_names(loader.dataset) for name, loader in test_loaders.items()})
    cfg.freeze()
    shown = describe_classes(class_names or names["semantic_names"])
    logger.info("Training on %d images with the classes %s", len(train_loader.dataset), shown)
    if cfg.OUTPUT_DIR:
        config_path = os.path.join(cfg.OUTPUT_DIR, "config.yml")
        logger.info("Saving config into: %s", config_path)
        save_config(cfg, config_path)
        save_labels([train_loader.dataset], cfg.OUTPUT_DIR)

    seed_everything(cfg.SEED)
    device = torch.device(cfg.MODEL.DEVICE)
    model = build_detection_model(cfg).to(device)
    check_strides(cfg, model)
    if cfg.MODEL.USE_SYNCBN and distributed and device.type == "cuda":
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    optimizer = make_optimizer(cfg, model)
    scheduler = make_lr_scheduler(cfg, optimizer)
    checkpointer = DetectronCheckpointer(cfg, model, optimizer, scheduler, cfg.OUTPUT_DIR, is_main_process())
    arguments = {"iteration": 0}
    arguments.update(checkpointer.load(cfg.MODEL.WEIGHT, model_only=True, skip_mismatched_heads=True))
    trained_on = {kind: arguments[kind] for kind in names if kind in arguments}
    resumed = f"the checkpoint in {cfg.OUTPUT_DIR}"
    check_label_names(trained_on, {"DATASETS.TRAIN": names}, train_source=resumed, other="training set")
    # entries that Predictor.from_checkpoint reads besides the weights
    arguments |= {**names, **label_ids(train_loader.dataset), "config": cfg.dump()}
    arguments["image_size"] = typical_size(train_loader.dataset)
    train_loader.batch_sampler.start_iteration = arguments["iteration"]
    # Weights are equal on all processes; from here on every process draws its own random numbers.
    seed_everything(cfg.SEED + get_rank())

    trained = model
    if distributed:
        trained = DistributedDataParallel(
            model,
            device_ids=[torch.cuda.current_device()] if device.type == "cuda" else None,
            broadcast_buffers=has_statistics_of_its_own(model),
        )
    outcomes = {}

    def evaluate(iteration):
        is_last = iteration == cfg.SOLVER.MAX_ITER
        outcomes[iteration] = run_test(cfg, model, test_loaders, check_expected=is_last)
        return outcomes[iteration].figures

    options = TrainingOptions(
        dtype=compute_dtype(cfg.DTYPE, device),
        accumulation_steps=cfg.SOLVER.ACCUMULATION_STEPS,
        clip_gradients=cfg.SOLVER.CLIP_GRADIENTS,
        checkpoint_minutes=cfg.SOLVER.CHECKPOINT_MINUTES,
        evaluate=evaluate if test_loaders else None,
        test_period=cfg.SOLVER.TEST_PERIOD,
    )
    period = cfg.SOLVER.CHECKPOINT_PERIOD
    do_train(trained, train_loader, optimizer, scheduler, checkpointer, device, period, arguments, options=options)
    return model, outcomes.get(cfg.SOLVER.MAX_ITER)


def has_statistics_of_its_own(model):
    """Return whether batch norm statistics differ between processes. Those of SyncBatchNorm and frozen norms do not."""
    return any(
        isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and not isinstance(module, torch.nn.SyncBatchNorm)
        for module in model.modules()
    )


def main():
    parser = launch.make_parser(__doc__)
    parser.add_argument("--skip-test", action="store_true", help="do not test the final model")
    args = parser.parse_args()
    cfg = launch.load_config(args.config_file, args.opts)
    logger = launch.start(cfg, args, log_dir=cfg.OUTPUT_DIR, lock=True)
    # Made before the training, so that an error in them is raised before it.
    test_loaders = make_test_loaders(cfg) if not args.skip_test or cfg.SOLVER.TEST_PERIOD > 0 else {}
    model, outcome = train(cfg, test_loaders, logger)
    if outcome is None and not args.skip_test:
        outcome = run_test(cfg, model, test_loaders)
    launch.leave_processes()
    if cfg.TEST.FAIL_ON_UNEXPECTED_RESULTS and outcome is not None and not outcome.as_expected:
        sys.exit("TEST.EXPECTED_RESULTS were not met; see the FAIL lines above")


if __name__ == "__main__":
    script.run(main, continues=True)
