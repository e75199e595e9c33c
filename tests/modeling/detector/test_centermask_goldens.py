"""Compare CenterMask2 and CenterMask with recorded outputs of the originals."""

import gzip
import json
import re
from dataclasses import asdict

import numpy as np
import pytest
import torch
from helpers.centermask_models import GOLDEN as CENTERMASK
from helpers.centermask_models import CenterMask1Model, CenterMask2Model, config
from helpers.detectron2_models import GRADIENT, check_scored_boxes, check_tensor
from helpers.golden_models import GOLDEN
from helpers.golden_models import check_losses as check_v1_losses
from helpers.golden_models import check_tensor as check_v1_tensor

from maskrcnn_benchmark.checkpoint.translation import convert_state_dict
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.modeling.roi_heads.mask_head.inference import Masker, mask_pasting
from maskrcnn_benchmark.modeling.roi_heads.maskiou_head.loss import maskiou_targets
from maskrcnn_benchmark.solver import make_lr_scheduler, make_optimizer

slow = pytest.mark.slow
LITE = ("centermask2_lite_V_19", "v2/centermask_lite_V_19_eSE_FPN_ms_4x.yaml")
GOLDENS = [
    LITE,
    pytest.param(("centermask2_V_39", "v2/centermask_V_39_eSE_FPN_ms_3x.yaml"), marks=slow),
]
LOSSES = {
    "loss_mask": "loss_mask",
    "loss_maskiou": "loss_maskiou",
    "loss_cls": "loss_fcos_cls",
    "loss_reg": "loss_fcos_loc",
    "loss_centerness": "loss_fcos_ctr",
}
# relative differences, with proposals of the model's own (through NMS) and with given ones
LOSS_OF_PROPOSALS, LOSS_OF_GIVEN = 1e-3, 1e-5
MASK_SCORE = 2e-5


@pytest.fixture(scope="module", params=GOLDENS, ids=lambda param: param[0])
def golden(request):
    return CenterMask2Model(*request.param)


@pytest.fixture(scope="module")
def maps(golden):
    """Return the maps of the body and of the FPN."""
    with torch.no_grad():
        body = golden.model.eval().backbone.body(golden.images.tensors)
        return body, golden.model.backbone.fpn(body)


def test_maps_and_head_outputs_equal_the_originals(golden, maps):
    recorded = golden.golden
    check_tensor(golden.images.tensors, recorded["padded_input"], "input")
    for i, tensor in enumerate(maps[0][1:], 3):
        check_tensor(tensor, recorded["backbone"][f"stage{i}"], f"stage{i}")
    for i, tensor in enumerate(maps[1], 3):
        check_tensor(tensor, recorded["fpn"][f"p{i}"], f"p{i}")
    head = golden.model.eval().rpn.head
    with torch.no_grad():
        outputs = head(maps[1])
    for i, (logits, distances, centerness) in enumerate(zip(*outputs, strict=True), 3):
        level = recorded["fcos_head"][f"p{i}"]
        check_tensor(logits, level["cls_logits"], f"logits of p{i}")
        check_tensor(distances / head.strides[i - 3], level["reg_before_stride"], f"distances of p{i}")
        check_tensor(centerness, level["centerness_logits"], f"centerness of p{i}")


def test_proposals_are_not_clipped_and_equal_the_originals(golden, maps):
    with torch.no_grad():
        found, _ = golden.model.eval().rpn(golden.images, maps[1])
    for i, boxes in enumerate(found):
        recorded = [golden.arrays[f"prop_test{i}_{name}"] for name in ("boxes", "scores", "classes")]
        check_scored_boxes(boxes, *recorded, f"proposals of image {i}")
    assert any((boxes.bbox < 0).any() for boxes in found)


def test_masks_and_their_scores_of_given_regions_equal_the_originals(golden, maps):
    recorded, heads, rois = golden.golden["fixed_rois"], golden.model.eval().roi_heads, golden.fixed_rois_with()
    extractor = heads.mask.feature_extractor
    assert extractor.pooler.map_levels(rois).tolist() == recorded["levels"]
    attention = []
    hook = extractor.spatialAtt.conv.register_forward_hook(lambda module, inputs, output: attention.append(output))
    with torch.no_grad():
        pooled = extractor.pooler(maps[1], rois)
        hidden = extractor.convolve(pooled)
        logits = heads.mask.predictor(hidden)
        ious = heads.maskiou(pooled, logits, torch.cat([boxes.get_field("labels") for boxes in rois]))
        _, found, _ = heads(maps[1], rois)
    hook.remove()
    for tensor, name in (
        (pooled, "pooled14"),
        (attention[0], "attention_conv"),
        (hidden, "attention_output"),
        (logits[:, 1:], "mask_logits"),
        (ious[:, 1:], "maskiou_all_classes"),
    ):
        check_tensor(tensor, recorded[name], name)
    check_tensor(torch.cat([boxes.get_field("mask") for boxes in found]), recorded["mask_prob"], "masks")
    for boxes, scores in zip(found, recorded["mask_scores"], strict=True):
        np.testing.assert_allclose(boxes.get_field("mask_scores").numpy(), scores, atol=MASK_SCORE)


def test_detections_in_original_image_size_equal_the_originals(golden):
    with torch.no_grad():
        detections = golden.model.eval()(golden.images)
    for i, (found, recorded) in enumerate(zip(detections, golden.golden["final"], strict=True)):
        height, width = recorded["image_size_hw"]
        found = found.resize((width, height))
        assert (found.bbox >= 0).all() and (found.bbox <= torch.tensor([width, height] * 2)).all()
        boxes, scores, labels = (golden.arrays[f"final{i}_{name}"] for name in ("boxes", "scores", "classes"))
        places = check_scored_boxes(found, boxes, scores, labels, f"detections of image {i}")
        mask_scores = golden.arrays[f"final{i}_mask_scores"][places]
        np.testing.assert_allclose(found.get_field("mask_scores").numpy(), mask_scores, atol=MASK_SCORE)
        found = found[torch.tensor(places).argsort()]
        (pasted,) = Masker(0.5, **asdict(mask_pasting(golden.cfg)))([found.get_field("mask")], found)
        areas = pasted.flatten(start_dim=1).sum(dim=1).tolist()
        assert all(abs(a - b) <= max(2, 0.01 * b) for a, b in zip(areas, recorded["mask_areas"], strict=True))
        bits = np.unpackbits(golden.arrays[f"final{i}_masks_first8_packed"], axis=1)[:, : height * width]
        different = (bits.reshape(8, height, width) != pasted[:8, 0].numpy()).sum(axis=(1, 2))
        assert (different <= 2).all(), different


def test_losses_of_given_proposals_equal_the_originals(golden):
    recorded, model = golden.golden["train_fixed_proposals"], golden.model.train()
    features = model.backbone(golden.images.tensors)
    _, regions, losses = model.roi_heads(features, golden.fixed_training_proposals(), golden.targets)
    assert [len(boxes) for boxes in regions] == recorded["n_foreground"]
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(recorded["losses"][name], rel=LOSS_OF_GIVEN), name
    objects = model.roi_heads.mask.loss.targets(regions, golden.targets)
    assert objects.masks.sum(dim=(1, 2)).tolist() == recorded["mask_target_area"]
    # Polygons are float32 here and float64 there. Where an edge lies on the region's own, that moves a few pixels.
    inside, whole = np.array(recorded["crop_raster_area_and_polygon_area"]).T
    np.testing.assert_allclose(objects.shares.numpy() * whole, np.minimum(inside, whole), atol=5)
    model.zero_grad()
    losses["loss_maskiou"].backward()
    gradients, _ = convert_state_dict(
        {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, "centermask2"
    )
    for name, norm in recorded["grad_l2_of_loss_maskiou_alone"].items():
        assert gradients[name].double().norm().item() == pytest.approx(norm, rel=GRADIENT), name


def test_losses_and_gradients_equal_the_originals(golden):
    recorded, losses = golden.golden["train"], golden.losses
    assert losses.keys() == LOSSES.keys()
    for ours, theirs in LOSSES.items():
        assert losses[ours].item() == pytest.approx(recorded["losses"][theirs], rel=LOSS_OF_PROPOSALS), ours
    gradients = {name: parameter.grad for name, parameter in golden.model.named_parameters()}
    assert None not in gradients.values() and recorded["params_without_grad"] == []
    gradients, _ = convert_state_dict(gradients, "centermask2")
    for name, entry in recorded["grad"].items():
        norm = gradients[name].double().norm().item() if isinstance(entry, dict) else None
        if norm is not None:
            assert norm == pytest.approx(entry["l2"], rel=GRADIENT), name
    total = sum(gradient.double().pow(2).sum() for gradient in gradients.values()).sqrt().item()
    assert total == pytest.approx(recorded["total_grad_norm"], rel=GRADIENT)


# ---- Panoptic CenterMask


@slow
def test_panoptic_segments_equal_the_originals():
    golden = CenterMask2Model("panoptic_centermask2_V_39", "v2/panoptic_centermask_V_39_eSE_FPN_ms_3x.yaml")
    sizes = [entry["image_size_hw"][::-1] for entry in golden.golden["final"]]
    with torch.no_grad():
        detections = golden.model.eval()(golden.images, output_sizes=sizes)
    for i, found in enumerate(detections):
        recorded = golden.arrays[f"final{i}_panoptic"]
        ids = found.get_field("panoptic").unpack()
        assert (ids != recorded).sum() <= 1e-4 * recorded.size + 8
    losses = golden.losses
    names = {**LOSSES, "loss_sem_seg": "loss_sem_seg"}
    assert losses.keys() == names.keys()
    for ours, theirs in names.items():
        expected = golden.golden["train"]["losses"][theirs]
        assert losses[ours].item() == pytest.approx(expected, rel=LOSS_OF_PROPOSALS), ours


# ---- CenterMask


@pytest.fixture(scope="module")
def first():
    return CenterMask1Model("centermask1_lite_V_39", "v1/centermask_V_39_eSE_FPN_lite_res600_ms_bs16_4x.yaml")


def test_centermask_parameters_are_as_many_as_the_originals(first):
    assert sum(p.numel() for p in first.model.parameters()) == first.golden["n_parameters"]


def test_centermask_outputs_and_detections_equal_the_originals(first):
    recorded, model = first.golden["test"][0], first.model.eval()
    with torch.no_grad():
        body = model.backbone.body(first.images.tensors)
        features = model.backbone.fpn(body)
        head = model.rpn.head(features)
        detections = model(first.images)
    for name, tensors, entries in (
        ("body", body, recorded["backbone_body"]),
        ("FPN", features, recorded["features"]),
        ("logits", head[0], recorded["head"]["cls"]),
        ("distances", head[1], recorded["head"]["bbox"]),
        ("centerness", head[2], recorded["head"]["centerness"]),
    ):
        for level, pair in enumerate(zip(tensors, entries, strict=True)):
            check_v1_tensor(*pair, f"{name} of level {level}")
    levels = model.roi_heads.mask.feature_extractor.pooler.map_levels(detections)
    assert levels.tolist() == first.arrays["test_levels"].tolist()
    for i, found in enumerate(detections):  # in the original's order, which is not that of the scores
        boxes, scores, labels, mask_scores, masks = (
            first.arrays[f"det{i}_{name}"] for name in ("boxes", "scores", "labels", "mask_scores", "mask_prob_first10")
        )
        np.testing.assert_allclose(found.bbox.numpy(), boxes, atol=0.05)
        np.testing.assert_allclose(found.get_field("scores").numpy(), scores, atol=1e-4)
        assert found.get_field("labels").tolist() == labels.tolist()
        np.testing.assert_allclose(found.get_field("mask_scores").numpy(), mask_scores, atol=MASK_SCORE)
        np.testing.assert_allclose(found.get_field("mask")[:10].numpy(), masks, atol=1e-4)


def test_centermask_losses_of_given_proposals_equal_the_originals(first):
    recorded, model = first.golden["train_fixed_proposals"], first.model.train()
    features = model.backbone(first.images.tensors)
    _, regions, losses = model.roi_heads(features, first.fixed_training_proposals(), first.targets)
    assert [len(boxes) for boxes in regions] == recorded["n_positive"]
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(recorded["losses"][name], rel=LOSS_OF_GIVEN), name
    heads = model.roi_heads
    objects = heads.mask.loss.targets(regions, first.targets)
    assert objects.masks.sum(dim=(1, 2)).tolist() == recorded["mask_target_area"]
    np.testing.assert_allclose(objects.shares.numpy(), recorded["mask_ratio"], rtol=1e-6)
    with torch.no_grad():
        logits = heads.mask.predictor(heads.mask.feature_extractor(features, regions))
    own = logits[torch.arange(len(logits)), objects.labels]
    targets = maskiou_targets(own > 0, objects.masks, objects.shares)
    np.testing.assert_allclose(targets.numpy(), recorded["maskiou_target"], rtol=1e-5)


def test_centermask_losses_and_gradients_equal_the_originals(first):
    model = first.model.train()
    model.zero_grad()
    losses = model(first.images, first.targets)
    sum(losses.values()).backward()
    recorded = first.golden["train"] | {"n_params_with_grad": len(list(model.parameters()))}
    check_v1_losses(model, losses, recorded)


# ---- keys

LISTS = {
    "centermask2/centermask_V_39_eSE_FPN_ms_3x": "v2/centermask_V_39_eSE_FPN_ms_3x.yaml",
    "centermask2/centermask_lite_V_19_slim_dw_eSE_FPN_ms_4x": "v2/centermask_lite_V_19_slim_dw_eSE_FPN_ms_4x.yaml",
    "CenterMask/centermask_V_39_eSE_FPN_ms_3x": "v1/centermask_V_39_eSE_FPN_ms_3x.yaml",
}


@pytest.mark.parametrize("name", LISTS)
def test_keys_and_shapes_are_the_originals(name):
    with torch.device("meta"):
        model = build_detection_model(config(LISTS[name]))
    path = GOLDEN / "d2" / "state_dicts" / f"{name}.json.gz"
    recorded = json.loads(gzip.decompress(path.read_bytes()))
    theirs, left_out = convert_state_dict(model.state_dict(), name.split("/")[0].lower())
    assert not left_out
    assert {key: list(value.shape) for key, value in theirs.items()} == {k: shape for k, shape, _ in recorded["keys"]}
    if name.startswith("CenterMask/"):
        assert list(theirs) == [key for key, _, _ in recorded["keys"]]
    ours = sum(parameter.numel() for parameter in model.parameters())
    classes = 0 if name.startswith("CenterMask/") else extra_rows(model)  # ours have rows of the background
    assert ours - classes == recorded["counts"]["total"]["parameters"]


def extra_rows(model):
    heads = model.roi_heads
    last = (heads.mask.predictor.mask_fcn_logits, heads.maskiou.predictor.maskiou)
    return sum(layer.weight[0].numel() + 1 for layer in last)


# ---- fresh weights and solver


@pytest.fixture(scope="module")
def units():
    return json.loads(gzip.decompress((CENTERMASK / "units.json.gz").read_bytes()))


def test_fresh_weights_are_distributed_like_the_originals(units):
    # the same layers at 128 channels would have other deviations
    model = build_detection_model(config("v2/centermask_V_39_eSE_FPN_ms_3x.yaml"))
    theirs, _ = convert_state_dict(model.state_dict(), "centermask2")
    for key, recorded in units["init_statistics_V_39"].items():
        tensor = theirs[key].double()
        assert list(tensor.shape) == recorded["shape"], key
        std = tensor.std(correction=0).item()
        if tensor.numel() < 100:  # a few draws
            assert std == 0 if recorded["std"] == 0 else 0.2 < std < 1.0, key
            assert recorded["std"] > 0 or tensor.mean().item() == pytest.approx(recorded["mean"]), key
        else:
            assert std == pytest.approx(recorded["std"], rel=0.05), key
            assert tensor.mean().item() == pytest.approx(recorded["mean"], rel=1e-5, abs=0.1 * std + 1e-9), key


def test_parameter_groups_and_learning_rates_equal_the_originals(units):
    cfg, recorded = config("v2/centermask_V_39_eSE_FPN_ms_3x.yaml"), units["optimizer_C2_V_39"]
    with torch.device("meta"):
        model = build_detection_model(cfg)
    optimizer = make_optimizer(cfg, model)
    groups = {group["weight_decay"]: len(group["params"]) for group in optimizer.param_groups}
    assert groups == {1e-4: recorded["lr 0.01 wd 0.0001"]["n"], 0.0: recorded["lr 0.01 wd 0.0"]["n"]}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    free = [group["params"] for group in optimizer.param_groups if group["weight_decay"] == 0]
    assert all(re.search(r"tower\.\d+\.", names[id(each)]) for group in free for each in group)
    for name, expected in (
        ("v2/centermask_V_39_eSE_FPN_ms_3x.yaml", recorded["lr_at_iteration"]),
        ("v1/centermask_V_39_eSE_FPN_ms_3x.yaml", units["v1"]["lr_at_iteration"]["values"]),
    ):
        node = config(name).SOLVER
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=node.BASE_LR)
        scheduler = make_lr_scheduler(config(name), optimizer)
        for iteration, rate in expected.items():
            scheduler.last_epoch = int(iteration)
            (found,) = scheduler.get_lr()
            assert found == pytest.approx(rate, rel=1e-6), (name, iteration)
