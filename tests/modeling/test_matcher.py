"""Compare matches with the original, and test edge cases."""

import pytest
import torch

from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.structures.boxes import box_iou


@pytest.mark.parametrize(
    "case, arguments",
    [
        ("rpn_0.7_0.3_lowq", (0.7, 0.3, True)),
        ("roi_0.5_0.5", (0.5, 0.5)),
        ("retinanet_0.5_0.4_lowq", (0.5, 0.4, True)),
    ],
)
def test_matches_equal_the_originals(units, case, arguments):
    overlaps = torch.tensor(units["matcher"]["iou"])
    assert Matcher(*arguments)(overlaps).tolist() == units["matcher"][case]


def test_thresholds_are_inclusive():
    overlaps = torch.tensor([[0.5, 0.4, 0.39]])
    assert Matcher(0.5, 0.4)(overlaps).tolist() == [0, Matcher.BETWEEN_THRESHOLDS, Matcher.BELOW_LOW_THRESHOLD]


def test_low_quality_match_is_the_best_box_of_the_prediction():
    # The best overlap of box 1 is prediction 0, whose own best box is 0.
    overlaps = torch.tensor([[0.6, 0.5], [0.4, 0.1]])
    assert Matcher(0.7, 0.3, True)(overlaps).tolist() == [0, Matcher.BETWEEN_THRESHOLDS]


def test_best_overlap_of_zero_is_a_low_quality_match():
    overlaps = torch.tensor([[0.8, 0.0], [0.0, 0.0]])
    assert Matcher(0.7, 0.3, True)(overlaps).tolist() == [0, 0]


@pytest.mark.parametrize("low_quality", [False, True])
def test_without_boxes_everything_is_background(low_quality):
    matcher = Matcher(0.7, 0.3, low_quality)
    assert matcher(torch.zeros(0, 3)).tolist() == [Matcher.BELOW_LOW_THRESHOLD] * 3
    assert matcher.match_boxes(torch.zeros(0, 4), torch.zeros(3, 4)).tolist() == [Matcher.BELOW_LOW_THRESHOLD] * 3
    assert matcher(torch.zeros(2, 0)).shape == matcher.match_boxes(torch.zeros(2, 4), torch.zeros(0, 4)).shape == (0,)


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("max_pairs", [2**23, 700, 1])
def test_pieces_give_the_same_matches(low_quality, max_pairs, rng_seed, monkeypatch):
    monkeypatch.setattr("maskrcnn_benchmark.modeling.matcher.MAX_PAIRS", max_pairs)
    # integers, so that equal overlaps occur
    corners = torch.randint(0, 30, (400, 2)).float()
    boxes = torch.cat((corners, corners + torch.randint(4, 20, (400, 2))), dim=1)
    boxes, predictions = boxes[:40], boxes[40:]
    matcher = Matcher(0.5, 0.3, low_quality)
    expected = matcher(box_iou(boxes, predictions))
    assert torch.equal(matcher.match_boxes(boxes, predictions), expected)
    assert {-2, -1} < set(expected.tolist())


def test_swapped_thresholds_are_refused():
    with pytest.raises(ValueError, match="IOU_THRESHOLD"):
        Matcher(0.3, 0.7)
