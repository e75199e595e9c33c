import pytest

from maskrcnn_benchmark.config import cfg, check_values
from maskrcnn_benchmark.config.checks import CHOICES, LEAST, NOT_YET


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


@pytest.mark.parametrize("key", NOT_YET)
def test_what_is_not_there_is_refused_and_not_ignored(key):
    tree = cfg.clone()
    tree.merge_from_list([key, not NOT_YET[key]])
    with pytest.raises(ValueError, match=f"{key} is .* not available yet"):
        check_values(tree)
