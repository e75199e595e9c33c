"""Build transforms from cfg."""

from __future__ import annotations

from typing import NamedTuple

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.data.transforms import semantic as S
from maskrcnn_benchmark.data.transforms import transforms as T
from maskrcnn_benchmark.structures.bounding_box import TO_REMOVE


class View(NamedTuple):
    """One view of test-time augmentation: transform of an RGB PIL image to the network input, and whether it flips."""

    transform: T.Compose
    mirrored: bool


def build_transforms(cfg, is_train: bool = True) -> T.Compose:
    """Build the transforms for training or testing.

    Training: colour jitter if configured, resize, flips, normalise. Testing: resize, normalise. Before these, boxes are
    converted to the model's convention, and masks are dropped if the model has no mask head. A SemanticSegmentor uses
    the transforms of INPUT.SEMANTIC instead.

    Raises:
        ValueError: MIN_SIZE_RANGE_TRAIN is not two ascending numbers.
    """
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        return _semantic_transforms(cfg, is_train)
    convention = get_convention(cfg.MODEL.CONVENTION)
    # boxes of datasets are inclusive
    steps = [] if convention.box_offset == TO_REMOVE else [T.BoxOffset(convention.box_offset)]
    if not cfg.MODEL.MASK_ON:
        steps.append(T.LeaveOut("masks"))  # resizing binary masks takes longer than everything else
    if is_train:
        steps += _jitter(cfg)
        steps.append(T.Resize(_training_sizes(cfg), cfg.INPUT.MAX_SIZE_TRAIN, convention.resize_to_nearest))
        steps += _flips(cfg)
    else:
        steps.append(T.Resize(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, convention.resize_to_nearest))
    return T.Compose(steps + _to_network_input(cfg))


def _semantic_transforms(cfg, is_train: bool) -> T.Compose:
    """Build transforms for training (colour jitter, flips, scale, crop, normalise, pad) or testing (normalise)."""
    node = cfg.INPUT.SEMANTIC
    steps: list = [T.LeaveOut("masks")]  # panoptic datasets have masks
    if not is_train:
        return T.Compose(steps + _to_network_input(cfg))
    steps += _jitter(cfg) + _flips(cfg)
    if tuple(node.SCALE_RANGE_TRAIN) != (1.0, 1.0):
        steps.append(S.RandomScale(*node.SCALE_RANGE_TRAIN))
    if not node.CROP_SIZE_TRAIN:
        return T.Compose(steps + _to_network_input(cfg))
    crop = S.RandomCrop(node.CROP_SIZE_TRAIN, node.CROP_MAX_CLASS_SHARE)
    return T.Compose([*steps, crop, *_to_network_input(cfg), S.PadTo(node.CROP_SIZE_TRAIN)])


def build_test_views(cfg) -> list[View]:
    """Build the views of TEST.BBOX_AUG: the test size, flipped with H_FLIP, and SCALES, flipped with SCALE_H_FLIP."""
    aug = cfg.TEST.BBOX_AUG
    to_nearest = get_convention(cfg.MODEL.CONVENTION).resize_to_nearest
    sizes = [(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, aug.H_FLIP)]
    sizes += [(scale, aug.MAX_SIZE, aug.SCALE_H_FLIP) for scale in aug.SCALES]
    views = []
    for min_size, max_size, also_mirrored in sizes:
        for mirrored in (False, True) if also_mirrored else (False,):
            steps = [T.Resize(min_size, max_size, to_nearest)] + [T.RandomHorizontalFlip(1.0)] * mirrored
            views.append(View(T.Compose(steps + _to_network_input(cfg)), mirrored))
    return views


def _jitter(cfg) -> list:
    jitter = (cfg.INPUT.BRIGHTNESS, cfg.INPUT.CONTRAST, cfg.INPUT.SATURATION, cfg.INPUT.HUE)
    return [T.ColorJitter(*jitter)] if any(jitter) else []


def _flips(cfg) -> list:
    kinds = (
        (T.RandomHorizontalFlip, cfg.INPUT.HORIZONTAL_FLIP_PROB_TRAIN),
        (T.RandomVerticalFlip, cfg.INPUT.VERTICAL_FLIP_PROB_TRAIN),
    )
    return [flip(prob) for flip, prob in kinds if prob > 0]


def _to_network_input(cfg) -> list:
    return [T.Normalize(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD, to_bgr255=cfg.INPUT.TO_BGR255)]


def _training_sizes(cfg) -> list[int]:
    """Return the sizes of MIN_SIZE_RANGE_TRAIN if set (it has priority, as in the FCOS forks), else MIN_SIZE_TRAIN."""
    size_range = tuple(cfg.INPUT.MIN_SIZE_RANGE_TRAIN)
    if not size_range or size_range[0] == -1:
        sizes = cfg.INPUT.MIN_SIZE_TRAIN
        return list(sizes) if isinstance(sizes, (list, tuple)) else [sizes]
    if len(size_range) != 2 or not 0 < size_range[0] <= size_range[1]:
        raise ValueError(
            f"INPUT.MIN_SIZE_RANGE_TRAIN must be (smallest, largest) in pixels, or (-1, -1) to use MIN_SIZE_TRAIN, got "
            f"{size_range}"
        )
    return list(range(size_range[0], size_range[1] + 1))
