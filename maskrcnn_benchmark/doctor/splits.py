"""Read datasets as training and testing read them, and keep what the checks need.

Where training would stop, because an image is missing or cannot be decoded, the reason is kept and reading goes on
without that image.

Shapes: I images, B boxes of all images together, K classes.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import islice
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from maskrcnn_benchmark.data.build import build_dataset, reading_of
from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable
from maskrcnn_benchmark.data.datasets.box_dataset import BoxDataset
from maskrcnn_benchmark.data.datasets.image_checks import MISSING, UNDECODABLE
from maskrcnn_benchmark.data.datasets.image_paths import find_images
from maskrcnn_benchmark.data.datasets.image_settings import image_settings
from maskrcnn_benchmark.data.datasets.images import read_headers, read_image
from maskrcnn_benchmark.data.datasets.records_dataset import RecordsDataset
from maskrcnn_benchmark.data.datasets.report import DatasetReport, all_examples
from maskrcnn_benchmark.data.datasets.sample_table import SampleTable
from maskrcnn_benchmark.data.datasets.shards import ShardIndex, ShardMember, are_shards, shard_paths
from maskrcnn_benchmark.data.datasets.table_cache import TableSettings
from maskrcnn_benchmark.doctor.findings import MOST, Example


@dataclass
class Trouble:
    """Error that would have stopped training.

    Attributes:
        what: kind of the error.
        message: message of training's own error.
        places: (image id, file and reason) of each image; empty if the error is not about single images.
    """

    what: str
    message: str
    places: list[tuple[Any, str]] = field(default_factory=list)


@dataclass
class Split:
    """A dataset of DATASETS.TRAIN or TEST.

    Attributes:
        name: name of the dataset.
        role: "train" or "test".
        entry: entry of DATASETS.TRAIN or TEST.
        dataset: as training or testing would have it, without the images of `troubles`; None if it cannot be read.
        given: annotations as read from the files, before they are fitted to the images.
        table: the usable annotations, boxes clipped to their images; images and boxes as in `dataset`.
        troubles: errors that would have stopped training.
        source: the dataset, with its report, even if it cannot be used; None if reading failed before it was made.
    """

    name: str
    role: str
    entry: Any
    dataset: Any
    given: AnnotationTable | None = None
    table: AnnotationTable | None = None
    troubles: list[Trouble] = field(default_factory=list)
    source: Any = None

    @property
    def sides(self) -> np.ndarray:
        """(B, 2) float64 width and height of the boxes in pixels of their image."""
        return (self.table.boxes[:, 2:] - self.table.boxes[:, :2] + 1).astype(np.float64)

    @property
    def class_names(self) -> list[str]:
        return list(self.table.class_names)

    def class_counts(self) -> np.ndarray:
        """Return (K,) the boxes of each class."""
        return np.bincount(self.table.labels - 1, minlength=len(self.table.class_names))

    def examples(self, rows: Iterable[int], note: Callable[[int], str] = lambda row: "", others=None) -> list[Example]:
        """Return examples of the first MOST boxes.

        Args:
            rows: indices of boxes.
            note: index -> details.
            others: further boxes to draw, by index of the box; None draws the box alone.
        """
        table = self.table
        found = []
        for row in map(int, islice(rows, MOST)):
            image = int(table.image_index[row])
            boxes = [row, *([] if others is None else others(row))]
            corners = tuple(tuple(table.boxes[each].tolist()) for each in boxes)
            found.append(
                Example(self.name, table.image_ids[image], table.annotation_ids[row], note(row), corners, image)
            )
        return found

    def read_image(self, index: int) -> Image.Image:
        """Return an image of `dataset` as RGB, rotated as in training.

        Raises:
            OSError: it cannot be decoded any more.
        """
        image = read_image(
            self.dataset.image_file(index),
            upright=self.dataset.is_turned(index),
            value_range=self.dataset.image_settings.value_range,
        )
        return Image.fromarray(np.asarray(image))  # without EXIF, so that nobody rotates it again

    @cached_property
    def image_places(self) -> dict:
        """Index of each image in `dataset`, by its id."""
        ids = [] if self.table is None else self.table.image_ids
        return {image_id: index for index, image_id in enumerate(ids)}

    def examples_by_id(self, annotation_ids: list, limit: int = MOST) -> list[Example]:
        """Return examples of the first annotations, which may not be in `table`, with image and box if known."""
        annotation_ids = annotation_ids[:limit]
        known = self._places_of(annotation_ids)
        found = []
        for number in annotation_ids:
            image_id, box = known.get(_key(number), (None, None))
            index = self.image_places.get(image_id) if image_id is not None else None
            boxes, note = ((), "") if box is None else ((box,), _described(box))
            found.append(Example(self.name, image_id, number, note, boxes, index))
        return found

    def _places_of(self, annotation_ids: list) -> dict:
        """Map annotation ids, as text, to (image id, corners)."""
        wanted = {_key(number) for number in annotation_ids}
        found = {}
        for table in (self.table, self.given):
            if table is not None:
                for row, number in _rows_of(table.annotation_ids, annotation_ids, wanted):
                    place = table.image_ids[table.image_index[row]], tuple(table.boxes[row].tolist())
                    found.setdefault(_key(number), place)
        ann_file = getattr(self.source, "ann_file", None)
        places = {}
        if wanted - found.keys() and ann_file and str(ann_file).lower().endswith(".json"):
            places = raw_places(ann_file)
        elif wanted - found.keys() and isinstance(self.source, RecordsDataset):
            places = record_places(self.source)
        for number, place in places.items():
            if number in wanted:
                found.setdefault(number, place)
        for number in annotation_ids:
            if _key(number) not in found and isinstance(number, str) and "#" in number:
                found[_key(number)] = self._image_of_place(number), None
        return found

    def _image_of_place(self, place: str):
        """Return the image id of an annotation id "NAME#number"; None if unknown.

        NAME is the image file or the label file of the image.
        """
        if not hasattr(self, "_images_by_stem"):
            self._images_by_stem = {}
            for image_id in self.given.image_ids if self.given is not None else self.image_places:
                stem = os.path.basename(str(image_id))
                for name in {stem, os.path.splitext(stem)[0]}:
                    # None: several images have this name
                    self._images_by_stem[name] = None if name in self._images_by_stem else image_id
        name = place.rpartition("#")[0]
        stems = name, os.path.splitext(name)[0]
        return next((self._images_by_stem[stem] for stem in stems if stem in self._images_by_stem), None)


def _described(box) -> str:
    x1, y1, x2, y2 = box
    return f"{x2 - x1 + 1:.4g} x {y2 - y1 + 1:.4g} at x {x1:.4g}, y {y1:.4g}"


def _key(number) -> str:
    return json.dumps(number, default=str)


def _rows_of(column, numbers: list, wanted: set[str]):
    """Yield (row, id) of the ids that are wanted."""
    if column.array is not None and all(isinstance(number, (int, float)) for number in numbers):
        for row in np.flatnonzero(np.isin(column.array, numbers)):
            yield int(row), column[int(row)]
        return
    yield from ((row, number) for row, number in enumerate(column) if _key(number) in wanted)


class _Row(msgspec.Struct, gc=False):
    id: Any = None
    image_id: Any = None
    bbox: Any = None


class _Rows(msgspec.Struct):
    annotations: list[_Row] = []


@cache
def raw_places(ann_file: str) -> dict:
    """Map annotation ids of a COCO file, as text, to (image id, corners or None), including dropped annotations."""
    try:
        with open(ann_file, "rb") as file:
            rows = msgspec.json.decode(file.read(), type=_Rows).annotations
    except (OSError, msgspec.MsgspecError):
        return {}
    places = {}
    for number, row in enumerate(rows, start=1):
        places.setdefault(_key(number if row.id is None else row.id), (row.image_id, _corners(row.bbox)))
    return places


@cache
def record_places(dataset: RecordsDataset) -> dict:
    """Map record ids, as text, to (image id, corners or None), including dropped records."""
    try:
        rows = dataset.read_records(DatasetReport(dataset.name))["annotations"]
        return {_key(row.id): (row.image_id, _corners(row.bbox)) for row in rows}
    except (OSError, ValueError):  # reported by training's own checks
        return {}


def _corners(box) -> tuple[float, ...] | None:
    """Return inclusive corners of x, y, width, height; None for anything but four numbers."""
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(side, (int, float)) for side in box):
        return None
    return box[0], box[1], box[0] + box[2] - 1, box[1] + box[3] - 1


class _Examined:
    """Mixin for BoxDataset that continues where training would stop with an error, and keeps the tables.

    Class attribute:
        started: called with each dataset before it is read, so that the caller has it even if that fails.
    """

    started: Callable[[BoxDataset], None]

    def __init__(self, *args, **kwargs):
        self.troubles: list[Trouble] = []
        self.is_read = False
        type(self).started(self)
        super().__init__(*args, **kwargs)
        self.is_read = True

    def leave_out(self, what: str, places: Sequence[tuple[Any, str]], error: OSError) -> None:
        if not self.is_read:  # later calls come from evaluation, which reads the files again
            self.troubles.append(Trouble(what, str(error), list(places)))

    def _check(self, table: AnnotationTable, remove_images_without_annotations: bool) -> SampleTable:
        self.given, table = table, copy.copy(table)
        before = self.report.copy()
        while True:
            # a shallow copy is enough: only evaluation's arrays are changed in place, all others are replaced
            working = copy.copy(table)
            working.xywh = working.areas = None
            try:
                samples = super()._check(working, remove_images_without_annotations)
                break
            except OSError as error:
                keep = self._readable(table, error)
                table.select_images(keep)
            except ValueError as error:
                if self.image_settings.size_mismatch == "keep":
                    raise
                self.troubles.append(Trouble("images of another size than annotated", str(error)))
                self.image_settings = replace(self.image_settings, size_mismatch="keep")
            self.report.restore(before)
        self.table = working
        return samples

    def _readable(self, table: AnnotationTable, error: OSError) -> np.ndarray:
        """Return (I,) bool, false for images that are missing or cannot be decoded, which are added to the troubles.

        Raises:
            OSError: the error is not about single images.
        """
        if not are_shards(self.root) and not os.path.isdir(self.root):
            raise error
        files = _files_in_shards(self.root, table) if are_shards(self.root) else _files_in_folder(self.root, table)
        there = [i for i, file in enumerate(files) if file is not None]
        headers = dict(zip(there, read_headers([files[i] for i in there]), strict=True))
        broken = [i for i, header in headers.items() if isinstance(header, OSError)]
        missing = [i for i, file in enumerate(files) if file is None]
        if not missing and not broken:
            raise error
        for what, places in (
            (MISSING, [(table.image_ids[i], table.file_names[i]) for i in missing]),
            (UNDECODABLE, [(table.image_ids[i], f"{files[i]}: {headers[i]}") for i in broken]),
        ):
            if places:
                self.leave_out(what, places, error)
        keep = np.ones(len(table.image_ids), dtype=bool)
        keep[[*missing, *broken]] = False
        return keep


def _files_in_folder(root: str, table: AnnotationTable) -> list[str | None]:
    """Return the path of each image, None for missing ones."""
    paths = [os.path.join(root, name) for name in table.file_names]
    found = find_images(root, table.file_names, [i for i, path in enumerate(paths) if not os.path.exists(path)])
    missing = set(found.missing)
    return [None if i in missing else os.path.join(root, name) for i, name in enumerate(found.file_names)]


def _files_in_shards(root: str, table: AnnotationTable) -> list[ShardMember | None]:
    """Return the place of each image, None for missing ones."""
    index = ShardIndex(shard_paths(root))
    found = map(index.find, table.file_names)
    return [None if place is None else index.member(place) for place in found]


def read_split(cfg, entry, is_train: bool, name: str) -> Split:
    """Read a dataset of a config.

    Args:
        cfg: config; DATASETS and INPUT are read. Cached annotation tables are not used.
        entry: name or block, from DATASETS.TRAIN or TEST.
        is_train: read as training does, without images that have no usable annotation.
        name: name of the dataset in messages.
    """
    role = "train" if is_train else "test"
    # a stored table lacks the annotations that were left out
    reading = replace(reading_of(cfg), tables=TableSettings("never"))
    kept: list[BoxDataset] = []

    def specialize(kind: type[BoxDataset]) -> type[BoxDataset]:
        return type(kind.__name__, (_Examined, kind), {"started": kept.append})

    try:
        with all_examples():
            (dataset,) = build_dataset(
                [entry],
                None,
                is_train=is_train,
                root=cfg.DATASETS.ROOT,
                images=image_settings(cfg),
                reading=reading,
                specialize=specialize,
            )
    except (OSError, ValueError, KeyError) as error:
        source = kept[0] if kept else None
        troubles = [*getattr(source, "troubles", ()), Trouble("the dataset cannot be used", str(error))]
        return Split(name, role, entry, None, getattr(source, "given", None), None, troubles, source)
    if not hasattr(dataset, "given"):
        return Split(name, role, entry, dataset, source=dataset)
    return Split(name, role, entry, dataset, dataset.given, dataset.table, dataset.troubles, dataset)
