"""Effects of MODEL.CONVENTION, compared with small cases computed by detectron2."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import maskrcnn_benchmark
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.config.convention import CONVENTIONS, get_convention
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d
from maskrcnn_benchmark.modeling.backbone.body import build_norm
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.modeling.poolers import make_pooler
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import make_roi_box_post_processor
from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import make_roi_box_loss_evaluator
from maskrcnn_benchmark.modeling.rpn.anchor_generator import make_anchor_generator
from maskrcnn_benchmark.modeling.rpn.loss import RPNLoss, make_rpn_loss_evaluator
from maskrcnn_benchmark.modeling.rpn.rpn import build_rpn
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.boxes import box_iou
from maskrcnn_benchmark.structures.image_list import to_image_list

GOLDEN = Path(__file__).parents[1] / "golden" / "d2"
PACKAGE = Path(maskrcnn_benchmark.__file__).parent


@pytest.fixture(scope="module")
def arrays():
    return {name: torch.from_numpy(array) for name, array in np.load(GOLDEN / "units.npz").items()}


@pytest.fixture(scope="module")
def d2_units():
    return json.loads((GOLDEN / "units.json").read_text())


def config(*opts):
    cfg = defaults.clone()
    cfg.merge_from_list(["MODEL.CONVENTION", "detectron2", *opts])
    return cfg


FPN = ["MODEL.RPN.USE_FPN", True, "MODEL.RPN.ANCHOR_STRIDE", (4, 8, 16, 32, 64)]


# ---- the choice itself


def test_unknown_convention_names_the_known_ones():
    with pytest.raises(ValueError, match="'detectron3'; known are 'maskrcnn_benchmark', 'detectron2'"):
        get_convention("detectron3")


def test_conventions_are_frozen_and_differ():
    for convention in CONVENTIONS.values():
        with pytest.raises(dataclasses.FrozenInstanceError):
            convention.box_offset = 2.0
    assert len(set(CONVENTIONS.values())) == len(CONVENTIONS)


def test_no_component_tests_a_conventions_name():
    """The names may occur only in the table and as the key's default: no code may test them."""
    known = re.compile("|".join(f"[\"']{name}[\"']" for name in CONVENTIONS if name != "maskrcnn_benchmark"))
    table = PACKAGE / "modeling" / "convention.py"
    found = [path for path in PACKAGE.rglob("*.py") if path != table and known.search(path.read_text())]
    assert not [path for path in found if "modeling" in path.parts]
    asked = [path for path in PACKAGE.rglob("*.py") if re.search(r"CONVENTION\s*(==|!=|in )", path.read_text())]
    assert not asked


# ---- boxes


def test_overlaps_equal_detectron2(arrays):
    boxes = arrays["boxes40"]
    torch.testing.assert_close(box_iou(boxes[:20], boxes[20:], 0.0), arrays["iou_first20_last20"], rtol=1e-5, atol=1e-7)


def test_boxes_without_area_overlap_nothing():
    point, box = torch.tensor([[3.0, 3, 3, 3]]), torch.tensor([[0.0, 0, 9, 9]])
    assert box_iou(torch.cat((point, box)), point, 0.0).tolist() == [[0], [0]]


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_codes_and_boxes_equal_detectron2(arrays, weights):
    name = "_".join(str(int(weight)) for weight in weights)
    boxes, coder = arrays["boxes40"], BoxCoder(weights, box_offset=0.0)
    recorded = arrays[f"deltas_src_first20_tgt_last20_w{name}"]
    torch.testing.assert_close(coder.encode(boxes[20:], boxes[:20]), recorded, rtol=1e-5, atol=1e-5)
    decoded = coder.decode(arrays[f"apply_in_w{name}"], boxes[:20])
    torch.testing.assert_close(decoded, arrays[f"apply_out_w{name}"], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("low, high", [(0.3, 0.7), (0.5, 0.5)])
def test_matches_equal_detectron2(d2_units, low, high):
    recorded = d2_units[f"matcher_{low}_{high}"]
    matches = Matcher(high, low, allow_low_quality_matches=low < high)(torch.tensor(recorded["quality"]))
    labels = [1 if match >= 0 else {Matcher.BELOW_LOW_THRESHOLD: 0}.get(match, -1) for match in matches.tolist()]
    assert labels == recorded["labels"]
    matched = [index for index in zip(matches.tolist(), recorded["idxs"], strict=True) if index[0] >= 0]
    assert all(ours == theirs for ours, theirs in matched)


# ---- anchors, pooling, norm


def test_anchors_equal_detectron2(arrays, d2_units):
    generator = make_anchor_generator(config(*FPN))
    for ours, recorded in zip(generator.cell_anchors, d2_units["cell_anchors"], strict=True):
        torch.testing.assert_close(ours, torch.tensor(recorded), rtol=1e-6, atol=1e-6)
    grid = generator.grid_anchors([(3, 4)] * 5)[0]
    torch.testing.assert_close(grid, arrays["anchors_p2_3x4"], rtol=1e-6, atol=1e-5)


def test_fpn_levels_of_regions_equal_detectron2(arrays):
    scales = ["MODEL.ROI_BOX_HEAD.POOLER_SCALES", (0.25, 0.125, 0.0625, 0.03125)]
    pooler = make_pooler(config(*scales), "ROI_BOX_HEAD")
    boxes = BoxList([[0, 0, side, side] for side in arrays["level_box_sizes"].tolist()], (2000, 2000), box_offset=0)
    assert (pooler.map_levels([boxes]) + 2).tolist() == arrays["level_assignment_p2_p5"].tolist()


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_pooled_regions_equal_detectron2(arrays, sampling_ratio):
    node = "MODEL.ROI_BOX_HEAD.POOLER_"
    scale = ["SCALES", (0.25,)]
    opts = [*scale, "RESOLUTION", 7, "SAMPLING_RATIO", sampling_ratio]
    pooler = make_pooler(config(*[node + x if isinstance(x, str) else x for x in opts]), "ROI_BOX_HEAD")
    rois = arrays["roialign_rois"]
    order = rois[:, 0].argsort(stable=True)
    boxlists = [BoxList(rois[rois[:, 0] == image, 1:], (120, 100), box_offset=0) for image in (0, 1)]
    pooled = pooler([arrays["roialign_feature"]], boxlists)
    recorded = arrays[f"roialign_out7_scale0.25_sampling{sampling_ratio}_aligned1"][order]
    torch.testing.assert_close(pooled, recorded, rtol=1e-5, atol=1e-5)


def test_frozen_norm_has_the_conventions_eps():
    assert build_norm(config(), "FrozenBN")(8).eps == 1e-5
    assert build_norm(defaults, "FrozenBN")(8).eps == FrozenBatchNorm2d(8).eps == 0
    assert build_norm(config(), "BN")(8).eps == 1e-5


# ---- proposals and detections


def test_empty_and_infinite_proposals_are_dropped(rng_seed):
    rpn = build_rpn(config(*FPN), 8).eval()
    images = to_image_list(torch.zeros(1, 3, 64, 64))
    maps = [torch.randn(1, 8, -(-64 // stride), -(-64 // stride)) for stride in (4, 8, 16, 32, 64)]
    with torch.no_grad():
        logits, codes = rpn.head(maps)
        for level in logits:
            level.copy_(torch.randn_like(level))
        codes[0][0, 0] = 1000.0  # far to the right: nothing is left after clipping
        codes[1][0, 0] = float("inf")
        logits[2][0, 0] = float("nan")
        anchors = rpn.anchor_generator.grid_anchors([level.shape[-2:] for level in maps])
        (found,) = rpn.box_selector_test(anchors, logits, codes, images.image_sizes)
    sides = found.bbox[:, 2:] - found.bbox[:, :2]
    assert found.box_offset == 0 and len(found) > 100
    assert (sides > 0).all() and found.bbox.isfinite().all()
    scores = found.get_field("objectness")
    assert ((scores > 0) & (scores < 1)).all() and (scores[:-1] >= scores[1:]).all()


def test_proposals_are_ranked_by_logit_if_all_probabilities_are_one():
    boxes = [[10.0, 10, 20, 20], [30, 30, 40, 40]]
    logits = [torch.tensor([40.0, 50]).view(1, 2, 1, 1)]
    found = {}
    for name in CONVENTIONS:
        cfg = defaults.clone()
        cfg.merge_from_list(["MODEL.CONVENTION", name])
        select = build_rpn(cfg, 8).box_selector_test
        (proposals,) = select([torch.tensor(boxes)], logits, [torch.zeros(1, 8, 1, 1)], [(64, 64)])
        assert proposals.get_field("objectness").tolist() == [1, 1]
        found[name] = proposals.bbox[0].tolist()
    assert found["maskrcnn_benchmark"] == boxes[0] and found["detectron2"] == boxes[1]


def test_detections_are_sorted_by_score_and_ties_do_not_exceed_the_limit():
    boxes = BoxList([[0.0, 0, 9, 9], [20, 20, 29, 29], [40, 40, 49, 49]], (64, 64), box_offset=0)
    logits = torch.tensor([[0.0, 2, 0], [0.0, 0, 3], [0.0, 2, 0]])
    select = make_roi_box_post_processor(config("MODEL.ROI_HEADS.DETECTIONS_PER_IMG", 2))
    (found,) = select((logits, torch.zeros(3, 12)), [boxes])
    assert found.get_field("labels").tolist() == [2, 1]
    assert found.bbox.tolist() == [[20, 20, 29, 29], [0, 0, 9, 9]] and found.box_offset == 0


# ---- losses


def test_rpn_losses_are_divided_by_the_sample_size(rng_seed):
    rpn = build_rpn(config(*FPN), 8).train()
    images = to_image_list(torch.zeros(2, 3, 64, 64))
    maps = [torch.randn(2, 8, -(-64 // stride), -(-64 // stride)) for stride in (4, 8, 16, 32, 64)]
    targets = [BoxList([[8.0, 8, 40, 40]], (64, 64), box_offset=0)] * 2
    totals = {}
    for room in (256, 100_000):
        rpn.loss.sampler.batch_size_per_image = room
        torch.manual_seed(rng_seed)
        totals[room] = {name: loss.item() * room for name, loss in rpn(images, maps, targets)[1].items()}
    positives = totals[256]["loss_rpn_box_reg"]
    # a larger sample draws every anchor: more background, the same objects; the divisor is still the sample size
    assert totals[100_000]["loss_rpn_box_reg"] == pytest.approx(positives, rel=1e-4)
    with pytest.raises(ValueError, match="is 'mean'; expected one of 'sampled', 'sampled_or_one', 'sample_size'"):
        RPNLoss(None, None, normalizer="mean")


def test_box_losses_are_l1():
    assert make_rpn_loss_evaluator(config(), None).beta == 0
    evaluator = make_roi_box_loss_evaluator(config())
    regions = BoxList([[0.0, 0, 9, 9], [0, 0, 9, 9]], (64, 64), box_offset=0)
    regions.add_field("labels", torch.tensor([1, 0]))
    regions.add_field("regression_targets", torch.tensor([[0.0, 0, 0, 0.5], [7, 7, 7, 7]]))
    _, box_loss = evaluator(torch.zeros(2, 3), torch.zeros(2, 12), [regions])
    assert box_loss.item() == pytest.approx(0.5 / 2)
