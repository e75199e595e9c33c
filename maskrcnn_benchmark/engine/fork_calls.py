"""Accept the argument lists that the forks' tools give to `do_train`.

Upstream's newest tools hand over the configuration and a loader for tests during training.
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
from maskrcnn_benchmark.utils.comm import all_gather
from maskrcnn_benchmark.utils.compute_dtype import compute_dtype
from maskrcnn_benchmark.utils.metric_logger import MetricLogger

# The names in upstream's order. The forks' older order is the same without cfg, data_loader_val and test_period.
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
    """Let `do_train` take upstream's eleven arguments, too.

    They are recognised by their number (nine or more by position) or by the name `cfg`. DTYPE and
    SOLVER's ACCUMULATION_STEPS, CLIP_GRADIENTS and CHECKPOINT_MINUTES come from that cfg, and every `test_period`
    iterations the model is tested as `tests_during_training` says.

    With the older eight arguments no cfg is at hand. The loader says how many micro-batches make an iteration.
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
    """Return the arguments by name; raise TypeError as a function of these parameters would."""
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    try:
        return dict(inspect.Signature(parameters).bind(*args, **kwargs).arguments)
    except TypeError as error:
        raise TypeError(
            f"do_train() {error}; it takes ({', '.join(OLDER_TRAIN)}) with options by name, or upstream's "
            f"({', '.join(UPSTREAM_TRAIN)})"
        ) from None


def tests_during_training(cfg, model, loader_val, optimizer, start: int):
    """Return the function (iteration) -> figures that upstream's trainer runs every `test_period` iterations.

    It tests DATASETS.TEST and writes no result files. A single dataset is called "[Validation]" in the log, several
    keep their names. Then the losses of `loader_val` are logged in one line, "[Validation]:   eta: ...".

    Args:
        loader_val: batches (ImageList, BoxLists, indices), or a list of such loaders; as many batches on every process.
        start: iterations done before this run.
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
    """Return the losses of a model on batches it is not trained on, as meters, averaged over all processes.

    Statistics of batch norms stay as they were. The model is left in train mode.
    """
    model = getattr(model, "module", model)
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    rows = []
    try:
        for loader in loaders:
            for images, targets, _ in loader:
                images, targets = images.to(device), [target.to(device) for target in targets]
                with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                    losses = model(images, targets)
                rows.append({name: value.item() for name, value in losses.items()})
    finally:
        for name, buffer in model.named_buffers():
            buffer.copy_(statistics[name])
    meters = MetricLogger(delimiter="  ")
    for row in (row for part in all_gather(rows) for row in part):
        meters.update(loss=sum(row.values()), **row)
    return meters
