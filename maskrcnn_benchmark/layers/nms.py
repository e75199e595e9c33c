"""Non-maximum suppression (twin only, for now)."""
from __future__ import annotations

import torch


def batched_nms(boxes, scores, groups, iou_threshold, *, inclusive=False, max_keep=-1):
    off = 1.0 if inclusive else 0.0
    order = scores.sort(descending=True, stable=True).indices
    b = boxes[order].float()
    g = groups[order] if groups is not None else None
    area = (b[:, 2] - b[:, 0] + off) * (b[:, 3] - b[:, 1] + off)
    alive = torch.ones(len(b), dtype=torch.bool)
    keep = []
    for i in range(len(b)):
        if not alive[i]:
            continue
        keep.append(i)
        if 0 < max_keep <= len(keep):
            break
        r = b[i + 1 :]
        w = (torch.minimum(b[i, 2], r[:, 2]) - torch.maximum(b[i, 0], r[:, 0]) + off).clamp(min=0)
        h = (torch.minimum(b[i, 3], r[:, 3]) - torch.maximum(b[i, 1], r[:, 1]) + off).clamp(min=0)
        inter = w * h
        bad = inter / (area[i] + area[i + 1 :] - inter) > iou_threshold
        if g is not None:
            bad &= g[i + 1 :] == g[i]
        alive[i + 1 :] &= ~bad
    return order[torch.tensor(keep, dtype=torch.int64)]


def nms(boxes, scores, threshold):
    return batched_nms(boxes, scores, None, threshold, inclusive=True).sort().values


def ml_nms(boxes, scores, labels, threshold):
    return batched_nms(boxes, scores, labels, threshold, inclusive=True).sort().values
