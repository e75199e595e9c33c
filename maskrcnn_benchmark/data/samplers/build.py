"""Build samplers with the forks' functions. The trainer uses TrainingBatchSampler instead."""

from __future__ import annotations

import bisect

from torch.utils.data import BatchSampler, RandomSampler, Sampler, SequentialSampler

from maskrcnn_benchmark.data.samplers.distributed import DistributedSampler
from maskrcnn_benchmark.data.samplers.grouped_batch_sampler import GroupedBatchSampler
from maskrcnn_benchmark.data.samplers.iteration_based_batch_sampler import IterationBasedBatchSampler


def aspect_groups(dataset) -> list[int]:
    """Return the group of every image: 0 for wide images, 1 for tall and square images."""
    return quantize(aspect_ratios(dataset), [1.0])


def aspect_ratios(dataset) -> list[float]:
    """Return height / width of every image."""
    sizes = getattr(dataset, "image_sizes", None)
    if sizes is not None:
        return (sizes[:, 1] / sizes[:, 0]).tolist()
    infos = (dataset.get_img_info(index) for index in range(len(dataset)))
    return [float(info["height"]) / float(info["width"]) for info in infos]


def quantize(values, bins) -> list[int]:
    """Return the bin index of each value: the number of edges in `bins`, in any order, that do not exceed it."""
    bins = sorted(bins)
    return [bisect.bisect_right(bins, value) for value in values]


def make_data_sampler(dataset, shuffle: bool, distributed: bool) -> Sampler:
    """Return a sampler over the whole dataset, or over this process's part if `distributed`."""
    if distributed:
        return DistributedSampler(dataset, shuffle=shuffle)
    return RandomSampler(dataset) if shuffle else SequentialSampler(dataset)


def make_batch_data_sampler(
    dataset, sampler, aspect_grouping, images_per_batch: int, num_iters: int | None = None, start_iter: int = 0
):
    """Build a batch sampler.

    Args:
        dataset: has `get_img_info(index)` with "height" and "width".
        sampler: yields indices.
        aspect_grouping: bin edges of height / width, a number or a list; the images of a batch share a bin. False,
            None and [] disable grouping.
        images_per_batch: batch size.
        num_iters: repeat the sampler until this iteration; None makes one pass.
        start_iter: iteration to start counting at.
    """
    if aspect_grouping:
        bins = aspect_grouping if isinstance(aspect_grouping, (list, tuple)) else [aspect_grouping]
        batches = GroupedBatchSampler(sampler, quantize(aspect_ratios(dataset), bins), images_per_batch)
    else:
        batches = BatchSampler(sampler, images_per_batch, drop_last=False)
    return batches if num_iters is None else IterationBasedBatchSampler(batches, num_iters, start_iter)
