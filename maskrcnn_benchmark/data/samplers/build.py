"""Compose samplers as the forks' functions do; the trainer's own is TrainingBatchSampler."""

from __future__ import annotations

import bisect

from torch.utils.data import BatchSampler, RandomSampler, Sampler, SequentialSampler

from maskrcnn_benchmark.data.samplers.distributed import DistributedSampler
from maskrcnn_benchmark.data.samplers.grouped_batch_sampler import GroupedBatchSampler
from maskrcnn_benchmark.data.samplers.iteration_based_batch_sampler import IterationBasedBatchSampler


def aspect_groups(dataset) -> list[int]:
    """Return the group of every image: 0 for wide ones, 1 for tall and square ones."""
    return quantize(aspect_ratios(dataset), [1.0])


def aspect_ratios(dataset) -> list[float]:
    """Return height / width of every image."""
    infos = (dataset.get_img_info(index) for index in range(len(dataset)))
    return [float(info["height"]) / float(info["width"]) for info in infos]


def quantize(values, bins) -> list[int]:
    """Return how many of the `bins`, in any order, are at most each value."""
    bins = sorted(bins)
    return [bisect.bisect_right(bins, value) for value in values]


def make_data_sampler(dataset, shuffle: bool, distributed: bool) -> Sampler:
    """Return a sampler of the whole dataset, or of this process's part of it if `distributed`."""
    if distributed:
        return DistributedSampler(dataset, shuffle=shuffle)
    return RandomSampler(dataset) if shuffle else SequentialSampler(dataset)


def make_batch_data_sampler(
    dataset, sampler, aspect_grouping, images_per_batch: int, num_iters: int | None = None, start_iter: int = 0
):
    """Return a sampler of batches.

    Args:
        aspect_grouping: bins of height / width, a number or a list; the images of a batch are in one bin. False, None
            and [] do not group.
        num_iters: begin anew until so many batches are counted, from start_iter on; None makes one pass.
    """
    if aspect_grouping:
        bins = aspect_grouping if isinstance(aspect_grouping, (list, tuple)) else [aspect_grouping]
        batches = GroupedBatchSampler(sampler, quantize(aspect_ratios(dataset), bins), images_per_batch)
    else:
        batches = BatchSampler(sampler, images_per_batch, drop_last=False)
    return batches if num_iters is None else IterationBasedBatchSampler(batches, num_iters, start_iter)
