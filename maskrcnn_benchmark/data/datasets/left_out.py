"""Leave out images and objects that are not trained on, and report them."""

from __future__ import annotations

import numpy as np

from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.report import DatasetReport

# Share of crowd regions among all objects that is suspicious. In COCO about one object in a hundred is a crowd region.
MANY_CROWD = 0.05


def leave_out_images(table: AnnotationTable, reading: Reading, report: DatasetReport) -> np.ndarray:
    """Drop the images that cannot be trained on, and return (I,) bool, true for those that stay."""
    keep = table.has_boxes()
    left_out = ~keep
    hint = ""
    if table.annotated is not None:
        empty = left_out & ~table.annotated
        if reading.keep_empty_images:
            keep, left_out = keep | empty, left_out & ~empty
        elif empty.any():
            hint = "DATASETS.KEEP_EMPTY_IMAGES True trains on those without any annotation"
    report.add("dropped", "images without usable annotations", _ids_of(table, left_out), "image ids", hint)
    least = reading.min_visible_keypoints
    if table.keypoints is not None and least > 0:
        few = keep & table.has_boxes() & (table.visible_keypoints() < least)
        hint = "DATASETS.MIN_VISIBLE_KEYPOINTS sets the limit"
        what = f"images with fewer than {least} visible keypoints"
        report.add("dropped", what, _ids_of(table, few), "image ids", hint)
        keep &= ~few
    table.select_images(keep)
    return keep


def leave_out_crowd(table: AnnotationTable, report: DatasetReport) -> None:
    """Drop crowd regions, with a warning if they look like single objects."""
    crowd = table.crowd
    if crowd.any():
        single = table.crowd_like_single_objects()
        if crowd.mean() >= MANY_CROWD and 2 * single.sum() > crowd.sum():
            report.warn(
                f"dataset {report.name}: {single.sum()} of {crowd.sum()} crowd regions (iscrowd 1) look like single "
                "objects, as CVAT exports brush masks. Crowd regions are neither trained on nor evaluated; set "
                "DATASETS.CROWD_AS_OBJECTS to True if they are objects."
            )
    drop_crowd(table, report, hint="DATASETS.CROWD_AS_OBJECTS True reads them as objects")


def drop_crowd(table: AnnotationTable, report: DatasetReport, hint: str = "") -> None:
    """Drop crowd regions without a warning."""
    report.add("dropped", "crowd regions", table.ids_of(table.crowd), hint=hint)
    table.select_boxes(~table.crowd)


def _ids_of(table: AnnotationTable, where: np.ndarray) -> list:
    return [table.image_ids[i] for i in np.flatnonzero(where)]
