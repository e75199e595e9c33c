"""Generalized R-CNN: a backbone, a first stage on whole feature maps, and optional heads on regions of interest.

Shapes: N images.
"""

from __future__ import annotations

from torch import nn

from maskrcnn_benchmark.structures.image_list import to_image_list


class GeneralizedRCNN(nn.Module):
    """Backbone, first stage and ROI heads in sequence.

    Args:
        backbone: maps (N, 3, H, W) to a list of feature maps.
        rpn: first stage; (images, features, targets) -> (BoxLists, losses). RPN, RetinaNet or FCOS.
        roi_heads: second stage; (features, proposals, targets) -> (features, BoxLists, losses); [] for none.
        size_divisible: images given without an ImageList are padded to a multiple of this.
        takes_output_sizes: whether evaluation passes the sizes of the original images.

    Forward takes an ImageList, or images (3, H_i, W_i) as `to_image_list` accepts them, normalized as the weights
    require.

    Args:
        targets: in training, N BoxLists with the field "labels". Their boxes follow the model's convention.
        output_sizes: in evaluation, optionally N (width, height), see CombinedROIHeads.

    Returns:
        In training, a dict of scalar losses. In evaluation, N BoxLists with the fields "scores" and "labels", in
        pixels of the network input, on the model's device.

    Raises:
        ValueError: training without targets.
    """

    def __init__(self, backbone, rpn, roi_heads=(), size_divisible: int = 0, takes_output_sizes: bool = False):
        super().__init__()
        self.backbone = backbone
        self.rpn = rpn
        self.roi_heads = roi_heads
        self.size_divisible = size_divisible
        self.takes_output_sizes = takes_output_sizes

    def forward(self, images, targets=None, output_sizes=None):
        if self.training and targets is None:
            raise ValueError("training requires targets, one BoxList per image; call model.eval() for inference")
        images = to_image_list(images, self.size_divisible)
        features = self.backbone(images.tensors)
        boxes, losses = self.rpn(images, features, targets)
        if not self.roi_heads:
            return losses if self.training else boxes
        _, detections, roi_losses = self.roi_heads(features, boxes, targets, output_sizes)
        return {**roi_losses, **losses} if self.training else detections
