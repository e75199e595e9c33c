"""Batch images of different sizes in one tensor."""

from __future__ import annotations

import functools

import torch


class ImageList:
    """A batch of images, padded at the right and at the bottom to one size.

    Args:
        tensors: (N, C, H, W) float.
        image_sizes: N pairs (height, width), each image's own size before padding, in pixels.
    """

    def __init__(self, tensors: torch.Tensor, image_sizes: list[torch.Size]):
        self.tensors = tensors
        self.image_sizes = image_sizes

    def to(self, *args, **kwargs) -> ImageList:
        """Return the batch with `tensors.to(*args, **kwargs)`."""
        return ImageList(self.tensors.to(*args, **kwargs), self.image_sizes)

    def pin_memory(self) -> ImageList:
        """Return the batch in page-locked memory, for copies to a GPU without waiting; DataLoader calls this."""
        return ImageList(self.tensors.pin_memory(), self.image_sizes)

    def __len__(self) -> int:
        return len(self.image_sizes)


def to_image_list(tensors, size_divisible: int = 0) -> ImageList:
    """Make an ImageList from images in various forms.

    Args:
        tensors: an ImageList (returned unchanged), one image (C, H, W), a batch (N, C, H, W), or a list or tuple of
            images (C, H_i, W_i).
        size_divisible: round the padded height and width up to a multiple of this; 0 disables it.

    Returns:
        The batch. Its dtype is torch's promotion of the images' dtypes: uint8 and float32 give float32.

    Raises:
        TypeError: tensors has none of these forms.
        ValueError: there is no image, a tensor has another number of dimensions, or the images differ in channels.
    """
    if isinstance(tensors, ImageList):
        return tensors
    if isinstance(tensors, torch.Tensor):
        if tensors.dim() not in (3, 4):
            raise ValueError(f"a tensor of images must be (C, H, W) or (N, C, H, W), got {tuple(tensors.shape)}")
        tensors = [tensors] if tensors.dim() == 3 else list(tensors.unbind())
    if not isinstance(tensors, (list, tuple)):
        raise TypeError(f"to_image_list requires an ImageList, a tensor or a list of tensors, got {type(tensors)}")
    if not tensors:
        raise ValueError("to_image_list got an empty list; a batch requires at least one image")
    channels = {image.shape[0] for image in tensors}
    if len(channels) > 1 or any(image.dim() != 3 for image in tensors):
        raise ValueError(f"images must be (C, H, W) with one C, got {[tuple(image.shape) for image in tensors]}")

    height = max(image.shape[1] for image in tensors)
    width = max(image.shape[2] for image in tensors)
    if size_divisible > 0:
        height = -(-height // size_divisible) * size_divisible
        width = -(-width // size_divisible) * size_divisible
    dtype = functools.reduce(torch.promote_types, (image.dtype for image in tensors))
    batch = tensors[0].new_empty((len(tensors), channels.pop(), height, width), dtype=dtype)
    for padded, image in zip(batch, tensors, strict=True):
        padded[:, : image.shape[1], : image.shape[2]].copy_(image)
        padded[:, image.shape[1] :].zero_()
        padded[:, : image.shape[1], image.shape[2] :].zero_()
    return ImageList(batch, [image.shape[-2:] for image in tensors])
