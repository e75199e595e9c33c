"""Which process takes which samples."""

from __future__ import annotations

import math

import torch
from torch.utils.data import Sampler

from maskrcnn_benchmark.utils import comm


class DistributedSampler(Sampler):
    """One process's contiguous part of a permutation, as the forks cut it.

    Args:
        dataset: anything with a length.
        num_replicas, rank: number of processes, and which one this is; default: the process group's.
        shuffle: permute, by a seed that `set_epoch` sets; else in order.

    All parts have the same length: the order is filled up from its own start.
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
        """Chooses the permutation."""
        self.epoch = epoch


class ShardSampler(Sampler):
    """Every `num_replicas`-th sample from `rank` on: together the processes see each sample exactly once.

    For tests, where predictions are gathered by index and a sample seen twice would be work for nothing.
    """

    def __init__(self, num_samples: int, num_replicas: int = 1, rank: int = 0):
        self.indices = range(rank, num_samples, num_replicas)

    def __iter__(self):
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)
