import pytest

from maskrcnn_benchmark.config import cfg, check_values
from maskrcnn_benchmark.config.checks import CHOICES, LEAST
from maskrcnn_benchmark.config.convention import CONVENTIONS


def test_defaults_pass():
    check_values(cfg)


@pytest.mark.parametrize("key", CHOICES)
def test_another_word_is_refused_with_the_choices(key):
    tree = cfg.clone()
    tree.merge_from_list([key, "none_of_these"])
    with pytest.raises(ValueError) as raised:
        check_values(tree)
    text = str(raised.value)
    assert key in text and "none_of_these" in text and all(repr(choice) in text for choice in CHOICES[key])


@pytest.mark.parametrize("key", CHOICES)
def test_every_choice_passes(key):
    for choice in CHOICES[key]:
        tree = cfg.clone()
        tree.merge_from_list([key, choice])
        check_values(tree)


@pytest.mark.parametrize("key", LEAST)
def test_too_small_a_number_is_refused_and_the_least_one_passes(key):
    tree = cfg.clone()
    tree.merge_from_list([key, LEAST[key]])
    check_values(tree)
    tree.merge_from_list([key, LEAST[key] - 1])
    with pytest.raises(ValueError, match=f"{key} is {LEAST[key] - 1}.*should be {LEAST[key]} or more"):
        check_values(tree)


def test_nan_is_no_number():
    tree = cfg.clone()
    tree.merge_from_list(["SOLVER.BASE_LR", "nan"])
    with pytest.raises(ValueError, match="SOLVER.BASE_LR is nan"):
        check_values(tree)


@pytest.mark.parametrize(
    "opts, message",
    [
        (["MODEL.RPN_ONLY", True], "RPN_ONLY"),
        (["MODEL.META_ARCHITECTURE", "PanopticFPN"], "META_ARCHITECTURE 'PanopticFPN'"),
        (["TEST.BBOX_AUG.SCALES", [400, 0]], r"SCALES is \(400, 0\)"),
        (["TEST.BBOX_AUG.SCALES", ["400x600"]], "SCALES is .*400x600"),
    ],
)
def test_test_time_augmentation_that_cannot_run_is_refused(opts, message):
    tree = cfg.clone()
    tree.merge_from_list(opts)
    check_values(tree)
    tree.merge_from_list(["TEST.BBOX_AUG.ENABLED", True])
    with pytest.raises(ValueError, match=message):
        check_values(tree)


@pytest.mark.parametrize("key", ["MODEL.FCOS_ON", "MODEL.RETINANET_ON"])
def test_test_time_augmentation_of_one_stage_detectors_passes(key):
    tree = cfg.clone()
    tree.merge_from_list([key, True, "MODEL.RPN_ONLY", True, "TEST.BBOX_AUG.ENABLED", True])
    check_values(tree)


def test_every_convention_may_be_chosen():
    assert set(CHOICES["MODEL.CONVENTION"]) == set(CONVENTIONS)
