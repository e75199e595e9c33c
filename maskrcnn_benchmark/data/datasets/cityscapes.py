"""Cityscapes instance segmentation dataset."""

from __future__ import annotations

import os
from collections.abc import Sequence

from maskrcnn_benchmark.data.datasets.abstract import AbstractDataset
from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable
from maskrcnn_benchmark.data.datasets.box_dataset import BoxDataset
from maskrcnn_benchmark.data.datasets.cityscapes_annotations import (
    BENCHMARK_CLASSES,
    LABEL_IDS,
    find_annotations,
    read_cityscapes,
)
from maskrcnn_benchmark.data.datasets.coco_annotations import table_of
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.data.datasets.sources import Sources, absolute


class CityScapesDataset(BoxDataset, AbstractDataset):
    """Images of one Cityscapes split, in alphabetical order.

    Args:
        img_dir, ann_dir: "leftImg8bit" and "gtFine", see `cityscapes_annotations`.
        split: "train", "val" or "test".
        mode: "mask" for pixel masks, "poly" for polygons.
        transforms: (image, target) -> (image, target); None returns PIL images.
        min_area: objects with fewer square pixels are dropped.
        mini: number of images to use, from the first; None uses all.
        class_names: label k is class_names[k - 1]. None uses the classes of the forks' YAMLs: the eight classes of the
            instance benchmark in mode "mask", and also caravan and trailer in mode "poly".
        remove_images_without_annotations: drop images without a usable box (for training).
        name: name of the dataset in messages.
        images: how image files are read; None is ImageSettings().
        reading: only `keep_empty_images` and `tables` are used; None is Reading().
        rebuild: ignore an existing table file and write a new one (table_cache.py).

    Items are those of BoxDataset with the field "masks". `ids` are the file names up to "_leftImg8bit.png".

    Raises:
        FileNotFoundError: folders, annotations or images are missing; the first is named.
        ValueError: see `read_cityscapes`; or no image is left to train on.
    """

    def __init__(
        self,
        img_dir: str,
        ann_dir: str,
        split: str,
        mode: str = "mask",
        transforms=None,
        min_area: float = 0,
        mini: int | None = None,
        *,
        class_names: Sequence[str] | None = None,
        remove_images_without_annotations: bool = False,
        name: str | None = None,
        images: ImageSettings | None = None,
        reading: Reading | None = None,
        rebuild: bool = False,
    ):
        self.split, self.mode = split, mode
        if class_names is None:
            class_names = BENCHMARK_CLASSES if mode == "mask" else tuple(LABEL_IDS)
        self.CLASSES = ("__background__", *class_names)
        self.initMaps()
        report = DatasetReport(name or f"cityscapes_{mode}_instance_{split}")
        img_dir, ann_dir = os.fspath(img_dir), os.fspath(ann_dir)
        annotated = img_dir, ann_dir, split, mode

        def read() -> AnnotationTable:
            return table_of(read_cityscapes(*annotated, class_names, min_area, mini), ann_dir, report)

        def find_sources() -> tuple[list[str], dict]:
            names, paths = find_annotations(*annotated, mini)
            return paths, {"the names of its images": names}

        arguments = {
            "img_dir": absolute(img_dir),
            "ann_dir": absolute(ann_dir),
            "split": split,
            "mode": mode,
            "min_area": min_area,
            "mini": mini,
            "class_names": list(class_names),
            "remove_images_without_annotations": remove_images_without_annotations,
        }
        super().__init__(
            read,
            os.path.join(img_dir, split),
            ann_dir,
            "annotations",
            report,
            remove_images_without_annotations,
            transforms,
            images,
            reading,
            sources=Sources(ann_dir, arguments, find_sources),
            rebuild=rebuild,
        )
