"""Batch sampler that counts iterations instead of epochs, as in the forks."""

from __future__ import annotations

from torch.utils.data import BatchSampler


class IterationBasedBatchSampler(BatchSampler):
    """Repeat a batch sampler until iteration `num_iterations`.

    Starting at `start_iter` begins a new pass; it does not resume the interrupted one, unlike TrainingBatchSampler.

    Args:
        batch_sampler: sampler to repeat. `set_epoch(iteration)` of its `sampler`, if any, is called before each pass.
        num_iterations: iteration to stop at; also the length.
        start_iter: iteration to start at.

    Raises:
        ValueError: the batch sampler yields nothing.
    """

    def __init__(self, batch_sampler, num_iterations: int, start_iter: int = 0):
        self.batch_sampler = batch_sampler
        self.num_iterations = num_iterations
        self.start_iter = start_iter

    def __iter__(self):
        iteration = self.start_iter
        while iteration < self.num_iterations:
            before = iteration
            sampler = getattr(self.batch_sampler, "sampler", None)
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(iteration)
            for batch in self.batch_sampler:
                if iteration >= self.num_iterations:
                    return
                iteration += 1
                yield batch
            if iteration == before:
                raise ValueError("IterationBasedBatchSampler: the inner batch sampler yields no batch")

    def __len__(self) -> int:
        return self.num_iterations
