"""Run the models of the shipped configs as users of maskrcnn-benchmark do: untrained, with autograd enabled."""

import copy
from pathlib import Path

import pytest
import torch

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.image_list import to_image_list

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
NAMES = (
    "e2e_faster_rcnn_R_50_C4_1x.yaml",
    "e2e_faster_rcnn_R_50_FPN_1x.yaml",
    "e2e_mask_rcnn_R_50_C4_1x.yaml",
    "e2e_mask_rcnn_R_50_FPN_1x.yaml",
    "e2e_keypoint_rcnn_R_50_FPN_1x.yaml",
    "gn_baselines/e2e_faster_rcnn_R_50_FPN_1x_gn.yaml",
    "retinanet/retinanet_R-50-FPN_1x.yaml",
    "rpn_R_50_C4_1x.yaml",
    "rpn_R_50_FPN_1x.yaml",
)


@pytest.mark.parametrize("name", NAMES)
def test_an_untrained_model_returns_one_boxlist_per_image(name):
    cfg = copy.deepcopy(defaults)
    cfg.merge_from_file(str(CONFIGS / name))
    cfg.merge_from_list(["MODEL.RPN.POST_NMS_TOP_N_TEST", 10, "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST", 10])
    cfg.freeze()
    model = build_detection_model(cfg).to("cpu").eval()
    images = to_image_list([torch.rand(3, 64, 77), torch.rand(3, 80, 48)], cfg.DATALOADER.SIZE_DIVISIBILITY)
    detections = model(images)
    assert [tuple(found.size) for found in detections] == [(77, 64), (48, 80)]
    fields = {"objectness"} if cfg.MODEL.RPN_ONLY and not cfg.MODEL.RETINANET_ON else {"scores", "labels"}
    fields |= {"mask"} if cfg.MODEL.MASK_ON else set()
    fields |= {"keypoints"} if cfg.MODEL.KEYPOINT_ON else set()
    assert all(set(found.fields()) == fields for found in detections)
