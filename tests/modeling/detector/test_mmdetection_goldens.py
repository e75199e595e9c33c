"""Compare models of the mmdetection convention with recorded outputs of mmdetection with VoVNetV2."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import fill_d2
from helpers.detectron2_models import check_scored_boxes, check_tensor
from helpers.golden_models import global_norm
from helpers.mmdetection_models import GOLDEN, GRADIENT, LOSS, MMDetectionModel

from maskrcnn_benchmark.checkpoint.translation import convert_state_dict
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.layers.conv import Conv2d
from maskrcnn_benchmark.modeling.roi_heads.mask_head.inference import Masker, mask_pasting
from maskrcnn_benchmark.structures.bounding_box import BoxList

CONFIGS = Path(__file__).parents[3] / "configs" / "vovnet" / "mmdet"
GOLDENS = {
    "faster_rcnn_vovnet39": "faster_rcnn_vovnet39_fpn_1x.yaml",
    "cascade_mask_rcnn_vovnet19": "cascade_mask_rcnn_vovnet19_fpn_1x.yaml",
}


@pytest.fixture(scope="module", params=GOLDENS)
def golden(request):
    cfg = defaults.clone()
    cfg.merge_from_file(CONFIGS / GOLDENS[request.param])
    return MMDetectionModel(request.param, cfg)


@pytest.fixture(scope="module")
def runs(golden):
    """Return for each image alone: the images, the maps of body and FPN, and the proposals."""
    found = []
    model = golden.model.eval()
    with torch.no_grad():
        for i in range(2):
            images = golden.images([i])
            body = model.backbone.body(images.tensors)
            features = model.backbone.fpn(body)
            found.append((images, body, features, model.rpn(images, features)[0]))
    return found


def own_columns(codes):
    """Drop the background's four columns if all classes share a box code."""
    return codes[:, 4:] if codes.shape[1] == 8 else codes


def stages(head):
    """Return the stages of a cascade, or the only head."""
    return list(head) if isinstance(head, torch.nn.ModuleList) else [head]


def test_maps_equal_the_originals(golden, runs):
    for (images, body, features, _), recorded in zip(runs, golden.golden["test"], strict=True):
        check_tensor(images.tensors, recorded["padded_input"], "input")
        for i, tensor in enumerate(body):
            check_tensor(tensor, recorded["backbone"][f"out{i}"], f"stage{i + 2}")
        for i, tensor in enumerate(features, 2):
            check_tensor(tensor, recorded["fpn"][f"p{i}"], f"p{i}")


def test_anchors_and_rpn_outputs_equal_the_originals(golden, runs):
    for (_, _, features, _), recorded in zip(runs, golden.golden["test"], strict=True):
        with torch.no_grad():
            logits, codes = golden.model.rpn.head(features)
        anchors = golden.model.rpn.anchor_generator.grid_anchors([feature.shape[-2:] for feature in features])
        for i, (level_logits, level_codes, boxes) in enumerate(zip(logits, codes, anchors, strict=True), 2):
            entry = recorded["rpn"][f"p{i}"]
            check_tensor(level_logits, entry["rpn_cls"], f"logits of p{i}")
            check_tensor(level_codes, entry["rpn_reg"], f"codes of p{i}")
            assert len(boxes) == entry["n_anchors"]
            assert boxes[:3].tolist() == entry["first_anchors"] and boxes[-1].tolist() == entry["last_anchor"]


def as_detections(boxlist):
    boxlist.add_field("scores", boxlist.get_field("objectness"))
    boxlist.add_field("labels", torch.ones(len(boxlist), dtype=torch.int64))
    return boxlist


def test_proposals_equal_the_originals(golden, runs):
    for i, (_, _, _, (found,)) in enumerate(runs):
        boxes = golden.arrays[f"proposals{i}"]
        check_scored_boxes(as_detections(found), boxes[:, :4], boxes[:, 4], np.zeros(len(boxes)), f"proposals {i}")


def test_fixed_regions_equal_the_originals(golden, runs):
    heads = golden.model.eval().roi_heads
    for i, (_, _, features, _) in enumerate(runs):
        recorded = golden.golden["test"][i]
        rois = unrefined = golden.fixed_rois(i)
        all_logits = []
        with torch.no_grad():
            for stage, (head, entry) in enumerate(zip(stages(heads.box), recorded["fixed_rois"], strict=True)):
                assert head.feature_extractor.pooler.map_levels(rois).tolist() == entry["levels"]
                check_tensor(head.feature_extractor.pooler(features, rois), entry["pooled7"], f"pooled {stage}")
                _, class_logits, codes = head.predict(features, rois)
                check_tensor(class_logits, entry["cls_logits"], f"class logits {stage}")
                check_tensor(own_columns(codes), entry["bbox_deltas"], f"deltas {stage}")
                all_logits.append(class_logits)
                last, rois = rois, head.post_processor.refine(codes, rois)
            mean = torch.stack(all_logits).mean(dim=0).softmax(dim=1)
            check_tensor(mean, recorded["fixed_rois_decoded"]["softmax_of_mean_logits"], "scores")
            decoded = head.post_processor.box_coder.decode(own_columns(codes), last[0].bbox)
            clipped = BoxList(decoded.reshape(-1, 4), last[0].size).clip_to_image(remove_empty=False)
            check_tensor(clipped.bbox.reshape(decoded.shape), recorded["fixed_rois_decoded"]["boxes"], "decoded")
            if "mask" in heads:
                for head, entry in zip(stages(heads.mask), recorded["fixed_rois"], strict=True):
                    pooled = head.feature_extractor.pooler(features, unrefined)
                    check_tensor(pooled, entry["mask_pooled14_on_unrefined"], "pooled for masks")
                    logits = head.predictor(head.feature_extractor(features, unrefined))
                    check_tensor(logits, entry["mask_logits_on_unrefined"], "mask logits")


def test_detections_equal_the_originals(golden, runs):
    for i, (_, _, features, proposals) in enumerate(runs):
        with torch.no_grad():
            _, (found,), _ = golden.model.eval().roi_heads(features, proposals)
        check_detections(golden, found, i, "network")


def test_detections_at_a_larger_output_size_equal_the_originals(golden, runs):
    """NMS runs at the given size, as in evaluation."""
    height, width, _ = golden.golden["test"][0]["detections_rescaled"]["ori_shape"]
    (_, _, features, proposals), *_ = runs
    assert golden.model.eval().takes_output_sizes
    with torch.no_grad():
        _, (found,), _ = golden.model.roi_heads(features, proposals, output_sizes=[(width, height)])
    check_detections(golden, found.resize((width, height)), 0, "rescaled")


def check_detections(golden, found, i, tag):
    boxes, scores, labels = (golden.arrays[f"det{i}_{tag}_{name}"] for name in ("boxes", "scores", "labels"))
    order = (-scores).argsort(kind="stable")
    found_places = check_scored_boxes(found, boxes[order], scores[order], labels[order], f"detections of image {i}")
    if found.has_field("mask"):
        found = found[torch.tensor(order[found_places]).argsort()]
        recorded = golden.golden["test"][i][f"detections_{tag}"]
        check_tensor(found.get_field("mask")[:, 0], recorded["mask_prob_of_label"], "masks")
        (pasted,) = Masker(0.5, **asdict(mask_pasting(golden.cfg)))([found.get_field("mask")], [found])
        width, height = found.size
        packed = golden.arrays[f"det{i}_{tag}_masks_first8_packed"]
        bits = np.unpackbits(packed, axis=1)[:, : width * height].reshape(-1, height, width)
        different = (pasted[: len(bits), 0].numpy() != bits).sum(axis=(1, 2))
        assert (different <= 0.001 * bits.sum(axis=(1, 2))).all(), different
        areas = np.array(recorded["mask_areas"])
        assert (np.abs(pasted.sum(dim=(1, 2, 3)).numpy() - areas) <= 0.001 * areas).all()


def our_losses(golden):
    """Map our loss names to mmdetection's."""
    names = {"loss_objectness": "loss_rpn_cls", "loss_rpn_box_reg": "loss_rpn_bbox"}
    heads = {"loss_classifier": "loss_cls", "loss_box_reg": "loss_bbox", "loss_mask": "loss_mask"}
    if not golden.cfg.MODEL.MASK_ON:
        del heads["loss_mask"]
    if not golden.cfg.MODEL.CASCADE_ON:
        return {**names, **heads}
    return {**names, **{f"{k}_stage{i}": f"s{i}.{v}" for k, v in heads.items() for i in range(3)}}


def check_losses(golden, losses, recorded):
    assert set(losses) == set(our_losses(golden))
    for ours, theirs in our_losses(golden).items():
        # Without positives the original omits the box loss, and its mask loss is NaN.
        expected = np.nan_to_num(float(recorded.get(theirs, 0.0)))
        # A region's corner that is an integer up to rounding shifts a row of its mask.
        tolerance = 10 * LOSS if "mask" in ours else LOSS
        assert losses[ours].item() == pytest.approx(expected, rel=tolerance), ours


def check_gradients(golden, recorded):
    gradients, _ = convert_state_dict({n: p.grad for n, p in golden.model.named_parameters()}, "mmdetection")
    for name, entry in recorded["grad"].items():
        norm = torch.linalg.vector_norm(gradients[name], dtype=torch.float64).item()
        assert norm == pytest.approx(entry["norm"], rel=GRADIENT), name
        values = gradients[name].reshape(-1)[fill_d2.pick(gradients[name].numel())].double().numpy()
        assert np.linalg.norm(values - entry["values"]) <= GRADIENT * np.linalg.norm(entry["values"]), name
    total = global_norm(gradients.values())
    assert total == pytest.approx(recorded["total_grad_norm"], rel=GRADIENT)


@pytest.fixture
def restored(golden):
    """Yield the model, and restore its statistics, memory format and algorithms afterwards."""
    statistics = {name: buffer.clone() for name, buffer in golden.model.named_buffers()}
    yield golden
    golden.model.to(memory_format=torch.channels_last)
    for module in golden.model.modules():
        if isinstance(module, Conv2d):
            module.winograd = golden.cfg.WINOGRAD
    for name, buffer in golden.model.named_buffers():
        buffer.copy_(statistics[name])


def test_losses_and_gradients_equal_the_originals(golden):
    losses = golden.losses(golden.targets())
    sum(losses.values()).backward()
    check_losses(golden, losses, golden.golden["train_bn_eval"]["losses"])
    check_gradients(golden, golden.golden["train_bn_eval"])


# Only bodies have batch norms: the Faster R-CNN's is enough.
WITH_STATISTICS = ["faster_rcnn_vovnet39", pytest.param("cascade_mask_rcnn_vovnet19", marks=pytest.mark.slow)]


@pytest.mark.parametrize("golden", WITH_STATISTICS, indirect=True)
def test_losses_and_gradients_with_batch_statistics_equal_the_originals(restored):
    golden = restored
    # For channels_last maps on the CPU, PyTorch sums a batch's variance sequentially in float32: off by 1e-3.
    golden.model.to(memory_format=torch.contiguous_format)
    for module in golden.model.modules():
        if isinstance(module, Conv2d):
            module.winograd = False  # its outputs are channels_last, too
    losses = golden.losses(golden.targets(), batch_statistics=True)
    sum(losses.values()).backward()
    check_losses(golden, losses, golden.golden["train_bn_batch_stats"]["losses"])
    check_gradients(golden, golden.golden["train_bn_batch_stats"])


# images with ground truth, for each recorded case
EMPTY = {"1/0": (True, False), "0/0": (False, False)}


@pytest.mark.parametrize("golden", ["cascade_mask_rcnn_vovnet19"], indirect=True)
@pytest.mark.parametrize("case", EMPTY)
def test_losses_of_images_without_objects_equal_the_originals(golden, case):
    cases = json.loads((GOLDEN / "empty_gt.json").read_text())["cases"]
    recorded = cases[f"cascade_mask_rcnn_vovnet19 gt in image0/1: {case}"]["losses"]
    check_losses(golden, golden.losses(golden.targets(EMPTY[case])), recorded)
