"""Rules for the values of config keys.

A rule returns None for a valid value, else a description of valid values ("a number from 0 to 1"). checks.py applies
RULES.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable

Rule = Callable[[object], "str | None"]


def number(least: float = -math.inf, most: float = math.inf, *, above=None, below=None, or_value=None) -> Rule:
    """Accept finite numbers from `least` to `most`, more than `above` and less than `below`, or equal to `or_value`."""
    return _number("a number", least, most, above, below, or_value, lambda value: isinstance(value, numbers.Real))


def whole(least: float = -math.inf, most: float = math.inf, *, or_value=None) -> Rule:
    """Accept whole numbers from `least` to `most`, or equal to `or_value`."""
    return _number("a whole number", least, most, None, None, or_value, _is_whole)


def _number(kind, least, most, above, below, or_value, is_kind):
    limits = []
    if least > -math.inf and most < math.inf:
        limits.append(f"from {least:g} to {most:g}")
    elif least > -math.inf:
        limits.append(f"of {least:g} or more")
    elif most < math.inf:
        limits.append(f"of {most:g} or less")
    limits += [f"{word} {limit:g}" for word, limit in (("above", above), ("below", below)) if limit is not None]
    wanted = " ".join([kind, " and ".join(limits)]).strip()
    if or_value is not None:
        wanted += f", or {or_value:g}"

    def check(value):
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not is_kind(value):
            return wanted
        good = math.isfinite(value) and least <= value <= most
        good = good and (above is None or value > above) and (below is None or value < below)
        return None if good or (or_value is not None and value == or_value) else wanted

    return check


def _is_whole(value) -> bool:
    return math.isfinite(value) and int(value) == value


def flag(value) -> str | None:
    """Accept True and False; for entries of lists."""
    return None if isinstance(value, bool) else "True or False"


def entries(rule: Rule, *, length: int | None = None, or_empty: bool = False, ascending: bool = False) -> Rule:
    """Accept lists with entries that pass a rule.

    Args:
        rule: rule for each entry.
        length: number of entries; None = one or more.
        or_empty: also accept the empty list.
        ascending: require that no entry is smaller than the one before it.
    """
    count = "one or more entries" if length is None else f"{length} entries"
    wanted = f"a {'sorted ' * ascending}list of {count}" + ", or an empty one" * or_empty

    def check(value):
        if not isinstance(value, (list, tuple)):
            return wanted
        if not value:
            return None if or_empty else wanted
        if length is not None and len(value) != length:
            return wanted
        for entry in value:
            if (problem := rule(entry)) is not None:
                return f"{wanted}, each {problem}"
        if ascending and any(second < first for first, second in zip(value, value[1:], strict=False)):
            return wanted
        return None

    return check


def size_range(value) -> str | None:
    """Accept (smallest, largest) size, (-1, -1), or an empty list."""
    if isinstance(value, (list, tuple)) and (not value or tuple(value) == (-1, -1)):
        return None
    if entries(whole(1), length=2)(value) is None and value[0] <= value[1]:
        return None
    return "(smallest, largest) in pixels, or (-1, -1) to use MIN_SIZE_TRAIN"


def expected_results(value) -> str | None:
    """Accept lists of [task, metric, [mean, std]]."""
    wanted = "a list of entries [task, metric, [mean, std]], for example ['bbox', 'AP', [0.38, 0.002]]"
    for entry in value:
        good = isinstance(entry, (list, tuple)) and len(entry) == 3
        good = good and all(isinstance(name, str) for name in entry[:2])
        if not good or entries(number(), length=2)(entry[2]) is not None:
            return wanted
    return None


def pairs_or_none(value) -> str | None:
    """Accept None, and lists of pairs of names or numbers."""
    good = value is None or isinstance(value, (list, tuple))
    for pair in value or ():
        good = good and isinstance(pair, (list, tuple)) and len(pair) == 2
        good = good and all(isinstance(each, (str, int)) and not isinstance(each, bool) for each in pair)
    return None if good else "a list of pairs of names or numbers from 0, such as [[left_eye, right_eye]], or []"


# Counts: 0 and -1 mean no limit. NMS thresholds: 0 or less disables suppression.
TOP_N = whole(-1)
NMS = number(most=1)
FRACTION = number(0, 1)
POSITIVE = number(above=0)
AT_LEAST_0 = number(0)
COUNT = whole(1)
COUNT_OR_0 = whole(0)
NUM_CLASSES = whole(2, or_value=-1)
SIZES = entries(POSITIVE)
PER_STAGE = entries(COUNT, length=4, or_empty=True)

_POOLER = {"POOLER_RESOLUTION": COUNT, "POOLER_SAMPLING_RATIO": whole(-1), "POOLER_SCALES": SIZES}
_TWO_THRESHOLDS = {"FG_IOU_THRESHOLD": FRACTION, "BG_IOU_THRESHOLD": FRACTION}
_FOCAL = {"LOSS_ALPHA": FRACTION, "LOSS_GAMMA": AT_LEAST_0, "PRIOR_PROB": number(above=0, below=1)}
_SAMPLING = {"BATCH_SIZE_PER_IMAGE": COUNT, "POSITIVE_FRACTION": FRACTION}

_SECTIONS = {
    "": {"SEED": whole(0, 2**63 - 1)},
    "MODEL": {"MASKIOU_LOSS_WEIGHT": AT_LEAST_0},
    "MODEL.BACKBONE": {
        "FREEZE_CONV_BODY_AT": whole(-1),
        "NORM_EPS": number(0, or_value=-1),
        "NORM_MOMENTUM": FRACTION,
    },
    "MODEL.GROUP_NORM": {
        "DIM_PER_GP": whole(1, or_value=-1),
        "NUM_GROUPS": whole(1, or_value=-1),
        "EPSILON": POSITIVE,
    },
    "MODEL.RESNETS": {
        "NUM_GROUPS": COUNT,
        "WIDTH_PER_GROUP": COUNT,
        "RES5_DILATION": COUNT,
        "BACKBONE_OUT_CHANNELS": COUNT,
        "RES2_OUT_CHANNELS": COUNT,
        "STEM_OUT_CHANNELS": COUNT,
        "STAGE_WITH_DCN": entries(flag, length=4),
        "DEFORMABLE_GROUPS": COUNT,
    },
    "MODEL.VOVNET": {
        "OUT_CHANNELS": COUNT,
        "BACKBONE_OUT_CHANNELS": COUNT,
        "STEM_CHANNELS": entries(COUNT, length=3, or_empty=True),
        "STAGE_CONV_CHANNELS": PER_STAGE,
        "STAGE_OUT_CHANNELS": PER_STAGE,
        "BLOCKS_PER_STAGE": PER_STAGE,
        "LAYERS_PER_BLOCK": COUNT_OR_0,
        "STAGE_WITH_DCN": entries(flag, length=4),
        "DEFORMABLE_GROUPS": COUNT,
    },
    "MODEL.FCOS": {
        "NUM_CLASSES": NUM_CLASSES,
        "FPN_STRIDES": entries(COUNT, ascending=True),
        "SIZES_OF_INTEREST": entries(POSITIVE, or_empty=True, ascending=True),
        "INFERENCE_TH": FRACTION,
        "NMS_TH": NMS,
        "PRE_NMS_TOP_N": TOP_N,
        "POST_NMS_TOP_N_TRAIN": TOP_N,
        "NUM_CONVS": COUNT_OR_0,
        "TOWER_CHANNELS": COUNT_OR_0,
        "CENTER_SAMPLING_RADIUS": AT_LEAST_0,
        **_FOCAL,
    },
    "MODEL.RETINANET": {
        "NUM_CLASSES": NUM_CLASSES,
        "ANCHOR_SIZES": SIZES,
        "ASPECT_RATIOS": SIZES,
        "ANCHOR_STRIDES": entries(COUNT, ascending=True),
        "STRADDLE_THRESH": number(-1),
        "OCTAVE": POSITIVE,
        "SCALES_PER_OCTAVE": COUNT,
        "NUM_CONVS": COUNT_OR_0,
        "BBOX_REG_WEIGHT": POSITIVE,
        "BBOX_REG_BETA": AT_LEAST_0,
        "PRE_NMS_TOP_N": TOP_N,
        "INFERENCE_TH": FRACTION,
        "NMS_TH": NMS,
        **_TWO_THRESHOLDS,
        **_FOCAL,
    },
    "MODEL.RPN": {
        "ANCHOR_SIZES": SIZES,
        "ANCHOR_STRIDE": entries(COUNT, ascending=True),
        "ASPECT_RATIOS": SIZES,
        "STRADDLE_THRESH": number(-1),
        "PRE_NMS_TOP_N_TRAIN": TOP_N,
        "PRE_NMS_TOP_N_TEST": TOP_N,
        "POST_NMS_TOP_N_TRAIN": TOP_N,
        "POST_NMS_TOP_N_TEST": TOP_N,
        "FPN_POST_NMS_TOP_N_TRAIN": TOP_N,
        "FPN_POST_NMS_TOP_N_TEST": TOP_N,
        "NMS_THRESH": NMS,
        "MIN_SIZE": AT_LEAST_0,
        **_TWO_THRESHOLDS,
        **_SAMPLING,
    },
    "MODEL.ROI_HEADS": {
        "BBOX_REG_WEIGHTS": entries(POSITIVE, length=4),
        "SCORE_THRESH": FRACTION,
        "NMS": NMS,
        "DETECTIONS_PER_IMG": TOP_N,
        **_TWO_THRESHOLDS,
        **_SAMPLING,
    },
    "MODEL.CASCADE": {
        "IOU_THRESHOLDS": entries(FRACTION),
        "BBOX_REG_WEIGHTS": entries(entries(POSITIVE, length=4)),
        "LOSS_WEIGHTS": entries(AT_LEAST_0),
    },
    "MODEL.ROI_BOX_HEAD": {
        "NUM_CLASSES": NUM_CLASSES,
        "MLP_HEAD_DIM": COUNT,
        "DILATION": COUNT,
        "CONV_HEAD_DIM": COUNT,
        "NUM_STACKED_CONVS": COUNT_OR_0,
        **_POOLER,
    },
    "MODEL.ROI_MASK_HEAD": {
        "MLP_HEAD_DIM": COUNT,
        "CONV_LAYERS": entries(COUNT),
        "RESOLUTION": COUNT,
        "POSTPROCESS_MASKS_THRESHOLD": number(0, 1, or_value=-1),
        "DILATION": COUNT,
        **_POOLER,
    },
    "MODEL.ROI_MASKIOU_HEAD": {"CONV_LAYERS": entries(COUNT)},
    "MODEL.ROI_KEYPOINT_HEAD": {
        "MLP_HEAD_DIM": COUNT,
        "CONV_LAYERS": entries(COUNT),
        "RESOLUTION": COUNT,
        "NUM_CLASSES": COUNT,
        **_POOLER,
    },
    "MODEL.SEM_SEG_HEAD": {
        "NUM_CLASSES": NUM_CLASSES,
        "CONVS_DIM": COUNT,
        "LOSS_WEIGHT": AT_LEAST_0,
        "CLASS_WEIGHTS": entries(POSITIVE, or_empty=True),
        "HARD_PROBABILITY": FRACTION,
        "HARD_FRACTION": FRACTION,
    },
    "MODEL.DEEPLAB": {
        "CHANNELS": COUNT,
        "RATES": entries(COUNT, length=3),
        "DROPOUT": number(0, below=1),
        "NORM_EPS": AT_LEAST_0,
        "NORM_MOMENTUM": FRACTION,
        "DECODER_LOW_LEVEL_CHANNELS": COUNT,
    },
    "MODEL.PANOPTIC_FPN": {"INSTANCE_LOSS_WEIGHT": AT_LEAST_0},
    "MODEL.PANOPTIC_FPN.COMBINE": {
        "INSTANCES_CONFIDENCE_THRESH": FRACTION,
        "OVERLAP_THRESH": FRACTION,
        "STUFF_AREA_LIMIT": AT_LEAST_0,
    },
    "INPUT": {
        "MIN_SIZE_TRAIN": entries(COUNT),
        "MIN_SIZE_RANGE_TRAIN": size_range,
        "MAX_SIZE_TRAIN": COUNT,
        "MIN_SIZE_TEST": COUNT,
        "MAX_SIZE_TEST": COUNT,
        "PIXEL_MEAN": entries(number(), length=3),
        "PIXEL_STD": entries(POSITIVE, length=3),
        "BRIGHTNESS": AT_LEAST_0,
        "CONTRAST": AT_LEAST_0,
        "SATURATION": AT_LEAST_0,
        "HUE": number(0, 0.5),
        "HORIZONTAL_FLIP_PROB_TRAIN": FRACTION,
        "VERTICAL_FLIP_PROB_TRAIN": FRACTION,
        "KEYPOINT_FLIP_PAIRS": pairs_or_none,
        "VALUE_RANGE": entries(number(), length=2, or_empty=True, ascending=True),
    },
    "INPUT.SEMANTIC": {
        "SCALE_RANGE_TRAIN": entries(POSITIVE, length=2, ascending=True),
        "CROP_SIZE_TRAIN": entries(COUNT, length=2, or_empty=True),
        "CROP_MAX_CLASS_SHARE": number(most=1, above=0),
    },
    "DATASETS": {"MIN_VISIBLE_KEYPOINTS": whole(-1), "KEYPOINT_SIGMAS": entries(POSITIVE, or_empty=True)},
    "DATALOADER": {"NUM_WORKERS": COUNT_OR_0, "SIZE_DIVISIBILITY": COUNT_OR_0, "TIMEOUT": AT_LEAST_0},
    "SOLVER": {
        "MAX_ITER": COUNT,
        "BASE_LR": AT_LEAST_0,
        "BIAS_LR_FACTOR": AT_LEAST_0,
        "DCONV_OFFSETS_LR_FACTOR": AT_LEAST_0,
        "HEAD_LR_FACTOR": AT_LEAST_0,
        "MOMENTUM": number(0, below=1),
        "BETAS": entries(number(0, below=1), length=2),
        "WEIGHT_DECAY": AT_LEAST_0,
        "WEIGHT_DECAY_BIAS": AT_LEAST_0,
        "WEIGHT_DECAY_NORM": number(0, or_value=-1),
        "GAMMA": AT_LEAST_0,
        "STEPS": entries(COUNT_OR_0, or_empty=True, ascending=True),
        "POLY_POWER": AT_LEAST_0,
        "WARMUP_FACTOR": AT_LEAST_0,
        "WARMUP_ITERS": COUNT_OR_0,
        "CLIP_GRADIENTS": AT_LEAST_0,
        "IMS_PER_BATCH": COUNT,
        "ACCUMULATION_STEPS": COUNT,
        "CHECKPOINT_MINUTES": AT_LEAST_0,
        "CHECKPOINT_PERIOD": COUNT,
        "TEST_PERIOD": COUNT_OR_0,
    },
    "TEST": {
        "EXPECTED_RESULTS": expected_results,
        "EXPECTED_RESULTS_SIGMA_TOL": AT_LEAST_0,
        "IMS_PER_BATCH": COUNT,
        "DETECTIONS_PER_IMG": TOP_N,
    },
    "TEST.SEMANTIC": {
        "WHOLE_MAX_PIXELS": COUNT_OR_0,
        "PAD_TO": entries(COUNT, length=2, or_empty=True),
        "WINDOW": entries(COUNT, length=2),
        "OVERLAP": number(0, below=1),
        "SCALES": SIZES,
    },
    "TEST.BBOX_AUG": {"SCALES": entries(COUNT, or_empty=True), "MAX_SIZE": COUNT},
}

RULES: dict[str, Rule] = {
    f"{section}.{key}".lstrip("."): rule for section, rules in _SECTIONS.items() for key, rule in rules.items()
}
