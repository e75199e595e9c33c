"""Decide when a training writes checkpoints, which ones, and how many stay on the disk."""

from __future__ import annotations

import logging
import math
import os
import time

import torch

from maskrcnn_benchmark.checkpoint.checkpointer import write_checkpoint
from maskrcnn_benchmark.engine import rng_state
from maskrcnn_benchmark.utils.comm import all_gather, get_rank, get_world_size, is_main_process

BEST_NAME = "model_best.pth"
# Of those written by the clock: should the newest turn out to be damaged, there is the one before.
KEPT = 2

logger = logging.getLogger("maskrcnn_benchmark.trainer")


class TrainingCheckpoints:
    """Write the checkpoints of a training.

    model_<iteration>.pth is written every `period` iterations, and stays. It is also written every `minutes` and when
    the run is stopped; of these only the newest KEPT stay. model_final.pth is written at the end.

    Args:
        checkpointer: `save(name, **entries)` and `save_dir`.
        arguments: entries of every checkpoint. "iteration" is kept up to date by the trainer, "by_the_clock" (names of
            the files that may be removed) and "best_score" here.
        scaler: torch.amp.GradScaler, whose state is the entry "scaler".
        period: iterations.
        minutes: 0 for none by the clock.
        max_iter: iterations of the whole training.
    """

    def __init__(self, checkpointer, arguments: dict, scaler, period: int, minutes: float, max_iter: int):
        self.checkpointer = checkpointer
        self.arguments = arguments
        self.scaler = scaler
        self.period = period
        self.minutes = minutes
        self.max_iter = max_iter
        self.written_at = time.monotonic()
        self.newest = "the one that this run began with"

    def restore(self) -> None:
        """Take the states of scaler and random number generators out of `arguments`, and set them."""
        scaler_state, rng_states = self.arguments.pop("scaler", None), self.arguments.pop("rng_state", None)
        if scaler_state and self.scaler.is_enabled():
            self.scaler.load_state_dict(scaler_state)
        _restore_rng(rng_states)

    def due_by_the_clock(self) -> bool:
        """Return whether `minutes` have passed since the last checkpoint; only rank 0's clock counts."""
        return is_main_process() and 0 < self.minutes * 60 <= time.monotonic() - self.written_at

    def write(self, due: bool, stopping: bool) -> None:
        """Write what is due after an iteration; every process has to call it with the same arguments.

        Args:
            due: the clock asks for a checkpoint.
            stopping: the run ends here.
        """
        iteration = self.arguments["iteration"]
        is_last = iteration == self.max_iter
        name = f"model_{iteration:07d}"
        if iteration % self.period == 0:
            self._save(name)
        elif (due or stopping) and not is_last:
            before = self.arguments.get("by_the_clock", [])
            self.arguments["by_the_clock"] = [*before, name][-KEPT:]
            self._save(name)
            self._remove(name for name in before if name not in self.arguments["by_the_clock"])
        if is_last:
            self._save("model_final")

    def keep_best(self, model: torch.nn.Module, figures: dict[str, float]) -> None:
        """Write model_best.pth (weights and plain entries, no solver state) if the first figure is the best so far."""
        score = next(iter(figures.values()))
        if not score > self.arguments.get("best_score", -math.inf):  # so written, NaN is never the best
            return
        self.arguments["best_score"] = score
        if not self.checkpointer.save_dir:
            return
        path = os.path.join(self.checkpointer.save_dir, BEST_NAME)
        logger.info("Best so far: saving checkpoint to %s", path)
        write_checkpoint(path, {"model": getattr(model, "module", model).state_dict(), **self.arguments})

    def summary(self) -> str:
        """Say where the training stands and which checkpoint holds that."""
        where = f"at iteration {self.arguments['iteration']} of {self.max_iter}"
        if not self.checkpointer.save_dir:
            return f"{where}; nothing is saved, because OUTPUT_DIR is empty"
        return f"{where}; the checkpoint to go on from is {self.newest}"

    def _save(self, name: str) -> None:
        rng_states = all_gather(rng_state.capture())
        self.checkpointer.save(name, **self.arguments, scaler=self.scaler.state_dict(), rng_state=rng_states)
        self.written_at = time.monotonic()
        self.newest = os.path.join(self.checkpointer.save_dir, f"{name}.pth")

    def _remove(self, names) -> None:
        """Remove files of this training; `last_checkpoint` names a newer one by now."""
        if not (self.checkpointer.save_dir and is_main_process()):
            return
        for name in names:
            path = os.path.join(self.checkpointer.save_dir, f"{name}.pth")
            try:
                os.remove(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                logger.warning("Could not remove the former checkpoint %s: %s", path, error)


def _restore_rng(states: list[dict] | None) -> None:
    """Restore this process's state. With another number of processes there is none to continue."""
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
