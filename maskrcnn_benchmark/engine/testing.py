"""Test a model on DATASETS.TEST."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import torch

from maskrcnn_benchmark.config.paths_catalog import DatasetCatalog
from maskrcnn_benchmark.data import check_evaluation, make_data_loader
from maskrcnn_benchmark.engine import process
from maskrcnn_benchmark.engine.bbox_aug import BBoxAug
from maskrcnn_benchmark.engine.inference import inference
from maskrcnn_benchmark.engine.inference_model import make_inference_model
from maskrcnn_benchmark.evaluation import EvaluationOptions
from maskrcnn_benchmark.modeling.roi_heads.mask_head.inference import mask_pasting
from maskrcnn_benchmark.utils.comm import broadcast_buffers, get_world_size, synchronize, unwrapped
from maskrcnn_benchmark.utils.miscellaneous import mkdir


@dataclass
class TestOutcome:
    """Metrics of a test on rank 0; empty on other ranks.

    Attributes:
        figures: dict from "<dataset>/<task>/<metric>" to value, in the order of DATASETS.TEST; -1 if not computed.
        as_expected: False if a metric misses TEST.EXPECTED_RESULTS.
    """

    figures: dict[str, float] = field(default_factory=dict)
    as_expected: bool = True


def make_test_loaders(cfg) -> dict:
    """Make the loaders of DATASETS.TEST.

    Returns:
        Dict from dataset names to loaders.

    Raises:
        ValueError: two datasets have the same name and would overwrite each other's results, or a dataset cannot be
            evaluated, see `check_evaluation`.
    """
    names = [DatasetCatalog.name(entry) for entry in cfg.DATASETS.TEST]
    if len(set(names)) < len(names):
        raise ValueError(f"DATASETS.TEST has two datasets of one name ({', '.join(names)}): set NAME in each block")
    loaders = make_data_loader(cfg, is_train=False, is_distributed=get_world_size() > 1)
    for name, loader in zip(names, loaders, strict=True):
        check_evaluation(cfg, name, loader.dataset)
    return dict(zip(names, loaders, strict=True))


def choose_weights(cfg, checkpointer, ckpt, opts):
    """Choose the weights to test.

    The order is `ckpt`, MODEL.WEIGHT in `opts`, the last checkpoint in OUTPUT_DIR, MODEL.WEIGHT of the config file.

    Args:
        checkpointer: checkpointer of OUTPUT_DIR.
        ckpt: file, or None.
        opts: KEY VALUE pairs of the command line.

    Returns:
        The file. "" stands for random weights, and requires an empty MODEL.WEIGHT in `opts`.

    Raises:
        ValueError: none of them is given.
    """
    if ckpt:
        return ckpt
    if "MODEL.WEIGHT" in opts[0::2]:
        return cfg.MODEL.WEIGHT
    if checkpointer.has_checkpoint():
        return checkpointer.get_checkpoint_file()
    if cfg.MODEL.WEIGHT:
        return cfg.MODEL.WEIGHT
    raise ValueError(
        f"no weights to test: OUTPUT_DIR {cfg.OUTPUT_DIR!r} has no last_checkpoint and MODEL.WEIGHT is empty. "
        "Use --ckpt FILE or MODEL.WEIGHT FILE; MODEL.WEIGHT '' tests random weights."
    )


def run_test(cfg, model: torch.nn.Module, loaders: dict, check_expected: bool = True) -> TestOutcome:
    """Test the model on every loader; files go to OUTPUT_DIR/inference/<dataset>.

    Args:
        model: model on MODEL.DEVICE; DistributedDataParallel is unwrapped.
        loaders: loaders by dataset name, see `make_test_loaders`.
        check_expected: compare the metrics with TEST.EXPECTED_RESULTS.
    """
    model = unwrapped(model)
    broadcast_buffers(model)  # all processes test the model of rank 0, which is the one in the checkpoints
    model, dtype = make_inference_model(cfg, model)
    outcome = TestOutcome()
    try:
        for name, loader in loaders.items():
            _test_on(name, loader, cfg, model, dtype, check_expected, outcome)
    finally:
        if cfg.TEST.COMPILE:
            process.forget_programs()
    return outcome


def _test_on(name, loader, cfg, model, dtype, check_expected: bool, outcome: TestOutcome) -> None:
    """Test on one dataset and add its metrics to the outcome."""
    iou_types = ("bbox",)
    if cfg.MODEL.MASK_ON:
        iou_types += ("segm",)
    if cfg.MODEL.KEYPOINT_ON:
        iou_types += ("keypoints",)
    output_folder = ""
    if cfg.OUTPUT_DIR:
        output_folder = os.path.join(cfg.OUTPUT_DIR, "inference", name)
        mkdir(output_folder)
    if isinstance(model, BBoxAug):
        model.keypoint_flip_inds = getattr(loader.dataset, "keypoint_flip_inds", None)
    results = inference(
        model,
        loader,
        name,
        iou_types=iou_types,
        box_only=cfg.MODEL.RPN_ONLY and not (cfg.MODEL.FCOS_ON or cfg.MODEL.RETINANET_ON),
        device=cfg.MODEL.DEVICE,
        expected_results=cfg.TEST.EXPECTED_RESULTS if check_expected else (),
        expected_results_sigma_tol=cfg.TEST.EXPECTED_RESULTS_SIGMA_TOL,
        output_folder=output_folder,
        dtype=dtype,
        options=make_evaluation_options(cfg),
    )
    if results is not None:  # rank 0
        for task, metrics in results.results.items():
            outcome.figures |= {f"{name}/{task}/{metric}": value for metric, value in metrics.items()}
        outcome.as_expected &= results.as_expected
    synchronize()


def make_evaluation_options(cfg) -> EvaluationOptions:
    """Make the options of the evaluation from the config."""
    return EvaluationOptions(
        mask_pasting=mask_pasting(cfg),
        keypoint_sigmas=cfg.DATASETS.KEYPOINT_SIGMAS or None,
        boundary_iou=cfg.TEST.SEMANTIC.BOUNDARY_IOU,
        write_maps=cfg.TEST.SEMANTIC.WRITE_MAPS,
    )
