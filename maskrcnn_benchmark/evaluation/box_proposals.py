"""Average recall of class-agnostic proposals (Hosang et al., TPAMI 2015), computed as in maskrcnn-benchmark.

Shapes: P proposals and G ground-truth boxes of an image.
"""

from __future__ import annotations

from collections import defaultdict

import torch

from maskrcnn_benchmark.evaluation.coco_results import NOT_COMPUTED
from maskrcnn_benchmark.evaluation.predictions import Predictions, numbered
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.boxlist_ops import boxlist_iou

# Suffix of a metric -> range of areas in square pixels of the original image, both ends included.
AREAS = {"": (0.0, 1e10), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}
LIMITS = (100, 1000)
IOU_THRESHOLDS = torch.arange(10) * 0.05 + 0.5


def proposal_recall(predictions: Predictions, dataset, ground_truth: dict) -> dict[str, float]:
    """Compute the recall of proposals, averaged over IoU 0.50:0.95.

    Proposals are sorted by their field "objectness", or "scores" if there is none. Crowd regions are not ground truth.
    All boxes of an image without proposals are missed.

    Args:
        predictions: proposals in the size of the network input.
        dataset: has get_img_info(index) and image_id(index).
        ground_truth: result of `ground_truth_of`.

    Returns:
        {"AR@100", "ARs@100", ..., "ARl@1000"}; -1 without ground truth.
    """
    boxes_of_image = defaultdict(list)
    for annotation in ground_truth["annotations"]:
        if not annotation["iscrowd"]:
            boxes_of_image[annotation["image_id"]].append(annotation)
    proposals_of_image = {dataset.image_id(index): (index, boxlist) for index, boxlist in numbered(predictions)}

    best: dict[str, list[torch.Tensor]] = defaultdict(list)
    for image_id, objects in boxes_of_image.items():
        areas = torch.tensor([float(annotation["area"]) for annotation in objects])
        iou = torch.zeros(0, len(objects))
        if image_id in proposals_of_image:
            index, proposals = proposals_of_image[image_id]
            iou = _sorted_iou(proposals, objects, dataset.get_img_info(index))
        for suffix, (low, high) in AREAS.items():
            columns = (areas >= low) & (areas <= high)
            for limit in LIMITS:
                best[f"AR{suffix}@{limit}"].append(greedy_overlaps(iou[:limit, columns]))

    recalls = {}
    for limit in LIMITS:
        for suffix in AREAS:
            metric = f"AR{suffix}@{limit}"
            overlaps = torch.cat(best[metric]) if best[metric] else torch.zeros(0)
            found = (overlaps[:, None] >= IOU_THRESHOLDS).double()
            recalls[metric] = float(found.mean()) if len(overlaps) else NOT_COMPUTED
    return recalls


def _sorted_iou(proposals: BoxList, annotations: list[dict], info: dict) -> torch.Tensor:
    """Return the IoU (P, G) of at most LIMITS[-1] proposals, best first, with the box_offset of the proposals."""
    size = (info["width"], info["height"])
    boxes = BoxList([annotation["bbox"] for annotation in annotations], size, mode="xywh").convert("xyxy")
    score = proposals.get_field("objectness" if proposals.has_field("objectness") else "scores")
    order = score.argsort(descending=True, stable=True)[: LIMITS[-1]]
    return boxlist_iou(proposals.copy_with_fields([])[order].resize(size), boxes)


def greedy_overlaps(iou: torch.Tensor) -> torch.Tensor:
    """Assign proposals to ground-truth boxes greedily, best pair first, and return the overlap (G,) of each box.

    Args:
        iou: (P, G). A proposal is assigned to at most one box; boxes without a proposal get 0.
    """
    iou = iou.clone()
    overlaps = iou.new_zeros(iou.shape[1])
    for _ in range(min(iou.shape)):
        proposal, box = divmod(int(iou.argmax()), iou.shape[1])
        overlaps[box] = iou[proposal, box]
        iou[proposal, :] = -1
        iou[:, box] = -1
    return overlaps
