"""Keys that take one of a few words, numbers that have a least value, and keys that do not go together."""

from __future__ import annotations

CHOICES = {
    "DTYPE": ("float32", "float16", "bfloat16", "auto"),
    "MODEL.CONVENTION": ("maskrcnn_benchmark", "detectron2", "mmdetection"),
    "MODEL.BACKBONE.NORM": ("", "FrozenBN", "BN", "SyncBN", "GN"),
    "MODEL.SEM_SEG_HEAD.NORM": ("", "BN", "SyncBN", "GN"),
    "MODEL.SEM_SEG_HEAD.LOSS": ("cross_entropy", "dice", "cross_entropy_dice", "hard_examples"),
    "MODEL.DEEPLAB.NORM": ("FrozenBN", "BN", "SyncBN", "GN"),
    "MODEL.FCOS.IOU_LOSS_TYPE": ("iou", "linear_iou", "giou"),
    "MODEL.FCOS.LOSS_NORMALIZER": ("positives_and_images", "positives"),
    "SOLVER.OPTIMIZER": ("SGD", "AdamW"),
    "SOLVER.LR_SCHEDULER": ("multistep", "cosine", "poly"),
    "SOLVER.WARMUP_METHOD": ("constant", "linear"),
    "TEST.SEMANTIC.MODE": ("auto", "whole", "slide"),
}

LEAST = {
    "SEED": 0,
    "DATALOADER.NUM_WORKERS": 0,
    "DATALOADER.SIZE_DIVISIBILITY": 0,
    "INPUT.MIN_SIZE_TEST": 1,
    "INPUT.MAX_SIZE_TEST": 1,
    "INPUT.MAX_SIZE_TRAIN": 1,
    "SOLVER.ACCUMULATION_STEPS": 1,
    "SOLVER.BASE_LR": 0,
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "SOLVER.CLIP_GRADIENTS": 0,
    "SOLVER.HEAD_LR_FACTOR": 0,
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.MAX_ITER": 1,
    "SOLVER.TEST_PERIOD": 0,
    "SOLVER.WARMUP_ITERS": 0,
    "TEST.IMS_PER_BATCH": 1,
    "TEST.BBOX_AUG.MAX_SIZE": 1,
}


def check_values(cfg) -> None:
    """Looks at these keys, so that a run does not end where such a value is used, hours later.

    Raises:
        ValueError: a value is none of the choices, or smaller than the least one, or no number, or does not go with
            another key; the key, the value and what is wanted are named.
    """
    for key, choices in CHOICES.items():
        value = _value(cfg, key)
        if value not in choices:
            raise ValueError(f"{key} is {value!r}; it should be one of {', '.join(map(repr, choices))}.")
    for key, least in LEAST.items():
        value = _value(cfg, key)
        if not value >= least:  # so written, NaN is refused
            raise ValueError(f"{key} is {value!r}; it should be {least} or more.")
    _check_bbox_aug(cfg)
    _check_semantic(cfg)


def _check_bbox_aug(cfg) -> None:
    aug, model = cfg.TEST.BBOX_AUG, cfg.MODEL
    if not aug.ENABLED:
        return
    if not all(isinstance(scale, (int, float)) and scale >= 1 for scale in aug.SCALES):
        raise ValueError(f"TEST.BBOX_AUG.SCALES is {aug.SCALES!r}; it should be a list of sizes in pixels.")
    if model.META_ARCHITECTURE != "GeneralizedRCNN":
        raise ValueError(
            f"TEST.BBOX_AUG.ENABLED is True and MODEL.META_ARCHITECTURE {model.META_ARCHITECTURE!r}: detections of "
            "several views are joined, maps of classes are not. Set ENABLED to False; a SemanticSegmentor has "
            "TEST.SEMANTIC.SCALES and H_FLIP."
        )
    if model.RPN_ONLY and not (model.RETINANET_ON or model.FCOS_ON):
        raise ValueError(
            "TEST.BBOX_AUG.ENABLED is True and MODEL.RPN_ONLY too: detections of several views are joined, proposals "
            "are not. Set one of them to False."
        )


def _check_semantic(cfg) -> None:
    train, test = cfg.INPUT.SEMANTIC, cfg.TEST.SEMANTIC
    for key, size, may_be_empty in (
        ("INPUT.SEMANTIC.CROP_SIZE_TRAIN", train.CROP_SIZE_TRAIN, True),
        ("TEST.SEMANTIC.PAD_TO", test.PAD_TO, True),
        ("TEST.SEMANTIC.WINDOW", test.WINDOW, False),
    ):
        fits = len(size) == 2 and all(isinstance(side, int) and side >= 1 for side in size)
        if not fits and not (may_be_empty and not size):
            raise ValueError(f"{key} is {size!r}; it should be (height, width) in pixels.")
    scales = tuple(train.SCALE_RANGE_TRAIN)
    if len(scales) != 2 or not 0 < scales[0] <= scales[1]:
        raise ValueError(f"INPUT.SEMANTIC.SCALE_RANGE_TRAIN is {scales!r}; it should be (smallest, largest) factor.")
    if not test.SCALES or not all(isinstance(scale, (int, float)) and scale > 0 for scale in test.SCALES):
        raise ValueError(f"TEST.SEMANTIC.SCALES is {test.SCALES!r}; it should be a list of factors, as (0.75, 1.0).")
    if not 0 <= test.OVERLAP < 1:
        raise ValueError(f"TEST.SEMANTIC.OVERLAP is {test.OVERLAP!r}; it should be a share from 0 to below 1.")
    if not 0 < train.CROP_MAX_CLASS_SHARE <= 1:
        raise ValueError(
            f"INPUT.SEMANTIC.CROP_MAX_CLASS_SHARE is {train.CROP_MAX_CLASS_SHARE!r}; it should be a share over 0, to 1."
        )


def _value(cfg, key: str):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg
