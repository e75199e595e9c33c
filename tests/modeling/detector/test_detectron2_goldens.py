"""Compare models of the detectron2 convention with recorded outputs of detectron2 with VoVNetV2."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import fill_d2
from helpers.detectron2_models import (
    GOLDEN,
    GRADIENT,
    TENSOR,
    Detectron2Model,
    check_losses,
    check_scored_boxes,
    check_tensor,
    filled_state,
)

from maskrcnn_benchmark.checkpoint.translation import convert_state_dict
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.modeling.roi_heads.mask_head.inference import Masker, mask_pasting
from maskrcnn_benchmark.solver import make_lr_scheduler, make_optimizer

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


def config(name):
    cfg = defaults.clone()
    cfg.merge_from_file(CONFIGS / name)
    return cfg


@pytest.fixture(scope="module", params=GOLDENS)
def golden(request):
    return Detectron2Model(request.param, config(GOLDENS[request.param]))


@pytest.fixture(scope="module")
def maps(golden):
    """Return the maps of the body and of the FPN."""
    with torch.no_grad():
        body = golden.model.eval().backbone.body(golden.images.tensors)
        return body, golden.model.backbone.fpn(body)


@pytest.fixture(scope="module")
def proposals(golden, maps):
    with torch.no_grad():
        return golden.model.eval().rpn(golden.images, maps[1])[0]


@pytest.fixture(scope="module")
def detections(golden, maps, proposals):
    with torch.no_grad():
        return golden.model.eval().roi_heads(maps[1], proposals)[1]


def test_maps_equal_the_originals(golden, maps):
    check_tensor(golden.images.tensors, golden.golden["padded_input"], "input")
    for i, tensor in enumerate(maps[0], 2):
        check_tensor(tensor, golden.golden["backbone"].get(f"stage{i}"), f"stage{i}")
    for i, tensor in enumerate(maps[1], 2):
        check_tensor(tensor, golden.golden["fpn"][f"p{i}"], f"p{i}")


class PaddedInput(Exception):
    """Ends a forward pass at the backbone; its argument is the shape of the backbone's input."""


def test_lists_of_images_are_padded_as_in_the_original(golden):
    def stop(module, inputs):
        raise PaddedInput(list(inputs[0].shape))

    hook = golden.model.backbone.register_forward_pre_hook(stop)
    with torch.no_grad(), pytest.raises(PaddedInput) as padded:
        golden.model.eval()(golden.image_tensors)
    hook.remove()
    assert padded.value.args[0] == golden.golden["padded_input"]["shape"]


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


def test_detections_equal_the_originals(golden, detections):
    for i, found in enumerate(detections):
        boxes, scores, labels = (golden.arrays[f"det{i}_{name}"] for name in ("boxes", "scores", "classes"))
        places = check_scored_boxes(found, boxes, scores, labels, f"detections of image {i}")
        if found.has_field("mask"):
            masks = found.get_field("mask")[torch.tensor(places).argsort()]
            check_tensor(masks, golden.golden["detections_network_scale"][i]["mask_prob"], "masks")


def test_detections_in_original_image_size_equal_the_originals(golden, detections):
    for i, (found, recorded) in enumerate(zip(detections, golden.golden["final"], strict=True)):
        height, width = recorded["image_size_hw"]
        found = found.resize((width, height))
        boxes, scores, labels = (golden.arrays[f"final{i}_{name}"] for name in ("boxes", "scores", "classes"))
        places = check_scored_boxes(found, boxes, scores, labels, f"detections of image {i}")
        if not found.has_field("mask"):
            continue
        found = found[torch.tensor(places).argsort()]
        (pasted,) = Masker(0.5, **asdict(mask_pasting(golden.cfg)))([found.get_field("mask")], found)
        areas = pasted.flatten(start_dim=1).sum(dim=1).tolist()
        # A probability within rounding of the threshold changes a pixel.
        assert all(abs(a - b) <= 1 + 0.001 * b for a, b in zip(areas, recorded["mask_areas"], strict=True))
        bits = np.unpackbits(golden.arrays[f"final{i}_masks_first8_packed"], axis=1)[:, : height * width]
        different = (bits.reshape(8, height, width) != pasted[:8, 0].numpy()).sum(axis=(1, 2))
        assert (different <= 2).all(), different


# Panoptic FPN's golden has the same losses and gradients as mask_V_39_FPN, beside those of the semantic head.
OWN_LOSSES = [pytest.param(name, marks=[pytest.mark.slow] if name == "mask_V_39_FPN" else []) for name in GOLDENS]


@pytest.mark.parametrize("golden", OWN_LOSSES, indirect=True)
def test_losses_and_gradients_equal_the_originals(golden):
    names = {ours: theirs for ours, theirs in LOSSES.items() if theirs in golden.golden["train"]["losses"]}
    check_losses(golden, names)


def test_three_training_steps_equal_the_originals():
    """Compare optimizer, schedule and losses: same batch, warm-up from 0.001 of the learning rate."""
    name = "faster_V_19_slim_dw_FPNLite"
    recorded = json.loads((GOLDEN / f"{name}_three_sgd_steps.json").read_text())
    golden = Detectron2Model(name, config(GOLDENS[name]))
    model = golden.model.train()
    optimizer = make_optimizer(golden.cfg, model)
    scheduler = make_lr_scheduler(golden.cfg, optimizer)
    for step in recorded["steps"]:
        assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(step["lr"])]
        losses = model(golden.images, golden.targets)
        for ours, theirs in LOSSES.items():
            if theirs in step["losses"]:
                assert losses[ours].item() == pytest.approx(step["losses"][theirs], rel=1e-3), (step["iteration"], ours)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        scheduler.step()
    after, _ = convert_state_dict(dict(model.named_parameters()), "detectron2")
    before, _ = convert_state_dict(filled_state(model.state_dict()), "detectron2")
    for key, entry in recorded["parameters_after_3_steps"].items():
        index = fill_d2.pick(after[key].numel())
        ours, expected, start = (
            np.asarray(values)
            for values in (
                after[key].detach().reshape(-1)[index],
                entry["values"],
                before[key].reshape(-1)[index],
            )
        )
        assert np.abs(ours - expected).max() <= TENSOR * entry["absmax"], key
        # compare the update, too, not only the weights
        assert np.linalg.norm(ours - expected) <= GRADIENT * np.linalg.norm(expected - start), key
