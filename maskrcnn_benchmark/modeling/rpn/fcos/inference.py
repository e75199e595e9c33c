"""Turn FCOS outputs into detections; see ../dense_post_process.py for the steps.

Shapes: n candidates.
"""

from __future__ import annotations

import torch

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.config.stages import has_roi_heads
from maskrcnn_benchmark.modeling.rpn.dense_post_process import DensePostProcessor


def boxes_from_distances(distances: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Decode distances (n, 4) to left, top, right, bottom at points (n, 2) into boxes (n, 4)."""
    return torch.cat((points - distances[:, :2], points + distances[:, 2:]), dim=1)


FCOSPostProcessor = DensePostProcessor  # the forks' name


def make_fcos_postprocessor(cfg, is_train: bool = False) -> DensePostProcessor:
    """Build the post-processor of detections, or with is_train that of the regions that ROI heads train on."""
    node, convention = cfg.MODEL.FCOS, get_convention(cfg.MODEL.CONVENTION)
    return DensePostProcessor(
        boxes_from_distances,
        num_classes=node.NUM_CLASSES - 1,
        score_thresh=node.INFERENCE_TH,
        pre_nms_top_n=node.PRE_NMS_TOP_N,
        nms_thresh=node.NMS_TH,
        detections_per_img=node.POST_NMS_TOP_N_TRAIN if is_train else cfg.TEST.DETECTIONS_PER_IMG,
        box_offset=convention.box_offset,
        score_root=convention.dense_score_root,
        best_first=convention.dense_best_first,
        # Only ROI heads read unclipped boxes.
        clips=convention.dense_boxes_clipped or not has_roi_heads(cfg.MODEL),
    )
