"""Turn RetinaNet outputs into detections (section 4.1); see ../dense_post_process.py for the steps."""

from __future__ import annotations

from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.modeling.rpn.dense_post_process import DensePostProcessor

RetinaNetPostProcessor = DensePostProcessor  # the forks' name


def make_retinanet_postprocessor(cfg, rpn_box_coder, is_train: bool) -> DensePostProcessor:
    """Build the post-processor of a config. is_train has no effect: RetinaNet makes no boxes in training."""
    retinanet = cfg.MODEL.RETINANET
    return DensePostProcessor(
        rpn_box_coder.decode,
        num_classes=retinanet.NUM_CLASSES - 1,
        score_thresh=retinanet.INFERENCE_TH,
        pre_nms_top_n=retinanet.PRE_NMS_TOP_N,
        nms_thresh=retinanet.NMS_TH,
        detections_per_img=cfg.TEST.DETECTIONS_PER_IMG,
        box_offset=get_convention(cfg.MODEL.CONVENTION).box_offset,
    )
