"""Check the values of a config before anything is built from it.

CHOICES lists keys with a fixed set of values. rules.py has the rules of all other keys, combinations.py those of keys
that exclude each other.
"""

from __future__ import annotations

from .combinations import COMBINATIONS, OF_TRAINING, value_of
from .rules import RULES

CHOICES = {
    "DTYPE": ("float32", "float16", "bfloat16", "auto"),
    "MODEL.CONVENTION": ("maskrcnn_benchmark", "detectron2", "mmdetection", "centermask2", "centermask"),
    "MODEL.BACKBONE.NORM": ("", "FrozenBN", "BN", "SyncBN", "GN"),
    "MODEL.BACKBONE.OUTPUT_STRIDE": (4, 8, 16, 32),
    "MODEL.SEM_SEG_HEAD.NORM": ("", "BN", "SyncBN", "GN"),
    "MODEL.SEM_SEG_HEAD.LOSS": ("cross_entropy", "dice", "cross_entropy_dice", "hard_examples"),
    "MODEL.DEEPLAB.NORM": ("FrozenBN", "BN", "SyncBN", "GN"),
    "MODEL.FCOS.IOU_LOSS_TYPE": ("iou", "linear_iou", "giou"),
    "MODEL.FCOS.LOSS_NORMALIZER": ("positives_and_images", "positives"),
    **{
        f"MODEL.ROI_{head}_HEAD.LEVEL_MAP_FUNCTION": ("MASKRCNNLevelMapFunc", "CenterMaskLevelMapFunc")
        for head in ("BOX", "MASK", "KEYPOINT")
    },
    "SOLVER.OPTIMIZER": ("SGD", "AdamW"),
    "SOLVER.LR_SCHEDULER": ("multistep", "cosine", "poly"),
    "SOLVER.WARMUP_METHOD": ("constant", "linear"),
    "DATASETS.EXIF_ROTATION": ("stored", "upright", "auto"),
    "DATASETS.SIZE_MISMATCH": ("error", "scale", "scale_each", "keep"),
    "DATASETS.TABLE": ("auto", "always", "never"),
    "TEST.SEMANTIC.MODE": ("auto", "whole", "slide"),
}


def check_values(cfg, *, is_train: bool = False) -> None:
    """Raise for invalid values, which would otherwise fail or be misinterpreted hours later.

    Args:
        cfg: the whole tree.
        is_train: also check keys that only training uses.

    Raises:
        ValueError: a value is outside its key's range, or contradicts another key. The message names the key, the
            value, and the expected values.
    """
    for key, choices in CHOICES.items():
        value = value_of(cfg, key)
        if value not in choices:
            raise ValueError(f"{key} is {value!r}; it should be one of {', '.join(map(repr, choices))}.")
    for key, rule in RULES.items():
        value = value_of(cfg, key)
        problem = rule(value)
        if problem is not None:
            shown = repr(value)
            shown = shown if len(shown) <= 200 else f"{shown[:197]}..."
            raise ValueError(f"{key} is {shown}; it should be {problem}.")
    for combination in COMBINATIONS + OF_TRAINING * is_train:
        problem = combination(cfg)
        if problem is not None:
            raise ValueError(problem)
