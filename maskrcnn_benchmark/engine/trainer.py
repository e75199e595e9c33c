"""The training loop.

An iteration is one optimizer step, counted from 1, over `accumulation_steps` micro-batches of the loader.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator

import torch

from maskrcnn_benchmark.checkpoint.checkpointer import write_checkpoint
from maskrcnn_benchmark.engine import rng_state
from maskrcnn_benchmark.engine.fork_calls import takes_forks_arguments
from maskrcnn_benchmark.engine.metrics_file import MetricsFile
from maskrcnn_benchmark.engine.nonfinite import stop_at_nonfinite_loss
from maskrcnn_benchmark.engine.progress import ProgressBar
from maskrcnn_benchmark.fast.for_training import for_training
from maskrcnn_benchmark.utils.comm import all_gather, get_rank, get_world_size, is_main_process, reduce_dict
from maskrcnn_benchmark.utils.metric_logger import MetricLogger

LOG_PERIOD = 20
BEST_NAME = "model_best.pth"

logger = logging.getLogger("maskrcnn_benchmark.trainer")


@takes_forks_arguments
def do_train(
    model: torch.nn.Module,
    data_loader,
    optimizer: torch.optim.Optimizer,
    scheduler,
    checkpointer,
    device: torch.device | str,
    checkpoint_period: int,
    arguments: dict,
    *,
    dtype: torch.dtype = torch.float32,
    accumulation_steps: int = 1,
    clip_gradients: float = 0.0,
    evaluate: Callable[[int], dict[str, float] | None] | None = None,
    test_period: int = 0,
) -> None:
    """Trains from iteration `arguments["iteration"]` to the end of the loader.

    Args:
        model: (ImageList, BoxLists) -> dict of scalar losses; may be wrapped in DistributedDataParallel.
        data_loader: yields micro-batches (ImageList, BoxLists, dataset indices), beginning with the first one that is
            still to be trained on; `len()` counts those of a training from iteration 0.
        scheduler: stepped after every optimizer step.
        checkpointer: `save(name, **entries)` and `save_dir`. model_<iteration>.pth is written every
            `checkpoint_period` iterations, model_final.pth at the end. With a `save_dir`, metrics.json and TensorBoard
            events go there too.
        arguments: "iteration" is kept up to date in place. What a checkpoint of this function held besides model,
            optimizer and scheduler is expected here again: "scaler", "rng_state", "best_score". All other entries go
            into every checkpoint as they are.
        dtype: of mixed precision (torch.amp); float16 scales the loss.
        clip_gradients: largest L2 norm of all gradients together; 0 for no clipping.
        evaluate: called with the iteration, every `test_period` of them; returns figures on rank 0, the first of which
            decides which weights become model_best.pth (higher is better). Training goes on as if it had not run.

    A run that was stopped and continues from one of its checkpoints takes the same steps as one that was not: on the
    CPU with the same number of threads to the last bit.

    Raises:
        FloatingPointError: a loss is inf or NaN; see `stop_at_nonfinite_loss`. No step is taken with it.
    """
    device = torch.device(device)
    start = arguments["iteration"]
    max_iter = len(data_loader) // accumulation_steps
    if start >= max_iter:
        logger.info("Training is already finished: at iteration %d of %d", start, max_iter)
        if not os.path.exists(os.path.join(checkpointer.save_dir, "model_final.pth")):
            checkpointer.save("model_final", **arguments)
        return
    logger.info("Start training" if start == 0 else f"Start training at iteration {start} of {max_iter}")
    model.train()
    step = TrainingStep(model, optimizer, device, dtype, clip_gradients)
    scaler_state, resumed_rng = arguments.pop("scaler", None), arguments.pop("rng_state", None)
    if scaler_state and step.scaler.is_enabled():
        step.scaler.load_state_dict(scaler_state)
    metrics = MetricsFile(checkpointer.save_dir, start) if checkpointer.save_dir and is_main_process() else None
    meters = MetricLogger(delimiter="  ")
    progress = ProgressBar(max_iter, start, enabled=is_main_process())

    def save(name):
        rng_states = all_gather(rng_state.capture())
        with progress.hidden():
            checkpointer.save(name, **arguments, scaler=step.scaler.state_dict(), rng_state=rng_states)

    batches = iter(data_loader)
    # Only now: making the loader's iterator may draw numbers, which an uninterrupted run did once, at its start.
    _restore_rng(resumed_rng)
    start_time = end = time.perf_counter()
    with contextlib.ExitStack() as at_the_end:  # also after an error
        at_the_end.callback(progress.close)
        if metrics is not None:
            at_the_end.callback(metrics.close)
        for iteration in range(start + 1, max_iter + 1):
            micro_batches = _take(batches, accumulation_steps, iteration, max_iter)
            data_time = time.perf_counter() - end
            losses = step.accumulate(micro_batches)
            if not all(math.isfinite(value) for value in losses.values()):
                dataset = getattr(data_loader, "dataset", None)
                stop_at_nonfinite_loss(iteration, micro_batches, step.own_losses, dataset, checkpointer.save_dir)
            step.update()
            scheduler.step()
            arguments["iteration"] = iteration

            meters.update(loss=sum(losses.values()), **losses)
            meters.update(time=time.perf_counter() - end, data=data_time)
            eta = meters.time.global_avg * (max_iter - iteration)
            progress.advance(loss=f"{meters.loss.median:.4f}")
            if iteration % LOG_PERIOD == 0 or iteration == max_iter:
                figures = {"lr": optimizer.param_groups[0]["lr"], "max_mem": peak_memory(device)}
                with progress.hidden():
                    logger.info(training_line(iteration, eta, meters, **figures))
                if metrics is not None:
                    metrics.write(iteration, {name: meter.median for name, meter in meters.meters.items()} | figures)
            if evaluate is not None and test_period > 0 and iteration % test_period == 0:
                with progress.hidden():
                    figures = run_undisturbed(model, evaluate, iteration)
                    if figures:
                        logger.info("[Validation]: " + validation_line(iteration, figures))
                        keep_best(model, checkpointer.save_dir, arguments, figures)
                if figures and metrics is not None:
                    metrics.write(iteration, figures)
            if iteration % checkpoint_period == 0:
                save(f"model_{iteration:07d}")
            if iteration == max_iter:
                save("model_final")
            end = time.perf_counter()

    total = end - start_time
    per_iteration = total / (max_iter - start)
    logger.info("Total training time: %s (%.4f s / it)", datetime.timedelta(seconds=total), per_iteration)


class TrainingStep:
    """Forward, backward and update of one iteration.

    `scaler` (torch.amp.GradScaler) works with float16 only; otherwise its calls pass through. With float16 an
    overflow in the gradients makes the scaler leave a step out and lower its scale, which is no error.
    """

    def __init__(self, model, optimizer, device: torch.device, dtype: torch.dtype, clip_gradients: float):
        self.model = for_training(model)
        self.optimizer = optimizer
        self.device = device
        self.dtype = dtype
        self.clip_gradients = clip_gradients
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self.own_losses: list[dict[str, torch.Tensor]] = []
        if self.scaler.is_enabled():
            # torch takes a step that the scaler leaves out, usually the first, for a wrong order of calls
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")

    def accumulate(self, micro_batches: list) -> dict[str, float]:
        """Adds up the gradients of the mean loss of the micro-batches.

        Returns every loss part, averaged over micro-batches and processes: a value that is not finite on one process
        is not finite on any. `own_losses` keeps those of this process by micro-batch.
        """
        self.optimizer.zero_grad()
        self.own_losses = []
        for part, (images, targets, _) in enumerate(micro_batches, start=1):
            is_last = part == len(micro_batches)
            with contextlib.nullcontext() if is_last else self._without_gradient_exchange():
                images = images.to(self.device, non_blocking=True)
                targets = [target.to(self.device, non_blocking=True) for target in targets]
                with self._autocast():
                    losses = self.model(images, targets)
                self.own_losses.append({name: value.detach() for name, value in losses.items()})
                if is_last:
                    # Sent on its way before the backward pass: the host then waits for the forward pass only, while
                    # the GPU goes on.
                    read_losses = _start_reading(reduce_loss_dict(_mean(self.own_losses)))
                self.scaler.scale(sum(losses.values()) / len(micro_batches)).backward()
        return read_losses()

    def update(self) -> None:
        if self.clip_gradients > 0:
            self.scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.clip_gradients)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _autocast(self):
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def _without_gradient_exchange(self):
        """DistributedDataParallel exchanges gradients in the last of several backward passes only."""
        return self.model.no_sync() if hasattr(self.model, "no_sync") else contextlib.nullcontext()


def reduce_loss_dict(loss_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Mean of every loss over the processes; see `reduce_dict` for the order of its keys."""
    return reduce_dict(loss_dict)


def _mean(dicts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: sum(each[name].float() for each in dicts) / len(dicts) for name in dicts[0]}


def _start_reading(losses: dict[str, torch.Tensor]) -> Callable[[], dict[str, float]]:
    """Begins the copy of scalar tensors to the host; the function returned waits for it and gives their values."""
    values = torch.stack(list(losses.values()))
    copied = None
    if values.is_cuda:
        values = values.to("cpu", non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()

    def read():
        if copied is not None:
            copied.synchronize()
        return dict(zip(losses, values.tolist(), strict=True))

    return read


def _take(batches: Iterator, count: int, iteration: int, max_iter: int) -> list:
    taken = []
    for batch in batches:
        taken.append(batch)
        if len(taken) == count:
            return taken
    raise RuntimeError(
        f"the data loader ended at iteration {iteration}, but its length promises {max_iter}. "
        "It has to yield len(loader) batches less those trained on before (start_iter)."
    )


def _restore_rng(states: list[dict] | None) -> None:
    """Puts back the state that this process had. With another number of processes there is none to continue."""
    if states is None:
        return
    if len(states) == get_world_size():
        rng_state.restore(states[get_rank()])
    else:
        logger.warning(
            "The checkpoint is of %d processes, this run has %d: random numbers start afresh",
            len(states),
            get_world_size(),
        )


def run_undisturbed(model: torch.nn.Module, evaluate: Callable, iteration: int) -> dict[str, float] | None:
    """Calls `evaluate(iteration)` and puts back every module's train mode and the random number generators."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        with rng_state.preserved():
            return evaluate(iteration)
    finally:
        for module, training in modes:
            module.training = training


def keep_best(model: torch.nn.Module, save_dir: str, arguments: dict, figures: dict[str, float]) -> None:
    """Writes model_best.pth (weights and plain entries, no solver state) when the first figure is the best so far."""
    score = next(iter(figures.values()))
    if not score > arguments.get("best_score", -math.inf):  # so written, NaN is never the best
        return
    arguments["best_score"] = score
    if not save_dir:
        return
    path = os.path.join(save_dir, BEST_NAME)
    logger.info("Best so far: saving checkpoint to %s", path)
    write_checkpoint(path, {"model": getattr(model, "module", model).state_dict(), **arguments})


def training_line(iteration: int, eta: float, meters: MetricLogger, lr: float, max_mem: float) -> str:
    """The forks' line: fields joined by two spaces, meters as "name: median (global average)"."""
    return meters.delimiter.join(
        [
            f"eta: {datetime.timedelta(seconds=int(eta))}",
            f"iter: {iteration}",
            str(meters),
            f"lr: {lr:.6f}",
            f"max mem: {max_mem:.0f}",
        ]
    )


def validation_line(iteration: int, figures: dict[str, float]) -> str:
    return "  ".join([f"iter: {iteration}", *(f"{name}: {value:.4f}" for name, value in figures.items())])


def peak_memory(device: torch.device) -> float:
    """MiB: on a GPU the most that tensors took there so far, on the CPU the most that this process had resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ModuleNotFoundError:  # not a Unix
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB elsewhere
