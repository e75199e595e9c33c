"""A detector of a few layers, which is exported in seconds."""

import torch
from torch import nn

from helpers.tiny_models import tiny_cfg
from maskrcnn_benchmark.modeling.detector.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.modeling.rpn.anchor_generator import PointGenerator
from maskrcnn_benchmark.modeling.rpn.dense_detector import DenseDetector
from maskrcnn_benchmark.modeling.rpn.dense_post_process import DensePostProcessor
from maskrcnn_benchmark.modeling.rpn.fcos.fcos import FCOSHead
from maskrcnn_benchmark.modeling.rpn.fcos.inference import boxes_from_distances
from maskrcnn_benchmark.structures.label_names import LabelNames

CLASSES = LabelNames(["cell", "plate"], [4, 9])


class TwoMaps(nn.Module):
    """Maps of strides 16 and 32."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 64, 16, stride=16)
        self.second = nn.Conv2d(64, 64, 3, stride=2, padding=1)

    def forward(self, x):
        x = self.first(x) / 64
        return [x, self.second(x)]


def tiny_detector():
    """Return (cfg, model in evaluation, LabelNames); the same weights at every call."""
    torch.manual_seed(4)
    cfg = tiny_cfg("fcos", "DATALOADER.SIZE_DIVISIBILITY", 32, "INPUT.MIN_SIZE_TEST", 96, "INPUT.MAX_SIZE_TEST", 160)
    head = FCOSHead(64, 2, (16, 32), num_convs=1)
    for layer in (head.cls_logits, head.centerness, head.bbox_pred):
        nn.init.normal_(layer.weight, std=0.1)
        nn.init.zeros_(layer.bias)
    nn.init.constant_(head.bbox_pred.bias, 2.5)
    # twenty places for detections, so that they are filled in one image and not in another
    select = DensePostProcessor(boxes_from_distances, 2, 0.3, 30, 0.6, 20)
    dense = DenseDetector(PointGenerator((16, 32)), head, None, select)
    return cfg, GeneralizedRCNN(TwoMaps(), dense, size_divisible=32).eval(), CLASSES
