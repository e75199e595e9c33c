"""Average recall of class-agnostic proposals (Hosang et al., TPAMI 2015), as maskrcnn-benchmark counts it.

Shapes: P proposals and G ground-truth boxes of a picture.
"""

from __future__ import annotations

from collections import defaultdict

import torch

from maskrcnn_benchmark.evaluation.coco_results import NOT_COMPUTED
from maskrcnn_benchmark.evaluation.predictions import Predictions, numbered
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.boxlist_ops import boxlist_iou

# Suffix of a metric: area in square pixels of the original picture, both ends included.
AREAS = {"": (0.0, 1e10), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}
LIMITS = (100, 1000)
IOU_THRESHOLDS = torch.arange(10) * 0.05 + 0.5


def proposal_recall(predictions: Predictions, dataset, ground_truth: dict) -> dict[str, float]:
    """Recall averaged over IoU 0.50:0.95, as {"AR@100", "ARs@100", ..., "ARl@1000"}; -1 without ground truth.

    Proposals are taken by falling field "objectness" ("scores" where there is none). Crowd regions are no
    ground truth. A picture without proposals misses all of its boxes.

    Args:
        predictions: proposals in the size of the network input.
        dataset: offers get_img_info(index) and image_id(index).
        ground_truth: what ground_truth.ground_truth_of returns.
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
    """IoU (P, G), sides counted as the proposals' are, at most LIMITS[-1] rows by falling objectness."""
    size = (info["width"], info["height"])
    boxes = BoxList([annotation["bbox"] for annotation in annotations], size, mode="xywh").convert("xyxy")
    score = proposals.get_field("objectness" if proposals.has_field("objectness") else "scores")
    order = score.argsort(descending=True, stable=True)[: LIMITS[-1]]
    return boxlist_iou(proposals.copy_with_fields([])[order].resize(size), boxes)


def greedy_overlaps(iou: torch.Tensor) -> torch.Tensor:
    """Overlap (G,) that each ground-truth box gets when pairs of proposal and box are taken best first.

    Args:
        iou: (P, G). A proposal serves one box only; boxes that go without get 0.
    """
    iou = iou.clone()
    overlaps = iou.new_zeros(iou.shape[1])
    for _ in range(min(iou.shape)):
        proposal, box = divmod(int(iou.argmax()), iou.shape[1])
        overlaps[box] = iou[proposal, box]
        iou[proposal, :] = -1
        iou[:, box] = -1
    return overlaps
