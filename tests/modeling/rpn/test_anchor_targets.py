"""Compare the labels and codes of anchors with the originals."""

import json

import numpy as np
import pytest
import torch
from helpers.golden_models import GOLDEN

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.rpn.anchor_generator import make_anchor_generator, make_anchor_generator_retinanet
from maskrcnn_benchmark.modeling.rpn.loss import make_rpn_loss_evaluator
from maskrcnn_benchmark.modeling.rpn.retinanet.loss import make_retinanet_loss_evaluator
from maskrcnn_benchmark.structures.bounding_box import BoxList

RECORDED = json.loads((GOLDEN / "assign_anchors.json").read_text())
CASES = {
    "rpn_fpn": (make_anchor_generator, make_rpn_loss_evaluator, (1.0, 1.0, 1.0, 1.0)),
    "retinanet": (make_anchor_generator_retinanet, make_retinanet_loss_evaluator, (10.0, 10.0, 5.0, 5.0)),
}


def build(case):
    cfg = defaults.clone()
    cfg.merge_from_list(["MODEL.RPN.USE_FPN", True, "MODEL.RPN.ANCHOR_STRIDE", (4, 8, 16, 32, 64)])
    make_anchors, make_loss, weights = CASES[case]
    generator = make_anchors(cfg)
    height, width = RECORDED["padded_input_hw"]
    anchors = torch.cat(generator.grid_anchors([(-(-height // s), -(-width // s)) for s in generator.strides]))
    return generator, anchors, make_loss(cfg, BoxCoder(weights)).assign


@pytest.mark.parametrize("max_pairs", [2**23, 20_000])
@pytest.mark.parametrize("case", CASES)
def test_labels_and_codes_equal_the_originals(case, max_pairs, monkeypatch):
    monkeypatch.setattr("maskrcnn_benchmark.modeling.matcher.MAX_PAIRS", max_pairs)
    generator, anchors, assign = build(case)
    for entry, recorded in zip(json.loads((GOLDEN / "targets.json").read_text()), RECORDED[case], strict=True):
        target = BoxList(entry["boxes_xyxy"], (entry["width"], entry["height"]))
        target.add_field("labels", torch.tensor(entry["labels"]))
        labels, codes = assign(anchors, target)
        if case == "rpn_fpn":
            labels = torch.where(generator.visible(anchors, (entry["height"], entry["width"])), labels, -1)
        positive = (labels > 0).nonzero().squeeze(1)
        assert positive.tolist() == recorded["pos_index"]
        assert labels[positive].tolist() == recorded["pos_label"]
        assert (int((labels == 0).sum()), int((labels == -1).sum())) == (recorded["n_neg"], recorded["n_ignored"])
        np.testing.assert_allclose(codes[positive].numpy(), np.array(recorded["pos_targets"]), atol=2e-6)


@pytest.mark.parametrize("case", CASES)
def test_image_without_objects_is_all_background(case):
    _, anchors, assign = build(case)
    target = BoxList([], (100, 80))
    target.add_field("labels", torch.zeros(0, dtype=torch.int64))
    labels, codes = assign(anchors, target)
    assert labels.shape == (len(anchors),) and (labels == 0).all() and (codes == 0).all()
