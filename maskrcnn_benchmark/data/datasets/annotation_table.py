"""Hold a dataset's annotations in flat arrays while they are read and checked.

Shapes: I images, B boxes of all images together, K foreground classes, J keypoints per object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskrcnn_benchmark.data.datasets.mask_checks import fit_masks
from maskrcnn_benchmark.data.datasets.mask_table import MaskTable
from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.data.datasets.value_column import ValueColumn

# Clipping a box by up to this many pixels is not reported: annotation tools round.
ROUNDING = 1.0

# COCO evaluation uses a box as it is in the file unless clipping moves a side by more than this many pixels.
CUT = 0.01

# Boxes are suspected to be x1, y1, x2, y2 if at least this share of them sticks out of the image. Fewer than FEW boxes
# are not checked.
MANY_OUT = 0.25
FEW = 8

# Annotators mark a crowd region only where an image already has at least this many objects of the class.
MANY = 3


@dataclass
class AnnotationTable:
    """Annotations of a dataset: images sorted by id, boxes sorted by image and then in file order.

    Attributes:
        image_ids: I ids.
        file_names: I strings.
        given_sizes: (I, 2) int64 width and height from the file, 0 if missing.
        category_ids, class_names: K each, in file order. Label k is the k-th category, counted from 1.
        boxes: (B, 4) float32, inclusive corners x1, y1, x2, y2 in pixels of the image. No box is empty.
        image_index: (B,) int64, index of the box's image.
        labels: (B,) int64, 1..K.
        crowd: (B,) bool.
        annotation_ids: B ids.
        masks: masks of the B objects, or None if no object has a segmentation.
        keypoints: (B, J, 3) float32 x, y, visibility, or None if no annotation has keypoints.
        keypoint_names: J strings, or None if the file does not name them.
        difficult: (B,) bool, or None if the format has no such flag.
        xywh: (B, 4) float64 boxes as in the file, for COCO evaluation; None for other formats.
        areas: (B,) float64 areas as in the file, NaN if unusable, for COCO evaluation; None for other formats.
        annotated: (I,) bool, true if the file has any annotation of the image, usable or not; None if only usable
            annotations count.
        segments: (B,) int64, the box's segment in its image's PanopticMap, counted from 1; None if boxes do not come
            from segments.
    """

    image_ids: list
    file_names: list[str]
    given_sizes: np.ndarray
    category_ids: list
    class_names: list[str]
    boxes: np.ndarray
    image_index: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    annotation_ids: ValueColumn | list
    masks: MaskTable | None = None
    keypoints: np.ndarray | None = None
    keypoint_names: list[str] | None = None
    difficult: np.ndarray | None = None
    segments: np.ndarray | None = None
    xywh: np.ndarray | None = None
    areas: np.ndarray | None = None
    annotated: np.ndarray | None = None

    def __post_init__(self):
        if not isinstance(self.annotation_ids, ValueColumn):
            self.annotation_ids = ValueColumn(self.annotation_ids)

    def select_boxes(self, keep: np.ndarray) -> None:
        """Keep the boxes for which `keep`, (B,) bool, is true."""
        if keep.all():
            return
        self.boxes, self.image_index = self.boxes[keep], self.image_index[keep]
        self.labels, self.crowd = self.labels[keep], self.crowd[keep]
        self.annotation_ids = self.annotation_ids.take(np.flatnonzero(keep))
        if self.masks is not None:
            self.masks = self.masks.select(keep)
        for name in ("keypoints", "difficult", "segments", "xywh", "areas"):
            values = getattr(self, name)
            if values is not None:
                setattr(self, name, values[keep])

    def select_images(self, keep: np.ndarray) -> None:
        """Keep the images for which `keep`, (I,) bool, is true, and their boxes."""
        if keep.all():
            return
        self.select_boxes(keep[self.image_index])
        self.image_index = (np.cumsum(keep) - 1)[self.image_index]
        kept = np.flatnonzero(keep)
        self.image_ids = [self.image_ids[i] for i in kept]
        self.file_names = [self.file_names[i] for i in kept]
        self.given_sizes = self.given_sizes[kept]
        if self.annotated is not None:
            self.annotated = self.annotated[kept]

    def has_boxes(self) -> np.ndarray:
        """Return (I,) bool, true for images with a box. Crowd regions count, as in the forks."""
        return np.bincount(self.image_index, minlength=len(self.image_ids)) > 0

    def visible_keypoints(self) -> np.ndarray:
        """Return the number of visible keypoints of all objects of each image, (I,) float64."""
        counts = (self.keypoints[:, :, 2] > 0).sum(axis=1)
        return np.bincount(self.image_index, weights=counts, minlength=len(self.image_ids))

    def crowd_like_single_objects(self) -> np.ndarray:
        """Return (B,) bool, true for crowd regions that are probably single objects.

        Annotators draw a crowd region when an image has too many objects of a class to mark each. A region is
        suspicious if its image has fewer than MANY single objects of its class, or more than two regions of it.
        """
        groups = self.image_index * (len(self.class_names) + 1) + self.labels
        _, places = np.unique(groups, return_inverse=True)
        regions = np.bincount(places, weights=self.crowd)[places]
        singles = np.bincount(places, weights=~self.crowd)[places]
        return self.crowd & ((singles < MANY) | (regions > 2))

    def fit(self, sizes: np.ndarray, report: DatasetReport, factors: np.ndarray | None = None) -> None:
        """Fit boxes and masks to the images on disk. Training and evaluation both call this and see the same objects.

        Args:
            sizes: (I, 2) width, height.
            report: receives the findings.
            factors: (I, 2) float64 scale factors in x and y, see `scale`; None scales nothing.
        """
        if factors is not None:
            self.scale(factors, sizes, report)
        self.clip(sizes, report)
        if self.masks is not None:
            of_objects = sizes[self.image_index]
            ids, wanted = self.annotation_ids, ~self.crowd
            other = self.ids_of(self.masks.of_other_size(of_objects) & wanted)
            report.add("repaired", "RLE masks of another size than their image, cut or padded", other)
            self.masks = fit_masks(self.masks, self.boxes, of_objects, wanted, ids, report)

    def clip(self, sizes: np.ndarray, report: DatasetReport) -> None:
        """Clip boxes to their images and drop those that become empty; `sizes` is (I, 2) width, height."""
        limits = (sizes[self.image_index] - 1).astype(np.float32)
        limits = np.concatenate([limits, limits], axis=1)
        self._warn_of_corners(limits, report)
        clipped = np.clip(self.boxes, 0, limits)
        inside = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
        moved = (np.abs(clipped - self.boxes) > ROUNDING).any(axis=1)
        report.add("dropped", "boxes outside the image", self.ids_of(~inside))
        report.add("repaired", "boxes clipped to the image", self.ids_of(inside & moved))
        if self.xywh is not None:
            cut = (np.abs(clipped - self.boxes) > CUT).any(axis=1)
            self.xywh[cut, :2] = clipped[cut, :2]
            self.xywh[cut, 2:] = clipped[cut, 2:] - clipped[cut, :2] + 1
        self.boxes = clipped
        self.select_boxes(inside)

    def _warn_of_corners(self, limits: np.ndarray, report: DatasetReport) -> None:
        """Warn if the boxes seem to be x1, y1, x2, y2 that were read as x, y, width, height.

        Args:
            limits: (B, 4) largest coordinates of each box.
        """
        if len(self.boxes) < FEW:
            return
        out = (self.boxes[:, 2:] > limits[:, 2:] + ROUNDING).any(axis=1)
        ends = self.boxes[:, 2:] - self.boxes[:, :2] + 1
        fit = ((ends > self.boxes[:, :2]) & (ends <= limits[:, 2:] + 1 + ROUNDING)).all(axis=1)
        if out.mean() >= MANY_OUT and fit.all():
            report.warn(
                f"dataset {report.name}: {int(out.sum()):,} of {len(out):,} boxes stick out of their image, and all "
                "would fit if their numbers were x1, y1, x2, y2. A bbox is x, y, width, height: convert them."
            )

    def scale(self, factors: np.ndarray, sizes: np.ndarray, report: DatasetReport) -> None:
        """Scale boxes, masks and keypoints to a new image size, and drop boxes that become too small.

        Args:
            factors: (I, 2) float64 scale factors in x and y.
            sizes: (I, 2) width and height of the images after scaling.
            report: receives the findings.
        """
        of_box = factors[self.image_index]
        changed = (of_box != 1).any(axis=1)
        corners = self.boxes.astype(np.float64)
        corners[:, 2:] += 1  # inclusive corners are pixel indices; scale the outer edges of those pixels
        corners *= np.concatenate([of_box, of_box], axis=1)
        corners[:, 2:] -= 1
        self.boxes = np.where(changed[:, None], corners, self.boxes).astype(np.float32)
        if self.xywh is not None:
            self.xywh *= np.concatenate([of_box, of_box], axis=1)
        if self.areas is not None:
            self.areas *= of_box.prod(axis=1)
        if self.masks is not None:
            self.masks = self.masks.scale(of_box, sizes[self.image_index])
        if self.keypoints is not None:
            self.keypoints = self.keypoints.copy()
            self.keypoints[:, :, :2] *= of_box[:, None].astype(np.float32)
        usable = (self.boxes[:, 2:] > self.boxes[:, :2]).all(axis=1) | ~changed
        report.add("dropped", "boxes of at most one pixel after scaling", self.ids_of(~usable))
        self.select_boxes(usable)

    def ids_of(self, where: np.ndarray) -> list:
        """Return the annotation ids of the boxes for which `where`, (B,) bool, is true."""
        return self.annotation_ids.where(where)
