"""From samples to a batch."""

from __future__ import annotations

from maskrcnn_benchmark.structures.image_list import to_image_list


class BatchCollator:
    """[(image, target, index), ...] -> (ImageList, tuple of targets, tuple of indices).

    Args:
        size_divisible: pictures are zero padded, right and bottom, to the largest height and width of the batch,
            rounded up to a multiple of it; 0 rounds nothing.
    """

    def __init__(self, size_divisible: int = 0):
        self.size_divisible = size_divisible

    def __call__(self, batch):
        images, targets, indices = zip(*batch, strict=True)
        return to_image_list(images, self.size_divisible), targets, indices


class BBoxAugCollator:
    """[(picture, target, index), ...] -> three tuples; the pictures are still to be looked at in several views."""

    def __call__(self, batch):
        return tuple(zip(*batch, strict=True))
