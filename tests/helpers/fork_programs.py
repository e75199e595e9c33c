"""Training and test programs of the forks' users: the same imports, calls and order of arguments.

Each takes the name of the package from which it imports, `maskrcnn_benchmark` or `fcos_core`.
"""

from __future__ import annotations

import importlib
import os


class Names:
    """Importer of the package's names: `get(module, name)`."""

    def __init__(self, package: str):
        self.package = package

    def __call__(self, module: str, name: str):
        return getattr(importlib.import_module(f"{self.package}.{module}"), name)


def load_config(get, config_file, opts):
    get("utils.env", "setup_environment")
    cfg = get("config", "cfg")
    cfg.merge_from_file(str(config_file))
    cfg.merge_from_list(opts)
    cfg.freeze()
    return cfg


def start_log(get, cfg, save_dir):
    logger = get("utils.logger", "setup_logger")(get.package, save_dir, get("utils.comm", "get_rank")())
    logger.info("Using %d GPUs", 1)
    logger.info("Collecting env info (might take some time)")
    logger.info("\n" + get("utils.collect_env", "collect_env_info")())
    logger.info("Running with config:\n%s", cfg)
    return logger


def build(get, cfg):
    import torch

    device = torch.device(cfg.MODEL.DEVICE)
    model = get("modeling.detector", "build_detection_model")(cfg).to(device)
    return model, device


def train_newest(config_file, opts):
    """Train as maskrcnn-benchmark's newest program does: with apex, written files, and tests during training."""
    get = Names("maskrcnn_benchmark")
    cfg = load_config(get, config_file, opts)
    get("utils.miscellaneous", "mkdir")(cfg.OUTPUT_DIR)
    start_log(get, cfg, cfg.OUTPUT_DIR)
    get("utils.miscellaneous", "save_config")(cfg, os.path.join(cfg.OUTPUT_DIR, "config.yml"))
    from apex import amp

    model, device = build(get, cfg)
    optimizer = get("solver", "make_optimizer")(cfg, model)
    scheduler = get("solver", "make_lr_scheduler")(cfg, optimizer)
    model, optimizer = amp.initialize(model, optimizer, opt_level="O1" if cfg.DTYPE == "float16" else "O0")
    arguments = {"iteration": 0}
    checkpointer_class = get("utils.checkpoint", "DetectronCheckpointer")
    checkpointer = checkpointer_class(
        cfg, model, optimizer, scheduler, cfg.OUTPUT_DIR, get("utils.comm", "get_rank")() == 0
    )
    arguments.update(checkpointer.load(cfg.MODEL.WEIGHT))
    make_data_loader = get("data", "make_data_loader")
    loader = make_data_loader(cfg, is_train=True, is_distributed=False, start_iter=arguments["iteration"])
    loader_val = None
    if cfg.SOLVER.TEST_PERIOD > 0:
        loader_val = make_data_loader(cfg, is_train=False, is_distributed=False, is_for_period=True)
    get("engine.trainer", "do_train")(
        cfg,
        model,
        loader,
        loader_val,
        optimizer,
        scheduler,
        checkpointer,
        device,
        cfg.SOLVER.CHECKPOINT_PERIOD,
        cfg.SOLVER.TEST_PERIOD,
        arguments,
    )
    return model


def train_older(package, config_file, opts):
    """Train as the FCOS forks' program does."""
    get = Names(package)
    cfg = load_config(get, config_file, opts)
    get("utils.miscellaneous", "mkdir")(cfg.OUTPUT_DIR)
    start_log(get, cfg, cfg.OUTPUT_DIR)
    assert get("utils.comm", "is_pytorch_1_1_0_or_later")()
    model, device = build(get, cfg)
    optimizer = get("solver", "make_optimizer")(cfg, model)
    scheduler = get("solver", "make_lr_scheduler")(cfg, optimizer)
    arguments = {"iteration": 0}
    checkpointer = get("utils.checkpoint", "DetectronCheckpointer")(
        cfg, model, optimizer, scheduler, cfg.OUTPUT_DIR, True
    )
    arguments.update(checkpointer.load(cfg.MODEL.WEIGHT))
    loader = get("data", "make_data_loader")(
        cfg, is_train=True, is_distributed=False, start_iter=arguments["iteration"]
    )
    get("engine.trainer", "do_train")(
        model, loader, optimizer, scheduler, checkpointer, device, cfg.SOLVER.CHECKPOINT_PERIOD, arguments
    )
    return model


def test(package, config_file, opts, ckpt=None, newest=False):
    """Test as the forks' programs do; return the result of `inference` for each test dataset."""
    get = Names(package)
    cfg = load_config(get, config_file, opts)
    start_log(get, cfg, "")
    model, _ = build(get, cfg)
    if newest:
        from apex import amp

        amp.init(enabled=cfg.DTYPE == "float16", verbose=cfg.AMP_VERBOSE)
    checkpointer = get("utils.checkpoint", "DetectronCheckpointer")(cfg, model, save_dir=cfg.OUTPUT_DIR)
    checkpointer.load(cfg.MODEL.WEIGHT if ckpt is None else ckpt, use_latest=ckpt is None)
    iou_types = ("bbox",) + ("segm",) * cfg.MODEL.MASK_ON + ("keypoints",) * cfg.MODEL.KEYPOINT_ON
    results = []
    loaders = get("data", "make_data_loader")(cfg, is_train=False, is_distributed=False)
    for number, loader in enumerate(loaders):
        name = f"set{number}"
        folder = os.path.join(cfg.OUTPUT_DIR, "inference", name)
        get("utils.miscellaneous", "mkdir")(folder)
        extra = {"bbox_aug": cfg.TEST.BBOX_AUG.ENABLED} if newest else {}
        results.append(
            get("engine.inference", "inference")(
                model,
                loader,
                dataset_name=name,
                iou_types=iou_types,
                box_only=False,
                device=cfg.MODEL.DEVICE,
                expected_results=cfg.TEST.EXPECTED_RESULTS,
                expected_results_sigma_tol=cfg.TEST.EXPECTED_RESULTS_SIGMA_TOL,
                output_folder=folder,
                **extra,
            )
        )
        get("utils.comm", "synchronize")()
    return results
