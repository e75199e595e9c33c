"""Compare the MaskIoU head and the mask attention with small cases computed by CenterMask2 and CenterMask."""

import ast
import gzip
import json

import numpy as np
import pytest
import torch
from helpers import fill_d2
from helpers.centermask_models import GOLDEN, RULES

from maskrcnn_benchmark.checkpoint.translation import to_ours
from maskrcnn_benchmark.config.convention import CONVENTIONS
from maskrcnn_benchmark.modeling.roi_heads.mask_head.inference import MaskPostProcessor
from maskrcnn_benchmark.modeling.roi_heads.mask_head.loss import MaskRCNNLoss, MaskTargets
from maskrcnn_benchmark.modeling.roi_heads.mask_head.spatial_attention import SpatialAttention
from maskrcnn_benchmark.modeling.roi_heads.mask_head.targets import PROJECTIONS
from maskrcnn_benchmark.modeling.roi_heads.maskiou_head.loss import MaskIoULoss, maskiou_targets
from maskrcnn_benchmark.modeling.roi_heads.maskiou_head.maskiou_head import (
    MaskIoUFeatureExtractor,
    MaskIoUPredictor,
    ROIMaskIoUHead,
)
from maskrcnn_benchmark.modeling.roi_heads.maskiou_head.visible_share import (
    LEAST_SHARE,
    VISIBLE_SHARES,
    share_by_areas,
    share_by_first_part,
)
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask

UNITS = json.loads(gzip.decompress((GOLDEN / "units.json.gz").read_bytes()))
PREDICTED = {
    "all_foreground": lambda: torch.ones(1, 28, 28, dtype=torch.bool),
    "none": lambda: torch.zeros(1, 28, 28, dtype=torch.bool),
    "left_half": lambda: (torch.arange(28) < 14).expand(1, 28, 28),
}


def case_of(case, convention):
    size = tuple(case["image_hw"][::-1])
    offset = CONVENTIONS[convention].box_offset
    return SegmentationMask([case["polygons"]], size), BoxList([case["proposal_box"]], size, box_offset=offset)


@pytest.mark.parametrize("number", range(len(UNITS["maskiou_target"]["cases"])))
@pytest.mark.parametrize("convention", ["centermask2", "centermask"])
def test_targets_equal_the_originals(convention, number):
    case = UNITS["maskiou_target"]["cases"][number]
    recorded = case if convention == "centermask2" else UNITS["v1"]["maskiou_target"]["cases"][number]
    polygons, region = case_of(case, convention)
    mask = PROJECTIONS[CONVENTIONS[convention].mask_projection](polygons, region, 28)
    area = recorded["mask_target_area_of_784" if convention == "centermask2" else "mask_target_area"]
    assert mask.sum().item() == area
    share = VISIBLE_SHARES[CONVENTIONS[convention].maskiou_share](polygons, region)
    for name, predicted in PREDICTED.items():
        target = maskiou_targets(predicted(), mask, share).item()
        assert target == pytest.approx(recorded[name]["maskiou_target"], rel=1e-6), name
        logits = torch.where(predicted(), 1.0, -1.0)[:, None]
        objects = MaskTargets(mask, torch.tensor([0]), torch.tensor([0]))
        loss = MaskRCNNLoss(None, 28).cross_entropy(logits, objects).item()
        assert loss == pytest.approx(recorded[name]["mask_loss"], rel=1e-6), name


@pytest.mark.parametrize("share", [share_by_areas, share_by_first_part])
def test_pixel_masks_have_targets_where_the_originals_fail(share):
    pixels = torch.zeros(1, 50, 50, dtype=torch.uint8)
    pixels[:, 10:30, 10:30] = 1
    masks = SegmentationMask(pixels, (50, 50), mode="mask")
    regions = BoxList([[10.0, 10, 20, 30]], (50, 50), box_offset=0)
    assert share(masks, regions).tolist() == [0.5]
    assert share(SegmentationMask(pixels * 0, (50, 50), mode="mask"), regions).tolist() == [LEAST_SHARE]


def test_a_region_thinner_than_a_pixel_sees_nothing():
    polygons = SegmentationMask([[[10.0, 10, 30, 10, 30, 30, 10, 30]]], (50, 50))
    assert share_by_areas(polygons, BoxList([[10.0, 10, 10.7, 30]], (50, 50), box_offset=0)).tolist() == [LEAST_SHARE]


def test_sides_of_a_region_are_truncated_to_pixels_like_the_originals():
    polygons = SegmentationMask([[[0.0, 0, 11, 0, 11, 11, 0, 11]]], (50, 50))
    for sides, (_, area) in UNITS["raster_of_float_sized_crop"]["results"].items():
        height, width = ast.literal_eval(sides)
        share = share_by_areas(polygons, BoxList([[0.0, 0, width, height]], (50, 50), box_offset=0))
        assert share.item() == pytest.approx(max(area / 11**2, LEAST_SHARE)), sides


def loss_of(case, weight=1.0, rows=None):
    """Each region's mask is a square of which the target's part is predicted; see the unit."""
    labels, targets = torch.tensor(case["labels"]), torch.tensor(case["target"], dtype=torch.float64)
    side = 200
    masks = torch.zeros(len(targets), side, side)
    logits = torch.full((len(targets), 3, side, side), -1.0)
    for i, target in enumerate(targets.tolist()):
        masks[i, 0] = 1  # one row of pixels; the predicted part of it is the IoU
        logits[i, :, 0, : round(target * side)] = 1.0
    objects = MaskTargets(masks, torch.arange(len(targets)), labels, torch.ones(len(targets), dtype=torch.float64))
    return MaskIoULoss(weight)(torch.tensor(case["pred"]), logits, objects).item()


def test_loss_equals_the_originals():
    case = UNITS["maskiou_loss"]
    assert loss_of(case) == pytest.approx(case["weight_1"], rel=1e-6)
    assert loss_of(case, weight=2.0) == pytest.approx(case["weight_2"], rel=1e-6)
    assert loss_of({**case, "target": [0.0] * 4}) == case["only_zero_targets"] == 0
    no_regions = MaskTargets(torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    ious = torch.zeros(0, 3, requires_grad=True)
    MaskIoULoss()(ious, torch.zeros(0, 3, 28, 28), no_regions).backward()
    assert ious.grad is not None


def test_scores_are_calibrated_like_the_originals():
    case = UNITS["score_calibration"]
    boxes, ious = [], torch.tensor(case["pred_maskiou"])
    for classes, scores in zip(case["classes"], case["scores"], strict=True):
        boxlist = BoxList([[0.0, 0, 5, 5]] * len(classes), (10, 10))
        boxlist.add_field("labels", torch.tensor(classes))
        boxlist.add_field("scores", torch.tensor(scores))
        boxes.append(boxlist)
    own = ious.gather(1, torch.tensor([[label] for classes in case["classes"] for label in classes])).squeeze(1)
    found = MaskPostProcessor().attach(torch.zeros(3, 1, 28, 28), boxes, own)
    for boxlist, expected in zip(found, case["mask_scores"], strict=True):
        np.testing.assert_allclose(boxlist.get_field("mask_scores").numpy(), expected, rtol=1e-6)


def test_a_small_head_equals_the_originals():
    case = UNITS["maskiou_head_small"]
    head = ROIMaskIoUHead(MaskIoUFeatureExtractor(4, 6, (8, 8)), MaskIoUPredictor(1024, 4), MaskIoULoss())
    theirs = {
        f"roi_heads.maskiou_head.{key}": torch.from_numpy(fill_d2.value(key, tuple(shape), RULES))
        for key, shape in case["keys"]
    }
    ours = to_ours(theirs).tensors
    head.load_state_dict({key.removeprefix("roi_heads.maskiou."): value for key, value in ours.items()})
    pooled = torch.from_numpy(np.random.RandomState(3).standard_normal((2, 4, 6, 6))).float()
    masks = torch.from_numpy(np.random.RandomState(4).uniform(size=(2, 1, 12, 12))).float()
    with torch.no_grad():
        ious = head.predictor(head.feature_extractor(pooled, masks))
    np.testing.assert_allclose(ious[:, 1:].numpy(), case["output"], rtol=1e-4, atol=1e-5)


def test_spatial_attention_equals_the_originals():
    case = UNITS["spatial_attention"]
    attention = SpatialAttention()
    with torch.no_grad():
        attention.conv.weight.copy_(torch.tensor(case["conv_weight_1x2x3x3"]))
        found = attention(torch.tensor(case["input_1x3x4x4"]))
        assert attention(torch.zeros(0, 3, 4, 4)).shape == (0, 3, 4, 4)
    np.testing.assert_allclose(found.numpy(), case["output"], rtol=1e-5, atol=1e-7)
