"""Choices about reading annotations that the configuration may change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """How questionable annotations are read, in training and in evaluation alike.

    Attributes:
        keep_empty_images: train on images without any annotation (DATASETS.KEEP_EMPTY_IMAGES).
        crowd_as_objects: read `iscrowd: 1` as an ordinary object (DATASETS.CROWD_AS_OBJECTS).
        keep_placeholder_categories: an unused category that names the project or the background is a class
            (DATASETS.KEEP_PLACEHOLDER_CATEGORIES).
        min_visible_keypoints: train on images with at least this many visible keypoints; 0 sets no limit
            (DATASETS.MIN_VISIBLE_KEYPOINTS).
        keypoint_flip_pairs: pairs of keypoints, by name or index from 0, that change places in a mirrored image; None
            takes them from "left" and "right" in the names (INPUT.KEYPOINT_FLIP_PAIRS).
        keep_keypoints: False leaves keypoints out, for models without them (MODEL.KEYPOINT_ON): mirroring them may
            require pairs that boxes do not need.
    """

    keep_empty_images: bool = False
    crowd_as_objects: bool = False
    keep_placeholder_categories: bool = False
    min_visible_keypoints: int = 0
    keypoint_flip_pairs: Sequence | None = None
    keep_keypoints: bool = True
