"""Images with boxes, masks and keypoints from a COCO json."""

from __future__ import annotations

import contextlib
import io
import os

from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable
from maskrcnn_benchmark.data.datasets.box_dataset import BoxDataset
from maskrcnn_benchmark.data.datasets.coco_annotations import read_coco
from maskrcnn_benchmark.data.datasets.coco_json import load_json
from maskrcnn_benchmark.data.datasets.coco_values import flag, real_number
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.data.datasets.shards import are_shards, shard_paths
from maskrcnn_benchmark.data.datasets.sources import Sources, absolute
from maskrcnn_benchmark.forks import has_valid_annotation  # noqa: F401


class COCOFileDataset(BoxDataset):
    """Images of a COCO instances or keypoints json, sorted by id; the base of the datasets that read one.

    Args:
        ann_file: the json. "info", "licenses", "area", "iscrowd" and "segmentation" may be missing.
        root: folder that the json's file names are relative to, or tar files that hold the images (shards.py).
        remove_images_without_annotations: drop images without a usable box (for training).
        transforms: (image, target) -> (image, target); None returns PIL images.
        name: name of the dataset in messages; default: the json's file name without its extension.
        images: how image files are read; None is ImageSettings().
        reading: how annotations are read, and whether they are cached in a table file; None is Reading().
        rebuild: ignore an existing table file and write a new one (table_cache.py).

    Raises:
        FileNotFoundError: the json, the folder or images are missing; the first few are named.
        ValueError: the json is not a COCO instances file, contradicts itself, or no image is left to train on.
        OSError: images cannot be decoded; the first few are named.
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
        rebuild: bool = False,
    ):
        self.ann_file = os.fspath(ann_file)
        report = DatasetReport(name or os.path.splitext(os.path.basename(self.ann_file))[0])
        super().__init__(
            lambda: self._read(report),
            os.fspath(root),
            self.ann_file,
            "json",
            report,
            remove_images_without_annotations,
            transforms,
            images,
            reading,
            sources=Sources(
                self.ann_file,
                {
                    "ann_file": absolute(self.ann_file),
                    "root": absolute(root),
                    "remove_images_without_annotations": remove_images_without_annotations,
                },
                lambda: ([self.ann_file], _shard_states(os.fspath(root))),
            ),
            rebuild=rebuild,
        )

    def _read(self, report: DatasetReport) -> AnnotationTable:
        return read_coco(self.ann_file, report, self.reading)


def _shard_states(root: str) -> dict:
    """Return size and modification time of each shard, by a name for messages; {} for a plain folder.

    A table stores byte offsets into the shards, which are wrong once a shard is replaced.
    """
    if not are_shards(root):
        return {}
    found = map(os.stat, shard_paths(root))
    return {"the shards of its images": [[status.st_size, status.st_mtime_ns] for status in found]}


class COCODataset(COCOFileDataset):
    """Images of a COCO json with boxes, masks and keypoints. Arguments and errors: see COCOFileDataset.

    Items: see BoxDataset. If the file has segmentations, targets have the field "masks" (SegmentationMask); an object
    without a usable segmentation gets its box as mask. If it has keypoints, targets have the field "keypoints"
    (PersonKeypoints; Keypoints if they are not COCO's 17). Findings about the file are logged as one line (`report`).

    Attributes, besides those of BoxDataset:
        json_category_id_to_contiguous_id, contiguous_category_id_to_json_id: category id <-> label.
    """

    def __init__(self, *args, **kwargs):
        self._coco = None
        super().__init__(*args, **kwargs)
        self.json_category_id_to_contiguous_id = {number: k for k, number in enumerate(self.categories, start=1)}
        self.contiguous_category_id_to_json_id = dict(enumerate(self.categories, start=1))

    @property
    def coco(self):
        """pycocotools.coco.COCO of the annotation file, read on first access; see `load_pycocotools`."""
        if self._coco is None:
            self._coco = load_pycocotools(self.ann_file)
        return self._coco

    def __getstate__(self):
        return {**self.__dict__, "_coco": None}  # too big to send to a worker that was not forked


def load_pycocotools(ann_file: str):
    """Read a file into a pycocotools.coco.COCO, without its prints.

    Missing "info", "annotations", "id", "iscrowd" and "area" are filled in. "area" and "iscrowd" become numbers where
    they are text or null.
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
