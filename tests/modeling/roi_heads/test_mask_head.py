import json
from pathlib import Path

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.config.convention import CONVENTIONS
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.modeling.roi_heads.mask_head.inference import (
    Masker,
    MaskPostProcessor,
    make_roi_mask_post_processor,
    mask_pasting,
)
from maskrcnn_benchmark.modeling.roi_heads.mask_head.loss import (
    MaskRCNNLoss,
    make_roi_mask_loss_evaluator,
    project_masks_on_boxes,
)
from maskrcnn_benchmark.modeling.roi_heads.mask_head.mask_head import ROIMaskHead
from maskrcnn_benchmark.modeling.roi_heads.mask_head.roi_mask_predictors import make_roi_mask_predictor
from maskrcnn_benchmark.modeling.roi_heads.mask_head.targets import PROJECTIONS, sample_masks_in_boxes
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.paste_masks import MaskPasting
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask

SIZE = (100, 80)


def rectangle(x1, y1, x2, y2):
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def target(rectangles, labels):
    boxlist = BoxList(rectangles, SIZE)
    boxlist.add_field("labels", torch.tensor(labels, dtype=torch.int64))
    boxlist.add_field("masks", SegmentationMask([rectangle(*r) for r in rectangles], SIZE))
    return boxlist


@pytest.mark.parametrize("mode", ["poly", "mask"])
def test_targets_are_cropped_to_the_region(mode):
    masks = SegmentationMask([rectangle(0, 0, 50, 80)] * 2, SIZE).convert(mode)
    boxes = BoxList([[30.0, 20, 70, 60], [0, 0, 40, 40]], SIZE)
    found = project_masks_on_boxes(masks, boxes, 8)
    assert found.shape == (2, 8, 8) and found.dtype == torch.float32
    assert found[0].sum(dim=1).tolist() == [4] * 8 and found[0, :, :4].all()
    assert found[1].all()


def test_a_region_of_one_pixel_has_a_target():
    masks = SegmentationMask([rectangle(0, 0, 50, 80)], SIZE)
    found = project_masks_on_boxes(masks, BoxList([[10.0, 10, 10, 10]], SIZE), 4)
    assert found.shape == (1, 4, 4) and found.all()


def test_loss_is_the_mean_over_pixels_of_the_region_class(rng_seed):
    targets = [target([[10, 10, 50, 50], [60, 10, 90, 70]], [2, 1]), target([[10, 10, 50, 50]], [1])]
    regions = [BoxList([[60.0, 10, 90, 70], [12, 10, 50, 50]], SIZE), BoxList([[10.0, 10, 50, 50]], SIZE)]
    logits = torch.randn(3, 3, 4, 4)
    mask_pixels = torch.cat(
        [
            project_masks_on_boxes(targets[0].get_field("masks")[[1, 0]], regions[0], 4),
            project_masks_on_boxes(targets[1].get_field("masks"), regions[1], 4),
        ]
    )
    chosen = logits[[0, 1, 2], [1, 2, 1]]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(chosen, mask_pixels)
    found = MaskRCNNLoss(Matcher(0.5, 0.5), 4)(regions, logits, targets)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("truth", [[], [[10, 10, 50, 50]]], ids=["no object", "an object elsewhere"])
def test_loss_without_positives_keeps_the_graph(truth):
    regions = [BoxList(torch.zeros(0, 4), SIZE)] if not truth else [BoxList([[60.0, 60, 70, 70]], SIZE)]
    logits = torch.randn(len(regions[0]), 3, 4, 4, requires_grad=True)
    found = MaskRCNNLoss(Matcher(0.5, 0.5), 4)(regions, logits, [target(truth, [1] * len(truth))])
    found.backward()
    assert found == 0 and logits.grad is not None


def test_targets_without_matches_keep_their_shape():
    found = MaskRCNNLoss(Matcher(0.5, 0.5), 4).targets([BoxList([[60.0, 60, 70, 70]], SIZE)], [target([], [])])
    assert found.masks.shape == (0, 4, 4) and found.rows.shape == (0,) and found.labels.tolist() == [0]


def shared_mask_head():
    """Make a mask head that reads the box head's features (R, 2, 4, 4)."""
    loss = MaskRCNNLoss(Matcher(0.5, 0.5), 4)
    return ROIMaskHead(torch.nn.Identity(), torch.nn.Identity(), loss, MaskPostProcessor(), share_box_features=True)


@pytest.mark.parametrize("all_positive", [False, True])
def test_shared_features_are_those_of_the_positive_regions(all_positive, rng_seed):
    truth = target([[10, 10, 50, 50]], [1])
    regions = BoxList([[12.0, 10, 50, 50], [10, 10, 50, 48]], SIZE)
    regions.add_field("labels", torch.tensor([1, 1]))
    features = torch.randn(2, 2, 4, 4)
    x, boxes, losses = shared_mask_head()(None, [regions], [truth], features, all_positive=all_positive)
    assert boxes == [regions] and torch.equal(x, features) and losses["loss_mask"] > 0


@pytest.mark.parametrize("training", [False, True])
def test_maskiou_head_and_shared_features_are_refused(training):
    with pytest.raises(ValueError, match="SHARE_BOX_FEATURE_EXTRACTOR"):
        shared_mask_head().train(training)(None, [], maskiou=torch.nn.Identity())


def test_missing_masks_and_wrong_resolution_are_refused():
    regions = [BoxList([[10.0, 10, 50, 50]], SIZE)]
    truth = target([[10, 10, 50, 50]], [1])
    with pytest.raises(ValueError, match="no masks, only"):
        MaskRCNNLoss(Matcher(0.5, 0.5), 4)(regions, torch.zeros(1, 2, 4, 4), [truth.copy_with_fields("labels")])
    with pytest.raises(ValueError, match="RESOLUTION is 4"):
        MaskRCNNLoss(Matcher(0.5, 0.5), 4)(regions, torch.zeros(1, 2, 8, 8), [truth])


def test_every_detection_gets_the_mask_of_its_class(rng_seed):
    logits = torch.randn(3, 4, 2, 2)
    boxes = [BoxList(torch.zeros(2, 4), SIZE), BoxList(torch.zeros(0, 4), SIZE), BoxList(torch.zeros(1, 4), SIZE)]
    for boxlist, labels in zip(boxes, ([3, 1], [], [2]), strict=True):
        boxlist.add_field("labels", torch.tensor(labels, dtype=torch.int64))
        boxlist.add_field("scores", torch.ones(len(labels)))
    found = MaskPostProcessor()(logits, boxes)
    assert [boxlist.fields() for boxlist in found] == [["labels", "scores", "mask"]] * 3
    masks = [boxlist.get_field("mask") for boxlist in found]
    assert [tuple(mask.shape) for mask in masks] == [(2, 1, 2, 2), (0, 1, 2, 2), (1, 1, 2, 2)]
    torch.testing.assert_close(torch.cat(masks)[:, 0], logits[[0, 1, 2], [3, 1, 2]].sigmoid())
    assert all(not boxlist.has_field("mask") for boxlist in boxes)


def test_masker_equals_the_original(units):
    case = units["paste"]
    masks = torch.from_numpy(np.random.RandomState(5).uniform(0, 1, (2, 1, 28, 28)).astype(np.float32))
    boxes = BoxList(case["boxes"], case["image_wh"])
    for pasted in (Masker(0.5, 1)([masks], [boxes])[0], Masker()([masks], boxes)[0]):
        assert pasted.dtype == torch.uint8 and tuple(pasted.shape) == (2, 1, 80, 100)
        rows = [["".join(map(str, row)) for row in mask] for mask in pasted[:, 0].tolist()]
        assert rows == case["rows_as_01"]


def test_masker_without_masks():
    (pasted,) = Masker()([torch.zeros(0, 1, 28, 28)], [BoxList(torch.zeros(0, 4), SIZE)])
    assert pasted.shape == (0, 1, 80, 100)
    with pytest.raises(ValueError, match="2 images and boxes of 1"):
        Masker()([torch.zeros(0, 1, 28, 28)] * 2, [BoxList(torch.zeros(0, 4), SIZE)])


# ---- detectron2's targets, and the choice between conventions


@pytest.fixture(scope="module")
def d2():
    folder = Path(__file__).parents[2] / "golden" / "d2"
    return np.load(folder / "units.npz"), json.loads((folder / "inputs.json").read_text())["targets"][0]


def test_polygons_in_continuous_regions_equal_detectron2s(d2):
    arrays, truth = d2
    height, width = truth["size_hw"]
    masks = SegmentationMask([[polygon] for polygon in truth["polygons"]], (width, height))
    regions = BoxList(arrays["polygon_crop_boxes"], (width, height), box_offset=0)
    found = sample_masks_in_boxes(masks, regions, 28)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.bool().numpy(), arrays["polygon_crop28"])


def test_pixels_in_continuous_regions_are_sampled():
    pixels = torch.zeros(2, 20, 20, dtype=torch.uint8)
    pixels[:, 5:10, 5:15] = 1
    regions = BoxList([[5.0, 5, 15, 10], [0, 0, 20, 20]], (20, 20), box_offset=0)
    found = sample_masks_in_boxes(SegmentationMask(pixels, (20, 20), mode="mask"), regions, 4)
    assert found[0].all() and found[1].tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("mode", ["poly", "mask"])
def test_empty_and_nan_regions_have_targets(mode):
    masks = SegmentationMask([rectangle(0, 0, 50, 80)] * 2, SIZE).convert(mode)
    regions = BoxList([[10.0, 10, 10, 10], [99.5, 10, 100, 60]], SIZE, box_offset=0)
    assert sample_masks_in_boxes(masks, regions, 4)[1].tolist() == torch.zeros(4, 4).tolist()
    assert sample_masks_in_boxes(masks[[]], regions[[]], 4).shape == (0, 4, 4)


@pytest.mark.parametrize("name, fresh", [("maskrcnn_benchmark", (2 / 81) ** 0.5), ("detectron2", 0.001)])
def test_convention_sets_targets_pasting_and_initial_weights(name, fresh):
    cfg = defaults.clone()
    cfg.merge_from_list(["MODEL.CONVENTION", name, "MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS", True])
    convention = CONVENTIONS[name]
    assert make_roi_mask_loss_evaluator(cfg).project is PROJECTIONS[convention.mask_projection]
    masker = make_roi_mask_post_processor(cfg).masker
    assert masker.pasting == mask_pasting(cfg)
    assert masker.pasting == MaskPasting(convention.mask_padding, convention.mask_aligned)
    predictor = make_roi_mask_predictor(cfg, 64)
    assert predictor.mask_fcn_logits.weight.std().item() == pytest.approx(fresh, rel=0.05)


def test_aligned_masker_equals_detectron2(d2):
    arrays, _ = d2
    boxes = BoxList(arrays["paste_boxes"], (80, 60), box_offset=0)
    masks = torch.from_numpy(arrays["paste_masks_prob"])[:, None]
    (pasted,) = Masker(0.5, aligned=True)([masks], boxes)
    np.testing.assert_array_equal(pasted[:, 0].bool().numpy(), arrays["paste_out_60x80_thr0.5"])
