"""Options for reading annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from maskrcnn_benchmark.data.datasets.table_cache import TableSettings

# As class names of a dataset: those that occur in its annotations.
FROM_THE_DATA = "from the data"


@dataclass(frozen=True)
class Reading:
    """Options for reading annotations, shared by training and evaluation.

    Attributes:
        keep_empty_images: train on images without any annotation (DATASETS.KEEP_EMPTY_IMAGES).
        crowd_as_objects: read `iscrowd: 1` as an ordinary object (DATASETS.CROWD_AS_OBJECTS).
        keep_placeholder_categories: keep unused categories that name the project or the background as classes
            (DATASETS.KEEP_PLACEHOLDER_CATEGORIES).
        min_visible_keypoints: train only on images with at least this many visible keypoints; 0 sets no limit
            (DATASETS.MIN_VISIBLE_KEYPOINTS).
        keypoint_flip_pairs: pairs of keypoints, by name or index from 0, to swap in a mirrored image; None derives
            them from "left" and "right" in the names (INPUT.KEYPOINT_FLIP_PAIRS).
        keep_keypoints: False drops keypoints, for models without a keypoint head (MODEL.KEYPOINT_ON). Such models then
            need no flip pairs.
        tables: whether and where annotations are cached in table files (DATASETS.TABLE, DATASETS.TABLE_DIR).
    """

    keep_empty_images: bool = False
    crowd_as_objects: bool = False
    keep_placeholder_categories: bool = False
    min_visible_keypoints: int = 0
    keypoint_flip_pairs: Sequence | None = None
    keep_keypoints: bool = True
    tables: TableSettings = TableSettings()
