"""Turn FCOS outputs into detections; see ../dense_post_process.py for the steps.

Shapes: n candidates.
"""

from __future__ import annotations

import torch

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.modeling.rpn.dense_post_process import DensePostProcessor


def boxes_from_distances(distances: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Decode distances (n, 4) to left, top, right, bottom at points (n, 2) into boxes (n, 4)."""
    return torch.cat((points - distances[:, :2], points + distances[:, 2:]), dim=1)


FCOSPostProcessor = DensePostProcessor  # the forks' name


def make_fcos_postprocessor(cfg) -> DensePostProcessor:
    return DensePostProcessor(
        boxes_from_distances,
        num_classes=cfg.MODEL.FCOS.NUM_CLASSES - 1,
        score_thresh=cfg.MODEL.FCOS.INFERENCE_TH,
        pre_nms_top_n=cfg.MODEL.FCOS.PRE_NMS_TOP_N,
        nms_thresh=cfg.MODEL.FCOS.NMS_TH,
        detections_per_img=cfg.TEST.DETECTIONS_PER_IMG,
        box_offset=get_convention(cfg.MODEL.CONVENTION).box_offset,
    )
