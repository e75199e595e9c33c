"""Accept the argument lists with which the forks' tools call `do_train`.

Upstream's newest tools also pass the config and a loader for tests during training.
"""

from __future__ import annotations

import datetime
import functools
import inspect
import logging
import time

import torch

from maskrcnn_benchmark.engine.testing import make_test_loaders, run_test
from maskrcnn_benchmark.engine.training_options import TrainingOptions
from maskrcnn_benchmark.utils.comm import all_gather, unwrapped
from maskrcnn_benchmark.utils.compute_dtype import autocast, compute_dtype
from maskrcnn_benchmark.utils.metric_logger import MetricLogger

# Upstream's order. The forks' older order is the same without cfg, data_loader_val and test_period.
UPSTREAM_TRAIN = (
    "cfg",
    "model",
    "data_loader",
    "data_loader_val",
    "optimizer",
    "scheduler",
    "checkpointer",
    "device",
    "checkpoint_period",
    "test_period",
    "arguments",
)
OLDER_TRAIN = tuple(name for name in UPSTREAM_TRAIN if name not in ("cfg", "data_loader_val", "test_period"))

logger = logging.getLogger("maskrcnn_benchmark.trainer")


def takes_forks_arguments(train):
    """Make `do_train` accept upstream's eleven arguments, too.

    A call is upstream's if it has nine or more positional arguments or an argument `cfg`. Its cfg then sets the
    TrainingOptions: DTYPE, and SOLVER's ACCUMULATION_STEPS, CLIP_GRADIENTS and CHECKPOINT_MINUTES. The model is tested
    every `test_period` iterations, see `tests_during_training`.

    The older call has eight arguments and no cfg. The loader's batch sampler defines accumulation_steps.
    """

    @functools.wraps(train)
    def do_train(*args, **kwargs):
        if len(args) <= len(OLDER_TRAIN) and "cfg" not in kwargs:
            call = inspect.signature(train).bind_partial(*args, **kwargs).arguments
            parts = getattr(getattr(call.get("data_loader"), "batch_sampler", None), "accumulation_steps", 1)
            if parts > 1:
                kwargs.setdefault("options", TrainingOptions(accumulation_steps=parts))
            return train(*args, **kwargs)
        given = _by_name(UPSTREAM_TRAIN, args, kwargs)
        cfg, loader_val, test_period = (given.pop(name) for name in ("cfg", "data_loader_val", "test_period"))
        options = {
            "dtype": compute_dtype(cfg.DTYPE, torch.device(given["device"])),
            "accumulation_steps": cfg.SOLVER.ACCUMULATION_STEPS,
            "clip_gradients": cfg.SOLVER.CLIP_GRADIENTS,
            "checkpoint_minutes": cfg.SOLVER.CHECKPOINT_MINUTES,
        }
        if loader_val is not None and test_period > 0:
            start = given["arguments"]["iteration"]
            evaluate = tests_during_training(cfg, given["model"], loader_val, given["optimizer"], start)
            options |= {"evaluate": evaluate, "test_period": test_period}
        return train(**given, options=TrainingOptions(**options))

    return do_train


def _by_name(names, args, kwargs) -> dict:
    """Bind arguments to names; raise TypeError where a function with these parameters would."""
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    try:
        return dict(inspect.Signature(parameters).bind(*args, **kwargs).arguments)
    except TypeError as error:
        raise TypeError(
            f"do_train() {error}; it takes ({', '.join(OLDER_TRAIN)}) with options by name, or upstream's arguments "
            f"({', '.join(UPSTREAM_TRAIN)})"
        ) from None


def tests_during_training(cfg, model, loader_val, optimizer, start: int):
    """Return the function that upstream's trainer calls every `test_period` iterations.

    The function tests on DATASETS.TEST and writes no result files. A single dataset is logged as "[Validation]",
    several datasets under their names. It then logs the losses on `loader_val` in one line, "[Validation]:   eta: ...".

    Args:
        loader_val: loader of (ImageList, BoxLists, indices), or a list of them. Every process has equally many batches.
        start: iterations done before this run.

    Returns:
        Function (iteration) -> metrics.
    """
    without_files = cfg.clone()
    without_files.defrost()
    without_files.OUTPUT_DIR = ""
    without_files.freeze()
    tests = make_test_loaders(cfg)
    if len(tests) == 1:
        tests = {"[Validation]": next(iter(tests.values()))}
    loaders = list(loader_val) if isinstance(loader_val, (list, tuple)) else [loader_val]
    device = next(model.parameters()).device
    started = time.perf_counter()

    def evaluate(iteration: int) -> dict[str, float]:
        figures = run_test(without_files, model, tests).figures
        meters = validation_losses(model, loaders, device, compute_dtype(cfg.DTYPE, device))
        seconds = (time.perf_counter() - started) / max(iteration - start, 1) * (cfg.SOLVER.MAX_ITER - iteration)
        fields = [
            f"eta: {datetime.timedelta(seconds=int(seconds))}",
            f"iter: {iteration}",
            str(meters),
            f"lr: {optimizer.param_groups[0]['lr']:.6f}",
        ]
        logger.info("[Validation]: %s", "  ".join(["", *fields]))
        return figures

    return evaluate


@torch.no_grad()
def validation_losses(model, loaders, device: torch.device, dtype: torch.dtype = torch.float32) -> MetricLogger:
    """Compute the validation losses, averaged over all batches and processes.

    Buffers such as batch norm statistics do not change. The model is left in training mode.
    """
    model = unwrapped(model)
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    rows = []
    try:
        for loader in loaders:
            for images, targets, _ in loader:
                images, targets = images.to(device), [target.to(device) for target in targets]
                with autocast(device, dtype):
                    losses = model(images, targets)
                rows.append({name: value.item() for name, value in losses.items()})
    finally:
        for name, buffer in model.named_buffers():
            buffer.copy_(statistics[name])
    meters = MetricLogger(delimiter="  ")
    for row in (row for part in all_gather(rows) for row in part):
        meters.update(loss=sum(row.values()), **row)
    return meters
