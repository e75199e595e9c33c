"""The trainer's batches: a function of (seed, epoch), whatever the processes, workers and restarts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from maskrcnn_benchmark.data.seeding import ORDER, stream_generator


class SampleKey(NamedTuple):
    """One sample of a training: which, in which epoch, at which place of the epoch."""

    index: int
    epoch: int
    position: int


class TrainingBatchSampler(Sampler):
    """Micro-batches of `SampleKey`s.

    Args:
        group_ids: group of every sample (by index); a batch holds samples of one group.
        images_per_batch: B, samples an optimizer step takes, over all processes and accumulation parts.
        num_iterations: optimizer steps of the whole training.
        seed: of the training; not negative.
        start_iteration: steps already done; only what comes after them is yielded.
        rank, world_size: which process this is, of how many.
        accumulation_steps: parts that a process's share of a batch is cut into.

    An epoch's batches: a permutation by (seed, epoch) is cut into batches of B within each group, and a group's last
    batch is filled up from the group's start, so that every epoch has the same number of batches, all full, and
    iteration i is batch i % n of epoch i // n. Batches come in the order of their first sample. A group with fewer
    than B samples joins the largest one: filling a batch with a few pictures over and over would weigh them too much.

    A batch is then cut into accumulation parts, and each part into one slice a process. So the processes together
    see exactly the batch that one process would see. `len()` counts the micro-batches of the whole training.

    Raises:
        ValueError: no samples, B does not divide by world_size x accumulation_steps, or a negative seed.
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
                f"SOLVER.IMS_PER_BATCH is {images_per_batch}; wanted a multiple of {parts} ({world_size} processes x "
                f"SOLVER.ACCUMULATION_STEPS {accumulation_steps}), so that every process gets the same share"
            )
        if seed < 0:
            raise ValueError(f"SEED is {seed}; wanted 0 or more")
        self.groups = _merge_small_groups(np.asarray(group_ids, dtype=np.int64), images_per_batch)
        if len(self.groups) == 0:
            raise ValueError("the training data has no pictures")
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
        """(batches_per_epoch, B) int64: the sample indices of an epoch."""
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
    """The groups, where those with fewer than `smallest` samples have the number of the largest one."""
    numbers, members, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(numbers) == 0:
        return groups
    merged = np.where(counts < smallest, counts.argmax(), np.arange(len(numbers)))
    return merged[members]
