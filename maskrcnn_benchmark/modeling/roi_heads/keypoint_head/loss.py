"""Compute targets and loss of the keypoint head (Mask R-CNN, section 5).

Shapes: N images, R regions of all images together, R_i of one, G ground-truth boxes of an image, K keypoints of an
object, M pixels a side of a heatmap.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.modeling.balanced_positive_negative_sampler import BalancedPositiveNegativeSampler
from maskrcnn_benchmark.modeling.host_waits import true_indices
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.modeling.roi_heads.regions import label_regions
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.keypoint import keypoints_to_heat_map


class KeypointRCNNLoss:
    """Cross entropy over the M x M positions of each visible keypoint.

    Args:
        matcher: Matcher of regions and ground truth.
        sampler: BalancedPositiveNegativeSampler; only the positives it draws are used.
        discretization_size: M.
        box_offset: see Convention.
    """

    def __init__(self, matcher, sampler, discretization_size, box_offset=1.0):
        self.matcher = matcher
        self.sampler = sampler
        self.discretization_size = discretization_size
        self.box_offset = box_offset

    @torch.no_grad()
    def subsample(self, proposals: list[BoxList], targets: list[BoxList]) -> list[BoxList]:
        """Sample regions for training: those that overlap an object with a visible keypoint inside its box.

        Args:
            proposals: N BoxLists (xyxy).
            targets: N BoxLists with the fields "labels" and, unless they are empty, "keypoints" (PersonKeypoints).

        Returns:
            N BoxLists with the fields of the proposals and "keypoints_target" (R_i, K, 3): x, y in pixels of the
            network input, visibility.
        """
        matched = [self._match(*pair) for pair in zip(proposals, targets, strict=True)]
        positive, _ = self.sampler([labels for labels, _ in matched])
        regions = []
        for boxes, (_, keypoints), chosen in zip(proposals, matched, true_indices(positive), strict=True):
            drawn = boxes[chosen]
            drawn.add_field("keypoints_target", keypoints[chosen])
            regions.append(drawn)
        return regions

    def _match(self, proposals, target):
        """Return labels (R_i,) and keypoints (R_i, K, 3) of the objects that the proposals overlap most."""
        labelled, matches = label_regions(self.matcher, proposals, target, self.box_offset)
        labels = labelled.get_field("labels")
        if len(target) == 0:
            return labels, proposals.bbox.new_zeros((len(proposals), 0, 3))
        if not target.has_field("keypoints"):
            raise ValueError(
                f"MODEL.KEYPOINT_ON is True, but the ground truth has no keypoints, only {target.fields()}; set it to "
                "False or train on a dataset with keypoints"
            )
        truth = target.convert("xyxy").bbox
        keypoints = target.get_field("keypoints").keypoints.to(truth.device)
        x, y, visibility = keypoints.unbind(dim=2)
        x1, y1, x2, y2 = truth[:, :, None].unbind(dim=1)
        seen = ((x >= x1) & (x <= x2) & (y >= y1) & (y <= y2) & (visibility > 0)).any(dim=1)

        nearest = matches.clamp(min=0)
        # An object without a keypoint to learn is neither an example nor background.
        labels = torch.where(seen[nearest], labels, -1)
        return labels, keypoints[nearest]

    def __call__(self, proposals: list[BoxList], keypoint_logits: torch.Tensor) -> torch.Tensor:
        """Return the loss, a scalar that depends on keypoint_logits even without keypoints.

        Args:
            proposals: the N BoxLists of `subsample`.
            keypoint_logits: (R, K, M, M).
        """
        places, valid = [], []
        for boxes in proposals:
            if len(boxes):
                place, inside = keypoints_to_heat_map(
                    boxes.get_field("keypoints_target"), boxes.bbox, self.discretization_size
                )
                places.append(place.flatten())
                valid.append(inside.flatten())
        valid = torch.cat(valid).bool().nonzero().squeeze(1) if valid else []
        if len(valid) == 0:
            return keypoint_logits.sum() * 0
        if keypoint_logits.shape[-2:] != (self.discretization_size,) * 2:
            raise ValueError(
                f"the predicted heatmaps have {tuple(keypoint_logits.shape[-2:])} pixels, but "
                f"MODEL.ROI_KEYPOINT_HEAD.RESOLUTION is {self.discretization_size}; set it to their side"
            )
        logits = keypoint_logits.float().reshape(-1, self.discretization_size**2)
        return F.cross_entropy(logits[valid], torch.cat(places)[valid].to(torch.int64))


def make_roi_keypoint_loss_evaluator(cfg) -> KeypointRCNNLoss:
    node = cfg.MODEL.ROI_HEADS
    return KeypointRCNNLoss(
        Matcher(node.FG_IOU_THRESHOLD, node.BG_IOU_THRESHOLD),
        BalancedPositiveNegativeSampler(node.BATCH_SIZE_PER_IMAGE, node.POSITIVE_FRACTION),
        cfg.MODEL.ROI_KEYPOINT_HEAD.RESOLUTION,
        get_convention(cfg.MODEL.CONVENTION).box_offset,
    )
