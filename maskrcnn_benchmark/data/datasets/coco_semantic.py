"""Images with a class for every pixel, drawn from the polygons and run lengths of a COCO instances json.

Shapes: K foreground classes.
"""

from __future__ import annotations

import os

import numpy as np
import torch

from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable
from maskrcnn_benchmark.data.datasets.box_dataset import BoxDataset
from maskrcnn_benchmark.data.datasets.coco_annotations import read_coco
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL, SemanticMap


class COCOSemanticDataset(BoxDataset):
    """The images of a COCO instances json; class 0 is the background, class k the k-th category.

    Args:
        ann_file, root, remove_images_without_annotations, transforms, name, images, reading: see COCODataset.

    An item is (image, BoxList, index) as in SemanticDataset: no boxes, and the field "semantic". Objects are drawn by
    falling area, so that a small one is never hidden by a large one. A crowd region is IGNORE_LABEL where no object
    covers it.

    Attributes, besides those of BoxDataset:
        semantic_names: "background" and K category names. class_names is empty: items have no objects.

    Raises:
        ValueError: the json has no segmentations; and see COCODataset, as for other errors.
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
        report = DatasetReport(name or os.path.splitext(os.path.basename(self.ann_file))[0])
        table = read_coco(self.ann_file, report, reading, crowd_masks=True)
        if table.masks is None:
            raise ValueError(
                f"dataset {report.name}: no annotation of {self.ann_file} has a segmentation (polygons or RLE), from "
                "which its semantic maps are drawn"
            )
        self.semantic_names = ["background", *table.class_names]
        if len(self.semantic_names) > IGNORE_LABEL:
            raise ValueError(f"{self.ann_file} has {len(table.class_names)} classes; a map holds {IGNORE_LABEL - 1}")
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
        self.categories = {0: "background", **self.categories}
        self.class_names = []

    def _leave_out_crowd(self, table: AnnotationTable) -> None:
        self._crowd_masks = table.masks.select(table.crowd)
        self._crowd_offsets = np.searchsorted(table.picture[table.crowd], np.arange(len(table.image_ids) + 1))
        super()._leave_out_crowd(table)

    def _totals(self) -> dict[str, int]:
        return {"images": len(self.ids), "objects": len(self._boxes), "semantic classes": len(self.semantic_names)}

    def get_groundtruth(self, index: int, size: tuple[int, int] | None = None) -> BoxList:
        """An empty BoxList with the fields "labels" and "semantic"; see BoxDataset."""
        size = size or tuple(self._sizes[index].tolist())
        target = BoxList(torch.zeros((0, 4)), size)
        target.add_field("labels", torch.zeros(0, dtype=torch.int64))
        target.add_field("semantic", SemanticMap(torch.from_numpy(self._draw(index, size))))
        return target

    def _draw(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """(H, W) uint8."""
        width, height = size
        labels = np.zeros((height, width), dtype=np.uint8)
        first, last = self._offsets[index : index + 2]
        crowd_first, crowd_last = self._crowd_offsets[index : index + 2]
        if crowd_first < crowd_last:
            crowd = self._crowd_masks.masks(crowd_first, crowd_last, size).get_mask_tensor().reshape(-1, height, width)
            labels[crowd.numpy().any(axis=0)] = IGNORE_LABEL
        if first < last:
            masks = self._masks.masks(first, last, size).get_mask_tensor().reshape(-1, height, width).numpy() != 0
            # stable: of two objects of one area the later one is in front
            for i in np.argsort(-masks.reshape(len(masks), -1).sum(axis=1), kind="stable"):
                labels[masks[i]] = self._labels[first + i]
        return labels
