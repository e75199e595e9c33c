"""Collate samples into a batch."""

from __future__ import annotations

from maskrcnn_benchmark.structures.image_list import to_image_list


class BatchCollator:
    """Collate [(image, target, index), ...] into (ImageList, tuple of targets, tuple of indices).

    Images are zero-padded at the right and bottom to the largest height and width in the batch.

    Args:
        size_divisible: round the padded size up to a multiple of this; 0 disables it.
    """

    def __init__(self, size_divisible: int = 0):
        self.size_divisible = size_divisible

    def __call__(self, batch):
        images, targets, indices = zip(*batch, strict=True)
        return to_image_list(images, self.size_divisible), targets, indices


class BBoxAugCollator:
    """Collate [(image, target, index), ...] into three tuples. Test-time augmentation transforms the images later."""

    def __call__(self, batch):
        return tuple(zip(*batch, strict=True))
