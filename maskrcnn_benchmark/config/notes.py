"""Report settings that have no effect in combination with the rest of the config."""

from __future__ import annotations

from .accepted_keys import WITHOUT_EFFECT
from .combinations import value_of
from .convention import get_convention
from .stages import has_box_head

# Keys that ordinary configs of the forks set without effect, and keys that are logged elsewhere.
_EXPECTED = ("PATHS_CATALOG", "AMP_VERBOSE", "MODEL.ROI_HEADS.USE_FPN", "MODEL.RETINANET.STRADDLE_THRESH")
_ELSEWHERE = ("MODEL.VOVNET.OUT_CHANNELS",)

# key -> (deciding key, its values for which the first key has an effect, values of the first key that need no note)
_NEEDS = {
    "SOLVER.MOMENTUM": ("SOLVER.OPTIMIZER", ("SGD",), ()),
    "SOLVER.WEIGHT_DECAY_BIAS": ("SOLVER.OPTIMIZER", ("SGD",), ()),
    "SOLVER.BIAS_LR_FACTOR": ("SOLVER.OPTIMIZER", ("SGD",), (1,)),
    "SOLVER.WEIGHT_DECAY_NORM": ("SOLVER.OPTIMIZER", ("SGD",), (0,)),
    "SOLVER.BETAS": ("SOLVER.OPTIMIZER", ("AdamW",), ()),
    "SOLVER.GAMMA": ("SOLVER.LR_SCHEDULER", ("multistep",), ()),
    "SOLVER.POLY_POWER": ("SOLVER.LR_SCHEDULER", ("poly",), ()),
}


def notes(cfg, defaults) -> list[str]:
    """Return one sentence per setting without effect, for the log; usually none.

    Args:
        cfg: the config of a run.
        defaults: the default tree.
    """
    found = []
    for key, reason in WITHOUT_EFFECT.items():
        if key in _EXPECTED + _ELSEWHERE or key.startswith("MODEL.FBNET."):
            continue
        if value_of(cfg, key) != value_of(defaults, key):
            found.append(f"{key} {value_of(cfg, key)!r} has no effect: {reason}.")
    for key, (deciding, values, fine) in _NEEDS.items():
        value, chosen = value_of(cfg, key), value_of(cfg, deciding)
        if chosen not in values and value != value_of(defaults, key) and value not in fine:
            found.append(f"{key} {value!r} has no effect with {deciding} {chosen!r}.")
    for key in ("MASK_ON", "KEYPOINT_ON", "CASCADE_ON"):
        if cfg.MODEL.RPN_ONLY and cfg.MODEL[key] and not cfg.MODEL.FCOS_MASK:
            found.append(f"MODEL.{key} True has no effect with MODEL.RPN_ONLY True.")
    dense = cfg.MODEL.FCOS_ON or cfg.MODEL.RETINANET_ON
    unread, read = "MODEL.ROI_HEADS.DETECTIONS_PER_IMG", "TEST.DETECTIONS_PER_IMG"
    if not dense:
        unread, read = read, unread
    both_read = dense and has_box_head(cfg.MODEL)  # FCOS proposes, a box head detects
    given = value_of(cfg, unread)
    if not both_read and given != value_of(defaults, unread) and given != value_of(cfg, read):
        found.append(f"{unread} {value_of(cfg, unread)} has no effect: the model of this config uses {read}.")
    if dense and not both_read:
        head = "FCOS" if cfg.MODEL.FCOS_ON else "RETINANET"
        for key, instead in (("SCORE_THRESH", "INFERENCE_TH"), ("NMS", "NMS_TH")):
            key = f"MODEL.ROI_HEADS.{key}"
            if value_of(cfg, key) != value_of(defaults, key):
                value = value_of(cfg, key)
                found.append(f"{key} {value} has no effect: without a box head MODEL.{head}.{instead} counts.")
    samples = get_convention(cfg.MODEL.CONVENTION).dense_regions_sampled or cfg.MODEL.KEYPOINT_ON
    if cfg.MODEL.FCOS_MASK and not samples:
        for key in ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "MODEL.ROI_HEADS.POSITIVE_FRACTION"):
            value = value_of(cfg, key)
            if value != value_of(defaults, key):
                found.append(
                    f"{key} {value} has no effect: with MODEL.CONVENTION {cfg.MODEL.CONVENTION!r} the mask heads train "
                    "on every region that matches an object."
                )
    shorter_side = max(cfg.INPUT.MIN_SIZE_TRAIN)
    if tuple(cfg.INPUT.MIN_SIZE_RANGE_TRAIN) not in ((), (-1, -1)):
        shorter_side = max(cfg.INPUT.MIN_SIZE_RANGE_TRAIN)
    for kind, shorter in (("TRAIN", shorter_side), ("TEST", cfg.INPUT.MIN_SIZE_TEST)):
        longest = cfg.INPUT[f"MAX_SIZE_{kind}"]
        if longest < shorter:
            found.append(
                f"INPUT.MAX_SIZE_{kind} {longest} is smaller than the shorter side {shorter} set in INPUT, so the "
                "longer side decides the size of every image."
            )
    return found
