"""Keys that take one of a few words."""

from __future__ import annotations

CHOICES = {
    "DTYPE": ("float32", "float16", "bfloat16"),
    "MODEL.CONVENTION": ("maskrcnn_benchmark",),
    "MODEL.BACKBONE.NORM": ("", "FrozenBN", "BN", "SyncBN", "GN"),
    "MODEL.FCOS.IOU_LOSS_TYPE": ("iou", "linear_iou", "giou"),
    "MODEL.FCOS.LOSS_NORMALIZER": ("positives_and_images", "positives"),
    "SOLVER.OPTIMIZER": ("SGD", "AdamW"),
    "SOLVER.LR_SCHEDULER": ("multistep", "cosine", "poly"),
    "SOLVER.WARMUP_METHOD": ("constant", "linear"),
}


def check_values(cfg) -> None:
    """Raises ValueError if a key of CHOICES has another value, naming the key, the value and the choices."""
    for key, choices in CHOICES.items():
        value = cfg
        for part in key.split("."):
            value = value[part]
        if value not in choices:
            raise ValueError(f"{key} is {value!r}; it should be one of {', '.join(map(repr, choices))}.")
