"""Batch samples of the same group, such as wide or tall images."""

from __future__ import annotations

from torch.utils.data import BatchSampler, Sampler


class GroupedBatchSampler(BatchSampler):
    """Divide a sampler's order into batches of one group each.

    Batches are ordered by their first sample. Within a group the sampler's order is kept. `len()` is the number of
    batches of the next pass, also with a random sampler.

    Args:
        sampler: yields indices; may cover only a part of the samples.
        group_ids: group of every sample, by index.
        batch_size: samples per batch; the last batch of a group may be smaller.
        drop_uneven: drop smaller batches.

    Raises:
        ValueError: `sampler` is not a torch Sampler, or the batch size is not positive.
    """

    def __init__(self, sampler: Sampler, group_ids, batch_size: int, drop_uneven: bool = False):
        if not isinstance(sampler, Sampler):
            raise ValueError(f"GroupedBatchSampler requires a torch.utils.data.Sampler, got {type(sampler).__name__}")
        if batch_size < 1:
            raise ValueError(f"GroupedBatchSampler: batch_size must be at least 1, got {batch_size}")
        self.sampler = sampler
        self.group_ids = [int(group) for group in group_ids]
        self.batch_size = batch_size
        self.drop_uneven = drop_uneven
        self._prepared: list[list[int]] | None = None

    def __iter__(self):
        batches = self._prepared if self._prepared is not None else self._make_batches()
        self._prepared = None  # the next pass draws a new order
        return iter(batches)

    def __len__(self) -> int:
        if self._prepared is None:
            self._prepared = self._make_batches()
        return len(self._prepared)

    def _make_batches(self) -> list[list[int]]:
        batches: list[list[int]] = []
        open_batch: dict[int, list[int]] = {}
        for index in self.sampler:
            batch = open_batch.get(self.group_ids[index])
            if batch is None:
                batch = open_batch[self.group_ids[index]] = []
                batches.append(batch)  # batches are ordered by their first sample
            batch.append(index)
            if len(batch) == self.batch_size:
                del open_batch[self.group_ids[index]]
        if self.drop_uneven:
            batches = [batch for batch in batches if len(batch) == self.batch_size]
        return batches
