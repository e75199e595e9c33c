"""Read COCO panoptic annotations: each pixel belongs to a thing, to stuff, or to nothing.

Shapes: B boxes, K thing classes, T stuff classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable
from maskrcnn_benchmark.data.datasets.box_dataset import BoxDataset
from maskrcnn_benchmark.data.datasets.image_checks import ROUNDING
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.images import read_headers
from maskrcnn_benchmark.data.datasets.left_out import drop_crowd
from maskrcnn_benchmark.data.datasets.panoptic_annotations import ALL_CATEGORIES, read_panoptic
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.report import EXAMPLES, DatasetReport
from maskrcnn_benchmark.data.datasets.segment_checks import check_map_sizes, check_segment_ids, same_proportions
from maskrcnn_benchmark.data.datasets.sources import Sources, absolute
from maskrcnn_benchmark.data.datasets.string_table import StringTable
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.panoptic_map import VOID, PanopticMap, read_ids, renumber
from maskrcnn_benchmark.structures.rle import resize_nearest
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask
from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL, SemanticMap
from maskrcnn_benchmark.utils.text_file import did_you_mean

# Name prefixes of the table's string arrays: the segment map of each image, and the category names.
FILES, NAMES = "files_", "names_"


class COCOPanopticDataset(BoxDataset):
    """Images and segments of a COCO panoptic json, sorted by image id.

    Items are those of BoxDataset: boxes, "labels" 1..K and "masks" of things. The target's field "semantic"
    (SemanticMap) is 0 for things, 1..T for stuff, and IGNORE_LABEL for unlabelled pixels.

    Args:
        panoptic_file: the json; "info", "licenses", "area", "bbox" of stuff and "iscrowd" are optional.
        root: image folder; the json's image names are relative to it.
        remove_images_without_annotations: drop images without things (for training).
        transforms: (image, target) -> (image, target); None returns PIL images.
        segments_dir: folder of the segment maps; default: the json's path without its ending.
        instances_file: COCO instances json with boxes and masks of things; default: they are made from the segments.
        name: dataset name in messages; default: the json's file name without its ending.
        images: how image files are read; None is ImageSettings().
        reading: only `keep_empty_images` and `tables` are used; None is Reading().
        rebuild: ignore an existing table file and write a new one (table_cache.py).

    Attributes (besides those of BoxDataset):
        class_names: K thing names.
        semantic_names: T + 1 names of semantic classes, the first of which is "things".
        contiguous_category_id_to_json_id: category id by label of a thing.
        stuff_category_ids: category id by semantic class, from 1 on.
        ann_file: the instances json, or None.

    Raises:
        FileNotFoundError: a json, a folder, images or segment maps are missing; the first few are named.
        ValueError: the json is not a COCO panoptic file, contradicts itself, or has nothing to train on.
        OSError: images or segment maps cannot be decoded; the first few are named.
    """

    def __init__(
        self,
        panoptic_file: str,
        root: str,
        remove_images_without_annotations: bool,
        transforms=None,
        *,
        segments_dir: str | None = None,
        instances_file: str | None = None,
        name: str | None = None,
        images: ImageSettings | None = None,
        reading: Reading | None = None,
        rebuild: bool = False,
    ):
        self.panoptic_file = os.fspath(panoptic_file)
        self.segments_dir = os.fspath(segments_dir or os.path.splitext(self.panoptic_file)[0])
        self.ann_file = instances_file and os.fspath(instances_file)
        report = DatasetReport(name or os.path.splitext(os.path.basename(self.panoptic_file))[0])
        reading = reading or Reading()

        def read() -> AnnotationTable:
            table, self._segment_table = read_panoptic(self.panoptic_file, self.ann_file, report)
            return table

        arguments = {
            "panoptic_file": absolute(self.panoptic_file),
            "root": absolute(root),
            "remove_images_without_annotations": remove_images_without_annotations,
            "segments_dir": absolute(self.segments_dir),
            "instances_file": absolute(self.ann_file),
        }
        files = list(filter(None, (self.panoptic_file, self.ann_file)))
        super().__init__(
            read,
            os.fspath(root),
            self.panoptic_file,
            "json",
            report,
            remove_images_without_annotations,
            transforms,
            images,
            replace(ALL_CATEGORIES, keep_empty_images=reading.keep_empty_images, tables=reading.tables),
            sources=Sources(self.panoptic_file, arguments, lambda: (files, {})),
            rebuild=rebuild,
        )
        self.__dict__.pop("_segment_table", None)
        more = self._samples.more
        category_ids, names = more["category_ids"].tolist(), StringTable.from_arrays(_part(more, NAMES))
        things = int(more["num_things"][0])
        self.semantic_names = ["things", *list(names)[things:]]
        self.contiguous_category_id_to_json_id = dict(enumerate(category_ids[:things], start=1))
        self.stuff_category_ids = dict(enumerate(category_ids[things:], start=1))
        self._segment_files = StringTable.from_arrays(_part(more, FILES))
        self._segment_spans, self._segment_ids = more["spans"], more["ids"]
        self._segment_classes, self._segment_crowd = more["classes"], more["crowd"]

    def _more_arrays(self, table: AnnotationTable) -> dict[str, np.ndarray]:
        segments = self._segment_table
        spans = [segments.rows[image_id] for image_id in table.image_ids]
        files = StringTable([segments.files[image_id] for image_id in table.image_ids])
        return {
            "ids": segments.ids,
            "classes": segments.classes,
            "crowd": segments.crowd,
            "spans": np.array([(span.start, span.stop) for span in spans], dtype=np.int64).reshape(-1, 2),
            "category_ids": np.array(segments.category_ids, dtype=np.int64),
            "num_things": np.array([segments.num_things], dtype=np.int64),
            **{FILES + name: array for name, array in files.to_arrays().items()},
            **{NAMES + name: array for name, array in StringTable(segments.names).to_arrays().items()},
        }

    @property
    def stuff_names(self) -> list[str]:
        """Names of the T stuff classes; semantic class s is stuff_names[s - 1]."""
        return self.semantic_names[1:]

    def panoptic(self, index: int, size: tuple[int, int] | None = None) -> PanopticMap:
        """Return the segments of an image.

        Segments have "label" (1..K for things, 1..T for stuff), "is_thing" and "crowd". Pixels of segments that the
        json does not list are VOID, and so are pixels outside a map that is smaller than its image.

        Args:
            index: index of the image.
            size: (width, height) of the result in pixels; None: the image's.

        Raises:
            OSError: the segment map cannot be read.
        """
        return PanopticMap(self._numbers(index, size or self._samples.sizes[index].tolist()), self._segments_of(index))

    def _numbers(self, index: int, size) -> np.ndarray:
        """Return (H, W) int32: positions of segments in `_segments_of(index)`, counted from 1, or VOID."""
        span = slice(*self._segment_spans[index])
        numbers = renumber(read_ids(self.segments_path(index)), self._segment_ids[span])
        numbers[numbers > span.stop - span.start] = VOID
        width, height = size
        if numbers.shape == (height, width):
            return numbers
        fitted = np.full((height, width), VOID, dtype=numbers.dtype)
        scales = self.image_settings.size_mismatch in ("scale", "scale_each")
        apart = np.abs(np.subtract(numbers.shape, (height, width))).max()
        if scales and apart > ROUNDING and same_proportions(numbers.shape, (height, width)):
            return resize_nearest(numbers, (width, height))
        both = slice(min(height, len(numbers))), slice(min(width, numbers.shape[1]))
        fitted[both] = numbers[both]
        return fitted

    def _segments_of(self, index: int) -> list[dict]:
        span, things = slice(*self._segment_spans[index]), len(self.class_names)
        classes, crowd = self._segment_classes[span].tolist(), self._segment_crowd[span].tolist()
        return [
            {"label": (k if k < things else k - things) + 1, "is_thing": k < things, "crowd": is_crowd}
            for k, is_crowd in zip(classes, crowd, strict=True)
        ]

    def segments_path(self, index: int) -> str:
        """Return the path of an image's segment map."""
        return os.path.join(self.segments_dir, self._segment_files[index])

    def get_groundtruth(self, index: int, size: tuple[int, int] | None = None) -> BoxList:
        """Return the target of an image, see BoxDataset. Things without a pixel in the segment map are left out."""
        target = super().get_groundtruth(index, size)
        if self._samples.segments is None or not len(target):
            return target
        shown = target.get_field("masks").instances.masks.flatten(1).any(dim=1)
        return target if shown.all() else target[shown]

    @property
    def has_masks(self) -> bool:
        return True  # from the segments, if the instances file has none

    def _more_fields(self, index: int, rows: slice, size: tuple[int, int]) -> Iterator[tuple[str, Any]]:
        yield from super()._more_fields(index, rows, size)
        numbers = self._numbers(index, size)
        labels = [0 if segment["is_thing"] else segment["label"] for segment in self._segments_of(index)]
        yield "semantic", SemanticMap(torch.from_numpy(np.array([IGNORE_LABEL, *labels], dtype=np.uint8)[numbers]))
        if self._samples.segments is not None:
            masks = numbers[None] == self._samples.segments[rows, None, None]
            yield "masks", SegmentationMask(torch.from_numpy(masks.astype(np.uint8)), size, mode="mask")

    def _leave_out_crowd(self, table: AnnotationTable) -> None:
        drop_crowd(table, self.report)

    def _check_maps(self, table: AnnotationTable, sizes: np.ndarray) -> None:
        if table.image_ids and not os.path.isdir(self.segments_dir):
            raise FileNotFoundError(
                f"dataset {self.name}: folder {self.segments_dir} of the segment maps does not exist; "
                f"SEGMENTS of a block names it.{did_you_mean(self.segments_dir)}"
            )
        segments = self._segment_table
        files = [segments.files[image_id] for image_id in table.image_ids]
        headers = read_headers(os.path.join(self.segments_dir, file_name) for file_name in files)
        broken = [i for i, header in enumerate(headers) if isinstance(header, OSError) or header.truncated]
        if broken:
            # a truncated photograph is still of use, a truncated map has wrong labels
            missing = [i for i in broken if isinstance(headers[i], FileNotFoundError)]
            names = ", ".join(files[i] for i in (missing or broken)[:EXAMPLES])
            kind, what = (FileNotFoundError, "are missing") if missing else (OSError, "cannot be decoded")
            raise kind(
                f"dataset {self.name}: {len(missing or broken):,} of {len(files):,} segment maps in "
                f"{self.segments_dir} {what}: {names}{', ...' if len(missing or broken) > EXAMPLES else ''}. Is "
                "SEGMENTS the folder that belongs to the json?"
            )
        stored = np.array([(header.width, header.height) for header in headers], dtype=np.int64).reshape(-1, 2)
        check_map_sizes(files, stored, sizes, table.image_ids, self.image_settings.size_mismatch, self.report)
        segment_ids = [segments.ids[segments.rows[image_id]] for image_id in table.image_ids]
        empty = check_segment_ids(self.segments_dir, files, headers, segment_ids, table.image_ids, self.report)
        if table.segments is not None:
            places = zip(table.image_index.tolist(), table.segments.tolist(), strict=True)
            gone = [image in empty and bool(empty[image][number - 1]) for image, number in places]
            table.select_boxes(~np.array(gone, dtype=bool))


def _part(arrays: dict[str, np.ndarray], start: str) -> dict[str, np.ndarray]:
    """Return the arrays whose names begin with `start`, with that prefix removed from the names."""
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
