"""Divide samples between processes."""

from __future__ import annotations

import math

import torch
from torch.utils.data import Sampler

from maskrcnn_benchmark.utils import comm


class DistributedSampler(Sampler):
    """Sample one contiguous part of a permutation per process, as in the forks.

    The permutation is padded with its own first samples, so that all parts have the same length.

    Args:
        dataset: any object with a length.
        num_replicas: number of processes; default: that of the process group.
        rank: rank of this process; default: that in the process group.
        shuffle: permute the samples with the epoch as seed; False keeps their order.
    """

    def __init__(self, dataset, num_replicas: int | None = None, rank: int | None = None, shuffle: bool = True):
        self.dataset = dataset
        self.num_replicas = comm.get_world_size() if num_replicas is None else num_replicas
        self.rank = comm.get_rank() if rank is None else rank
        self.shuffle = shuffle
        self.epoch = 0
        self.num_samples = math.ceil(len(dataset) / self.num_replicas)
        self.total_size = self.num_samples * self.num_replicas

    def __iter__(self):
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.epoch)
            order = torch.randperm(len(self.dataset), generator=generator).tolist()
        else:
            order = list(range(len(self.dataset)))
        if order:
            order = [order[i % len(order)] for i in range(self.total_size)]
        begin = self.rank * self.num_samples
        return iter(order[begin : begin + self.num_samples])

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Set the seed of the permutation."""
        self.epoch = epoch


class ShardSampler(Sampler):
    """Sample every `num_replicas`-th index, starting at `rank`, so that each sample goes to exactly one process.

    For testing, where predictions are gathered by index and padding would be wasted work.
    """

    def __init__(self, num_samples: int, num_replicas: int = 1, rank: int = 0):
        self.indices = range(rank, num_samples, num_replicas)

    def __iter__(self):
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)
