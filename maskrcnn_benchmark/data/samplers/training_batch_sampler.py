"""Batch sampler of the trainer. Batches depend on (seed, epoch) only, not on processes, workers or restarts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from maskrcnn_benchmark.data.seeding import ORDER, stream_generator


class SampleKey(NamedTuple):
    """Key of a training sample: dataset index, epoch, and position within the epoch."""

    index: int
    epoch: int
    position: int


class TrainingBatchSampler(Sampler):
    """Yield micro-batches of SampleKeys.

    Each epoch permutes the samples by (seed, epoch) and divides each group into batches of B. The last batch of a group
    is filled up from the group's start, so that every epoch has the same number n of full batches. Iteration i is batch
    i % n of epoch i // n. Batches are ordered by their first sample. A group with fewer than B samples is merged into
    the largest group, as repeating a few images to fill a batch would give them too much weight.

    A batch is divided into accumulation parts, and each part into one slice per process. The processes together thus
    see the same batch as a single process. `len()` is the number of micro-batches of the whole training.

    Args:
        group_ids: group of every sample, by index; the samples of a batch are of one group.
        images_per_batch: B, samples per optimizer step, over all processes and accumulation parts.
        num_iterations: optimizer steps of the whole training.
        seed: training seed, 0 or more.
        start_iteration: steps already done, which are skipped.
        rank: rank of this process.
        world_size: number of processes.
        accumulation_steps: micro-batches per process and step.

    Raises:
        ValueError: there are no samples, B is not divisible by world_size x accumulation_steps, or the seed is
            negative.
    """

    def __init__(
        self,
        group_ids,
        images_per_batch: int,
        num_iterations: int,
        seed: int,
        *,
        start_iteration: int = 0,
        rank: int = 0,
        world_size: int = 1,
        accumulation_steps: int = 1,
    ):
        parts = world_size * accumulation_steps
        if images_per_batch < 1 or images_per_batch % parts:
            raise ValueError(
                f"SOLVER.IMS_PER_BATCH must be a multiple of {parts} ({world_size} processes x "
                f"SOLVER.ACCUMULATION_STEPS {accumulation_steps}), so that every process gets the same share, got "
                f"{images_per_batch}"
            )
        if seed < 0:
            raise ValueError(f"SEED must be 0 or more, got {seed}")
        self.groups = _merge_small_groups(np.asarray(group_ids, dtype=np.int64), images_per_batch)
        if len(self.groups) == 0:
            raise ValueError("the training data has no images")
        self.images_per_batch = images_per_batch
        self.num_iterations = num_iterations
        self.seed = seed
        self.start_iteration = start_iteration
        self.rank = rank
        self.world_size = world_size
        self.accumulation_steps = accumulation_steps
        self.batches_per_epoch = sum(-(-int(n) // images_per_batch) for n in np.bincount(self.groups))

    def __iter__(self):
        per_slice = self.images_per_batch // (self.world_size * self.accumulation_steps)
        known_epoch, batches = -1, None
        for iteration in range(self.start_iteration, self.num_iterations):
            epoch, number = divmod(iteration, self.batches_per_epoch)
            if epoch != known_epoch:
                known_epoch, batches = epoch, self.epoch_batches(epoch)
            for part in range(self.accumulation_steps):
                first = (part * self.world_size + self.rank) * per_slice
                yield [
                    SampleKey(int(batches[number, slot]), epoch, number * self.images_per_batch + slot)
                    for slot in range(first, first + per_slice)
                ]

    def __len__(self) -> int:
        return self.num_iterations * self.accumulation_steps

    def epoch_batches(self, epoch: int) -> np.ndarray:
        """Return the sample indices of an epoch, (batches_per_epoch, B) int64."""
        order = stream_generator(ORDER, self.seed, epoch).permutation(len(self.groups))
        batches, first_places = [], []
        for group in np.unique(self.groups):
            places = np.flatnonzero(self.groups[order] == group)
            count = -(-len(places) // self.images_per_batch)
            places = np.resize(places, count * self.images_per_batch)  # np.resize repeats from the start
            batches.append(order[places].reshape(count, -1))
            first_places.append(places[:: self.images_per_batch])
        by_first_sample = np.argsort(np.concatenate(first_places), kind="stable")
        return np.concatenate(batches)[by_first_sample]


def _merge_small_groups(groups: np.ndarray, smallest: int) -> np.ndarray:
    """Merge groups with fewer than `smallest` samples into the largest group."""
    numbers, members, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(numbers) == 0:
        return groups
    merged = np.where(counts < smallest, counts.argmax(), np.arange(len(numbers)))
    return merged[members]
