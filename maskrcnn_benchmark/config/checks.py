"""Keys that take one of a few words, numbers that have a least value, and keys that do nothing yet."""

from __future__ import annotations

CHOICES = {
    "DTYPE": ("float32", "float16", "bfloat16"),
    "MODEL.CONVENTION": ("maskrcnn_benchmark",),
    "MODEL.BACKBONE.NORM": ("", "FrozenBN", "BN", "SyncBN", "GN"),
    "MODEL.SEM_SEG_HEAD.NORM": ("", "BN", "SyncBN", "GN"),
    "MODEL.FCOS.IOU_LOSS_TYPE": ("iou", "linear_iou", "giou"),
    "MODEL.FCOS.LOSS_NORMALIZER": ("positives_and_images", "positives"),
    "SOLVER.OPTIMIZER": ("SGD", "AdamW"),
    "SOLVER.LR_SCHEDULER": ("multistep", "cosine", "poly"),
    "SOLVER.WARMUP_METHOD": ("constant", "linear"),
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
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.MAX_ITER": 1,
    "SOLVER.TEST_PERIOD": 0,
    "SOLVER.WARMUP_ITERS": 0,
    "TEST.IMS_PER_BATCH": 1,
}


# Merged from the forks' files, and without effect so far: better refused than ignored.
NOT_YET = {"TEST.BBOX_AUG.ENABLED": False}


def check_values(cfg) -> None:
    """Looks at the keys above, so that a run does not end where such a value is used, hours later.

    Raises:
        ValueError: a value is none of the choices, or smaller than the least one, or no number, or asks for what is
            not there; the key, the value and what is wanted are named.
    """
    for key, only in NOT_YET.items():
        if _value(cfg, key) != only:
            raise ValueError(f"{key} is {_value(cfg, key)!r}, which is not available yet; set it to {only!r}.")
    for key, choices in CHOICES.items():
        value = _value(cfg, key)
        if value not in choices:
            raise ValueError(f"{key} is {value!r}; it should be one of {', '.join(map(repr, choices))}.")
    for key, least in LEAST.items():
        value = _value(cfg, key)
        if not value >= least:  # so written, NaN is refused
            raise ValueError(f"{key} is {value!r}; it should be {least} or more.")


def _value(cfg, key: str):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg
