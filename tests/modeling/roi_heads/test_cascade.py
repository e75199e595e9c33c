"""Compare Cascade R-CNN with a box-by-box computation in plain Python."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.balanced_positive_negative_sampler import BalancedPositiveNegativeSampler
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.modeling.roi_heads.box_head.box_head import ROIBoxHead
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import PostProcessor
from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import FastRCNNLoss
from maskrcnn_benchmark.modeling.roi_heads.box_head.roi_box_predictors import BoxPredictor
from maskrcnn_benchmark.modeling.roi_heads.cascade import CascadeBoxHead, CascadeMaskHead, CascadeROIHeads
from maskrcnn_benchmark.modeling.roi_heads.mask_head.inference import MaskPostProcessor
from maskrcnn_benchmark.modeling.roi_heads.mask_head.mask_head import ROIMaskHead
from maskrcnn_benchmark.structures.bounding_box import BoxList

SIZES = ((200, 150), (90, 160))
CLASSES = 4
THRESHOLDS = (0.5, 0.6, 0.7)
WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
LOSS_WEIGHTS = (1.0, 0.5, 0.25)


class Coordinates(nn.Module):
    """Replace an extractor: return (R, 5), the corners in hundreds of pixels and the index of the image."""

    out_channels = 5

    def forward(self, features, boxlists):
        rows = [torch.cat((b.bbox / 100, b.bbox.new_full((len(b), 1), i)), dim=1) for i, b in enumerate(boxlists)]
        return torch.cat(rows)


def box_cascade(batch_per_image=1000, box_scale=0.3):
    heads = []
    for threshold, weights in zip(THRESHOLDS, WEIGHTS, strict=True):
        predictor = BoxPredictor(5, CLASSES, 2)
        nn.init.normal_(predictor.cls_score.weight)
        # codes that change boxes little, so that later stages have positives
        nn.init.normal_(predictor.bbox_pred.weight, std=box_scale)
        coder = BoxCoder(weights)
        loss = FastRCNNLoss(
            Matcher(threshold, threshold), BalancedPositiveNegativeSampler(batch_per_image, 1.0), coder, True
        )
        heads.append(ROIBoxHead(Coordinates(), predictor, loss, PostProcessor(0.05, 0.5, 100, coder, True)))
    return CascadeBoxHead(heads, LOSS_WEIGHTS)


def random_batch():
    """Return per image true boxes, and proposals around them and elsewhere, as lists."""
    batch = []
    for width, height in SIZES:
        truth = []
        for side in (0.3, 0.35, 0.42):  # with two equal sides, a box could overlap both equally
            x, y = (torch.rand(2) * torch.tensor([width * 0.5, height * 0.5])).tolist()
            truth.append([x, y, x + width * side, y + height * side])
        proposals = [[c + d for c, d in zip(t, (torch.rand(4) * 24 - 12).tolist(), strict=True)] for t in truth * 12]
        batch.append((torch.tensor(truth), torch.tensor(proposals)))
    return batch


def boxlists(batch):
    """Return targets, and proposals with the ground truth appended, as RPN returns them."""
    targets, proposals = [], []
    for (truth, boxes), size in zip(batch, SIZES, strict=True):
        target = BoxList(truth, size)
        target.add_field("labels", torch.arange(len(truth)) % (CLASSES - 1) + 1)
        targets.append(target)
        proposals.append(BoxList(torch.cat((boxes, truth)), size))
    return targets, proposals


# ---- the plain computation: one box at a time, sides with + 1


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)]
    return width * height / (areas[0] + areas[1] - width * height)


def centre_and_sides(box):
    w, h = box[2] - box[0] + 1, box[3] - box[1] + 1
    return box[0] + w / 2, box[1] + h / 2, w, h


def moved(box, code, weights, size):
    x, y, w, h = centre_and_sides(box)
    dx, dy, dw, dh = (c / weight for c, weight in zip(code, weights, strict=True))
    x, y, w, h = x + dx * w, y + dy * h, w * math.exp(dw), h * math.exp(dh)
    corners = (x - w / 2, y - h / 2, x + w / 2 - 1, y + h / 2 - 1)
    return [min(max(c, 0), side - 1) for c, side in zip(corners, (*size, *size), strict=True)]


def predicted(head, box, image):
    """Return class logits and the four codes of one box."""
    row = torch.tensor([[c / 100 for c in box] + [image]])
    with torch.no_grad():
        return (head.predictor.cls_score(row)[0], head.predictor.bbox_pred(row)[0, 4:].tolist())


def restated_losses(cascade, batch):
    boxes = [
        [(b, False) for b in proposals.tolist()] + [(t, True) for t in truth.tolist()] for truth, proposals in batch
    ]
    losses = {}
    for stage, (head, threshold, weights) in enumerate(zip(cascade, THRESHOLDS, WEIGHTS, strict=True)):
        class_sum = box_sum = count = 0
        for i, (truth, _) in enumerate(batch):
            following = []
            for box, is_truth in boxes[i]:
                overlaps = [iou(box, t) for t in truth.tolist()]
                best = max(range(len(overlaps)), key=overlaps.__getitem__)
                label = best % (CLASSES - 1) + 1 if overlaps[best] >= threshold else 0
                logits, code = predicted(head, box, i)
                count += 1
                class_sum -= logits.log_softmax(0)[label].item()
                if label:
                    x, y, w, h = centre_and_sides(box)
                    tx, ty, tw, th = centre_and_sides(truth[best].tolist())
                    expected = ((tx - x) / w, (ty - y) / h, math.log(tw / w), math.log(th / h))
                    for a, b, weight in zip(code, expected, weights, strict=True):
                        d = abs(a - b * weight)
                        box_sum += d * d / 2 if d < 1 else d - 0.5
                if not is_truth:
                    following.append((moved(box, code, weights, SIZES[i]), False))
            boxes[i] = following + [(t, True) for t in truth.tolist()]
        losses[f"loss_classifier_stage{stage}"] = LOSS_WEIGHTS[stage] * class_sum / count
        losses[f"loss_box_reg_stage{stage}"] = LOSS_WEIGHTS[stage] * box_sum / count
    return losses


def test_losses_equal_a_box_by_box_computation(rng_seed):
    cascade, batch = box_cascade().train(), random_batch()
    targets, proposals = boxlists(batch)
    last_x, last_regions, losses = cascade(None, proposals, targets)
    expected = restated_losses(cascade, batch)
    assert list(losses) == list(expected)
    for name, value in losses.items():
        assert value.item() == pytest.approx(expected[name], rel=1e-3), name
    assert len(last_x) == sum(len(boxes) for boxes in last_regions) == sum(len(boxes) for boxes in proposals)


def test_a_stage_samples_from_the_previous_sample_and_the_ground_truth(rng_seed):
    targets, proposals = boxlists(random_batch())
    _, drawn, _ = zip(*box_cascade(batch_per_image=8).train_stages(None, proposals, targets), strict=True)
    for image, target in enumerate(targets):
        first, *later = (regions[image] for regions in drawn)
        assert len(first) == 8
        for regions in later:
            assert len(regions) <= 8
            is_truth = (regions.get_field("regression_targets") == 0).all(dim=1) & (regions.get_field("labels") > 0)
            assert set(map(tuple, regions.bbox[is_truth].tolist())) <= set(map(tuple, target.bbox.tolist()))
    assert not any(regions.bbox.requires_grad for regions in drawn[2]), "boxes pass no gradient to earlier stages"


def test_detections_use_the_last_boxes_and_the_mean_logits(rng_seed):
    cascade, batch = box_cascade().eval(), random_batch()
    _, proposals = boxlists(batch)
    _, detections, losses = cascade(None, proposals)
    assert losses == {}
    for i, found in enumerate(detections):
        logits, codes, boxes = [], [], []
        for box in proposals[i].bbox.tolist():
            votes = []
            for head, weights in zip(cascade, WEIGHTS, strict=True):
                before = box
                vote, code = predicted(head, box, i)
                votes.append(vote)
                box = moved(box, code, weights, SIZES[i])
            logits.append(sum(votes) / 3)
            codes.append([0.0] * 4 + code)
            boxes.append(before)
        (expected,) = cascade[2].post_processor((torch.stack(logits), torch.tensor(codes)), [BoxList(boxes, SIZES[i])])
        assert len(found) > 0 and found.get_field("labels").tolist() == expected.get_field("labels").tolist()
        torch.testing.assert_close(found.bbox, expected.bbox, rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(found.get_field("scores"), expected.get_field("scores"), rtol=1e-4, atol=1e-4)


class RegionMaps(nn.Module):
    """Replace a mask predictor: return logits (R, K, 2, 2) that are linear in the region's coordinates."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, CLASSES * 4)

    def forward(self, x):
        return self.linear(x).reshape(-1, CLASSES, 2, 2)


def test_mask_heads_train_on_their_stage_and_are_averaged(rng_seed):
    def loss(regions, logits, targets):
        """Encode which regions were passed, and that all of them are positive."""
        assert all((r.get_field("labels") > 0).all() for r in regions) and sum(map(len, regions)) == len(logits)
        return F.softplus(logits).mean()

    masks = CascadeMaskHead([ROIMaskHead(Coordinates(), RegionMaps(), loss, MaskPostProcessor()) for _ in THRESHOLDS])
    cascade = box_cascade()
    heads = CascadeROIHeads(cascade, masks)
    targets, proposals = boxlists(random_batch())
    _, drawn, _ = zip(*cascade.train_stages(None, proposals, targets), strict=True)
    x, regions, losses = heads.train()(None, proposals, targets)
    assert len(x) == sum(int((boxes.get_field("labels") > 0).sum()) for boxes in regions)
    assert [boxes.bbox.tolist() for boxes in regions] == [boxes.bbox.tolist() for boxes in drawn[-1]]
    for stage, (head, regions) in enumerate(zip(masks, drawn, strict=True)):
        positive = [boxes[(boxes.get_field("labels") > 0).nonzero().squeeze(1)] for boxes in regions]
        expected = LOSS_WEIGHTS[stage] * F.softplus(head.predictor(Coordinates()(None, positive))).mean()
        torch.testing.assert_close(losses[f"loss_mask_stage{stage}"], expected)

    _, detections, _ = cascade.eval()(None, proposals)
    _, found, no_losses = heads.eval()(None, proposals)
    assert no_losses == {}
    rows = Coordinates()(None, detections)
    first = 0
    for boxes in found:
        for mask, label in zip(boxes.get_field("mask"), boxes.get_field("labels"), strict=True):
            votes = [head.predictor(rows[first : first + 1])[0, label].sigmoid() for head in masks]
            torch.testing.assert_close(mask[0], sum(votes) / 3)
            first += 1
    assert first == len(rows) > 0
