"""Pictures with objects from a Cityscapes tree."""

from __future__ import annotations

import os
from collections.abc import Sequence

from maskrcnn_benchmark.data.datasets.abstract import AbstractDataset
from maskrcnn_benchmark.data.datasets.box_dataset import BoxDataset
from maskrcnn_benchmark.data.datasets.cityscapes_annotations import BENCHMARK_CLASSES, LABEL_IDS, read_cityscapes
from maskrcnn_benchmark.data.datasets.coco_annotations import table_of
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.report import DatasetReport


class CityScapesDataset(BoxDataset, AbstractDataset):
    """The pictures of one split, in alphabetic order.

    Args:
        img_dir, ann_dir: "leftImg8bit" and "gtFine", see `cityscapes_annotations`; all annotations are read at once.
        split: "train", "val" or "test".
        mode: "mask" for masks of pixels, "poly" for polygons.
        transforms: called (image, target) -> (image, target); None gives PIL pictures.
        min_area: smaller objects are left out, in square pixels.
        mini: only the first so many pictures; None takes all.
        class_names: label k is class_names[k - 1]. None takes as many as the forks' YAMLs count: in mode "mask" the
            eight of the benchmark's instance task, in mode "poly" caravan and trailer too.
        remove_images_without_annotations: leave out pictures that have no usable box (for training).
        name: what messages call the data set.
        images: how image files are read; None is ImageSettings().
        reading: choices of the configuration, of which `keep_empty_images` counts here; None takes its defaults.

    Items are as BoxDataset has them, with the field "masks". `ids` are the file names up to "_leftImg8bit.png".

    Raises:
        FileNotFoundError: folders, annotations or pictures are missing; the first is named.
        ValueError: see `read_cityscapes`; or nothing is left to train on.
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
    ):
        self.split, self.mode = split, mode
        if class_names is None:
            class_names = BENCHMARK_CLASSES if mode == "mask" else tuple(LABEL_IDS)
        self.CLASSES = ("__background__", *class_names)
        self.initMaps()
        report = DatasetReport(name or f"cityscapes_{mode}_instance_{split}")
        content = read_cityscapes(os.fspath(img_dir), os.fspath(ann_dir), split, mode, class_names, min_area, mini)
        table = table_of(content, os.fspath(ann_dir), report)
        root = os.path.join(img_dir, split)
        super().__init__(
            table,
            root,
            os.fspath(ann_dir),
            "annotations",
            report,
            remove_images_without_annotations,
            transforms,
            images,
            reading,
        )
