"""Base class of all annotated datasets, independent of the annotation format.

Shapes: I images, B boxes of all images together, K foreground classes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable
from maskrcnn_benchmark.data.datasets.image_changes import hint_for, refuse_other_size
from maskrcnn_benchmark.data.datasets.image_checks import check_images
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.images import ImageHeader, read_image
from maskrcnn_benchmark.data.datasets.left_out import leave_out_crowd, leave_out_images
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.data.datasets.sample_table import SampleTable
from maskrcnn_benchmark.data.datasets.shards import ShardMember, shard_paths
from maskrcnn_benchmark.data.datasets.sources import Sources
from maskrcnn_benchmark.data.datasets.table_cache import TableCache
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.keypoint import (
    Keypoints,
    PersonKeypoints,
    flip_inds_from_names,
    flip_inds_from_pairs,
    names_have_sides,
)

logger = logging.getLogger(__name__)


class BoxDataset(Dataset):
    """Images with boxes, labels and optional masks and keypoints.

    Args:
        table: the annotations, or a function that reads them. The dataset owns them from here on: it clips boxes and
            drops entries.
        root: folder that the table's file names are relative to, or tar files that hold them (shards.py).
        annotations: annotation file or folder, for messages.
        source: name of the annotation format, such as "json", for messages.
        report: findings of the reader. The constructor adds those of the image checks and logs all in one line.
        remove_images_without_annotations: drop images without a usable box (for training).
        transforms: (image, target) -> (image, target); None returns PIL images.
        images: how image files are read; None is ImageSettings().
        reading: how annotations are read; None is Reading().
        sources: files that `table` reads. If given, the result is cached in a table file (table_cache.py) as
            `reading.tables` says. Later starts map this file, and neither call `table` nor read image headers.
        rebuild: ignore an existing table file and write a new one.

    An item is (image, target, index), after `transforms`. The image is a PIL RGB image. The target is a BoxList of
    inclusive boxes in pixels with the field "labels" (int64, 1..K) and, if annotated, "masks", "keypoints" and
    "difficult" (uint8). Crowd regions are not part of it.

    Without a table file, the constructor reads the header of every image file. Boxes are clipped to the size of the
    image file, not to the size in the annotations. Indexing an image whose size has changed since then raises an error.

    Attributes:
        ids: I image ids of the annotations.
        class_names: K names; label k is class_names[k - 1].
        categories: name by category id of the annotations.
        id_to_img_map: image id by index.
        table_file: path of the file that the annotations are mapped from; None if they are in memory.
        report: DatasetReport.

    Raises:
        FileNotFoundError: the folder or images are missing; the first few are named.
        ValueError: no image is left to train on.
        OSError: images cannot be decoded; the first few are named.
    """

    # Image headers that the annotation reader has already read, by file name; dropped after the image check.
    _known_headers: Mapping[str, ImageHeader] = {}

    def __init__(
        self,
        table: AnnotationTable | Callable[[], AnnotationTable],
        root: str,
        annotations: str,
        source: str,
        report: DatasetReport,
        remove_images_without_annotations: bool,
        transforms=None,
        images: ImageSettings | None = None,
        reading: Reading | None = None,
        *,
        sources: Sources | None = None,
        rebuild: bool = False,
    ):
        self.reading = reading or Reading()
        self.root = root
        self.name = report.name
        self.annotations = annotations
        self.source = source
        self.report = report
        self._transforms = transforms
        self.image_settings = images or ImageSettings()

        def read() -> SampleTable:
            return self._check(table() if callable(table) else table, remove_images_without_annotations)

        if sources is None:
            self._samples = read()
        else:
            self._samples = TableCache(sources, self._table_key(), self.reading.tables).get(report, read, rebuild)

        self._shards = shard_paths(self.root) if self._samples.places is not None else []
        self.ids = self._samples.ids
        self.class_names = self._samples.class_names
        self.categories = dict(zip(self._samples.category_ids, self.class_names, strict=True))
        # shared with the loader's workers, so that each truncated image is reported once
        self._truncated = torch.from_numpy(self._samples.truncated.astype(np.uint8)).share_memory_()
        self._truncated_at_start = int(self._truncated.sum())
        self._keypoint_flip_inds = self._flip_inds()

        if remove_images_without_annotations:
            empty = self.ids.where(np.diff(self._samples.offsets) == 0)
            report.add("noted", "images without objects, trained on", empty, "image ids")
        report.totals = self._totals()
        logger.info("%s", report)
        if remove_images_without_annotations and not len(self._samples.boxes):
            raise ValueError(f"dataset {report} - nothing is left to train on")

    def _check(self, table: AnnotationTable, remove_images_without_annotations: bool) -> SampleTable:
        """Check annotations and images together."""
        table.xywh = table.areas = None  # for evaluation, which reads the file itself
        if not self.reading.keep_keypoints:
            table.keypoints = table.keypoint_names = None
        if remove_images_without_annotations:
            # before the image check: files of dropped images may be missing
            leave_out_images(table, self.reading, self.report)
        checked = check_images(
            table, self.root, self.annotations, self.source, self.report, self.image_settings, self._known_headers
        )
        self._known_headers = {}
        table.file_names = checked.file_names
        table.fit(checked.sizes, self.report, checked.factors)
        if remove_images_without_annotations:
            checked = checked.select(leave_out_images(table, self.reading, self.report))
        more = self._more_arrays(table)
        self._leave_out_crowd(table)
        self._check_maps(table, checked.sizes)
        return SampleTable.of(table, checked, more)

    def leave_out(self, what: str, places: Sequence[tuple[Any, str]], error: OSError) -> None:
        """Raise `error` for images that cannot be used. The doctor's subclasses record them and continue instead.

        Args:
            what: kind of the problem.
            places: (image id, file or reason) of each image.
            error: error to raise, which names the images.
        """
        raise error

    def _table_key(self) -> dict:
        """Return what the content of a table file depends on, besides its sources."""
        reading = asdict(self.reading)
        # neither changes the content of the table
        del reading["tables"], reading["keypoint_flip_pairs"]
        return {
            "dataset": type(self).__name__,
            "reading": reading,
            "image_settings": asdict(self.image_settings),
        }

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int):
        index = range(len(self))[index]  # negative ones count from the end; IndexError past it
        path = self.path(index)
        try:
            image = read_image(
                self.image_file(index),
                upright=bool(self._samples.turned[index]),
                value_range=self.image_settings.value_range,
                on_truncated=lambda: self._report_truncated(index, path),
            )
            refuse_other_size(image.size, tuple(self._samples.sizes[index].tolist()))
            target = self.get_groundtruth(index, image.size)
            if self._transforms is not None:
                image, target = self._transforms(image, target)
        except Exception as error:
            raise RuntimeError(
                f"dataset {self.name}: image {path} (image id {self.ids[index]}) failed: "
                f"{type(error).__name__}: {error}{hint_for(error, self.table_file)}"
            ) from error
        return image, target, index

    @property
    def table_file(self) -> str | None:
        return None if self._samples.file is None else self._samples.file.path

    @property
    def id_to_img_map(self) -> dict:
        return dict(enumerate(self.ids))

    def is_turned(self, index: int) -> bool:
        """Return whether the EXIF rotation is applied to the image."""
        return bool(self._samples.turned[index])

    def is_truncated(self, index: int) -> bool:
        """Return whether the image file was truncated when the dataset was read."""
        return bool(self._samples.truncated[index])

    @property
    def image_sizes(self) -> np.ndarray:
        """Width and height of the images before transforms, (I, 2) int64."""
        return self._samples.sizes

    def get_groundtruth(self, index: int, size: tuple[int, int] | None = None) -> BoxList:
        """Return the target of an image before transforms.

        Args:
            index: index of the image.
            size: (width, height) of the decoded image, if known. If the file has changed since the start, boxes are
                clipped to this size.
        """
        rows = slice(self._samples.offsets[index], self._samples.offsets[index + 1])
        known_size = tuple(self._samples.sizes[index].tolist())
        target = BoxList(torch.from_numpy(self._samples.boxes[rows].copy()), size or known_size, mode="xyxy")
        target.add_field("labels", torch.from_numpy(self._samples.labels[rows].copy()))
        for name, data in self._more_fields(index, rows, target.size):
            target.add_field(name, data)
        if size is not None and size != known_size:
            target = target.clip_to_image(remove_empty=True)
        return target

    @property
    def parts(self) -> list[BoxDataset]:
        """Return [self]; a ConcatDataset returns its parts."""
        return [self]

    @property
    def has_masks(self) -> bool:
        return self._samples.masks is not None

    @property
    def num_keypoints(self) -> int:
        """Number of keypoints per object, 0 if there are none."""
        return 0 if self._samples.keypoints is None else self._samples.keypoints.shape[1]

    def _more_fields(self, index: int, rows: slice, size: tuple[int, int]) -> Iterator[tuple[str, Any]]:
        """Yield name and data of an image's fields besides "labels".

        Args:
            index: index of the image.
            rows: range of its boxes in the flat arrays.
            size: (width, height) of the image.
        """
        if self._samples.masks is not None:
            yield "masks", self._samples.masks.masks(rows.start, rows.stop, size)
        if self._samples.keypoints is not None:
            keypoints = torch.from_numpy(self._samples.keypoints[rows].copy())
            kind = PersonKeypoints if self._of_a_person() else Keypoints
            yield "keypoints", kind(keypoints, size, flip_inds=self._keypoint_flip_inds)
        if self._samples.difficult is not None:
            yield "difficult", torch.from_numpy(self._samples.difficult[rows].astype(np.uint8))

    def _report_truncated(self, index: int, path: str) -> None:
        if not self._truncated[index]:
            self._truncated[index] = 1
            late = int(self._truncated.sum()) - self._truncated_at_start
            logger.warning(
                f"dataset {self.name}: image {path} (image id {self.ids[index]}) is truncated now and was not at the "
                f"start; what is missing is grey. {late:,} such images so far."
            )

    def annotation_factors(self, index: int) -> tuple[float, float] | None:
        """Return the factors (x, y) by which an image's annotations were scaled, or None if they were not."""
        factors = None if self._samples.factors is None else tuple(self._samples.factors[index].tolist())
        return None if factors == (1.0, 1.0) else factors

    def path(self, index: int) -> str:
        """Return the path of the image file. For an image in a tar file it is TAR/NAME, which is only for messages."""
        if self._samples.places is not None:
            return str(self.image_file(index))
        return os.path.join(self.root, self._samples.file_names[index])

    def image_file(self, index: int) -> str | ShardMember:
        """Return the path of the image, or its ShardMember in a tar file, to pass to `read_image` or `read_header`."""
        if self._samples.places is None:
            return self.path(index)
        number, offset, size = self._samples.places[index].tolist()
        return ShardMember(self._shards[number], self._samples.file_names[index], offset, size)

    def image_id(self, index: int):
        """Return the image's id in the annotation file."""
        return self.ids[index]

    def get_img_info(self, index: int) -> dict:
        """Return "id", "file_name", "width" and "height"; the size is the image's, not the one in the annotations."""
        width, height = self._samples.sizes[index].tolist()
        return {"id": self.ids[index], "file_name": self._samples.file_names[index], "width": width, "height": height}

    def _totals(self) -> dict[str, int]:
        """Return the counts at the beginning of the report."""
        return {"images": len(self.ids), "boxes": len(self._samples.boxes), "classes": len(self.class_names)}

    def _leave_out_crowd(self, table: AnnotationTable) -> None:
        """Drop crowd regions. Subclasses override this to skip the warning about single objects."""
        leave_out_crowd(table, self.report)

    def _of_a_person(self) -> bool:
        """Return whether the keypoints are COCO's 17 person keypoints; 17 keypoints without names count as such."""
        names = self._samples.keypoint_names
        return names == PersonKeypoints.NAMES or (names is None and self.num_keypoints == len(PersonKeypoints.NAMES))

    def _flip_inds(self) -> tuple[int, ...] | None:
        if self._samples.keypoints is None:
            return None
        if self._samples.keypoint_names is None and self._of_a_person():
            self.report.add(
                "noted", "sets of 17 keypoints without names, read as COCO's person keypoints", [self.name], ""
            )
        pairs = self.reading.keypoint_flip_pairs
        if pairs is None:
            names = PersonKeypoints.NAMES if self._of_a_person() else self._samples.keypoint_names
            return None if names is None else flip_inds_from_names(names)
        try:
            return flip_inds_from_pairs(pairs, self.num_keypoints, self._samples.keypoint_names)
        except ValueError as error:
            raise ValueError(f"INPUT.KEYPOINT_FLIP_PAIRS does not fit dataset {self.name}: {error}") from None

    @property
    def keypoint_flip_inds(self) -> tuple[int, ...] | None:
        """Permutation of the keypoints in a mirrored image, or None if unknown."""
        return self._keypoint_flip_inds

    @property
    def is_without_sides(self) -> bool:
        """True if the keypoints have names, none contains left or right, and no flip pairs are given."""
        return (
            bool(self._samples.keypoint_names)
            and self.keypoint_flip_inds is None
            and not names_have_sides(self._samples.keypoint_names)
        )

    def set_transforms(self, transforms) -> None:
        """Replace the transforms; the next item uses the new ones."""
        self._transforms = transforms

    @property
    def keypoint_names(self) -> list[str] | None:
        return self._samples.keypoint_names

    def _more_arrays(self, table: AnnotationTable) -> dict[str, np.ndarray]:
        """Return further arrays to keep with the samples. Subclasses override this; crowd regions are included."""
        return {}

    def _check_maps(self, table: AnnotationTable, sizes: np.ndarray) -> None:
        """Check further files of each image, such as index maps. Subclasses override this; here it does nothing.

        Called when the table is final and before the report is logged.

        Args:
            table: the final annotations.
            sizes: (I, 2) width and height of the images.
        """
