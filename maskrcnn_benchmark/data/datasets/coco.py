"""Pictures with boxes, masks and keypoints from a COCO json."""

from __future__ import annotations

import contextlib
import io
import os

from maskrcnn_benchmark.data.datasets.box_dataset import BoxDataset
from maskrcnn_benchmark.data.datasets.coco_annotations import read_coco
from maskrcnn_benchmark.data.datasets.coco_json import load_json
from maskrcnn_benchmark.data.datasets.coco_values import flag, real_number
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.forks import has_valid_annotation  # noqa: F401


class COCODataset(BoxDataset):
    """The pictures of a COCO instances or keypoints json, sorted by id.

    Args:
        ann_file: the json. "info", "licenses", "area", "iscrowd" and "segmentation" are not needed.
        root: folder that the json's file names are relative to.
        remove_images_without_annotations: leave out pictures that have no usable box (for training).
        transforms: called (image, target) -> (image, target); None gives PIL pictures.
        name: what messages call the data set; default: the json's file name without its ending.
        images: how image files are read; None is ImageSettings().
        reading: choices of the configuration; None takes its defaults.

    Items are as BoxDataset has them. Where the file has segmentations there is the field "masks" (SegmentationMask;
    an object without a usable one gets its box), and where it has keypoints the field "keypoints" (PersonKeypoints;
    Keypoints if they are others than COCO's 17). The outcome of checking the file is logged as one line (`report`).

    Attributes, besides those of BoxDataset:
        json_category_id_to_contiguous_id, contiguous_category_id_to_json_id: category id <-> label.

    Raises:
        FileNotFoundError: the json, the folder, or pictures are missing; the first few are named.
        ValueError: the json is no COCO instances file, contradicts itself, or nothing is left to train on.
        OSError: pictures cannot be decoded; the first few are named.
    """

    def __init__(
        self,
        ann_file: str,
        root: str,
        remove_images_without_annotations: bool,
        transforms=None,
        *,
        name: str | None = None,
        images: ImageSettings | None = None,
        reading: Reading | None = None,
    ):
        self.ann_file = os.fspath(ann_file)
        self._coco = None
        report = DatasetReport(name or os.path.splitext(os.path.basename(self.ann_file))[0])
        table = read_coco(self.ann_file, report, reading)
        super().__init__(
            table,
            os.fspath(root),
            self.ann_file,
            "json",
            report,
            remove_images_without_annotations,
            transforms,
            images,
            reading,
        )
        self.json_category_id_to_contiguous_id = {number: k for k, number in enumerate(self.categories, start=1)}
        self.contiguous_category_id_to_json_id = dict(enumerate(self.categories, start=1))

    @property
    def coco(self):
        """pycocotools' view of the annotation file, read when first asked for; "area" and "iscrowd" are filled in."""
        if self._coco is None:
            self._coco = load_pycocotools(self.ann_file)
        return self._coco

    def __getstate__(self):
        return {**self.__dict__, "_coco": None}  # too big to send to a worker that was not forked


def load_pycocotools(ann_file: str):
    """pycocotools.coco.COCO of a file, without its prints.

    "area", "iscrowd" and "info" are filled in if missing, and made numbers where they are text or null.
    """
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = load_json(ann_file)
    coco.dataset.setdefault("info", {})
    if coco.dataset.get("annotations") is None:
        coco.dataset["annotations"] = []
    for number, annotation in enumerate(coco.dataset["annotations"], start=1):
        annotation.setdefault("id", number)
        annotation["iscrowd"] = int(bool(flag(annotation.get("iscrowd"))))
        area = annotation.get("area")
        if not isinstance(area, (int, float)) and not real_number(area) > 0:
            sides = annotation["bbox"][2:] if isinstance(annotation.get("bbox"), list) else []
            numbers = [real_number(side) for side in sides]
            area = numbers[0] * numbers[1] if len(numbers) == 2 and min(numbers) >= 0 else 0
        annotation["area"] = real_number(area) if isinstance(area, str) else area
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco
