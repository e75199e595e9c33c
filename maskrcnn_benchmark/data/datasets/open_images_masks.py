"""Read Open Images' masks: a csv that assigns each mask to a box, and PNG files, often smaller than their image."""

from __future__ import annotations

import os
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from PIL import Image

from maskrcnn_benchmark.data.datasets.coco_values import real_number
from maskrcnn_benchmark.data.datasets.file_lists import list_images
from maskrcnn_benchmark.data.datasets.open_images_csv import csv_rows
from maskrcnn_benchmark.data.datasets.records import ObjectRecord
from maskrcnn_benchmark.data.datasets.report import EXAMPLES, DatasetReport
from maskrcnn_benchmark.structures.rle import encode_window, resize_nearest
from maskrcnn_benchmark.utils.text_file import open_regular

COLUMNS = ("MaskPath", "ImageID", "LabelName", "BoxXMin", "BoxYMin", "BoxXMax", "BoxYMax")

# Maximum difference between a coordinate in the csv of masks and in that of boxes; both have at most six decimals.
TOLERANCE = 2e-4

READERS = 8
# Masks that are decoded at a time.
BATCH = 512


class MaskTable:
    """Masks of a dataset's images, each of which one box can take.

    Args:
        csv_file: csv with COLUMNS.
        folder: folder of the PNG files, searched recursively.
        images: ids of the images that are used.
        name: name of the dataset, for errors.

    Raises:
        FileNotFoundError: the csv or the folder does not exist, or none of the PNG files does.
        ValueError: the csv lacks columns.
    """

    def __init__(self, csv_file: str, folder: str, images: Collection[str], name: str):
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"dataset {name}: folder {folder} (MASK_IMAGES) does not exist")
        there = {os.path.basename(path): path for path in list_images(folder)}
        self._rows: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._paths: list[str] = []
        self._sides = array("d")
        self.missing: list[str] = []
        for _, file_name, image_id, label, *sides, _ in csv_rows(csv_file, "MASKS", COLUMNS):
            if image_id not in images:
                continue
            file_name = file_name.replace("\\", "/").rpartition("/")[2]
            if file_name not in there:
                self.missing.append(file_name)
                continue
            self._rows[image_id, label].append(len(self._paths))
            self._paths.append(there[file_name])
            self._sides.extend(map(real_number, sides))
        if self.missing and not self._paths:
            names = ", ".join(self.missing[:EXAMPLES]) + (", ..." if len(self.missing) > EXAMPLES else "")
            raise FileNotFoundError(
                f"dataset {name}: none of the {len(self.missing):,} masks of {csv_file} is in {folder} (MASK_IMAGES): "
                f"{names}"
            )

    def take(self, image_id: str, label: str, sides: tuple[float, float, float, float]) -> str | None:
        """Remove and return the PNG file of the box with these relative sides x1, y1, x2, y2; None if it has none."""
        rows = self._rows.get((image_id, label))
        if not rows:
            return None
        apart = [max(abs(self._sides[4 * row + k] - sides[k]) for k in range(4)) for row in rows]
        nearest = min(range(len(rows)), key=apart.__getitem__)
        return self._paths[rows.pop(nearest)] if apart[nearest] <= TOLERANCE else None

    def report(self, report: DatasetReport) -> None:
        """Report the masks that no box has taken, and those without a file."""
        left = [os.path.basename(self._paths[row]) for rows in self._rows.values() for row in rows]
        report.add("dropped", "masks that belong to no box", left, "files")
        report.add("dropped", "masks without a file in MASK_IMAGES", self.missing, "files")


def with_masks(
    records: Iterable[tuple[ObjectRecord, str | None, tuple[int, int]]], report: DatasetReport
) -> Iterator[ObjectRecord]:
    """Decode masks and yield the records with them. A box whose mask is broken becomes a crowd region.

    Args:
        records: record, path of its PNG file or None, and (width, height) of the image.
        report: receives the findings.
    """
    records, broken = iter(records), []
    with ThreadPoolExecutor(READERS) as readers:
        while batch := list(islice(records, BATCH)):
            decoded = readers.map(lambda entry: entry[1] and read_mask(entry[1], *entry[2]), batch)
            for (record, path, _), found in zip(batch, decoded, strict=True):
                if found is not None:
                    record.segmentation, record.area = found
                elif path is not None:
                    record.iscrowd = 1
                    broken.append(os.path.basename(path))
                yield record
    report.add("dropped", "masks that are damaged or have no pixel; their boxes are crowd regions", broken, "files")


def read_mask(path: str, width: int, height: int) -> tuple[dict, int] | None:
    """Return a mask as COCO's RLE of the image's size, and its area in pixels; None if it is damaged or empty."""
    try:
        with open_regular(path) as file, Image.open(file) as image:
            mask = np.asarray(image.convert("L")) > 0
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    if mask.shape != (height, width):
        mask = resize_nearest(mask, (width, height))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    window = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    return encode_window(window, left, top, height, width), int(window.sum())
