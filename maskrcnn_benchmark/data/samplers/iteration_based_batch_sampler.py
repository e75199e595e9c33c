"""A batch sampler that counts iterations instead of epochs, as the forks have it."""

from __future__ import annotations

from torch.utils.data import BatchSampler


class IterationBasedBatchSampler(BatchSampler):
    """Repeats a batch sampler until `num_iterations` batches have been counted.

    Args:
        batch_sampler: what to repeat; its `sampler` gets `set_epoch(iteration)` before each pass, if it has that.
        num_iterations: where counting ends; also the length.
        start_iter: where counting begins.

    A start at `start_iter` begins a new pass, it does not go on inside the one that was interrupted (the trainer's
    own `TrainingBatchSampler` does).

    Raises:
        ValueError: the inner sampler yields nothing.
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
