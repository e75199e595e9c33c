"""Semantic segmentation dataset: a folder of images and a folder of index maps.

Shapes: I images, K classes, H x W pixels of an image.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable
from maskrcnn_benchmark.data.datasets.box_dataset import BoxDataset
from maskrcnn_benchmark.data.datasets.file_lists import image_names
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.index_maps import MAX_VALUE, MapSummary, read_index_map, summarize_maps
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.report import EXAMPLES, DatasetReport
from maskrcnn_benchmark.data.datasets.semantic_files import (
    MAP_ENDINGS,
    FileIndex,
    find_images_with_maps,
    read_class_names,
)
from maskrcnn_benchmark.data.datasets.sources import Sources, absolute
from maskrcnn_benchmark.data.datasets.string_table import StringTable
from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL, SemanticMap

logger = logging.getLogger(__name__)

# Value of IGNORE that ignores every pixel value that is not a class.
OTHERS = "others"


class SemanticDataset(BoxDataset):
    """Images with index maps: one-channel images whose pixel values are classes.

    Args:
        image_dir, map_dir: folders, searched recursively; see `find_images_with_maps` for how names match.
        class_names: K names, or a file of them, see `read_class_names`.
        ignore: pixel values without a label, or "others" for all values that are not a class. 255 is always ignored
            unless it is a class.
        values: pixel value of each class; None uses those of a file of class names, else 0..K-1.
        split_file, image_suffix, map_suffix: see `find_images_with_maps`.
        remove_images_without_annotations: drop images without a labelled pixel (for training).
        transforms: (image, target) -> (image, target); None returns PIL images.
        name: name of the dataset in messages; default: the name of the list file or of map_dir.
        images: how image files are read; None is ImageSettings().
        reading: only `tables` is used, see TableSettings; None is Reading().
        rebuild: ignore an existing table file and write a new one (table_cache.py).

    An item is (image, BoxList, index) as in BoxDataset. The BoxList has no boxes; its field "semantic" is a SemanticMap
    of 0..K-1 and IGNORE_LABEL, in the size of the image.

    The constructor decodes every map, unless a table file is used. It repairs and counts maps of another resolution
    (resized by nearest neighbour), images with an EXIF rotation whose map has the rotated size (rotated), and grey maps
    stored as RGB.

    Attributes, besides those of BoxDataset:
        semantic_names: K names.
        class_names: empty, as there are no objects.
        categories: name by pixel value.
        class_pixels: (K,) int64, pixels per class in the maps as stored.

    Raises:
        FileNotFoundError: folders, the list, images or maps are missing; the first few are named.
        ValueError: a map has another aspect ratio than its image, a value that is neither a class nor ignored, or
            colours; classes and values contradict each other; or no image is left to train on.
        OSError: images or maps cannot be decoded; the first few are named.
    """

    # Finding for a map of another resolution; subclasses may reword it.
    OTHER_SIZE = "images of another resolution than their map, which is resized by nearest neighbour"

    def __init__(
        self,
        image_dir: str,
        map_dir: str,
        class_names: Sequence[str] | str,
        remove_images_without_annotations: bool = False,
        transforms=None,
        *,
        ignore: Sequence[int] | str = (IGNORE_LABEL,),
        values: Sequence[int] | None = None,
        split_file: str | None = None,
        image_suffix: str = "",
        map_suffix: str = "",
        name: str | None = None,
        images: ImageSettings | None = None,
        reading: Reading | None = None,
        rebuild: bool = False,
    ):
        self.map_dir = os.fspath(map_dir)
        if name is None:
            name = os.path.splitext(os.path.basename(os.path.normpath(split_file or self.map_dir)))[0]
        self.name = name
        report = DatasetReport(name)
        if isinstance(class_names, (str, os.PathLike)):
            class_names, numbers = read_class_names(os.fspath(class_names))
            values = numbers if values is None else values
        self.semantic_names = [str(class_name) for class_name in class_names]
        self.values = check_values(self.semantic_names, values, name)
        self._labels_of_values, known = label_table(self.values, ignore)
        image_dir = os.fspath(image_dir)

        def read() -> AnnotationTable:
            pairs = find_images_with_maps(image_dir, self.map_dir, split_file, report, image_suffix, map_suffix)
            summaries = summarize_maps(os.path.join(self.map_dir, pair.map) for pair in pairs)
            self._refuse_broken([pair.map for pair in pairs], summaries)
            self._refuse_unknown_values([pair.map for pair in pairs], summaries, known)
            grey = [pair.name for pair, summary in zip(pairs, summaries, strict=True) if summary.grey_in_rgb]
            report.add("repaired", "grey maps stored as RGB, read as grey", grey, "images")
            pairs, summaries = self._without_unlabelled(pairs, summaries, remove_images_without_annotations, report)
            self._map_files = StringTable([pair.map for pair in pairs])
            self.class_pixels = self._count_classes(summaries)
            absent = [self.semantic_names[k] for k in np.flatnonzero(self.class_pixels == 0)]
            report.add("noted", "classes without a pixel", absent, "classes")
            return _without_boxes(pairs, summaries)

        def find_sources() -> tuple[list[str], dict]:
            maps = FileIndex(self.map_dir, MAP_ENDINGS, map_suffix, "map").files.values()
            paths = [os.path.join(self.map_dir, path) for path in sorted(maps)]
            split_files = [] if split_file is None else [split_file]
            return [*paths, *split_files], {"the names of its images": image_names(image_dir)}

        arguments = {
            "image_dir": absolute(image_dir),
            "map_dir": absolute(self.map_dir),
            "class_names": self.semantic_names,
            "remove_images_without_annotations": remove_images_without_annotations,
            "ignore": ignore if isinstance(ignore, str) else list(ignore),
            "values": list(self.values),
            "split_file": absolute(split_file),
            "image_suffix": image_suffix,
            "map_suffix": map_suffix,
        }
        super().__init__(
            read,
            image_dir,
            self.map_dir,
            "map",
            report,
            False,
            transforms,
            images,
            Reading(tables=reading.tables) if reading else None,
            sources=Sources(self.map_dir, arguments, find_sources),
            rebuild=rebuild,
        )
        more = self._samples.more
        self._map_files = StringTable.from_arrays({"bytes": more["map_bytes"], "ends": more["map_ends"]})
        self.class_pixels = more["class_pixels"]
        self.categories = dict(zip(self.values, self.semantic_names, strict=True))
        if remove_images_without_annotations:
            self._check_trainable()

    def map_path(self, index: int) -> str:
        """Return the path of an image's map."""
        return os.path.join(self.map_dir, self._map_files[index])

    def _table_key(self) -> dict:
        return {**super()._table_key(), "dataset": SemanticDataset.__name__}  # subclasses only set arguments

    def _more_arrays(self, table: AnnotationTable) -> dict[str, np.ndarray]:
        files = {f"map_{name}": array for name, array in self._map_files.to_arrays().items()}
        return {**files, "class_pixels": self.class_pixels}

    def _more_fields(self, index: int, rows: slice, size: tuple[int, int]) -> Iterator[tuple[str, Any]]:
        pixels = read_index_map(self.map_path(index))
        labels = self._labels_of_values[pixels.clip(0, MAX_VALUE) if pixels.dtype == np.int32 else pixels]
        if labels.shape != (size[1], size[0]):
            labels = np.array(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
        yield "semantic", SemanticMap(torch.from_numpy(labels))

    def _refuse_broken(self, files: list[str], summaries: list) -> None:
        for kind, what in ((OSError, "cannot be decoded"), (ValueError, "are not index maps")):
            broken = [i for i, summary in enumerate(summaries) if isinstance(summary, kind)]
            if broken:
                reasons = _first([f"{files[i]}: {summaries[i]}" for i in broken])
                raise kind(
                    f"dataset {self.name}: {len(broken):,} of {len(files):,} maps in {self.map_dir} {what}: {reasons}. "
                    "Replace them, or exclude their images with a list file (SPLIT of a block)"
                )

    def _refuse_unknown_values(self, files: list[str], summaries: list[MapSummary], known: np.ndarray) -> None:
        unknown = [(i, summary.values[~known[summary.values]]) for i, summary in enumerate(summaries)]
        unknown = [(i, values) for i, values in unknown if values.size]
        if not unknown:
            return
        every = np.unique(np.concatenate([values for _, values in unknown])).tolist()
        examples = _first([f"{files[i]}: {_short(values.tolist())}" for i, values in unknown])
        raise ValueError(
            f"dataset {self.name}: {len(unknown):,} of {len(files):,} maps in {self.map_dir} have pixel values "
            f"that are neither a class nor ignored: {_short(every)} ({examples}). The {len(self.values)} classes have "
            f"the values {_short(self.values)}. Add the values to IGNORE of the block, or name their classes in "
            "CLASSES (and VALUES where they are not 0, 1, 2, ...)"
        )

    def _without_unlabelled(self, pairs, summaries, leave_out: bool, report: DatasetReport):
        labelled = [bool((self._labels_of_values[s.values] != IGNORE_LABEL).any()) for s in summaries]
        empty = [pair.name for pair, there in zip(pairs, labelled, strict=True) if not there]
        report.add("dropped" if leave_out else "noted", "images without a labelled pixel", empty, "images")
        if not leave_out:
            return pairs, summaries
        kept = [i for i, there in enumerate(labelled) if there]
        return [pairs[i] for i in kept], [summaries[i] for i in kept]

    def _count_classes(self, summaries: list[MapSummary]) -> np.ndarray:
        pixels = np.zeros(IGNORE_LABEL + 1, dtype=np.int64)
        for summary in summaries:
            np.add.at(pixels, self._labels_of_values[summary.values], summary.counts)
        return pixels[: len(self.semantic_names)]

    def _totals(self) -> dict[str, int]:
        return {"images": len(self.ids), "semantic classes": len(self.semantic_names)}

    def _check_maps(self, table: AnnotationTable, sizes: np.ndarray) -> None:
        maps = table.given_sizes
        # the sides of a map may be rounded fractions of its image's, so each may be off by half a pixel
        apart = np.abs(maps[:, 0] * sizes[:, 1] - maps[:, 1] * sizes[:, 0])
        rounding = np.maximum(maps.sum(axis=1), sizes.sum(axis=1)) / 2
        # a difference of a few pixels is a cropped border, not another resolution
        near = np.abs(maps - sizes).max(axis=1) <= np.maximum(0.02 * sizes.max(axis=1), 2)
        other = np.flatnonzero(((apart > rounding) | near) & (maps != sizes).any(axis=1))
        if other.size:
            files = [f"{self._map_files[i]} has {{}} x {{}}, {table.file_names[i]} {{}} x {{}}" for i in other]
            examples = _first([text.format(*maps[i], *sizes[i]) for text, i in zip(files, other, strict=True)])
            raise ValueError(
                f"dataset {self.name}: {len(other):,} of {len(maps):,} maps in {self.map_dir} do not fit their "
                f"image: {examples} (width x height). A map must have the size of its image, or its proportions at "
                "another resolution. Is ANNOTATIONS the folder of these images' maps? Otherwise crop or export the "
                "maps again, or exclude the images with a list file"
            )
        resized = [table.image_ids[i] for i in np.flatnonzero((maps != sizes).any(axis=1))]
        self.report.add("repaired", self.OTHER_SIZE, resized, "images")

    def _check_trainable(self) -> None:
        present = np.flatnonzero(self.class_pixels)
        if not len(self):
            raise ValueError(f"dataset {self.report} - nothing is left to train on")
        if len(present) == 1 and len(self.semantic_names) > 1:
            logger.warning(
                "dataset %s: every labelled pixel is of class %d (%s). If the maps mark a class with a value that "
                "IGNORE has (255 among them), give VALUES: the pixel value of each class",
                self.name,
                present[0],
                self.semantic_names[present[0]],
            )


def check_values(names: Sequence[str], values: Sequence[int] | None, name: str) -> tuple[int, ...]:
    """Return the pixel value of each class; None assigns 0..K-1.

    Args:
        names: K class names.
        values: K pixel values.
        name: name of the dataset in errors.

    Raises:
        ValueError: there is not one value per class, a value is repeated or outside 0..65535, or there are more
            classes than a map can hold.
    """
    values = tuple(range(len(names))) if values is None else tuple(int(value) for value in values)
    if not names or len(names) > IGNORE_LABEL:
        raise ValueError(f"dataset {name} has {len(names)} classes; expected 1 to {IGNORE_LABEL}")
    if len(values) != len(names) or len(set(values)) < len(values):
        raise ValueError(
            f"dataset {name}: {len(names)} classes ({', '.join(names[:4])}, ...) and the pixel values "
            f"{_short(values)}; expected one distinct value per class"
        )
    if not all(0 <= value <= MAX_VALUE for value in values):
        raise ValueError(f"dataset {name}: pixel values must be 0 to {MAX_VALUE}, got {_short(values)}")
    return values


def label_table(values: Sequence[int], ignore: Sequence[int] | str) -> tuple[np.ndarray, np.ndarray]:
    """Build the lookup tables from pixel values to labels.

    Args:
        values: pixel value of each class.
        ignore: pixel values without a label, or "others".

    Returns:
        Labels (65536,) uint8 by pixel value, and (65536,) bool, true for values that are a class or ignored.

    Raises:
        ValueError: a value is both a class and ignored, or ignore is invalid.
    """
    labels = np.full(MAX_VALUE + 1, IGNORE_LABEL, dtype=np.uint8)
    labels[list(values)] = np.arange(len(values))
    known = np.zeros(MAX_VALUE + 1, dtype=bool)
    known[list(values)] = True
    known[IGNORE_LABEL] = True
    if isinstance(ignore, str):
        if ignore != OTHERS:
            raise ValueError(f"IGNORE is {ignore!r}; expected pixel values, or '{OTHERS}'")
        return labels, np.ones_like(known)
    wrong = [value for value in ignore if value in values]
    if wrong and wrong != [IGNORE_LABEL]:
        raise ValueError(f"the pixel values {_short(wrong)} are classes and in IGNORE; remove them from one of the two")
    outside = [value for value in ignore if not 0 <= value <= MAX_VALUE]
    if outside:
        raise ValueError(f"IGNORE has the pixel values {_short(outside)}; expected 0 to {MAX_VALUE}")
    known[list(ignore)] = True
    return labels, known


def _first(texts: list[str]) -> str:
    return "; ".join(texts[:EXAMPLES]) + ("; ..." if len(texts) > EXAMPLES else "")


def _short(values: Sequence) -> str:
    shown = ", ".join(map(str, values[:12]))
    return f"{shown}, ... {values[-1]}" if len(values) > 12 else shown


def _without_boxes(pairs, summaries: list[MapSummary]) -> AnnotationTable:
    """Build a table without boxes, in which each image has the size of its map."""
    sizes = [(summary.width, summary.height) for summary in summaries]
    none = np.zeros(0, dtype=np.int64)
    return AnnotationTable(
        image_ids=[pair.name for pair in pairs],
        file_names=[pair.image for pair in pairs],
        given_sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        category_ids=[],
        class_names=[],
        boxes=np.zeros((0, 4), dtype=np.float32),
        image_index=none,
        labels=none,
        crowd=np.zeros(0, dtype=bool),
        annotation_ids=[],
    )
