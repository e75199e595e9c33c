"""Open a dataset from its table file alone, rebuild the table, and compare it with the images."""

from __future__ import annotations

import os
from collections.abc import Iterator

from maskrcnn_benchmark.data.datasets.box_dataset import BoxDataset
from maskrcnn_benchmark.data.datasets.cityscapes import CityScapesDataset
from maskrcnn_benchmark.data.datasets.coco import COCODataset
from maskrcnn_benchmark.data.datasets.coco_panoptic import COCOPanopticDataset
from maskrcnn_benchmark.data.datasets.coco_semantic import COCOSemanticDataset
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.images import ImageHeader, read_headers
from maskrcnn_benchmark.data.datasets.labelme import LabelMeDataset
from maskrcnn_benchmark.data.datasets.lvis import LVISDataset
from maskrcnn_benchmark.data.datasets.open_images import OpenImagesDataset
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.semantic import SemanticDataset
from maskrcnn_benchmark.data.datasets.sources import changed_files
from maskrcnn_benchmark.data.datasets.table_cache import TableSettings
from maskrcnn_benchmark.data.datasets.voc import PascalVOCDataset
from maskrcnn_benchmark.data.datasets.yolo import YOLODataset
from maskrcnn_benchmark.utils.array_file import ArrayFile

# Dataset classes with table files, by the class name stored in the file.
KINDS = {
    kind.__name__: kind
    for kind in (
        COCODataset,
        COCOSemanticDataset,
        COCOPanopticDataset,
        LVISDataset,
        YOLODataset,
        LabelMeDataset,
        OpenImagesDataset,
        PascalVOCDataset,
        CityScapesDataset,
        SemanticDataset,
    )
}

# Images whose headers are read at a time.
TURN = 8192


def open_stored(path: str, rebuild: bool = False) -> BoxDataset:
    """Return the dataset of a table file.

    Args:
        path: the table.
        rebuild: read annotations and images again, and replace the file.

    Raises:
        FileNotFoundError: no such file.
        ArrayFileError (a ValueError): it is not a table, or incomplete. Delete it; the next start rebuilds it.
        OSError, ValueError: see COCOFileDataset.
    """
    meta = ArrayFile(path, check=False).meta
    key = meta["key"]
    images = {name: tuple(value) if isinstance(value, list) else value for name, value in key["image_settings"].items()}
    return KINDS[key["dataset"]](
        **key["arguments"],
        name=meta["report"]["name"],
        images=ImageSettings(**images),
        reading=Reading(**key["reading"], tables=TableSettings("always", os.path.dirname(os.path.abspath(path)))),
        rebuild=rebuild,
    )


def verify_annotations(dataset: BoxDataset) -> Iterator[tuple[str, str]]:
    """Read the annotation files of a mapped dataset and yield (path, what is wrong) of those that have changed."""
    yield from changed_files(ArrayFile(dataset.table_file, check=False).arrays)


def verify_images(dataset: BoxDataset) -> Iterator[tuple[int, str]]:
    """Read the headers of all images and yield (index, what is wrong) of those that have changed."""
    for first in range(0, len(dataset), TURN):
        indices = range(first, min(first + TURN, len(dataset)))
        for index, header in zip(indices, read_headers(map(dataset.image_file, indices)), strict=True):
            trouble = _trouble(dataset, index, header)
            if trouble:
                yield index, trouble


def _trouble(dataset: BoxDataset, index: int, header: ImageHeader | OSError) -> str | None:
    if isinstance(header, OSError):
        return f"{type(header).__name__}: {header}"
    width, height = dataset.image_sizes[index].tolist()
    found = header.width, header.height
    if dataset.is_turned(index) and header.quarter_turn:
        found = found[::-1]
    if found != (width, height):
        return f"{found[0]} x {found[1]}, was {width} x {height}"
    if header.truncated and not dataset.is_truncated(index):
        return "truncated, was complete"
    return None
