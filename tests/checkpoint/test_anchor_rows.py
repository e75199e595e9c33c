"""Reordering of anchors: detectron2 numbers those of a cell sizes outside, ratios inside; we number them in reverse."""

import math

import pytest
import torch

from maskrcnn_benchmark.checkpoint.anchor_rows import count_ratios, ratios_of
from maskrcnn_benchmark.checkpoint.matching import load_state_dict
from maskrcnn_benchmark.checkpoint.translation import convert_state_dict, to_ours
from maskrcnn_benchmark.modeling.rpn.anchor_generator import AnchorGenerator
from maskrcnn_benchmark.modeling.rpn.rpn import RPNHead

SIZES, RATIOS = (32, 64, 128, 256, 512), (0.5, 1.0, 2.0)
STRIDE, CHANNELS = 16, 4
DETECTRON2 = {"rounding": "none", "at_cell_center": False, "box_offset": 0.0}
CONVENTIONS = {
    "detectron2": DETECTRON2,
    "maskrcnn_benchmark": {"rounding": "sides", "at_cell_center": True, "box_offset": 1.0},
    "mmdetection": {"rounding": "corners", "at_cell_center": True, "box_offset": 1.0},
}


class RPN(torch.nn.Module):
    def __init__(self, sizes=SIZES, ratios=RATIOS, convention="detectron2"):
        super().__init__()
        self.rpn = torch.nn.Module()
        self.rpn.anchor_generator = AnchorGenerator(sizes, ratios, (STRIDE,), -1, **CONVENTIONS[convention])
        self.rpn.head = RPNHead(CHANNELS, len(sizes) * len(ratios))


def anchors_by_hand(sizes, ratios):
    """Return detectron2's cell anchors in its order."""
    anchors = []
    for size in sizes:
        for ratio in ratios:
            width = math.sqrt(size**2 / ratio)
            height = width * ratio
            anchors.append((-width / 2, -height / 2, width / 2, height / 2))
    return torch.tensor(anchors)


def rpn_of_detectron2(count):
    head = "proposal_generator.rpn_head"
    return {
        "backbone.res2.0.conv1.weight": torch.rand(2, 2, 1, 1),
        f"{head}.conv.weight": torch.randn(CHANNELS, CHANNELS, 3, 3),
        f"{head}.conv.bias": torch.randn(CHANNELS),
        f"{head}.objectness_logits.weight": torch.randn(count, CHANNELS, 1, 1),
        f"{head}.objectness_logits.bias": torch.randn(count),
        f"{head}.anchor_deltas.weight": torch.randn(4 * count, CHANNELS, 1, 1),
        f"{head}.anchor_deltas.bias": torch.randn(4 * count),
    }


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(
    ("sizes", "ratios"), [(SIZES, RATIOS), (SIZES[:2], (1.0, 2.0)), (SIZES[:3], (0.5, 1.0, 1.5, 3.0)), ((64,), RATIOS)]
)
def test_every_anchor_of_a_detectron2_file_keeps_its_score_and_deltas(rng_seed, convention, sizes, ratios):
    by_hand = anchors_by_hand(sizes, ratios)
    theirs = rpn_of_detectron2(len(by_hand))
    feature = torch.randn(1, CHANNELS, 3, 5)
    hidden = torch.relu(
        torch.conv2d(feature, *(theirs[f"proposal_generator.rpn_head.conv.{k}"] for k in ("weight", "bias")), padding=1)
    )
    scores, deltas = (
        torch.conv2d(hidden, *(theirs[f"proposal_generator.rpn_head.{name}.{k}"] for k in ("weight", "bias")))
        for name in ("objectness_logits", "anchor_deltas")
    )
    scores = scores[0].permute(1, 2, 0)
    deltas = deltas[0].unflatten(0, (-1, 4)).permute(2, 3, 0, 1)

    model = RPN(sizes, ratios, convention)
    load_state_dict(model, theirs)
    with torch.no_grad():
        (ours,), (codes,) = model.rpn.head([feature])
    ours, codes = ours[0].permute(1, 2, 0), codes[0].unflatten(0, (-1, 4)).permute(2, 3, 0, 1)
    # Find our anchor by the sides of the one computed by hand; rounding errors are smaller than their differences.
    sides = by_hand[:, 2:] - by_hand[:, :2]
    (cell,) = model.rpn.anchor_generator.cell_anchors
    nearest = [int((cell[:, 2:] - cell[:, :2] - side).abs().sum(dim=1).argmin()) for side in sides]
    assert sorted(nearest) == list(range(len(by_hand)))
    torch.testing.assert_close(ours[..., nearest], scores)
    torch.testing.assert_close(codes[..., nearest, :], deltas)


def test_rows_of_an_r50_c4_file(rng_seed):
    theirs = {
        "proposal_generator.rpn_head.objectness_logits.bias": torch.arange(15.0),
        "proposal_generator.rpn_head.anchor_deltas.bias": torch.arange(60.0),
    }
    ours = to_ours(theirs, RPN().state_dict()).tensors
    order = [0, 3, 6, 9, 12, 1, 4, 7, 10, 13, 2, 5, 8, 11, 14]
    assert ours["rpn.head.cls_logits.bias"].tolist() == order
    assert ours["rpn.head.bbox_pred.bias"].tolist() == [4 * row + side for row in order for side in range(4)]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_our_own_files_keep_their_rows(rng_seed, convention):
    trained, fresh = RPN(convention=convention), RPN(convention=convention)
    load_state_dict(fresh, trained.state_dict())
    for key, value in trained.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], value)


def test_converting_to_detectron2_and_back(rng_seed):
    model = RPN(SIZES[:3], (1.0, 2.0))
    state = {"backbone.body.layer1.0.conv1.weight": torch.rand(2, 2, 1, 1), **model.state_dict()}
    theirs, _ = convert_state_dict(state, "detectron2")
    logits = state["rpn.head.cls_logits.bias"] = torch.arange(6.0)
    theirs, _ = convert_state_dict(state, "detectron2")
    # ours: ratio 1 of three sizes, then ratio 2; theirs: both ratios of each size
    assert theirs["proposal_generator.rpn_head.objectness_logits.bias"].tolist() == [0, 3, 1, 4, 2, 5]
    assert "backbone.res2.0.conv1.weight" in theirs
    assert torch.equal(to_ours(theirs, model.state_dict()).tensors["rpn.head.cls_logits.bias"], logits)
    again, _ = convert_state_dict(theirs, "maskrcnn_benchmark", aspect_ratios=2)
    assert torch.equal(again["rpn.head.cls_logits.bias"], logits)


def test_detectron2_retinanet_rows_are_classes_of_anchors(rng_seed):
    sizes, classes = (32.0, 40.3, 50.8), 2
    theirs = {
        "backbone.fpn_lateral3.bias": torch.rand(4),
        "head.cls_subnet.0.weight": torch.rand(4, 4, 3, 3),
        "head.bbox_subnet.2.bias": torch.rand(4),
        "head.cls_score.bias": torch.arange(9.0 * classes),
        "head.bbox_pred.bias": torch.arange(36.0),
        "anchor_generator.cell_anchors.0": anchors_by_hand(sizes, RATIOS),
    }
    ours = to_ours(theirs).tensors
    order = [0, 3, 6, 1, 4, 7, 2, 5, 8]
    assert ours["rpn.head.cls_logits.bias"].tolist() == [classes * row + k for row in order for k in range(classes)]
    assert ours["rpn.head.bbox_pred.bias"].reshape(9, 4)[:, 0].tolist() == [4 * row for row in order]
    assert {"backbone.fpn.fpn_inner2.bias", "rpn.head.cls_tower.0.weight", "rpn.head.bbox_tower.2.bias"} <= ours.keys()
    again, _ = convert_state_dict(ours, "detectron2")
    assert all(torch.equal(again[key], theirs[key]) for key in again) and len(again) == len(theirs) - 1


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("ratios", [(1.0,), (0.5, 1.0, 2.0), (0.8, 1.0), (0.25, 0.5, 1.0, 2.0, 4.0)])
@pytest.mark.parametrize("sizes", [(64,), (32, 40.3, 50.8), SIZES])
def test_ratios_are_counted_from_the_anchors(convention, sizes, ratios):
    (cell,) = AnchorGenerator(sizes, ratios, (STRIDE,), **CONVENTIONS[convention]).cell_anchors
    assert count_ratios(cell) == len(ratios)
    assert count_ratios(anchors_by_hand(sizes, ratios), sizes_outside=True) == len(ratios)


def test_without_anchors_three_ratios_are_assumed_or_an_error_is_raised():
    assert ratios_of({"rpn.head.bbox_pred.bias": torch.zeros(60)}) == 3
    assert ratios_of({"rpn.head.bbox_pred.bias": torch.zeros(8)}) == 1
    assert ratios_of({"backbone.x": torch.zeros(8)}) == 1
    state = {"rpn.head.bbox_pred.bias": torch.zeros(40)}
    with pytest.raises(ValueError, match=r"10 anchors per cell.*--aspect-ratios N"):
        ratios_of(state)
    assert ratios_of(state, given=5) == 5
    with pytest.raises(ValueError, match="10 anchors per cell can't have 3 aspect ratios"):
        ratios_of(state, given=3)
