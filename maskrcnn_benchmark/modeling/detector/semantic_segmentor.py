"""Semantic segmentation: predict a class for every pixel (DeepLabV3, Chen et al., 2017).

Shapes: N images, K classes, H x W pixels of the padded images, h x w points of the head's map.
See semantic/deeplab_head.py for the computation between the body's maps and the logits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.modeling.semantic.maps import classes_of_images, upsample
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList, to_image_list
from maskrcnn_benchmark.structures.packed_map import PackedMap
from maskrcnn_benchmark.structures.semantic_map import to_label_batch


class SemanticSegmentor(nn.Module):
    """Backbone, head and upsampling.

    Args:
        backbone: maps (N, 3, H, W) to a list of maps, finest first.
        head: maps that list to logits (N, K, h, w). It is the attribute `aspp`, as in VoVNet-DeepLabV3's checkpoints.
        loss: (logits (N, K, H, W), labels (N, H, W)) -> scalar, see semantic/segmentation_losses.py.
        loss_weight: factor of the loss.
        align_corners: of the upsampling of the logits.
        size_divisible: images given without an ImageList are padded to a multiple of this.

    Forward takes an ImageList, or images (3, H_i, W_i) as `to_image_list` accepts them.

    Args:
        targets: in training, N BoxLists with the field "semantic" (SemanticMap), or N SemanticMaps.
        output_sizes: in evaluation, N (width, height); default: the images' sizes in the network input.

    Returns:
        In training, {"loss_semantic": scalar}. In evaluation, N empty BoxLists with the field "semantic" (PackedMap of
        classes) in output size.

    Raises:
        ValueError: training without targets, or with targets that have no semantic map.
    """

    takes_output_sizes = True

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        loss_weight: float = 1.0,
        align_corners: bool = True,
        size_divisible: int = 0,
    ):
        super().__init__()
        self.backbone = backbone
        self.aspp = head
        self.loss = loss
        self.loss_weight = loss_weight
        self.align_corners = align_corners
        self.size_divisible = size_divisible

    def logits(self, images: ImageList | Tensor | list[Tensor]) -> Tensor:
        """Return the logits (N, K, H, W) float32, padding included."""
        images = to_image_list(images, self.size_divisible)
        maps = self.backbone(images.tensors)
        return upsample(self.aspp(maps).float(), images.tensors.shape[-2:], self.align_corners)

    def forward(self, images, targets=None, output_sizes=None):
        images = to_image_list(images, self.size_divisible)
        if self.training:
            labels = to_label_batch(semantic_maps(targets), images.tensors.shape[-2:])
            return {"loss_semantic": self.loss(self.logits(images), labels) * self.loss_weight}
        classes = classes_of_images(self.logits(images), images.image_sizes, output_sizes)
        return [as_result(*pair) for pair in zip(classes, images.image_sizes, strict=True)]


def semantic_maps(targets) -> list:
    """Return the SemanticMaps of N targets.

    Raises:
        ValueError: there are no targets, or one of them has no semantic map.
    """
    if not targets or any(isinstance(target, BoxList) and not target.has_field("semantic") for target in targets):
        raise ValueError(
            "in training SemanticSegmentor requires targets, one BoxList per image, with the field 'semantic' "
            "(SemanticMap); datasets of FORMAT: semantic have it; call model.eval() for inference"
        )
    return [target.get_field("semantic") if isinstance(target, BoxList) else target for target in targets]


def as_result(classes: Tensor, image_size: tuple[int, int]) -> BoxList:
    """Return a BoxList without boxes for an image of (height, width), with the classes as its field "semantic"."""
    result = BoxList(torch.zeros((0, 4)), image_size[::-1])
    result.add_field("semantic", PackedMap(classes))
    return result
