"""Cascade R-CNN (Cai & Vasconcelos, CVPR 2018): a sequence of box heads, each trained for higher IoU.

Shapes: N images, L maps, C channels, R regions of all images together, K classes with the background.

Stages are connected and averaged as in mmdetection. Every stage draws its own sample from the previous stage's sample
after refinement. In Cascade Mask R-CNN every stage has its own mask head.
"""

from __future__ import annotations

import torch
from torch import nn

from maskrcnn_benchmark.modeling.host_waits import true_indices
from maskrcnn_benchmark.structures.bounding_box import BoxList


class CascadeBoxHead(nn.ModuleList):
    """One ROIBoxHead per stage; all classes share one box code.

    Args:
        heads: ROIBoxHeads, with matchers of rising IoU thresholds.
        loss_weights: factors of each stage's losses.

    Forward takes what ROIBoxHead takes.

    Returns:
        (x, boxes, losses), where x is the last stage's extractor output. In training, boxes are the last stage's
        regions, and the losses of all stages have names that end in _stage0, _stage1, ... In evaluation, boxes are the
        detections and losses is {}.

    `candidates` and `select` are the two halves of evaluation, as those of ROIBoxHead.
    """

    def __init__(self, heads, loss_weights):
        super().__init__(heads)
        self.loss_weights = loss_weights

    def forward(self, features, proposals, targets=None, output_sizes=None):
        if self.training:
            stages = self.train_stages(features, proposals, targets)
            x, regions, _ = stages[-1]
            return x, regions, {name: loss for _, _, losses in stages for name, loss in losses.items()}
        with torch.no_grad():
            x, predictions, regions = self._vote(features, proposals)
            return x, self[-1].post_processor(predictions, regions, output_sizes), {}

    def train_stages(self, features, proposals, targets) -> list[tuple]:
        """Return (x, regions, losses) of every stage, as ROIBoxHead returns them in training."""
        stages = []
        for number, head in enumerate(self):
            regions = head.loss.subsample(proposals, targets)
            x, class_logits, box_regression = head.predict(features, regions)
            losses = head.losses(class_logits, box_regression, regions)
            stages.append((x, regions, of_stage(number, self.loss_weights, losses)))
            proposals = _proposals_of_next_stage(head, box_regression, regions, targets)
        return stages

    @torch.no_grad()
    def candidates(self, features, proposals):
        _, predictions, regions = self._vote(features, proposals)
        return self[-1].post_processor.candidates(predictions, regions)

    def select(self, candidates):
        return self[-1].post_processor.select(candidates)

    def _vote(self, features, proposals):
        """Return (x, (class logits, box codes), regions).

        The logits are the mean of all stages', each on its own regions; everything else is the last stage's.
        """
        all_logits, refined = [], proposals
        for head in self:
            regions = refined
            x, class_logits, box_regression = head.predict(features, regions)
            all_logits.append(class_logits)
            refined = head.post_processor.refine(box_regression, regions)
        return x, (torch.stack(all_logits).mean(dim=0), box_regression), regions


class CascadeMaskHead(nn.ModuleList):
    """One ROIMaskHead per stage; a detection's mask is the mean of all stages'.

    Args:
        heads: ROIMaskHeads. CascadeROIHeads trains each on its stage's regions.

    Forward, in evaluation, takes L maps (N, C, H_l, W_l) and N BoxLists with the field "labels".

    Returns:
        (x, boxes, {}): the last stage's extractor output, and the boxes with the field "mask", the mean of the stages'
        probabilities.

    `predict` and `attach` are the two halves of evaluation, as those of ROIMaskHead; no stage scores its masks.
    """

    @torch.no_grad()
    def forward(self, features, boxes):
        x, probabilities = self._masks(features, boxes)
        return x, self.attach(probabilities, None, boxes), {}

    @torch.no_grad()
    def predict(self, features, boxes, maskiou=None):
        return self._masks(features, boxes)[1], None

    def attach(self, probabilities, ious, boxes):
        return self[-1].post_processor.attach(probabilities, boxes, ious)

    def _masks(self, features, boxes):
        """Return (x of the last stage, the mean (R, 1, M, M) of all stages' probabilities)."""
        probabilities = []
        for head in self:
            x = head.feature_extractor(features, boxes)
            probabilities.append(head.post_processor.probabilities(head.predictor(x), boxes))
        return x, torch.stack(probabilities).mean(dim=0)


class CascadeROIHeads(nn.ModuleDict):
    """Cascaded box heads, and in Cascade Mask R-CNN a mask head per stage.

    Args:
        box: CascadeBoxHead.
        mask: CascadeMaskHead with as many stages, or None.

    Takes and returns what CombinedROIHeads does; in training x and boxes are the last stage's.
    """

    def __init__(self, box: CascadeBoxHead, mask: CascadeMaskHead | None = None):
        super().__init__({"box": box} if mask is None else {"box": box, "mask": mask})

    def forward(self, features, proposals, targets=None, output_sizes=None):
        box, mask = self["box"], self["mask"] if "mask" in self else None
        if not self.training:
            x, boxes, _ = box(features, proposals, output_sizes=output_sizes)
            return (x, boxes, {}) if mask is None else mask(features, boxes)
        stages = box.train_stages(features, proposals, targets)
        losses = {name: loss for _, _, of_boxes in stages for name, loss in of_boxes.items()}
        x, regions, _ = stages[-1]
        if mask is not None:
            for number, (head, (box_features, boxes, _)) in enumerate(zip(mask, stages, strict=True)):
                x, _, of_masks = head(features, boxes, targets, box_features=box_features)
                losses.update(of_stage(number, box.loss_weights, of_masks))
        return x, regions, losses


def of_stage(number: int, loss_weights, losses: dict) -> dict:
    """Weight a stage's losses, and add the stage to their names."""
    return {f"{name}_stage{number}": loss_weights[number] * value for name, value in losses.items()}


@torch.no_grad()
def _proposals_of_next_stage(head, box_regression, regions, targets):
    """Return N BoxLists: the regions as refined by this stage, and the ground truth itself."""
    # A positive region with codes of exactly 0 is a ground-truth box that was added to the proposals. Drop it here: the
    # ground truth is added again below, without the refinement.
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
