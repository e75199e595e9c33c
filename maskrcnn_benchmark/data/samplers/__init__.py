"""Samplers and batch samplers."""

from .distributed import DistributedSampler, ShardSampler
from .grouped_batch_sampler import GroupedBatchSampler
from .iteration_based_batch_sampler import IterationBasedBatchSampler
from .training_batch_sampler import SampleKey, TrainingBatchSampler

__all__ = [
    "DistributedSampler",
    "GroupedBatchSampler",
    "IterationBasedBatchSampler",
    "SampleKey",
    "ShardSampler",
    "TrainingBatchSampler",
]
