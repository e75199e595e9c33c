"""Options of `do_train` beyond the forks' eight arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TrainingOptions:
    """Precision, gradient accumulation, clipping, timed checkpoints, and tests of a training.

    Attributes:
        dtype: dtype of mixed precision (torch.amp); float16 scales the loss.
        accumulation_steps: micro-batches per iteration.
        clip_gradients: largest L2 norm of all gradients together; 0 disables clipping.
        checkpoint_minutes: longest time without a checkpoint; 0 writes no timed checkpoints.
        evaluate: function (iteration) -> metrics on rank 0. The weights with the highest first metric become
            model_best.pth. The function does not affect the training that follows.
        test_period: iterations between two calls of `evaluate`; 0 disables them.
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
