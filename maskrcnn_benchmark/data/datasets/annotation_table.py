"""The annotations of a data set in flat arrays, while it is being read and checked.

Shapes: I pictures, B boxes (all pictures together), K foreground classes, J keypoints of an object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskrcnn_benchmark.data.datasets.mask_checks import fit_masks
from maskrcnn_benchmark.data.datasets.mask_table import MaskTable
from maskrcnn_benchmark.data.datasets.report import DatasetReport

# A box may stick out this far (pixels) before clipping it is worth a line in the report: annotation tools round.
ROUNDING = 1.0

# Pixels: COCO evaluation takes the box as the file has it unless the image cuts off more than this.
CUT = 0.01

# So many objects of a class in an image are a reason to mark the rest of them as one crowd region.
MANY = 3


@dataclass
class AnnotationTable:
    """What annotation files say, pictures sorted by id, boxes sorted by picture and then as in the file.

    image_ids: I ids. file_names: I texts. given_sizes: (I, 2) int64 width, height; 0 where the file does not say.
    category_ids, class_names: K each, in the file's order: label k is the k-th category, counted from 1.
    boxes: (B, 4) float32, inclusive corners x1, y1, x2, y2 in pixels of the picture; none is empty.
    picture: (B,) int64, index of the box's picture. labels: (B,) int64, 1..K. crowd: (B,) bool.
    annotation_ids: B ids. masks: of B objects, or None when no object has a segmentation.
    keypoints: (B, J, 3) float32 x, y, visibility, or None when no annotation has keypoints.
    keypoint_names: J texts, or None when the file does not name them.
    difficult: (B,) bool, or None where annotations do not tell.
    xywh: (B, 4) float64 boxes as the file has them, and areas: (B,) float64, NaN where the file gives no usable area;
        None where the annotations are not COCO's. COCO evaluation compares with these.
    annotated: (I,) bool, the file has an annotation of the image, usable or not; None where only usable ones count.
    segments: (B,) int64, which segment of its picture a box belongs to, counted from 1 as in PanopticMap; None where
        boxes are not of segments.
    """

    image_ids: list
    file_names: list[str]
    given_sizes: np.ndarray
    category_ids: list
    class_names: list[str]
    boxes: np.ndarray
    picture: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    annotation_ids: list
    masks: MaskTable | None = None
    keypoints: np.ndarray | None = None
    keypoint_names: list[str] | None = None
    difficult: np.ndarray | None = None
    segments: np.ndarray | None = None
    xywh: np.ndarray | None = None
    areas: np.ndarray | None = None
    annotated: np.ndarray | None = None

    def select_boxes(self, keep: np.ndarray) -> None:
        """Keeps the boxes where `keep`, (B,) bool, is true."""
        self.boxes, self.picture = self.boxes[keep], self.picture[keep]
        self.labels, self.crowd = self.labels[keep], self.crowd[keep]
        self.annotation_ids = [self.annotation_ids[i] for i in np.flatnonzero(keep)]
        if self.masks is not None:
            self.masks = self.masks.select(keep)
        for name in ("keypoints", "difficult", "segments", "xywh", "areas"):
            values = getattr(self, name)
            if values is not None:
                setattr(self, name, values[keep])

    def select_pictures(self, keep: np.ndarray) -> None:
        """Keeps the pictures where `keep`, (I,) bool, is true, and their boxes."""
        self.select_boxes(keep[self.picture])
        self.picture = (np.cumsum(keep) - 1)[self.picture]
        kept = np.flatnonzero(keep)
        self.image_ids = [self.image_ids[i] for i in kept]
        self.file_names = [self.file_names[i] for i in kept]
        self.given_sizes = self.given_sizes[kept]
        if self.annotated is not None:
            self.annotated = self.annotated[kept]

    def has_boxes(self) -> np.ndarray:
        """(I,) bool: the image has a box (crowd counts, as in the forks)."""
        return np.bincount(self.picture, minlength=len(self.image_ids)) > 0

    def visible_keypoints(self) -> np.ndarray:
        """(I,) visible keypoints of all objects of an image together."""
        counts = (self.keypoints[:, :, 2] > 0).sum(axis=1)
        return np.bincount(self.picture, weights=counts, minlength=len(self.image_ids))

    def crowd_like_single_objects(self) -> np.ndarray:
        """(B,) bool: crowd regions that are probably single objects.

        A region is drawn where an image has too many objects of a class to mark each. So one is suspicious where its
        image has fewer than MANY single objects of its class, or more than two regions of it.
        """
        groups = self.picture * (len(self.class_names) + 1) + self.labels
        _, places = np.unique(groups, return_inverse=True)
        regions = np.bincount(places, weights=self.crowd)[places]
        singles = np.bincount(places, weights=~self.crowd)[places]
        return self.crowd & ((singles < MANY) | (regions > 2))

    def fit(self, sizes: np.ndarray, report: DatasetReport, factors: np.ndarray | None = None) -> None:
        """Adapt boxes and masks to the images as they are.

        Training and evaluation both go through this, so that the objects of both are the same.

        Args:
            sizes: (I, 2) width, height.
            factors: (I, 2) float64 in x and y, see `scale`; None scales nothing.
        """
        if factors is not None:
            self.scale(factors, sizes, report)
        self.clip(sizes, report)
        if self.masks is not None:
            of_objects = sizes[self.picture]
            ids, wanted = self.annotation_ids, ~self.crowd
            other = self.ids_of(self.masks.of_other_size(of_objects) & wanted)
            report.add("repaired", "RLE masks of another size than their image, cut or padded", other)
            self.masks = fit_masks(self.masks, self.boxes, of_objects, wanted, ids, report)

    def clip(self, sizes: np.ndarray, report: DatasetReport) -> None:
        """Cuts boxes at the border of their pictures and drops what is empty then; `sizes` is (I, 2) width, height."""
        limits = (sizes[self.picture] - 1).astype(np.float32)
        limits = np.concatenate([limits, limits], axis=1)
        clipped = np.clip(self.boxes, 0, limits)
        inside = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
        moved = (np.abs(clipped - self.boxes) > ROUNDING).any(axis=1)
        report.add("dropped", "boxes outside the picture", self.ids_of(~inside))
        report.add("repaired", "boxes clipped to the picture", self.ids_of(inside & moved))
        if self.xywh is not None:
            cut = (np.abs(clipped - self.boxes) > CUT).any(axis=1)
            self.xywh[cut, :2] = clipped[cut, :2]
            self.xywh[cut, 2:] = clipped[cut, 2:] - clipped[cut, :2] + 1
        self.boxes = clipped
        self.select_boxes(inside)

    def scale(self, factors: np.ndarray, sizes: np.ndarray, report: DatasetReport) -> None:
        """Scale boxes, masks and keypoints to images of another size, and drop boxes that get too small.

        Args:
            factors: (I, 2) float64 in x and y.
            sizes: (I, 2) width and height that images have after it.
        """
        of_box = factors[self.picture]
        changed = (of_box != 1).any(axis=1)
        corners = self.boxes.astype(np.float64)
        corners[:, 2:] += 1  # inclusive corners are pixels; their outer borders scale
        corners *= np.concatenate([of_box, of_box], axis=1)
        corners[:, 2:] -= 1
        self.boxes = np.where(changed[:, None], corners, self.boxes).astype(np.float32)
        if self.xywh is not None:
            self.xywh *= np.concatenate([of_box, of_box], axis=1)
        if self.areas is not None:
            self.areas *= of_box.prod(axis=1)
        if self.masks is not None:
            self.masks = self.masks.scale(of_box, sizes[self.picture])
        if self.keypoints is not None:
            self.keypoints = self.keypoints.copy()
            self.keypoints[:, :, :2] *= of_box[:, None].astype(np.float32)
        usable = (self.boxes[:, 2:] > self.boxes[:, :2]).all(axis=1) | ~changed
        report.add("dropped", "boxes of at most one pixel after scaling", self.ids_of(~usable))
        self.select_boxes(usable)

    def ids_of(self, where: np.ndarray) -> list:
        """The annotation ids of the boxes where `where`, (B,) bool, is true."""
        return [self.annotation_ids[i] for i in np.flatnonzero(where)]
