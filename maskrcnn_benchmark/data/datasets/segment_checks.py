"""Check panoptic segment maps (png) against the json that lists their segments.

Shapes: I images, each with a map and S segments.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from maskrcnn_benchmark.data.datasets.image_checks import ROUNDING
from maskrcnn_benchmark.data.datasets.images import READERS, ImageHeader
from maskrcnn_benchmark.data.datasets.report import EXAMPLES, DatasetReport
from maskrcnn_benchmark.structures.panoptic_map import VOID, read_ids

# Number of maps whose pixels are compared with the json, spread evenly over the dataset. On COCO's validation set a
# thousand maps take 3 s on one core.
LOOKED_AT = 500

# Image modes that cannot hold every 24-bit id: converting a map to one of them can change ids.
LOSSY = {"P": "palette", "PA": "palette", "L": "grey", "LA": "grey", "1": "1-bit"}


@dataclass
class _Compared:
    """Differences between a map and its json entry.

    Attributes:
        empty: (S,) bool, true for segments without a pixel.
        stray_pixels: number of pixels whose segment is not in the json.
    """

    empty: np.ndarray
    stray_pixels: int


def check_segment_ids(
    folder: str,
    files: Sequence[str],
    headers: Sequence[ImageHeader],
    segment_ids: Sequence[np.ndarray],
    image_ids: Sequence,
    report: DatasetReport,
) -> dict[int, np.ndarray]:
    """Compare the ids in the maps with those in the json.

    All maps in palette or grey mode are compared, and LOOKED_AT of the others.

    Args:
        folder: folder of the maps.
        files: I file names of the maps.
        headers: I headers of the maps.
        segment_ids: I arrays (S,) of ids in the json.
        image_ids: I ids, for the report.
        report: receives the counts of segments without a pixel and of maps with pixels without a segment.

    Returns:
        A dict from image index to (S,) bool, true for segments without a pixel; only images with such segments.

    Raises:
        ValueError: maps have lost their ids, or do not belong to the json.
        OSError: a map cannot be decoded.
    """
    chosen = {i for i, header in enumerate(headers) if header.mode in LOSSY}
    chosen |= set(np.linspace(0, len(files) - 1, min(LOOKED_AT, len(files))).astype(int).tolist())
    places = sorted(chosen)

    def compare(i: int) -> _Compared:
        ids, counts = np.unique(read_ids(os.path.join(folder, files[i])), return_counts=True)
        stray = counts[~np.isin(ids, segment_ids[i]) & (ids != VOID)]
        return _Compared(~np.isin(segment_ids[i], ids), int(stray.sum()))

    with ThreadPoolExecutor(READERS) as readers:
        compared = dict(zip(places, readers.map(compare, places), strict=True))
    lost = [i for i in places if headers[i].mode in LOSSY and compared[i].empty.any() and compared[i].stray_pixels]
    listed = sum(len(each.empty) for each in compared.values())
    empty = sum(int(each.empty.sum()) for each in compared.values())
    advice = (
        "A segment's id is its colour, R + 256 G + 65536 B: save the maps as 8-bit RGB png, with the colours unchanged."
    )
    if lost:
        i = lost[0]
        names = ", ".join(files[k] for k in lost[:EXAMPLES])
        kinds = " or ".join(sorted({f"{LOSSY[headers[k].mode]} mode ({headers[k].mode})" for k in lost}))
        raise ValueError(
            f"dataset {report.name}: {len(lost):,} of {len(files):,} segment maps in {folder} are saved in {kinds} and "
            f"have lost the ids of their segments, {names} among them: {files[i]} "
            f"has no pixel of {int(compared[i].empty.sum())} of its {len(compared[i].empty)} segments. {advice}"
        )
    if listed and 2 * empty > listed:
        i = next(i for i in places if compared[i].empty.any())
        raise ValueError(
            f"dataset {report.name}: {empty:,} of {listed:,} segments of the json have no pixel in the maps in "
            f"{folder} ({len(places):,} looked at), {files[i]} among them. Is SEGMENTS the folder of this json? "
            f"{advice} A jpeg changes them."
        )
    looked = "" if len(places) == len(files) else f", in {len(places):,} of {len(files):,} maps looked at"
    with_empty = {i: each.empty for i, each in compared.items() if each.empty.any()}
    names = [f"{image_ids[i]}/{number}" for i, rows in with_empty.items() for number in segment_ids[i][rows]]
    report.add("dropped", f"segments without a pixel{looked}", names, "segments")
    stray = [i for i in places if compared[i].stray_pixels]
    pixels = sum(compared[i].stray_pixels for i in stray)
    what = f"segment maps with pixels of no segment of the json, read as unlabelled ({pixels:,} pixels{looked})"
    report.add("noted", what, [image_ids[i] for i in stray], "image ids")
    return with_empty


def check_map_sizes(
    files: Sequence[str],
    stored: np.ndarray,
    sizes: np.ndarray,
    image_ids: Sequence,
    setting: str,
    report: DatasetReport,
) -> None:
    """Report maps that differ in size from their image, or raise.

    Args:
        files: I file names of the maps.
        stored: (I, 2) width and height of the maps.
        sizes: (I, 2) width and height of the images.
        image_ids: I ids, for the report.
        setting: DATASETS.SIZE_MISMATCH. "scale" and "scale_each" resize maps of the same proportions; "keep" crops
            them or pads them without labels. A map that differs by one pixel is always cropped or padded.
        report: receives the findings.

    Raises:
        ValueError: sizes differ, and the setting does not allow it.
    """
    other = (stored != sizes).any(axis=1)
    slight = (np.abs(stored - sizes) <= ROUNDING).all(axis=1)
    alike = np.array([same_proportions(*pair) for pair in zip(stored, sizes, strict=True)], dtype=bool)
    refused = other & ~slight & (setting != "keep") & ~(alike & (setting != "error"))
    if refused.any():
        i = np.flatnonzero(refused)[0]
        remedy = "scale_each resizes maps" if alike[i] else "keep cuts maps, or pads them without labels"
        raise ValueError(
            f"dataset {report.name}: {int(refused.sum()):,} of {len(files):,} segment maps have another size than "
            f"their image: {files[i]} {stored[i, 0]} x {stored[i, 1]}, image {sizes[i, 0]} x {sizes[i, 1]}. "
            f"DATASETS.SIZE_MISMATCH: {remedy}."
        )
    cut = other & (slight | (setting == "keep"))
    for where, done in ((cut, "cut or padded without labels"), (other & ~cut, "resized (DATASETS.SIZE_MISMATCH)")):
        what = f"segment maps of another size than their image, {done}"
        report.add("repaired", what, [image_ids[i] for i in np.flatnonzero(where)], "image ids")


def same_proportions(first, second) -> bool:
    """Return whether two sizes (width, height) have the same aspect ratio, up to rounding."""
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    return bool(((second - ROUNDING) / first).max() <= ((second + ROUNDING) / first).min())
