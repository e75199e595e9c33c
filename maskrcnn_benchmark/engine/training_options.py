"""How to train, beyond what the forks' eight arguments of `do_train` say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TrainingOptions:
    """Set precision, accumulation, clipping, checkpoints by the clock, and tests of a training.

    Attributes:
        dtype: of mixed precision (torch.amp); float16 scales the loss.
        accumulation_steps: micro-batches of an iteration.
        clip_gradients: largest L2 norm of all gradients together; 0 for no clipping.
        checkpoint_minutes: write a checkpoint after so many minutes without one, too; 0 for none.
        evaluate: called with the iteration; returns figures on rank 0, the first of which decides which weights become
            model_best.pth (higher is better). Training continues as if it had not run.
        test_period: iterations between two calls of `evaluate`; 0 for none.
    """

    dtype: torch.dtype = torch.float32
    accumulation_steps: int = 1
    clip_gradients: float = 0.0
    checkpoint_minutes: float = 0.0
    evaluate: Callable[[int], dict[str, float] | None] | None = None
    test_period: int = 0

    def tests_at(self, iteration: int) -> bool:
        """Return whether a test follows this iteration."""
        return self.evaluate is not None and self.test_period > 0 and iteration % self.test_period == 0
