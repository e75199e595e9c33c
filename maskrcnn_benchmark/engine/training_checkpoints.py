"""Schedule, write and remove the checkpoints of a training."""

from __future__ import annotations

import logging
import math
import os
import time

import torch

from maskrcnn_benchmark.checkpoint.checkpointer import bare_model, write_checkpoint
from maskrcnn_benchmark.engine import rng_state
from maskrcnn_benchmark.utils.comm import all_gather, get_rank, get_world_size, is_main_process

BEST_NAME = "model_best.pth"
# Number of timed checkpoints that stay: if the newest is damaged, there is the one before.
KEPT = 2

logger = logging.getLogger("maskrcnn_benchmark.trainer")


class TrainingCheckpoints:
    """Writer of the checkpoints of a training.

    model_<iteration>.pth is written every `period` iterations and is permanent. It is also written every `minutes` and
    when the run is stopped; only the newest KEPT of these stay. model_final.pth is written at the end.

    Args:
        checkpointer: has `save(name, **entries)` and `save_dir`.
        arguments: entries of every checkpoint. The trainer updates "iteration". This class updates "best_score" and
            "by_the_clock", the names of the files that it may remove.
        scaler: torch.amp.GradScaler; its state is the entry "scaler".
        period: iterations between permanent checkpoints.
        minutes: minutes between timed checkpoints; 0 writes none.
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
        self.newest = "the one that this run started from"

    def restore(self) -> None:
        """Restore the scaler and the random number generators from `arguments`, and remove their entries."""
        scaler_state, rng_states = self.arguments.pop("scaler", None), self.arguments.pop("rng_state", None)
        if scaler_state and self.scaler.is_enabled():
            self.scaler.load_state_dict(scaler_state)
        _restore_rng(rng_states)

    def due_by_the_clock(self) -> bool:
        """Return whether `minutes` have passed since the last checkpoint; False on ranks other than 0."""
        return is_main_process() and 0 < self.minutes * 60 <= time.monotonic() - self.written_at

    def write(self, due: bool, stopping: bool) -> None:
        """Write the checkpoints due after an iteration. Every process must call it with the same arguments.

        Args:
            due: whether a timed checkpoint is due.
            stopping: whether the run is being stopped.
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
        """Write model_best.pth (weights and plain entries, no solver state) if the first metric is the best so far."""
        score = next(iter(figures.values()))
        if not score > self.arguments.get("best_score", -math.inf):  # false for NaN, which is never the best
            return
        self.arguments["best_score"] = score
        if not self.checkpointer.save_dir:
            return
        path = os.path.join(self.checkpointer.save_dir, BEST_NAME)
        logger.info("Best so far: saving checkpoint to %s", path)
        write_checkpoint(path, {"model": bare_model(model).state_dict(), **self.arguments})

    def summary(self) -> str:
        """Describe the current iteration and the checkpoint to resume from."""
        where = f"at iteration {self.arguments['iteration']} of {self.max_iter}"
        if not self.checkpointer.save_dir:
            return f"{where}; nothing is saved, because OUTPUT_DIR is empty"
        return f"{where}; the checkpoint to continue from is {self.newest}"

    def _save(self, name: str) -> None:
        rng_states = all_gather(rng_state.capture())
        self.checkpointer.save(name, **self.arguments, scaler=self.scaler.state_dict(), rng_state=rng_states)
        self.written_at = time.monotonic()
        self.newest = os.path.join(self.checkpointer.save_dir, f"{name}.pth")

    def _remove(self, names) -> None:
        """Remove checkpoints of this training; `last_checkpoint` already names a newer one."""
        if not (self.checkpointer.save_dir and is_main_process()):
            return
        for name in names:
            path = os.path.join(self.checkpointer.save_dir, f"{name}.pth")
            try:
                os.remove(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                logger.warning("Could not remove the old checkpoint %s: %s", path, error)


def _restore_rng(states: list[dict] | None) -> None:
    """Restore this process's random states. A state of another number of processes cannot be restored."""
    if states is None:
        return
    if len(states) == get_world_size():
        rng_state.restore(states[get_rank()])
    else:
        logger.warning(
            "The checkpoint was written by %d processes, but this run has %d: random numbers are not continued",
            len(states),
            get_world_size(),
        )
