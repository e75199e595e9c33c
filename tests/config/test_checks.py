"""Rules for the values of keys, and for combinations of keys."""

import gzip
import json
import re
from pathlib import Path

import pytest

from maskrcnn_benchmark.config import CfgNode, cfg, check_values, combinations, notes
from maskrcnn_benchmark.config.accepted_keys import WITHOUT_EFFECT
from maskrcnn_benchmark.config.checks import CHOICES
from maskrcnn_benchmark.config.convention import CONVENTIONS
from maskrcnn_benchmark.config.rules import RULES

ROOT = Path(__file__).resolve().parents[2]
FORKS = json.loads(gzip.decompress((ROOT / "tests" / "golden" / "configs.json.gz").read_bytes()))["configs"]
# Free text, or checked when merged.
UNCHECKED = {"DATASETS.TRAIN", "DATASETS.TEST"}


def leaves(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, CfgNode):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def changed(*opts):
    tree = cfg.clone()
    tree.merge_from_list(list(opts))
    return tree


def test_defaults_pass():
    check_values(cfg)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_passes_without_a_note(path):
    tree = cfg.clone()
    tree.merge_from_file(path)
    check_values(tree, is_train=True)
    assert notes(tree, cfg) == []


def test_every_config_of_the_forks_passes():
    for entry in FORKS:
        tree = changed(*(item for pair in entry["overrides"].items() for item in pair))
        check_values(tree, is_train=True)


def test_every_number_and_list_has_a_rule():
    """A new key requires a rule in config/rules.py, or an entry of CHOICES in checks.py."""
    keys = {key for key, value in leaves(cfg) if not isinstance(value, (bool, str))}
    assert keys - RULES.keys() - CHOICES.keys() - WITHOUT_EFFECT.keys() == UNCHECKED
    assert RULES.keys() | CHOICES.keys() | WITHOUT_EFFECT.keys() <= dict(leaves(cfg)).keys()


def test_every_key_is_read_somewhere_or_listed_as_without_effect():
    """A key counts as read if a file has its name, and its section's name or a section selected by a variable."""
    sources = [path for folder in ("maskrcnn_benchmark", "tools") for path in (ROOT / folder).rglob("*.py")]
    texts = [path.read_text() for path in sources if path.parent.name != "config"]
    words = [set(re.findall(r"(?<=[.\"'])[A-Z][A-Z0-9_]*\b", text)) for text in texts]
    chosen = [bool(re.search(r"cfg\.MODEL\[", text)) for text in texts]
    unread = []
    for key, _ in leaves(cfg):
        *sections, leaf = key.split(".")
        found = [
            leaf in named and (not sections or sections[-1] in named or by_variable)
            for named, by_variable in zip(words, chosen, strict=True)
        ]
        if not any(found):
            unread.append(key)
    assert set(unread) <= WITHOUT_EFFECT.keys(), "read these keys, or list them in config/accepted_keys.py"
    assert all(WITHOUT_EFFECT.values())


# ---- one key


@pytest.mark.parametrize("key", CHOICES)
def test_an_unknown_choice_is_refused_with_the_valid_ones(key):
    wrong = "none_of_these" if isinstance(CHOICES[key][0], str) else 10**6
    with pytest.raises(ValueError) as raised:
        check_values(changed(key, wrong))
    text = str(raised.value)
    assert key in text and str(wrong) in text and all(repr(choice) in text for choice in CHOICES[key])


@pytest.mark.parametrize("key", CHOICES)
def test_every_choice_passes(key):
    for choice in CHOICES[key]:
        check_values(changed(key, choice))


TOP_N = sorted(key for key, _ in leaves(cfg) if "TOP_N" in key or "DETECTIONS_PER_IMG" in key)
NMS = ["MODEL.FCOS.NMS_TH", "MODEL.RETINANET.NMS_TH", "MODEL.RPN.NMS_THRESH", "MODEL.ROI_HEADS.NMS"]
GOOD = {
    **dict.fromkeys(TOP_N, (-1, 0, 1, 10**9)),
    **dict.fromkeys(NMS, (-1, 0, 0.5, 1)),
    "MODEL.FCOS.NUM_CLASSES": (-1, 2),
    "MODEL.RPN.STRADDLE_THRESH": (-1, 0, 10),
    "MODEL.BACKBONE.FREEZE_CONV_BODY_AT": (-1, 0, 18),
    "MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS_THRESHOLD": (-1, 0, 0.5),
    "SOLVER.STEPS": ([], [5], [5, 5, 9]),
    "SOLVER.WEIGHT_DECAY_NORM": (-1, 0, 0.1),
    "INPUT.MIN_SIZE_RANGE_TRAIN": ([-1, -1], [640, 800], [640, 640]),
    "TEST.EXPECTED_RESULTS": ([], [["bbox", "AP", [0.38, 0.002]]]),
}
BAD = {
    **dict.fromkeys(TOP_N, (-2, -1000)),
    **dict.fromkeys(NMS, (1.5, 50, "nan")),
    "SEED": (-1, 2**64),
    "MODEL.FCOS.NUM_CLASSES": (-2, 0, 1),
    "MODEL.ROI_BOX_HEAD.NUM_CLASSES": (0, 1),
    "MODEL.FCOS.INFERENCE_TH": (-0.1, 1.1),
    "MODEL.FCOS.PRIOR_PROB": (0, 1),
    "MODEL.FCOS.FPN_STRIDES": ([], [16, 8, 32, 64, 128], [0, 8, 16, 32, 64], [8.5, 16, 32, 64, 128]),
    "MODEL.RPN.ANCHOR_SIZES": ([], [0], [-32]),
    "MODEL.RPN.ASPECT_RATIOS": ([], [0.5, 0]),
    "MODEL.RPN.STRADDLE_THRESH": (-2,),
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": (0, -1),
    "MODEL.RPN.POSITIVE_FRACTION": (-0.1, 1.5),
    "MODEL.RPN.MIN_SIZE": (-1,),
    "MODEL.RPN.FG_IOU_THRESHOLD": (-0.1, 1.5),
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": (0,),
    "MODEL.ROI_HEADS.BBOX_REG_WEIGHTS": ([10, 10, 5], [10, 10, 5, 0]),
    "MODEL.ROI_HEADS.SCORE_THRESH": (-0.01, 5),
    "MODEL.CASCADE.BBOX_REG_WEIGHTS": ([[1, 1, 1]], [[1, 1, 1, 0]]),
    "MODEL.ROI_BOX_HEAD.POOLER_SCALES": ([], [0]),
    "MODEL.ROI_MASK_HEAD.CONV_LAYERS": ([], [0]),
    "MODEL.RESNETS.STAGE_WITH_DCN": ([True], [True] * 5),
    "MODEL.VOVNET.STEM_CHANNELS": ([16], ["a", "b", "c"]),
    "MODEL.VOVNET.BLOCKS_PER_STAGE": ([1, 1, 1], [1, 1, 1, 0]),
    "INPUT.MIN_SIZE_TRAIN": ([], [0], [800, 0]),
    "INPUT.MIN_SIZE_RANGE_TRAIN": ([800, 640], [800], [0, 800]),
    "INPUT.MIN_SIZE_TEST": (0, -1),
    "INPUT.MAX_SIZE_TRAIN": (0,),
    "INPUT.MAX_SIZE_TEST": (0,),
    "INPUT.PIXEL_MEAN": ([1, 2], [1, 2, "nan"]),
    "INPUT.PIXEL_STD": ([1, 1, 0], [1, 1], [1], [1, 1, 1, 1], [1, 1, -1]),
    "INPUT.HUE": (-0.1, 0.6),
    "INPUT.BRIGHTNESS": (-0.1,),
    "INPUT.HORIZONTAL_FLIP_PROB_TRAIN": (-0.1, 1.1, 50),
    "INPUT.VERTICAL_FLIP_PROB_TRAIN": (1.1,),
    "SOLVER.STEPS": ([30, 20], [-1, 5], [5.5]),
    "SOLVER.BASE_LR": (-1, "nan", "inf"),
    "SOLVER.MOMENTUM": (-0.1, 1),
    "SOLVER.BETAS": ([0.9], [0.9, 1.0]),
    "SOLVER.WEIGHT_DECAY": (-0.1,),
    "SOLVER.WEIGHT_DECAY_NORM": (-0.5,),
    "SOLVER.MAX_ITER": (0,),
    "SOLVER.IMS_PER_BATCH": (0,),
    "SOLVER.CHECKPOINT_PERIOD": (0,),
    "DATALOADER.NUM_WORKERS": (-1,),
    "TEST.IMS_PER_BATCH": (0,),
    "TEST.EXPECTED_RESULTS": ([["bbox", "AP"]], [["bbox", "AP", 0.38]], ["bbox"]),
    "TEST.BBOX_AUG.SCALES": ([400, 0], ["400x600"]),
}


@pytest.mark.parametrize("key, value", [(key, value) for key, values in GOOD.items() for value in values])
def test_a_good_value_passes(key, value):
    check_values(changed(key, value))


@pytest.mark.parametrize("key, value", [(key, value) for key, values in BAD.items() for value in values])
def test_an_invalid_value_names_key_value_and_valid_values(key, value):
    with pytest.raises(ValueError) as raised:
        check_values(changed(key, value))
    assert re.match(re.escape(key) + r" is .+; it should be (a|an|\() ?.+\.$", str(raised.value))
    assert str(value) in str(raised.value) or isinstance(value, list)


def test_messages_name_the_range():
    for opts, text in (
        (["MODEL.RPN.NMS_THRESH", 1.5], "MODEL.RPN.NMS_THRESH is 1.5; it should be a number of 1 or less."),
        (["MODEL.FCOS.PRE_NMS_TOP_N", -2], "it should be a whole number of -1 or more."),
        (["MODEL.FCOS.PRIOR_PROB", 1], "it should be a number above 0 and below 1."),
        (["MODEL.FCOS.NUM_CLASSES", 0], "it should be a whole number of 2 or more, or -1."),
        (["INPUT.PIXEL_STD", [1, 1, 0]], "it should be a list of 3 entries, each a number above 0."),
        (["SOLVER.STEPS", [3, 2]], "SOLVER.STEPS is (3, 2); it should be a sorted list of one or more entries"),
        (["INPUT.HORIZONTAL_FLIP_PROB_TRAIN", 2], "it should be a number from 0 to 1."),
    ):
        with pytest.raises(ValueError) as raised:
            check_values(changed(*opts))
        assert text in str(raised.value)


def test_a_long_value_is_shortened_in_the_message():
    with pytest.raises(ValueError) as raised:
        check_values(changed("SOLVER.STEPS", list(range(100_000, 0, -1))))
    assert len(str(raised.value)) < 500


# ---- combinations of keys

FCOS = ("MODEL.FCOS_ON", True, "MODEL.RPN_ONLY", True)
CENTERMASK = (*FCOS, "MODEL.FCOS_MASK", True, "MODEL.CONVENTION", "centermask")
TTA = ("TEST.BBOX_AUG.ENABLED", True)
KEYPOINTS = ("MODEL.KEYPOINT_ON", True, "MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES", 5)


@pytest.mark.parametrize(
    "opts, message",
    [
        (["MODEL.FCOS_MASK", True], "MODEL.FCOS_MASK is True and MODEL.FCOS_ON False"),
        (
            [*FCOS, "MODEL.FCOS_MASK", True, "MODEL.MASK_ON", True],
            "FEATURE_EXTRACTOR 'ResNet50Conv5ROIFeatureExtractor' is a",
        ),
        ([*FCOS, "MODEL.FCOS_MASK", True, "MODEL.CASCADE_ON", True], "MODEL.CASCADE_ON and MODEL.FCOS_MASK are True"),
        (["MODEL.MASKIOU_ON", True], "MODEL.MASKIOU_ON is True and MODEL.MASK_ON False"),
        (["MODEL.MASKIOU_ON", True, "MODEL.MASK_ON", True], "MASKIOU_ON is True, but the mask head has no pooled"),
        (
            ["MODEL.MASKIOU_ON", True, "MODEL.MASK_ON", True, "MODEL.CASCADE_ON", True],
            "a cascade's masks are not scored",
        ),
        ([*FCOS, "MODEL.RETINANET_ON", True], "FCOS_ON and MODEL.RETINANET_ON are both True"),
        ([*FCOS, "MODEL.MASK_ON", True], "MODEL.MASK_ON is True and MODEL.FCOS_ON and RPN_ONLY too"),
        (["MODEL.RETINANET_ON", True, "MODEL.CASCADE_ON", True], "CASCADE_ON and MODEL.RETINANET_ON are both True"),
        (["MODEL.CASCADE_ON", True, "MODEL.KEYPOINT_ON", True], "a cascade has no keypoint head"),
        (["MODEL.CASCADE_ON", True, "MODEL.CASCADE.LOSS_WEIGHTS", [1]], "3 IOU_THRESHOLDS.*1 LOSS_WEIGHTS"),
        ([*FCOS, "MODEL.FCOS.FPN_STRIDES", [8, 16]], r"FPN_STRIDES is \[8, 16\] and MODEL.FCOS.SIZES_OF_INTEREST"),
        (["MODEL.RETINANET_ON", True, "MODEL.RETINANET.ANCHOR_SIZES", [32]], "ANCHOR_SIZES.*1 and 5 entries"),
        (["MODEL.RPN.USE_FPN", True], "ANCHOR_SIZES.*ANCHOR_STRIDE.*5 and 1 entries.*one entry per level"),
        (["MODEL.RPN.ANCHOR_STRIDE", [8, 16]], "without MODEL.RPN.USE_FPN there is only one map"),
        (["MODEL.RPN.BG_IOU_THRESHOLD", 0.8], "MODEL.RPN.BG_IOU_THRESHOLD is 0.8 and FG_IOU_THRESHOLD 0.7"),
        (["MODEL.ROI_HEADS.FG_IOU_THRESHOLD", 0.4], "MODEL.ROI_HEADS.BG_IOU_THRESHOLD"),
        (["MODEL.GROUP_NORM.DIM_PER_GP", 8], "DIM_PER_GP is 8 and NUM_GROUPS 32"),
        (["MODEL.GROUP_NORM.NUM_GROUPS", -1], "DIM_PER_GP is -1 and NUM_GROUPS -1"),
        ([*TTA, "MODEL.RPN_ONLY", True], "RPN_ONLY"),
        ([*TTA, "MODEL.META_ARCHITECTURE", "PanopticFPN"], "META_ARCHITECTURE 'PanopticFPN'"),
    ],
)
def test_invalid_combinations_of_keys_are_named(opts, message):
    with pytest.raises(ValueError, match=message):
        check_values(changed(*opts))


def test_targets_of_another_size_than_the_masks_are_refused_for_training():
    mask = "MODEL.ROI_MASK_HEAD"
    tree = changed("MODEL.MASK_ON", True, f"{mask}.SHARE_BOX_FEATURE_EXTRACTOR", False)
    tree.merge_from_list([f"{mask}.FEATURE_EXTRACTOR", "MaskRCNNFPNFeatureExtractor"])
    check_values(tree)
    with pytest.raises(ValueError, match="RESOLUTION is 14.*Set RESOLUTION to 28"):
        check_values(tree, is_train=True)
    tree.merge_from_list([f"{mask}.RESOLUTION", 28])
    check_values(tree, is_train=True)


def test_a_batch_norm_over_the_mean_of_one_image_is_refused_for_training():
    tree = changed("MODEL.META_ARCHITECTURE", "SemanticSegmentor", "MODEL.DEEPLAB.NORM", "BN")
    tree.merge_from_list(["SOLVER.IMS_PER_BATCH", 4, "SOLVER.ACCUMULATION_STEPS", 4])
    check_values(tree)
    with pytest.raises(ValueError, match="IMS_PER_BATCH is 4 and ACCUMULATION_STEPS 4: one image per step.*'BN'"):
        check_values(tree, is_train=True)
    for change in (["MODEL.DEEPLAB.NORM", "GN"], ["SOLVER.ACCUMULATION_STEPS", 2]):
        allowed = tree.clone()
        allowed.merge_from_list(change)
        check_values(allowed, is_train=True)


@pytest.mark.parametrize("norm, refused", [("BN", True), ("SyncBN", False)])
def test_images_per_batch_norm_are_counted_per_process_but_for_synchronized_ones(monkeypatch, norm, refused):
    monkeypatch.setattr(combinations, "get_world_size", lambda: 2)
    tree = changed("MODEL.META_ARCHITECTURE", "SemanticSegmentor", "MODEL.DEEPLAB.NORM", norm)
    tree.merge_from_list(["SOLVER.IMS_PER_BATCH", 2])
    assert (combinations.images_per_batch_norm(tree) is not None) == refused


@pytest.mark.parametrize(
    "opts",
    [
        [*FCOS, *TTA],
        ["MODEL.FCOS_ON", True],  # in RPN's place
        [*FCOS, "MODEL.FCOS_MASK", True, *KEYPOINTS],
        ["MODEL.RETINANET_ON", True, "MODEL.RPN_ONLY", True, *TTA],
        ["MODEL.META_ARCHITECTURE", "PanopticFPN"],
        ["MODEL.RPN_ONLY", True],
        [*TTA, *KEYPOINTS],
        [*TTA, *KEYPOINTS, "TEST.BBOX_AUG.SCALE_H_FLIP", True],
        ["MODEL.FCOS.FPN_STRIDES", [8, 16]],  # of a head that is not used
        ["MODEL.GROUP_NORM.DIM_PER_GP", 8, "MODEL.GROUP_NORM.NUM_GROUPS", -1],
    ],
)
def test_valid_combinations_of_keys_pass(opts):
    check_values(changed(*opts))


def test_every_convention_passes():
    assert set(CHOICES["MODEL.CONVENTION"]) == set(CONVENTIONS)


# ---- settings without effect


@pytest.mark.parametrize(
    "opts, note",
    [
        (["MODEL.VOVNET.PRETRAINED", "a.pth"], "MODEL.VOVNET.PRETRAINED 'a.pth' has no effect: .*MODEL.WEIGHT"),
        (["SOLVER.OPTIMIZER", "AdamW", "SOLVER.MOMENTUM", 0.5], "MOMENTUM 0.5 has no effect with SOLVER.OPTIMIZER 'Ad"),
        (["SOLVER.BETAS", [0.5, 0.9]], r"SOLVER.BETAS \(0.5, 0.9\) has no effect with SOLVER.OPTIMIZER 'SGD'"),
        (["SOLVER.LR_SCHEDULER", "cosine", "SOLVER.GAMMA", 0.5], "GAMMA 0.5 has no effect"),
        (["TEST.DETECTIONS_PER_IMG", 300], "TEST.DETECTIONS_PER_IMG 300 has no effect.*ROI_HEADS.DETECTIONS_PER_IMG"),
        ([*FCOS, "MODEL.ROI_HEADS.DETECTIONS_PER_IMG", 300], "ROI_HEADS.DETECTIONS_PER_IMG 300 has no effect"),
        ([*FCOS, "MODEL.ROI_HEADS.SCORE_THRESH", 0.3], "SCORE_THRESH 0.3 has no effect: .*MODEL.FCOS.INFERENCE_TH"),
        ([*FCOS, "MODEL.FCOS_MASK", True, "MODEL.ROI_HEADS.NMS", 0.4], "ROI_HEADS.NMS 0.4 has .*MODEL.FCOS.NMS_TH"),
        (
            [*CENTERMASK, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 64],
            "BATCH_SIZE_PER_IMAGE 64 has no effect: with MODEL.CONVENTION 'centermask'",
        ),
        (["MODEL.RPN_ONLY", True, "MODEL.MASK_ON", True], "MODEL.MASK_ON True has no effect with MODEL.RPN_ONLY"),
        (["INPUT.MAX_SIZE_TRAIN", 600], "MAX_SIZE_TRAIN 600 is smaller than the shorter side 800"),
        (["INPUT.MAX_SIZE_TEST", 600], "MAX_SIZE_TEST 600 is smaller than the shorter side 800"),
    ],
)
def test_a_setting_without_effect_is_noted(opts, note):
    tree = changed(*opts)
    check_values(tree)
    (found,) = notes(tree, cfg)
    assert re.search(note, found)


def test_the_defaults_have_no_note():
    assert notes(cfg, cfg) == []
