"""Models of the detectron2 convention against the numbers of detectron2 with VoVNetV2."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2_models import Detectron2Model, check_losses, check_scored_boxes, check_tensor

from maskrcnn_benchmark.config import cfg as defaults

CONFIGS = Path(__file__).parents[3] / "configs" / "vovnet" / "v2"
GOLDENS = {
    "faster_V_19_slim_dw_FPNLite": "faster_rcnn_V_19_slim_dw_FPNLite_3x.yaml",
    "mask_V_39_FPN": "mask_rcnn_V_39_FPN_3x.yaml",
}
LOSSES = {
    "loss_objectness": "loss_rpn_cls",
    "loss_rpn_box_reg": "loss_rpn_loc",
    "loss_classifier": "loss_cls",
    "loss_box_reg": "loss_box_reg",
    "loss_mask": "loss_mask",
}


@pytest.fixture(scope="module", params=GOLDENS)
def golden(request):
    cfg = defaults.clone()
    cfg.merge_from_file(CONFIGS / GOLDENS[request.param])
    return Detectron2Model(request.param, cfg)


@pytest.fixture(scope="module")
def maps(golden):
    """The body's maps and the FPN's."""
    with torch.no_grad():
        body = golden.model.eval().backbone.body(golden.images.tensors)
        return body, golden.model.backbone.fpn(body)


@pytest.fixture(scope="module")
def proposals(golden, maps):
    with torch.no_grad():
        return golden.model.eval().rpn(golden.images, maps[1])[0]


def test_maps_equal_the_originals(golden, maps):
    check_tensor(golden.images.tensors, golden.golden["padded_input"], "input")
    for i, tensor in enumerate(maps[0], 2):
        check_tensor(tensor, golden.golden["backbone"].get(f"stage{i}"), f"stage{i}")
    for i, tensor in enumerate(maps[1], 2):
        check_tensor(tensor, golden.golden["fpn"][f"p{i}"], f"p{i}")


def test_pictures_alone_are_padded_as_in_the_original(golden):
    padded = []
    hook = golden.model.backbone.register_forward_pre_hook(lambda module, inputs: padded.append(inputs[0].shape))
    with torch.no_grad():
        golden.model.eval()(golden.pictures)
    hook.remove()
    assert list(padded[0]) == golden.golden["padded_input"]["shape"]


def test_anchors_and_rpn_outputs_equal_the_originals(golden, maps):
    features = maps[1]
    with torch.no_grad():
        logits, codes = golden.model.rpn.head(features)
    anchors = golden.model.rpn.anchor_generator.grid_anchors([feature.shape[-2:] for feature in features])
    for i, (level_logits, level_codes, boxes) in enumerate(zip(logits, codes, anchors, strict=True), 2):
        recorded = golden.golden["rpn"][f"p{i}"]
        check_tensor(level_logits, recorded["objectness"], f"objectness of p{i}")
        check_tensor(level_codes, recorded["deltas"], f"deltas of p{i}")
        assert len(boxes) == recorded["n_anchors"]
        np.testing.assert_allclose(boxes[:3].numpy(), recorded["first_anchors"], rtol=1e-6)
        np.testing.assert_allclose(boxes[-1].numpy(), recorded["last_anchor"], rtol=1e-6)


def test_proposals_equal_the_originals(golden, proposals):
    for i, found in enumerate(proposals):
        boxes, logits = golden.arrays[f"proposals{i}_boxes"], golden.arrays[f"proposals{i}_logits"]
        found.add_field("scores", found.get_field("objectness"))
        found.add_field("labels", torch.ones(len(found), dtype=torch.int64))
        check_scored_boxes(found, boxes, 1 / (1 + np.exp(-logits)), np.zeros(len(boxes)), f"proposals of image {i}")


def test_fixed_regions_equal_the_originals(golden, maps):
    recorded, heads = golden.golden["fixed_rois"], golden.model.eval().roi_heads
    rois, features = golden.fixed_rois, maps[1]
    with torch.no_grad():
        check_tensor(heads.box.feature_extractor.pooler(features, rois), recorded["pooled7"], "pooled for boxes")
        hidden = heads.box.feature_extractor(features, rois)
        check_tensor(hidden, recorded["box_head"], "box head")
        class_logits, codes = heads.box.predictor(hidden)
        check_tensor(class_logits.roll(-1, dims=1), recorded["cls_logits"], "class logits")
        check_tensor(codes[:, 4:], recorded["bbox_deltas"], "box deltas")
        if "mask" in heads:
            check_tensor(heads.mask.feature_extractor.pooler(features, rois), recorded["pooled14"], "pooled for masks")
            logits = heads.mask.predictor(heads.mask.feature_extractor(features, rois))
            check_tensor(logits[:, 1:], recorded["mask_logits"], "mask logits")


def test_detections_equal_the_originals(golden, maps, proposals):
    with torch.no_grad():
        detections = golden.model.eval().roi_heads(maps[1], proposals)[1]
    for i, found in enumerate(detections):
        boxes, scores, labels = (golden.arrays[f"det{i}_{name}"] for name in ("boxes", "scores", "classes"))
        places = check_scored_boxes(found, boxes, scores, labels, f"detections of image {i}")
        if found.has_field("mask"):
            masks = found.get_field("mask")[torch.tensor(places).argsort()]
            check_tensor(masks, golden.golden["detections_network_scale"][i]["mask_prob"], "masks")


def test_losses_and_gradients_equal_the_originals(golden):
    names = {ours: theirs for ours, theirs in LOSSES.items() if theirs in golden.golden["train"]["losses"]}
    check_losses(golden, names)
