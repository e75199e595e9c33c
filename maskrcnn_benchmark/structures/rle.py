"""Run lengths of binary masks in COCO's order: column by column, starting with a run of zeros.

A mask of H x W pixels is an array of counts with sum H * W. COCO files contain a list of numbers ("uncompressed") or a
string ("compressed": differences in base 32, least significant digit first, from character 48 on).
"""

from __future__ import annotations

import numpy as np

MAX_PIXELS = 2**31


def parse_counts(counts, size) -> np.ndarray:
    """Parse a COCO "counts" entry to run lengths (R,) uint32.

    Args:
        counts: list of numbers, or compressed string (str or bytes).
        size: (height, width) as in the file.

    Raises:
        ValueError: counts are not the run lengths of a mask of that size.
    """
    try:
        height, width = (int(side) for side in size)
        if isinstance(counts, (str, bytes)):
            runs = _decompress(counts)
        else:
            runs = np.array(counts, dtype=np.int64)  # strings and nested lists: ValueError or a wrong shape
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"not run lengths of a mask: {error}") from error
    if height <= 0 or width <= 0 or height * width >= MAX_PIXELS:
        raise ValueError(f"a mask of size {size!r} (height, width) is not possible")
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"run lengths do not add up to a mask of {height} x {width} pixels")
    return runs.astype(np.uint32)


def _decompress(text: str | bytes) -> np.ndarray:
    data = text.encode("ascii") if isinstance(text, str) else text
    digits = np.frombuffer(data, dtype=np.uint8).astype(np.int64) - 48
    if len(digits) == 0:
        return digits
    if digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        raise ValueError("compressed run lengths are damaged")
    # A digit with bit 32 is followed by another digit of the same number.
    starts = np.flatnonzero(np.concatenate(([True], (digits[:-1] & 32) == 0)))
    lengths = np.diff(np.append(starts, len(digits)))
    if lengths.max() > 7:
        raise ValueError("compressed run lengths are damaged")
    place = np.arange(len(digits)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((digits & 31) << (5 * place), starts)
    negative = (digits[starts + lengths - 1] & 16) != 0
    numbers = np.where(negative, numbers - (1 << (5 * lengths)), numbers)
    # From the fourth number on, each is stored as the difference from the number two places before it.
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def decode_counts(runs: np.ndarray, height: int, width: int) -> np.ndarray:
    """Decode run lengths that add up to height * width to a mask (H, W) uint8."""
    values = np.arange(len(runs), dtype=np.uint8) & 1
    return np.repeat(values, runs).reshape(width, height).T


def encode_counts(mask: np.ndarray) -> np.ndarray:
    """Return the run lengths (R,) uint32 of a mask (H, W), nonzero inside."""
    pixels = np.asarray(mask).T.ravel() != 0
    borders = np.flatnonzero(np.diff(pixels, prepend=False))
    return np.diff(np.concatenate(([0], borders, [pixels.size]))).astype(np.uint32)


def resize_nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a mask or map (H, W) to `size` (width, height); each pixel takes the value under its center."""
    height, width = mask.shape
    columns = ((np.arange(size[0]) + 0.5) * (width / size[0])).astype(np.int64)
    rows = ((np.arange(size[1]) + 0.5) * (height / size[1])).astype(np.int64)
    return mask[rows[:, None], columns[None, :]]


def compress_counts(runs: np.ndarray, height: int, width: int) -> dict:
    """Compress run lengths that add up to height * width to COCO's RLE, {"size": [height, width], "counts": str}."""
    from pycocotools import mask as coco_mask

    rle = coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def encode_window(window: np.ndarray, left: int, top: int, height: int, width: int) -> dict:
    """Encode an image of zeros with a mask in it as COCO's compressed RLE, in time proportional to the mask only.

    Args:
        window: (h, w), nonzero inside. Its first pixel is (left, top) of the image, and it lies within the image.
        height, width: size of the image.

    Returns:
        {"size": [height, width], "counts": str}.
    """
    columns = np.zeros((window.shape[1], window.shape[0] + 2), dtype=np.int8)
    columns[:, 1:-1] = np.asarray(window).T != 0
    steps = np.diff(columns, axis=1)  # 1 where a run starts, -1 after its end; every column is closed
    column, row = np.nonzero(steps)
    borders = (left + column).astype(np.int64) * height + top + row
    # A run that ends at the end of a column can continue in the next one: two equal borders cancel.
    same = np.flatnonzero(borders[1:] == borders[:-1])
    borders = np.delete(borders, np.concatenate((same, same + 1)))
    counts = np.diff(np.concatenate(([0], borders, [height * width])))
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    return compress_counts(counts, height, width)
