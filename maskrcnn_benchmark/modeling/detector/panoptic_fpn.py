"""Panoptic FPN (Kirillov et al., CVPR 2019): Mask R-CNN, or CenterMask, and a semantic head on one feature pyramid.

Shapes: N images, D detections of an image, M x M pixels of a predicted mask, C semantic classes, H x W pixels.
See panoptic_merge.py for how instances and stuff share the pixels.
"""

from __future__ import annotations

from torch import Tensor, nn

from maskrcnn_benchmark.modeling.detector.panoptic_merge import MergeRules, merge_segments
from maskrcnn_benchmark.modeling.semantic.loss import semantic_loss
from maskrcnn_benchmark.modeling.semantic.maps import classes_of_images, upsample
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.packed_map import PackedMap
from maskrcnn_benchmark.structures.paste_masks import MaskPasting


class PanopticFPN(nn.Module):
    """Backbone, RPN, box and mask head, and a semantic head on the same features.

    Args:
        backbone: maps (N, 3, H, W) to a list of FPN maps.
        rpn, roi_heads: as in GeneralizedRCNN; the ROI heads predict masks relative to their boxes.
        sem_seg_head: FPN maps -> logits (N, C, H', W').
        merge_rules: thresholds of the merge.
        mask_pasting: how the masks of instances are pasted.
        semantic_loss_weight: factor of the semantic loss.
        instance_loss_weight: factor of the losses of the ROI heads.
        size_divisible: images given without an ImageList are padded to a multiple of this.
        first_instance_map: index of the first FPN map that rpn and roi_heads read.

    Forward takes an ImageList, or images (3, H_i, W_i) as `to_image_list` accepts them.

    Args:
        targets: in training, N BoxLists with the fields "labels", "masks" and "semantic" (SemanticMap: 0 for things,
            then stuff).
        output_sizes: in evaluation, N (width, height). Default: the sizes in the network input.

    Returns:
        In training, a dict of scalar losses. In evaluation, N BoxLists in pixels of the network input with the fields
        "scores", "labels" and "mask" (D, 1, M, M); and in output size "panoptic" (PanopticMap) and "semantic"
        (PackedMap of classes).

    Raises:
        ValueError: training without targets, or with targets that have no semantic map.
    """

    # The merge counts pixels of the original images, so evaluation passes their sizes.
    takes_output_sizes = True

    def __init__(
        self,
        backbone: nn.Module,
        rpn: nn.Module,
        roi_heads: nn.Module,
        sem_seg_head: nn.Module,
        merge_rules: MergeRules,
        mask_pasting: MaskPasting,
        semantic_loss_weight: float = 1.0,
        instance_loss_weight: float = 1.0,
        size_divisible: int = 0,
        first_instance_map: int = 0,
    ):
        super().__init__()
        self.backbone = backbone
        self.rpn = rpn
        self.roi_heads = roi_heads
        self.sem_seg_head = sem_seg_head
        self.merge_rules = merge_rules
        self.mask_pasting = mask_pasting
        self.semantic_loss_weight = semantic_loss_weight
        self.instance_loss_weight = instance_loss_weight
        self.size_divisible = size_divisible
        self.first_instance_map = first_instance_map

    def forward(self, images, targets: list[BoxList] | None = None, output_sizes=None):
        if self.training and (targets is None or not all(target.has_field("semantic") for target in targets)):
            raise ValueError(
                "in training PanopticFPN requires targets, one BoxList per image, with the field 'semantic' "
                "(SemanticMap); datasets of FORMAT: coco_panoptic have it; call model.eval() for inference"
            )
        images = to_image_list(images, self.size_divisible)
        features = self.backbone(images.tensors)
        logits = upsample(self.sem_seg_head(features).float(), images.tensors.shape[-2:])
        features = features[self.first_instance_map :]
        proposals, rpn_losses = self.rpn(images, features, targets)
        _, detections, roi_losses = self.roi_heads(features, proposals, targets)
        if self.training:
            loss = semantic_loss(logits, [target.get_field("semantic") for target in targets])
            roi_losses = {name: value * self.instance_loss_weight for name, value in roi_losses.items()}
            return {"loss_sem_seg": loss * self.semantic_loss_weight, **roi_losses, **rpn_losses}
        classes = classes_of_images(logits, images.image_sizes, output_sizes)
        return [self._with_maps(*pair) for pair in zip(detections, classes, strict=True)]

    def _with_maps(self, detections: BoxList, classes: Tensor) -> BoxList:
        height, width = classes.shape
        instances = detections.resize((width, height)).to("cpu")
        panoptic = merge_segments(instances, classes, self.merge_rules, self.mask_pasting)
        result = detections.copy_with_fields(detections.fields())
        result.add_field("panoptic", panoptic)
        result.add_field("semantic", PackedMap(classes))
        return result
