"""Find images that are nearly the same, within a dataset and across datasets.

Each image is reduced to a thumbnail of 9 x 8 grey pixels. Its 64-bit difference hash (dHash) has one bit per pair of
horizontal neighbours: whether the left one is darker. The hash hardly depends on size, compression or brightness. Two
images are nearly the same if at most MAX_DISTANCE bits differ and the pixels differ little. Candidates are found by
bands: if at most three of 64 bits differ, one of the four 16-bit bands is equal.

Shapes: N images of all datasets together.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from maskrcnn_benchmark.data.datasets.shards import ShardMember
from maskrcnn_benchmark.doctor.findings import MOST, Example, Finding
from maskrcnn_benchmark.doctor.pairs import pairs_in_groups
from maskrcnn_benchmark.doctor.splits import Split
from maskrcnn_benchmark.engine.process import usable_cores
from maskrcnn_benchmark.engine.progress import ProgressBar

WIDTH, HEIGHT = 9, 8
BANDS = 4
MAX_DISTANCE = 3
# Largest mean difference of the thumbnails' pixels, each minus its mean, in grey levels.
MAX_DIFFERENCE = 6.0
# Images with a smaller standard deviation of the thumbnail's pixels are flat: their hashes are noise.
FLAT = 2.0
# Images decoded between two advances of the progress bar.
TURN = 256


@dataclass
class Hashes:
    """Thumbnails of images, and their hashes.

    Attributes:
        pixels: (N, 8, 9) uint8.
        known: (N,) bool, false for images that cannot be decoded or are flat.
    """

    pixels: np.ndarray
    known: np.ndarray

    @property
    def bands(self) -> np.ndarray:
        """Hashes as (N, 4) uint16."""
        bits = self.pixels[:, :, 1:] > self.pixels[:, :, :-1]
        return np.packbits(bits.reshape(-1, (WIDTH - 1) * HEIGHT), axis=1).view(np.uint16)


def hash_images(splits: Sequence[Split]) -> Hashes:
    """Decode all images of the splits to thumbnails; JPEG files are decoded at down to an eighth of their size."""
    total = sum(len(split.dataset) for split in splits)
    pixels, known = np.zeros((total, HEIGHT, WIDTH), dtype=np.uint8), np.zeros(total, dtype=bool)
    progress = ProgressBar(total, unit="image")
    jobs = (split.dataset.image_file(index) for split in splits for index in range(len(split.dataset)))
    with ThreadPoolExecutor(usable_cores()) as readers:
        for first in range(0, total, TURN):
            part = [next(jobs) for _ in range(min(TURN, total - first))]
            for place, found in enumerate(readers.map(grey_thumbnail, part), start=first):
                if found is not None:
                    pixels[place], known[place] = found, found.std() >= FLAT
            progress.advance(len(part))
    progress.close()
    return Hashes(pixels, known)


def grey_thumbnail(file: str | ShardMember) -> np.ndarray | None:
    """Return (8, 9) uint8 grey pixels of an image, as stored; None if it cannot be decoded."""
    source = io.BytesIO(file.read()) if isinstance(file, ShardMember) else file
    try:
        with Image.open(source) as image:
            image.draft("L", (8 * WIDTH, 8 * HEIGHT))
            if image.mode[0] in "IF":
                values = np.asarray(image, dtype=np.float32)
                low, high = float(values.min()), float(values.max())
                image = Image.fromarray(((values - low) * (255 / max(high - low, 1e-6))).astype(np.uint8))
            return np.asarray(image.convert("L").resize((WIDTH, HEIGHT), Image.Resampling.BOX))
    except (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error, Image.DecompressionBombError):
        return None  # reported by training's own checks


def near_pairs(hashes: Hashes) -> np.ndarray:
    """Return (P, 2) int64 pairs of images that are nearly the same, the lower index first, in ascending order.

    Images with equal hashes are paired only with the first of them.
    """
    rows = np.flatnonzero(hashes.known)
    bands = hashes.bands[rows]
    words = np.ascontiguousarray(bands).view(np.uint64).reshape(-1)
    unique, first, places = np.unique(words, return_index=True, return_inverse=True)
    equal = np.flatnonzero(first[places] != np.arange(len(words)))
    pairs = [np.stack([first[places[equal]], equal], axis=1)]
    bands = bands[first]
    for band in range(BANDS):
        for a, b in pairs_in_groups(bands[:, band]):
            near = _distances(unique[a], unique[b]) <= MAX_DISTANCE
            pairs.append(np.stack([first[a[near]], first[b[near]]], axis=1))
    found = rows[np.sort(np.concatenate(pairs), axis=1)]
    found = np.unique(found, axis=0)
    return found[_look_alike(hashes.pixels, found)]


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the number of bits in which (P,) uint64 words differ."""
    return np.unpackbits((a ^ b).view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)


def _look_alike(pixels: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    a, b = (pixels[pairs[:, side]].reshape(-1, WIDTH * HEIGHT).astype(np.float32) for side in (0, 1))
    difference = (a - a.mean(axis=1, keepdims=True)) - (b - b.mean(axis=1, keepdims=True))
    return np.abs(difference).mean(axis=1) <= MAX_DIFFERENCE


def duplicate_findings(splits: Sequence[Split]) -> Iterator[Finding]:
    """Yield images that are nearly the same as another one, of their split or of another.

    Args:
        splits: splits without a table are skipped.
    """
    splits = [split for split in splits if split.table is not None and len(split.dataset)]
    if not splits:
        return
    pairs = near_pairs(hash_images(splits))
    starts = np.cumsum([0, *(len(split.dataset) for split in splits)])
    owners = np.searchsorted(starts, pairs, side="right") - 1
    kinds, places = np.unique(owners, axis=0, return_inverse=True)
    for number, (one, other) in enumerate(kinds.tolist()):
        chosen = pairs[places.reshape(-1) == number]
        chosen = chosen[np.unique(chosen[:, 1], return_index=True)[1]]  # each image with its first match
        names = (splits[one].name,) if one == other else (splits[one].name, splits[other].name)
        examples = [
            Example(
                splits[other].name,
                splits[other].table.image_ids[b - starts[other]],
                note=f"like {_name(splits[one], a - starts[one], splits[other])}",
                image=int(b - starts[other]),
                beside=(splits[one].name, int(a - starts[one])),
            )
            for a, b in chosen[:MOST].tolist()
        ]
        roles = {splits[one].role, splits[other].role}
        if one == other:
            title, severity = "images that are nearly the same as an earlier one", "note"
            remedy = "Copies count twice. Frames of a video belong in one split together."
        elif len(roles) == 2:
            title, severity = "images of the test data that are nearly the same as one of the training data", "warning"
            remedy = "The test measures what was memorized. Take them out of one of both."
        else:
            title, severity = "images that are nearly the same as one of another dataset of this role", "note"
            remedy = "Copies count twice."
        yield Finding("near-duplicates", severity, title, names, len(chosen), examples, remedy)


def _name(split: Split, index: int, other: Split) -> str:
    image_id = split.table.image_ids[index]
    return f"image {image_id}" if split is other else f"image {image_id} of {split.name}"
