"""Test-time augmentation: run a detector on resized and mirrored views of an image, and merge the results.

Shapes: N images, L feature levels, R detections of all images together, M pixels per side of a heat map, K keypoints
per object.

Boxes are merged as in maskrcnn-benchmark and FCOS: the candidates of all views go through one NMS together. Masks are
merged as in detectron2: they are predicted in every view for the merged detections, and their probabilities are
averaged. The IoUs that a MaskIoU head predicts are averaged, too. Keypoint heat maps are averaged as logits, as in
Detectron.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.config import cfg as default_cfg
from maskrcnn_benchmark.data.collate_batch import BBoxAugCollator
from maskrcnn_benchmark.data.transforms import View, build_test_views
from maskrcnn_benchmark.structures.bounding_box import FLIP_LEFT_RIGHT, BoxList
from maskrcnn_benchmark.structures.boxlist_ops import cat_boxlist
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.keypoint import PersonKeypoints
from maskrcnn_benchmark.utils.comm import unwrapped


@dataclass
class ViewOutput:
    """Output of the model for one view of N images.

    Attributes:
        mirrored: whether the view is mirrored.
        sizes: N pairs (width, height) of the view.
        candidates: N BoxLists in pixels of the view.
        features: L feature maps of all images; None if no other head needs them.
    """

    mirrored: bool
    sizes: list[tuple[int, int]]
    candidates: list[BoxList]
    features: list[Tensor] | None


class BBoxAug(nn.Module):
    """Detector with test-time augmentation.

    Args:
        model: GeneralizedRCNN whose last box stage (`roi_heads.box`, or `rpn` where there is none) has `candidates` and
            `select`.
        views: at least one. Detections have the size of the first view.
        size_divisible: views are padded to a multiple of it. 0 pads to the largest view of the batch.
        keypoint_flip_inds: for each keypoint, the index of its mirror image; None uses COCO's 17 keypoints.

    Forward takes N RGB PIL images and returns N BoxLists on the model's device, with the fields of the model's
    evaluation. With masks or keypoints, the feature maps of all views stay in memory until the end.

    Raises:
        ValueError: a view is mirrored, and keypoint_flip_inds does not have one entry per keypoint of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        views: Sequence[View],
        size_divisible: int = 0,
        keypoint_flip_inds: Sequence[int] | None = None,
    ):
        super().__init__()
        self.keypoint_flip_inds = keypoint_flip_inds
        self.model = model
        self.views = list(views)
        self.size_divisible = size_divisible

    @torch.no_grad()
    def forward(self, images) -> list[BoxList]:
        outputs = [self._run_view(view, images) for view in self.views]
        stage = self.model.roi_heads["box"] if "box" in self.model.roi_heads else self.model.rpn
        detections = []
        for i, size in enumerate(outputs[0].sizes):
            merged = [_unmirrored(output.candidates[i], output).resize(size) for output in outputs]
            detections.append(stage.select(cat_boxlist(merged)))
        if "mask" in self.model.roi_heads:
            detections = self._with_masks(detections, outputs)
        if "keypoint" in self.model.roi_heads:
            detections = self._with_keypoints(detections, outputs)
        # The detections of a cascade are clipped already.
        return self.model.roi_heads.finish(detections) if hasattr(self.model.roi_heads, "finish") else detections

    def _run_view(self, view: View, originals) -> ViewOutput:
        device = next(self.model.parameters()).device
        images = to_image_list([view.transform(image) for image in originals], self.size_divisible).to(device)
        sizes = [(int(width), int(height)) for height, width in images.image_sizes]
        features = self.model.backbone(images.tensors)
        heads = self.model.roi_heads
        if "box" not in heads:
            candidates = self.model.rpn.candidates(images, features)
            return ViewOutput(view.mirrored, sizes, candidates, features if heads else None)
        proposals, _ = self.model.rpn(images, features)
        candidates = heads["box"].candidates(features, proposals)
        return ViewOutput(view.mirrored, sizes, candidates, features if len(heads) > 1 else None)

    def _with_masks(self, detections: list[BoxList], outputs: list[ViewOutput]) -> list[BoxList]:
        heads = self.model.roi_heads
        head, maskiou = heads["mask"], heads["maskiou"] if "maskiou" in heads else None
        total, total_iou = 0, 0
        for output in outputs:
            masks, ious = head.predict(output.features, _in_view(detections, output), maskiou)
            total = total + (masks.flip(3) if output.mirrored else masks)
            total_iou = None if ious is None else total_iou + ious
        mean_iou = None if total_iou is None else total_iou / len(outputs)
        return head.attach(total / len(outputs), mean_iou, detections)

    def _with_keypoints(self, detections: list[BoxList], outputs: list[ViewOutput]) -> list[BoxList]:
        head = self.model.roi_heads["keypoint"]
        total = 0
        for output in outputs:
            heat_maps = head.heat_maps(output.features, _in_view(detections, output))
            total = total + (_mirrored_heat_maps(heat_maps, self.keypoint_flip_inds) if output.mirrored else heat_maps)
        return head.attach(total / len(outputs), detections)


def _in_view(detections: list[BoxList], output: ViewOutput) -> list[BoxList]:
    """Resize and mirror detections to the pixels of a view."""
    return [_unmirrored(found.resize(size), output) for found, size in zip(detections, output.sizes, strict=True)]


def _unmirrored(boxlist: BoxList, output: ViewOutput) -> BoxList:
    """Mirror boxes if the view is mirrored. The function is its own inverse."""
    return boxlist.transpose(FLIP_LEFT_RIGHT) if output.mirrored else boxlist


def _mirrored_heat_maps(heat_maps: Tensor, flip_inds: Sequence[int] | None) -> Tensor:
    """Mirror heat maps (R, K, M, M), and swap left and right keypoints."""
    opposite = PersonKeypoints.FLIP_INDS if flip_inds is None else flip_inds
    if heat_maps.shape[1] != len(opposite):
        raise ValueError(
            f"the model predicts {heat_maps.shape[1]} keypoints, but left and right are defined for {len(opposite)}: "
            "set INPUT.KEYPOINT_FLIP_PAIRS, or set TEST.BBOX_AUG.H_FLIP and SCALE_H_FLIP to False"
        )
    return heat_maps.flip(3)[:, list(opposite)]


def make_bbox_aug(cfg, model: nn.Module) -> BBoxAug:
    """Wrap the model in the views of TEST.BBOX_AUG."""
    return BBoxAug(model, build_test_views(cfg), cfg.DATALOADER.SIZE_DIVISIBILITY)


def im_detect_bbox_aug(model: nn.Module, images, device) -> list[BoxList]:
    """Detect objects in PIL images with the views of TEST.BBOX_AUG of the global cfg, as the forks' function does."""
    return make_bbox_aug(default_cfg, unwrapped(model).to(device))(images)


def takes_bbox_aug(place: int):
    """Add upstream's argument `bbox_aug` to a function of (model, data_loader, ...).

    - True: test with the views of TEST.BBOX_AUG of the global cfg.
    - None (default): the same, if that cfg enables them and the loader yields original images. A loader made with
      TEST.BBOX_AUG.ENABLED does.
    - False: test without them.

    A model that is already a BBoxAug is used as it is.

    Args:
        place: position of `bbox_aug` in upstream's function. The older forks have another argument there, so only a
            bool at this position is taken as bbox_aug.

    Raises:
        ValueError: bbox_aug contradicts the loader or TEST.BBOX_AUG of the global cfg.
    """

    def decorate(run):
        @functools.wraps(run)
        def with_bbox_aug(model, data_loader, *args, bbox_aug: bool | None = None, **kwargs):
            if len(args) > place - 2 and isinstance(args[place - 2], bool):
                bbox_aug, args = args[place - 2], (*args[: place - 2], *args[place - 1 :])
            return run(_augmented(model, data_loader, bbox_aug), data_loader, *args, **kwargs)

        return with_bbox_aug

    return decorate


def _augmented(model: nn.Module, data_loader, bbox_aug: bool | None) -> nn.Module:
    originals = isinstance(getattr(data_loader, "collate_fn", None), BBoxAugCollator)
    enabled = default_cfg.TEST.BBOX_AUG.ENABLED
    if isinstance(model, BBoxAug) or (bbox_aug is None and not (originals and enabled)):
        return model
    if bbox_aug is False:
        if not originals:
            return model
        raise ValueError(
            "bbox_aug is False, but the loader was made with TEST.BBOX_AUG.ENABLED True and yields original images. "
            "Pass bbox_aug=cfg.TEST.BBOX_AUG.ENABLED of the cfg that the loader was made with."
        )
    if not enabled:
        raise ValueError(
            "bbox_aug is True, but TEST.BBOX_AUG.ENABLED is False in maskrcnn_benchmark.config.cfg, which defines the "
            "views. Merge your config file into that cfg, or wrap the model yourself: "
            "maskrcnn_benchmark.engine.bbox_aug.make_bbox_aug(cfg, model)."
        )
    if not originals:
        raise ValueError(
            "bbox_aug is True, but the loader yields images that are already resized. Make the loader with "
            "make_data_loader(cfg, is_train=False) and TEST.BBOX_AUG.ENABLED True."
        )
    return make_bbox_aug(default_cfg, unwrapped(model))
