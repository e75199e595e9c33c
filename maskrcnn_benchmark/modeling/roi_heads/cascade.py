"""Cascade R-CNN (Cai & Vasconcelos, CVPR 2018): box heads in a row, each trained for tighter boxes than the one before.

Shapes: N images, L maps, C channels, R regions of all images together, K classes with the background.

What goes from stage to stage, and how the stages vote, is mmdetection's way: every stage draws its own sample, from
what the stage before made of its sample, and in Cascade Mask R-CNN every stage has its own mask head.
"""

from __future__ import annotations

import torch
from torch import nn

from maskrcnn_benchmark.modeling.host_waits import true_indices
from maskrcnn_benchmark.structures.bounding_box import BoxList


class CascadeBoxHead(nn.ModuleList):
    """One ROIBoxHead a stage; all classes share the correction of a box.

    Args:
        heads: ROIBoxHeads, their matchers from loose to strict.
        loss_weights: factors of each stage's losses.

    Forward takes what ROIBoxHead takes, and returns (x, boxes, losses): in training lists with an entry a stage, the
    extractor's output and the regions that ROIBoxHead returns, and its losses under names that end in _stage0, _stage1,
    ...; in evaluation the last stage's x, the detections and {}. `candidates` and `select` are the two halves of
    evaluation, as those of ROIBoxHead.
    """

    def __init__(self, heads, loss_weights):
        super().__init__(heads)
        self.loss_weights = loss_weights

    def forward(self, features, proposals, targets=None, output_sizes=None):
        if not self.training:
            with torch.no_grad():
                x, predictions, regions = self._vote(features, proposals)
                return x, self[-1].post_processor(predictions, regions, output_sizes), {}
        xs, drawn, losses = [], [], {}
        for stage, head in enumerate(self):
            regions = head.loss.subsample(proposals, targets)
            x, class_logits, box_regression = head.predict(features, regions)
            losses.update(_of_stage(stage, self.loss_weights, head.losses(class_logits, box_regression, regions)))
            proposals = _proposals_of_next_stage(head, box_regression, regions, targets)
            xs.append(x)
            drawn.append(regions)
        return xs, drawn, losses

    @torch.no_grad()
    def candidates(self, features, proposals):
        _, predictions, regions = self._vote(features, proposals)
        return self[-1].post_processor.candidates(predictions, regions)

    def select(self, candidates):
        return self[-1].post_processor.select(candidates)

    def _vote(self, features, proposals):
        """(x, (class logits, box corrections), regions): the mean of all stages' logits, each on its own regions; all
        else of the last stage."""
        all_logits, refined = [], proposals
        for head in self:
            regions = refined
            x, class_logits, box_regression = head.predict(features, regions)
            all_logits.append(class_logits)
            refined = head.post_processor.refine(box_regression, regions)
        return x, (torch.stack(all_logits).mean(dim=0), box_regression), regions


class CascadeMaskHead(nn.ModuleList):
    """One ROIMaskHead a stage, trained on its stage's regions; a detection's mask is the mean of all stages'.

    Args:
        heads: ROIMaskHeads.
        loss_weights: factors of each stage's loss.

    Forward takes L maps (N, C, H_l, W_l); in training CascadeBoxHead's regions and features and N BoxLists with fields
    "labels" and "masks"; in evaluation N BoxLists with field "labels". It returns (x, boxes, losses): in training the
    extractors' outputs, the regions as they came, and the scalars loss_mask_stage0, ...; in evaluation the last stage's
    x, the boxes with field "mask", the mean of the stages' probabilities, and {}. `probabilities` and `attach` are the
    two halves of evaluation, as those of ROIMaskHead.
    """

    def __init__(self, heads, loss_weights):
        super().__init__(heads)
        self.loss_weights = loss_weights

    def forward(self, features, boxes, targets=None, box_features=None):
        if not self.training:
            with torch.no_grad():
                x, probabilities = self._masks(features, boxes)
                return x, self.attach(probabilities, boxes), {}
        xs, losses = [], {}
        for stage, head in enumerate(self):
            x, _, stage_losses = head(features, boxes[stage], targets, box_features=box_features[stage])
            losses.update(_of_stage(stage, self.loss_weights, stage_losses))
            xs.append(x)
        return xs, boxes, losses

    @torch.no_grad()
    def probabilities(self, features, boxes):
        return self._masks(features, boxes)[1]

    def attach(self, probabilities, boxes):
        return self[-1].post_processor.attach(probabilities, boxes)

    def _masks(self, features, boxes):
        """(x of the last stage, the mean (R, 1, M, M) of all stages' probabilities)."""
        probabilities = []
        for head in self:
            x = head.feature_extractor(features, boxes)
            probabilities.append(head.post_processor.probabilities(head.predictor(x), boxes))
        return x, torch.stack(probabilities).mean(dim=0)


def _of_stage(stage, loss_weights, losses):
    return {f"{name}_stage{stage}": loss_weights[stage] * value for name, value in losses.items()}


@torch.no_grad()
def _proposals_of_next_stage(head, box_regression, regions, targets):
    """N BoxLists: the regions as this stage corrects them, and the ground truth as it is."""
    # Only a region that is its own ground truth has codes of 0, to the last bit. It comes back below, unmoved.
    not_truth = [
        (before.get_field("labels") <= 0) | (before.get_field("regression_targets") != 0).any(dim=1)
        for before in regions
    ]
    refined_regions = head.post_processor.refine(box_regression, regions)
    proposals = []
    for refined, indices, target in zip(refined_regions, true_indices(not_truth), targets, strict=True):
        boxes = refined.bbox[indices]
        truth = target.convert("xyxy").bbox.to(boxes.device)
        proposals.append(BoxList(torch.cat((boxes, truth)), refined.size, box_offset=refined.box_offset))
    return proposals


def configs_of_stages(cfg) -> list:
    """A config a stage, each of a detector with one box head (and mask head) that is built as usual.

    Raises:
        ValueError: the lists of MODEL.CASCADE are not equally long, or MODEL.KEYPOINT_ON is True.
    """
    node = cfg.MODEL.CASCADE
    lengths = [len(node.IOU_THRESHOLDS), len(node.BBOX_REG_WEIGHTS), len(node.LOSS_WEIGHTS)]
    if len(set(lengths)) > 1 or lengths[0] == 0:
        raise ValueError(
            "MODEL.CASCADE wants IOU_THRESHOLDS, BBOX_REG_WEIGHTS and LOSS_WEIGHTS with an entry a stage, got "
            f"{lengths} entries; make them equally long"
        )
    if cfg.MODEL.KEYPOINT_ON:
        raise ValueError(
            "MODEL.CASCADE_ON and MODEL.KEYPOINT_ON are True, but a cascade has no keypoint head; set one to False"
        )
    stages = []
    for threshold, weights in zip(node.IOU_THRESHOLDS, node.BBOX_REG_WEIGHTS, strict=True):
        stage = cfg.clone()
        stage.defrost()
        stage.MODEL.CLS_AGNOSTIC_BBOX_REG = True
        stage.MODEL.ROI_HEADS.FG_IOU_THRESHOLD = stage.MODEL.ROI_HEADS.BG_IOU_THRESHOLD = threshold
        stage.MODEL.ROI_HEADS.BBOX_REG_WEIGHTS = weights
        stages.append(stage)
    return stages


def join_stages(stages: list[dict], loss_weights) -> dict:
    """The heads of all stages, {"box": ROIBoxHead, "mask": ROIMaskHead (optional)} each, as cascades of these names."""
    cascades = {"box": CascadeBoxHead, "mask": CascadeMaskHead}
    return {name: cascades[name]([stage[name] for stage in stages], loss_weights) for name in stages[0]}
