"""Models of the mmdetection convention against the numbers of mmdetection with VoVNetV2."""

from pathlib import Path

import fill_d2
import numpy as np
import pytest
import torch
from detectron2_models import check_scored_boxes, check_tensor
from mmdetection_models import GRADIENT, LOSS, MMDetectionModel, mmdetection_name, shared_rows

from maskrcnn_benchmark.config import cfg as defaults
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
    """Per picture, alone in its batch: the images, the body's maps, FPN's, and the proposals."""
    found = []
    model = golden.model.eval()
    with torch.no_grad():
        for i in range(2):
            images = golden.images([i])
            body = model.backbone.body(images.tensors)
            features = model.backbone.fpn(body)
            found.append((images, body, features, model.rpn(images, features)[0]))
    return found


def stages(head):
    """The stages of a cascade, or the only one."""
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
                check_tensor(shared_rows(".fc_reg.", codes.t()).t(), entry["bbox_deltas"], f"deltas {stage}")
                all_logits.append(class_logits)
                last, rois = rois, head.post_processor.refine(codes, rois)
            mean = torch.stack(all_logits).mean(dim=0).softmax(dim=1)
            check_tensor(mean, recorded["fixed_rois_decoded"]["softmax_of_mean_logits"], "scores")
            decoded = head.post_processor.box_coder.decode(shared_rows(".fc_reg.", codes.t()).t(), last[0].bbox)
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


def check_detections(golden, found, i, tag):
    boxes, scores, labels = (golden.arrays[f"det{i}_{tag}_{name}"] for name in ("boxes", "scores", "labels"))
    order = (-scores).argsort(kind="stable")
    found_places = check_scored_boxes(found, boxes[order], scores[order], labels[order], f"detections of image {i}")
    if found.has_field("mask"):
        masks = found.get_field("mask")[torch.tensor(order[found_places]).argsort()]
        check_tensor(masks[:, 0], golden.golden["test"][i][f"detections_{tag}"]["mask_prob_of_label"], "masks")


def our_losses(golden):
    """Our names -> mmdetection's."""
    names = {"loss_objectness": "loss_rpn_cls", "loss_rpn_box_reg": "loss_rpn_bbox"}
    heads = {"loss_classifier": "loss_cls", "loss_box_reg": "loss_bbox", "loss_mask": "loss_mask"}
    if not golden.cfg.MODEL.MASK_ON:
        del heads["loss_mask"]
    if not golden.cfg.MODEL.CASCADE_ON:
        return {**names, **heads}
    return {**names, **{f"{k}_stage{i}": f"s{i}.{v}" for k, v in heads.items() for i in range(3)}}


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_losses_and_gradients_equal_the_originals(golden, batch_statistics):
    recorded = golden.golden["train_bn_batch_stats" if batch_statistics else "train_bn_eval"]
    losses = golden.losses(golden.targets(), batch_statistics)
    assert set(losses) == set(our_losses(golden))
    # over channels_last maps PyTorch's CPU kernel sums a batch's variance in float32, value by value
    tolerance = 10 * LOSS if batch_statistics else LOSS
    for ours, theirs in our_losses(golden).items():
        assert losses[ours].item() == pytest.approx(recorded["losses"][theirs], rel=tolerance), ours
    sum(losses.values()).backward()
    gradients = {
        mmdetection_name(name): shared_rows(mmdetection_name(name), parameter.grad)
        for name, parameter in golden.model.named_parameters()
    }
    for name, entry in recorded["grad"].items():
        norm = gradients[name].double().norm().item()
        assert norm == pytest.approx(entry["norm"], rel=GRADIENT), name
        values = gradients[name].reshape(-1)[fill_d2.pick(gradients[name].numel())].double().numpy()
        assert np.linalg.norm(values - entry["values"]) <= GRADIENT * np.linalg.norm(entry["values"]), name
    total = sum(gradient.double().pow(2).sum() for gradient in gradients.values()).sqrt().item()
    assert total == pytest.approx(recorded["total_grad_norm"], rel=GRADIENT)
    golden.fill()
