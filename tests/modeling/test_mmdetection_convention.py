"""Compare the parts in the mmdetection convention with small cases computed by mmdetection 1.2."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.data.transforms import Resize, build_transforms
from maskrcnn_benchmark.modeling.box_coder import make_box_coder
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.modeling.poolers import LevelMapper, Pooler, make_pooler
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import make_roi_box_post_processor
from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import make_roi_box_loss_evaluator
from maskrcnn_benchmark.modeling.roi_heads.mask_head.inference import Masker, mask_pasting
from maskrcnn_benchmark.modeling.roi_heads.mask_head.targets import PROJECTIONS
from maskrcnn_benchmark.modeling.rpn.anchor_generator import make_anchor_generator
from maskrcnn_benchmark.modeling.rpn.loss import make_rpn_loss_evaluator
from maskrcnn_benchmark.modeling.rpn.rpn import build_rpn
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask

GOLDEN = Path(__file__).parents[1] / "golden" / "mmdet"
FPN = ["MODEL.RPN.USE_FPN", True, "MODEL.RPN.ANCHOR_STRIDE", (4, 8, 16, 32, 64)]
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


@pytest.fixture(scope="module")
def mmdet_units():
    return json.loads((GOLDEN / "units.json").read_text())


def config(*opts):
    cfg = defaults.clone()
    cfg.merge_from_list(["MODEL.CONVENTION", "mmdetection", *opts])
    return cfg


# ---- boxes


def test_codes_equal_the_originals(mmdet_units):
    for case in mmdet_units["bbox2delta"]:
        coder = make_box_coder(config(), [1 / std for std in case["stds"]])
        found = coder.encode(torch.tensor(case["gt"]), torch.tensor(case["proposals"]))
        torch.testing.assert_close(found, torch.tensor(case["deltas"]), rtol=1e-5, atol=1e-5)


def test_decoding_clips_growth_and_shrinkage(mmdet_units):
    for case in mmdet_units["delta2bbox"]["cases"]:
        coder = make_box_coder(config(), [1 / std for std in case["stds"]])
        codes = torch.tensor(case["deltas"])
        found = BoxList(coder.decode(codes, torch.tensor([case["proposal"]]).expand(len(codes), 4)), (1, 1))
        if case["max_shape_hw"]:
            height, width = case["max_shape_hw"]
            found = BoxList(found.bbox, (width, height)).clip_to_image(remove_empty=False)
        torch.testing.assert_close(found.bbox, torch.tensor(case["boxes"]), rtol=1e-5, atol=1e-3)


def matches(case, overlaps):
    matcher = Matcher(case["pos_iou_thr"], case["neg_iou_thr"], allow_low_quality_matches=True, best_matches_kept=True)
    found = matcher(overlaps).tolist()
    return [{Matcher.BELOW_LOW_THRESHOLD: 0, Matcher.BETWEEN_THRESHOLDS: -1}.get(match, match + 1) for match in found]


def test_ground_truth_keeps_its_best_matches_as_in_the_original(mmdet_units):
    recorded = mmdet_units["assigner"]
    overlaps = torch.tensor(recorded["overlaps_gt_by_box"])
    for case in recorded["cases"]:
        if case["min_pos_iou"] == case["neg_iou_thr"]:  # as in every config
            assert matches(case, overlaps) == case["gt_inds"], case["name"]
    later = recorded["later_gt_overwrites"]
    high, low, _ = later["pos/neg/min"]
    case = {"pos_iou_thr": high, "neg_iou_thr": low}
    assert matches(case, torch.tensor(later["overlaps"])) == later["gt_inds"]
    assert matches(case, torch.zeros(0, 4)) == recorded["no_gt"]


def test_matches_are_the_same_in_pieces(mmdet_units, monkeypatch, rng_seed):
    corner = torch.rand(60, 2) * 50
    boxes = torch.cat((corner, corner + 5 + torch.rand(60, 2) * 30), dim=1)
    truth = torch.cat((boxes[:5], boxes[:2]))  # some twice
    matcher = Matcher(0.7, 0.3, best_matches_kept=True)
    whole = matcher.match_boxes(truth, boxes)
    assert whole[:2].tolist() == [5, 6]
    monkeypatch.setattr("maskrcnn_benchmark.modeling.matcher.MAX_PAIRS", 50)
    assert torch.equal(matcher.match_boxes(truth, boxes), whole)


@pytest.mark.parametrize("make", [lambda cfg: make_rpn_loss_evaluator(cfg, None).assign, make_roi_box_loss_evaluator])
def test_both_stages_keep_best_matches(make):
    assert make(config()).matcher.best_matches_kept and not make(defaults).matcher.best_matches_kept


# ---- anchors and proposals


def test_anchors_equal_the_originals(mmdet_units):
    recorded = mmdet_units["anchors"]
    generator = make_anchor_generator(config(*FPN))
    for ours, boxes in zip(generator.cell_anchors, recorded["base_anchors_by_stride"].values(), strict=True):
        assert ours.tolist() == boxes
    assert generator.grid_anchors([(2, 3)] * 5)[0].tolist() == recorded["grid_2x3_stride4"]
    inside = generator.visible(generator.grid_anchors([(16, 24)] * 5)[2], (256, 384)).nonzero().squeeze(1)
    expected = recorded["inside_image_256x384_stride16"]
    assert len(inside) == expected["n"] and inside.sum() == expected["index_sum"]


@pytest.mark.parametrize(
    "name, limits", [("nms_pre 2000", (2000, 2000, 2000)), ("nms_pre 6, post 3, max 4", (6, 3, 4))]
)
def test_proposals_equal_the_originals(mmdet_units, name, limits):
    case = mmdet_units["rpn_tiny"]
    pre, post, most = limits
    rpn = "MODEL.RPN."
    opts = [rpn + "USE_FPN", True, rpn + "ANCHOR_STRIDE", (4, 8), rpn + "ANCHOR_SIZES", (32, 64)]
    opts += [rpn + "PRE_NMS_TOP_N_TEST", pre, rpn + "POST_NMS_TOP_N_TEST", post, rpn + "FPN_POST_NMS_TOP_N_TEST", most]
    module = build_rpn(config(*opts), 8)
    codes = [torch.zeros(1, 12, 2, 2), torch.zeros(1, 12, 1, 1)]
    codes[0][0, 0, 0, 0], codes[0][0, 5, 1, 1] = 0.5, -0.25
    logits = [torch.tensor(case["cls (1,3,2,2)"]), torch.tensor(case["cls (1,3,1,1)"])]
    anchors = module.anchor_generator.grid_anchors([(2, 2), (1, 1)])
    (found,) = module.box_selector_test(anchors, logits, codes, [case["img_hw"]])
    expected = torch.tensor(case["proposals_with_score"][name])
    torch.testing.assert_close(found.bbox, expected[:, :4], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found.get_field("objectness"), expected[:, 4])


def test_rpn_losses_count_a_missing_positive_or_negative_as_one(mmdet_units):
    example = mmdet_units["rpn_normaliser"]["example"]
    # one level of 256 anchors in a row, the sample size of the first image
    positives = [torch.zeros(256, dtype=torch.bool) for _ in example["pos"]]
    for mask, count in zip(positives, example["pos"], strict=True):
        mask[:count] = True
    evaluator = make_rpn_loss_evaluator(config(), None)
    evaluator.assign = lambda anchors, target: (target.get_field("labels"), torch.zeros(256, 4))
    targets = []
    for mask in positives:
        target = BoxList(torch.zeros(256, 4), (9, 9))
        target.add_field("labels", mask.to(torch.int64))
        targets.append(target)
    visible = [torch.ones(256, dtype=torch.bool)] * 2
    logits, codes = [torch.zeros(2, 1, 1, 256)], [torch.zeros(2, 4, 1, 256)]
    loss = evaluator(torch.zeros(256, 4), visible, logits, codes, targets)["loss_objectness"]
    assert example["divisor"] == 513
    assert loss.item() == pytest.approx(512 * math.log(2) / 513)


def test_ground_truth_is_matched_with_anchors_inside_the_image():
    """The box's best anchor exceeds the image; one inside overlaps it by 0.49."""
    box, outside, inside = [4.0, 10, 43, 49], [-2.0, 10, 37, 49], [10.0, 19, 49, 58]
    anchors = torch.tensor([outside, inside, [60.0, 60, 90, 90]])
    visible = [torch.tensor([False, True, True])]
    outputs = [torch.zeros(1, 3, 1, 1)], [torch.zeros(1, 12, 1, 1)]
    found = {}
    for cfg in (config(), defaults):
        evaluator = make_rpn_loss_evaluator(cfg, make_box_coder(cfg, (1.0, 1.0, 1.0, 1.0)))
        losses = evaluator(anchors, visible, *outputs, [BoxList([box], (100, 100))])
        found[cfg.MODEL.CONVENTION] = losses["loss_rpn_box_reg"].item()
    assert found["mmdetection"] > 0 and found["maskrcnn_benchmark"] == 0


# ---- regions


def test_levels_equal_the_originals(mmdet_units):
    recorded = mmdet_units["map_roi_levels"]
    scales = ["MODEL.ROI_BOX_HEAD.POOLER_SCALES", (0.25, 0.125, 0.0625, 0.03125)]
    levels = make_pooler(config(*scales), "ROI_BOX_HEAD").map_levels
    boxes = [[0, 0, side - 1, side - 1] for side in recorded["square_side_with_plus1"]]
    assert levels([BoxList(boxes, (2000, 2000))]).tolist() == recorded["level"]
    # At side 111.9998 the fork's eps gives another level.
    assert LevelMapper(2, 5)([BoxList([[0.0, 0, 110.9999, 110.9999]], (200, 200))]).item() == 1
    assert levels([BoxList([[0.0, 0, 110.9999, 110.9999]], (200, 200))]).item() == 0


def test_pooled_regions_equal_the_originals(mmdet_units):
    for case in mmdet_units["roi_align"]["cases"]:
        pooler = Pooler(case["out"], (case["spatial_scale"],), 2, placement="inclusive")
        rois = BoxList([[float(x) for x in roi] for roi in case["rois"]], (100, 100))
        found = pooler([torch.tensor(case["map"])[None]], [rois])
        torch.testing.assert_close(found, torch.tensor(case["result"]), rtol=1e-5, atol=1e-5)


def test_unknown_placement_is_refused():
    with pytest.raises(ValueError, match="placement is 'centred'; expected one of 'clamped', 'aligned', 'inclusive'"):
        Pooler(7, (0.25,), 2, placement="centred")


def test_box_losses_equal_the_originals(mmdet_units):
    case = mmdet_units["losses"]["box_head"]
    regions = BoxList(torch.zeros(4, 4), (9, 9))
    regions.add_field("labels", torch.tensor(case["labels"]))
    regions.add_field("regression_targets", torch.tensor(case["targets"]))
    predicted = (torch.arange(64) / 32 - 1).reshape(4, 16)
    for name, agnostic, codes in (
        ("class_specific", False, predicted),
        ("agnostic", True, torch.cat((torch.zeros(4, 4), predicted[:, :4]), dim=1)),
    ):
        evaluator = make_roi_box_loss_evaluator(config("MODEL.CLS_AGNOSTIC_BBOX_REG", agnostic))
        classifier, box = evaluator(torch.tensor(case["cls"]), codes, [regions])
        assert classifier.item() == pytest.approx(case[name]["loss_cls"], rel=1e-5)
        assert box.item() == pytest.approx(case[name]["loss_bbox"], rel=1e-5)


def test_detections_equal_the_originals(mmdet_units):
    recorded = mmdet_units["multiclass_nms"]
    boxes = BoxList(recorded["boxes_class_agnostic"], (200, 200))
    logits = torch.tensor(recorded["scores_81style_col0_background"]).log()
    for case in recorded["cases"]:
        opts = ["MODEL.ROI_HEADS.DETECTIONS_PER_IMG", case["max_num"], "MODEL.CLS_AGNOSTIC_BBOX_REG", True]
        (found,) = make_roi_box_post_processor(config(*opts))((logits, torch.zeros(5, 8)), [boxes])
        dets = torch.tensor(case["dets"])
        order = dets[:, 4].argsort(descending=True, stable=True)
        torch.testing.assert_close(found.bbox, dets[order, :4])
        torch.testing.assert_close(found.get_field("scores"), dets[order, 4])
        assert found.get_field("labels").tolist() == (torch.tensor(case["labels"])[order] + 1).tolist()


def test_regions_of_the_next_stage_equal_the_originals(mmdet_units):
    case = mmdet_units["cascade_refine"]
    rows, codes = torch.tensor(case["rois_with_image"]), torch.tensor(case["pred"])
    weights = [1 / std for std in case["stds"]]
    opts = ["MODEL.ROI_HEADS.BBOX_REG_WEIGHTS", weights, "MODEL.CLS_AGNOSTIC_BBOX_REG", True]
    boxes = [
        BoxList(rows[rows[:, 0] == image, 1:], (width, height)) for image, (height, width) in enumerate(case["img_hw"])
    ]
    refined = make_roi_box_post_processor(config(*opts)).refine(torch.cat((torch.zeros_like(codes), codes), 1), boxes)
    for found, expected, is_truth in zip(refined, case["refined_per_image"], case["pos_is_gt_per_image"], strict=True):
        # Positives come first.
        kept = [i for i in range(len(found)) if i >= len(is_truth) or not is_truth[i]]
        torch.testing.assert_close(found.bbox[kept], torch.tensor(expected), rtol=1e-5, atol=1e-3)


# ---- masks


def test_mask_targets_equal_the_originals(mmdet_units):
    case = mmdet_units["mask_target"]
    pixels = torch.zeros(2, 40, 48, dtype=torch.uint8)
    pixels[0, 5:25, 8:30] = 1
    pixels[1] = (torch.arange(40)[:, None] + torch.arange(48)) % 7 < 3
    masks = SegmentationMask(pixels, (48, 40), mode="mask")[torch.tensor(case["gt"])]
    regions = BoxList(case["proposals"], (48, 40))
    found = PROJECTIONS["resize"](masks, regions, 7)
    assert found.dtype == torch.float32 and found.tolist() == case["size7"]
    found = PROJECTIONS["resize"](masks, regions, 28).numpy().astype(np.uint8)
    packed = [np.packbits(mask.ravel()).tobytes().hex() for mask in found]
    assert packed == case["size28_packed_hex"]


def test_polygons_and_their_pixels_have_equal_targets(rng_seed):
    polygons = SegmentationMask([[[5.0, 3, 40, 8, 22, 31]], [[1.0, 1, 30, 1, 30, 12, 1, 12]]], (48, 40))
    corner = torch.rand(12, 2) * 20
    regions = BoxList(torch.cat((corner, corner + torch.rand(12, 2) * 25), dim=1), (48, 40))
    index = torch.arange(12) % 2
    expected = PROJECTIONS["resize"](polygons.convert("mask")[index], regions, 28)
    assert torch.equal(PROJECTIONS["resize"](polygons[index], regions, 28), expected)
    assert 0 < expected.mean() < 1
    assert PROJECTIONS["resize"](polygons[[]], regions[[]], 28).shape == (0, 28, 28)


def test_pasted_masks_equal_the_originals(mmdet_units):
    case = mmdet_units["mask_paste"]
    probabilities = torch.tensor(case["logits_4x4"]).sigmoid().expand(3, 1, 4, 4)
    height, width = case["ori_hw"]
    masker = Masker(**asdict(mask_pasting(config())))
    (found,) = masker([probabilities], [BoxList(case["boxes"], (width, height))])
    assert found[:, 0].tolist() == case["masks"]
    rescaled = case["rescaled_case"]
    height, width = rescaled["ori_hw"]
    boxes = BoxList(torch.tensor(rescaled["box_network"]) / rescaled["scale_factor"], (width, height))
    assert masker([probabilities[:1]], [boxes])[0][0, 0].tolist() == rescaled["mask"]


# ---- data


def test_resized_images_have_the_original_sizes(mmdet_units):
    (resize,) = (step for step in build_transforms(config(), is_train=False).transforms if isinstance(step, Resize))
    for case in mmdet_units["resize_1333x800"]:
        height, width = case["hw"]
        assert list(resize.get_size((width, height))) == case["new_hw"]
