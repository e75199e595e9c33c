"""Images with a class for every pixel, drawn from the polygons and RLE masks of a COCO instances json.

Shapes: K foreground classes.
"""

from __future__ import annotations

import numpy as np
import torch

from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable
from maskrcnn_benchmark.data.datasets.coco import COCOFileDataset
from maskrcnn_benchmark.data.datasets.coco_annotations import read_coco
from maskrcnn_benchmark.data.datasets.mask_table import MaskTable
from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL, SemanticMap

# Name of the table's array of the first crowd region of each image, and name prefix of the crowd masks' arrays.
OFFSETS, CROWD = "crowd_offsets", "crowd_masks_"


class COCOSemanticDataset(COCOFileDataset):
    """Images of a COCO instances json with semantic maps; class 0 is the background, class k the k-th category.

    Arguments: see COCOFileDataset. An item is (image, BoxList, index) as in SemanticDataset: no boxes, and the field
    "semantic". Objects are drawn in order of decreasing area, so that a large one never hides a small one. A crowd
    region is IGNORE_LABEL where no object covers it.

    Attributes, besides those of BoxDataset:
        semantic_names: "background" and K category names. class_names is empty: items have no objects.

    Raises:
        ValueError: the json has no segmentations, or more classes than a map can hold. See COCOFileDataset for others.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._crowd_masks = MaskTable.from_arrays(
            {name.removeprefix(CROWD): array for name, array in self._samples.more.items() if name != OFFSETS}
        )
        self.categories = {0: "background", **self.categories}
        self.class_names = []

    @property
    def semantic_names(self) -> list[str]:
        return ["background", *self._samples.class_names]

    def _read(self, report: DatasetReport) -> AnnotationTable:
        table = read_coco(self.ann_file, report, self.reading, crowd_masks=True)
        if table.masks is None:
            raise ValueError(
                f"dataset {report.name}: no annotation of {self.ann_file} has a segmentation (polygons or RLE), from "
                "which its semantic maps are drawn"
            )
        if len(table.class_names) >= IGNORE_LABEL:
            raise ValueError(f"{self.ann_file} has {len(table.class_names)} classes; a map holds {IGNORE_LABEL - 1}")
        return table

    def _more_arrays(self, table: AnnotationTable) -> dict[str, np.ndarray]:
        masks = table.masks.select(table.crowd)
        offsets = np.searchsorted(table.image_index[table.crowd], np.arange(len(table.image_ids) + 1))
        return {OFFSETS: offsets, **{f"{CROWD}{name}": array for name, array in masks.to_arrays().items()}}

    def _totals(self) -> dict[str, int]:
        objects = len(self._samples.boxes)
        return {"images": len(self.ids), "objects": objects, "semantic classes": len(self.semantic_names)}

    def get_groundtruth(self, index: int, size: tuple[int, int] | None = None) -> BoxList:
        """Return an empty BoxList with the fields "labels" and "semantic"; see BoxDataset."""
        size = size or tuple(self._samples.sizes[index].tolist())
        target = BoxList(torch.zeros((0, 4)), size)
        target.add_field("labels", torch.zeros(0, dtype=torch.int64))
        target.add_field("semantic", SemanticMap(torch.from_numpy(self._draw(index, size))))
        return target

    def _draw(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """Draw the objects of an image into a map of classes, (H, W) uint8."""
        width, height = size
        labels = np.zeros((height, width), dtype=np.uint8)
        first, last = self._samples.offsets[index : index + 2]
        crowd_first, crowd_last = self._samples.more[OFFSETS][index : index + 2]
        if crowd_first < crowd_last:
            crowd = self._crowd_masks.masks(crowd_first, crowd_last, size).get_mask_tensor().reshape(-1, height, width)
            labels[crowd.numpy().any(axis=0)] = IGNORE_LABEL
        if first < last:
            masks = (
                self._samples.masks.masks(first, last, size).get_mask_tensor().reshape(-1, height, width).numpy() != 0
            )
            # stable: of two objects of equal area the later one is in front
            for i in np.argsort(-masks.reshape(len(masks), -1).sum(axis=1), kind="stable"):
                labels[masks[i]] = self._samples.labels[first + i]
        return labels
