"""Training loop.

An iteration is one optimizer step over `accumulation_steps` micro-batches of the loader. Iterations count from 1.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator

import torch

from maskrcnn_benchmark.engine import process, rng_state, stopping
from maskrcnn_benchmark.engine.fork_calls import takes_forks_arguments
from maskrcnn_benchmark.engine.nonfinite import stop_at_nonfinite_loss
from maskrcnn_benchmark.engine.training_checkpoints import TrainingCheckpoints
from maskrcnn_benchmark.engine.training_log import TrainingLog
from maskrcnn_benchmark.engine.training_options import TrainingOptions
from maskrcnn_benchmark.engine.training_step import TrainingStep, reduce_loss_dict  # noqa: F401  # the forks' name

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
    options: TrainingOptions | None = None,
) -> None:
    """Train from iteration `arguments["iteration"]` to the end of the loader.

    A run that resumes from a checkpoint takes the same steps as an uninterrupted run. On the CPU with the same number
    of threads, the results are bit-identical.

    Args:
        model: (ImageList, BoxLists) -> dict of scalar losses; may be wrapped in DistributedDataParallel.
        data_loader: yields the remaining micro-batches (ImageList, BoxLists, dataset indices). `len()` is the number of
            micro-batches from iteration 0.
        optimizer: optimizer of the model's parameters.
        scheduler: stepped after every optimizer step.
        checkpointer: has `save(name, **entries)` and `save_dir`, see TrainingCheckpoints. metrics.json and TensorBoard
            events also go to `save_dir`, unless it is "".
        device: device of the model.
        checkpoint_period: iterations between two permanent checkpoints.
        arguments: entries of every checkpoint. "iteration" is updated in place. To resume, pass all entries of the
            checkpoint, including those that this function has added.
        options: None is the default TrainingOptions.

    Raises:
        FloatingPointError: a loss is inf or NaN, see `stop_at_nonfinite_loss`. The weights are not updated with it.
        Stopped: SIGTERM or Ctrl-C, after writing a checkpoint of the last finished iteration.
    """
    options = options or TrainingOptions()
    device = torch.device(device)
    start, max_iter = arguments["iteration"], len(data_loader) // options.accumulation_steps
    if start >= max_iter:
        return _finish_again(checkpointer, arguments, max_iter)
    logger.info("Start training" if start == 0 else f"Start training at iteration {start} of {max_iter}")
    model.train()
    step = TrainingStep(model, optimizer, device, options.dtype, options.clip_gradients)
    checkpoints = TrainingCheckpoints(
        checkpointer, arguments, step.scaler, checkpoint_period, options.checkpoint_minutes, max_iter
    )
    batches = iter(data_loader)
    # After iter(data_loader), which may draw random numbers. An uninterrupted run draws them only at its start.
    checkpoints.restore()
    log = TrainingLog(start, max_iter, device, checkpointer.save_dir)
    with stopping.deferred() as stop, process.quiet_about_skipped_steps(step.scaler), log:
        interrupted = _repeat_unfinished_test(model, options, arguments, checkpoints, log)
        for iteration in range(start + 1, max_iter + 1):
            if interrupted:
                break
            micro_batches = _take(batches, options.accumulation_steps, iteration, max_iter)
            log.loaded()
            # Requests are reduced together with the losses, so that all processes act on them at the same iteration.
            losses = step.accumulate(micro_batches, {".stop": bool(stop), ".save": checkpoints.due_by_the_clock()})
            if not all(math.isfinite(value) for value in losses.values()):
                dataset = getattr(data_loader, "dataset", None)
                stop_at_nonfinite_loss(iteration, micro_batches, step.own_losses, dataset, checkpointer.save_dir)
            step.update()
            scheduler.step()
            arguments["iteration"] = iteration
            log.add(iteration, losses, lr=optimizer.param_groups[0]["lr"])
            if options.tests_at(iteration):
                interrupted = _test(model, options, arguments, checkpoints, log)
            interrupted = interrupted or step.granted(".stop", own=bool(stop))
            due = step.granted(".save", own=checkpoints.due_by_the_clock())
            with log.progress.hidden():
                checkpoints.write(due=due, stopping=interrupted)
            log.iteration_ends()
        if interrupted:
            stop.honour(checkpoints.summary())
    log.finish()


def _finish_again(checkpointer, arguments: dict, max_iter: int) -> None:
    """Write model_final.pth if a run was interrupted just before it."""
    logger.info("Training is already finished: at iteration %d of %d", arguments["iteration"], max_iter)
    if not os.path.exists(os.path.join(checkpointer.save_dir, "model_final.pth")):
        checkpointer.save("model_final", **arguments)


def _take(batches: Iterator, count: int, iteration: int, max_iter: int) -> list:
    """Return the next `count` micro-batches; raise RuntimeError if the loader ends too early."""
    taken = []
    for batch in batches:
        taken.append(batch)
        if len(taken) == count:
            return taken
    raise RuntimeError(
        f"the data loader ended at iteration {iteration}, but its length means {max_iter}. "
        "It must yield len(loader) batches minus those of earlier iterations (start_iter)."
    )


def _test(model, options: TrainingOptions, arguments: dict, checkpoints: TrainingCheckpoints, log: TrainingLog) -> bool:
    """Test the model and keep it if it is the best; return True if a signal interrupted the test on any process."""
    iteration = arguments["iteration"]
    with log.progress.hidden():
        try:
            figures = run_undisturbed(model, options.evaluate, iteration)
        except stopping.Stopped:
            return True
        if figures:
            log.add_test(iteration, figures)
            checkpoints.keep_best(model, figures)
    arguments["tested_at"] = iteration
    return False


def _repeat_unfinished_test(model, options, arguments, checkpoints, log) -> bool:
    """Repeat a test during which the former run was stopped; return True if a signal interrupts it again."""
    start = arguments["iteration"]
    if start == 0 or not options.tests_at(start) or arguments.get("tested_at") == start:
        return False
    return _test(model, options, arguments, checkpoints, log)


def run_undisturbed(model: torch.nn.Module, evaluate: Callable, iteration: int) -> dict[str, float] | None:
    """Call `evaluate(iteration)`, then restore every module's training mode and the random number generators."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        with rng_state.preserved():
            return evaluate(iteration)
    finally:
        for module, training in modes:
            module.training = training
