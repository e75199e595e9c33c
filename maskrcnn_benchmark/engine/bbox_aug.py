"""Test-time augmentation: a detector looks at a picture in several sizes, also mirrored, and its findings are joined.

Shapes: N pictures, V views of each, C candidates and D detections of a picture, R detections of all pictures together,
M pixels a side of a mask or heat map, K keypoints of an object.

Boxes are joined as maskrcnn-benchmark and FCOS do it: the candidates of all views, before suppression, go through one
suppression together. Masks are joined as detectron2 does it: predicted in every view for the joined detections, and
averaged as probabilities. Heat maps of keypoints are averaged as logits, as Detectron did.
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


@dataclass
class Look:
    """What the model saw of N pictures in one view.

    mirrored: the view's. sizes: N pairs (width, height). candidates: N BoxLists in pixels of the view.
    features: L maps of all pictures; None where no head will look at them again.
    """

    mirrored: bool
    sizes: list[tuple[int, int]]
    candidates: list[BoxList]
    features: list[Tensor] | None


class BBoxAug(nn.Module):
    """A detector that looks at every picture several times.

    Args:
        model: GeneralizedRCNN whose last box stage (`roi_heads.box`, or `rpn` where there are no ROI heads) has
            `candidates` and `select`.
        views: at least one; detections have the size of the first view.
        size_divisible: views are padded to a multiple of it; 0 = to the largest of the batch.
        keypoint_flip_inds: the keypoint that takes each one's place in a mirrored image; None takes that of COCO's 17.

    Forward takes N RGB PIL pictures and returns N BoxLists as the model's evaluation does, on the model's device. The
    feature maps of all views are kept until the end if there are masks or keypoints to predict.

    Raises:
        ValueError: there is a mirrored view, and the model predicts another number of keypoints than there are in
            keypoint_flip_inds.
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
    def forward(self, pictures) -> list[BoxList]:
        looks = [self._look(view, pictures) for view in self.views]
        stage = self.model.roi_heads["box"] if self.model.roi_heads else self.model.rpn
        detections = []
        for i, size in enumerate(looks[0].sizes):
            seen = [_unmirrored(look.candidates[i], look).resize(size) for look in looks]
            detections.append(stage.select(cat_boxlist(seen)))
        if "mask" in self.model.roi_heads:
            detections = self._with_masks(detections, looks)
        if "keypoint" in self.model.roi_heads:
            detections = self._with_keypoints(detections, looks)
        return detections

    def _look(self, view: View, pictures) -> Look:
        device = next(self.model.parameters()).device
        images = to_image_list([view.transform(picture) for picture in pictures], self.size_divisible).to(device)
        sizes = [(int(width), int(height)) for height, width in images.image_sizes]
        features = self.model.backbone(images.tensors)
        heads = self.model.roi_heads
        if not heads:
            return Look(view.mirrored, sizes, self.model.rpn.candidates(images, features), None)
        proposals, _ = self.model.rpn(images, features)
        candidates = heads["box"].candidates(features, proposals)
        return Look(view.mirrored, sizes, candidates, features if len(heads) > 1 else None)

    def _with_masks(self, detections: list[BoxList], looks: list[Look]) -> list[BoxList]:
        head = self.model.roi_heads["mask"]
        total = 0
        for look in looks:
            masks = head.probabilities(look.features, _in_view(detections, look))
            total = total + (masks.flip(3) if look.mirrored else masks)
        return head.attach(total / len(looks), detections)

    def _with_keypoints(self, detections: list[BoxList], looks: list[Look]) -> list[BoxList]:
        head = self.model.roi_heads["keypoint"]
        total = 0
        for look in looks:
            heat_maps = head.heat_maps(look.features, _in_view(detections, look))
            total = total + (_mirrored_heat_maps(heat_maps, self.keypoint_flip_inds) if look.mirrored else heat_maps)
        return head.attach(total / len(looks), detections)


def _in_view(detections: list[BoxList], look: Look) -> list[BoxList]:
    """The detections in the pixels of a view."""
    return [_unmirrored(found.resize(size), look) for found, size in zip(detections, look.sizes, strict=True)]


def _unmirrored(boxlist: BoxList, look: Look) -> BoxList:
    """Boxes of a mirrored view as if it were not, and the other way round; those of others as they are."""
    return boxlist.transpose(FLIP_LEFT_RIGHT) if look.mirrored else boxlist


def _mirrored_heat_maps(heat_maps: Tensor, flip_inds: Sequence[int] | None) -> Tensor:
    """(R, K, M, M) of mirrored objects, whose left is their right."""
    opposite = PersonKeypoints.FLIP_INDS if flip_inds is None else flip_inds
    if heat_maps.shape[1] != len(opposite):
        raise ValueError(
            f"the model predicts {heat_maps.shape[1]} keypoints, and it is known of {len(opposite)} which of them "
            "change places in a mirrored image: set INPUT.KEYPOINT_FLIP_PAIRS, or TEST.BBOX_AUG.H_FLIP and "
            "SCALE_H_FLIP to False"
        )
    return heat_maps.flip(3)[:, list(opposite)]


def make_bbox_aug(cfg, model: nn.Module) -> BBoxAug:
    """The model with the views of TEST.BBOX_AUG."""
    return BBoxAug(model, build_test_views(cfg), cfg.DATALOADER.SIZE_DIVISIBILITY)


def im_detect_bbox_aug(model: nn.Module, images, device) -> list[BoxList]:
    """Detect objects in PIL images with the views of TEST.BBOX_AUG of the global cfg, as the forks' function does."""
    return make_bbox_aug(default_cfg, getattr(model, "module", model).to(device))(images)


def takes_bbox_aug(place: int):
    """Let a function of (model, data_loader, ...) take upstream's argument `bbox_aug`.

    Upstream has it by position `place`, where the older forks have another argument: there a bool is bbox_aug.

    - True: test with the views of TEST.BBOX_AUG of the global cfg.
    - None, the default: do so if that cfg enables them and the loader gives original images, as one made under such a
      cfg does.
    - False: never.

    A model that is wrapped in BBoxAug is left as it is.

    Raises:
        ValueError: bbox_aug does not fit the loader's images or TEST.BBOX_AUG of the global cfg.
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
            "bbox_aug is False, but the loader was made with TEST.BBOX_AUG.ENABLED True and gives the original images. "
            "Pass bbox_aug=cfg.TEST.BBOX_AUG.ENABLED of the cfg that the loader was made with."
        )
    if not enabled:
        raise ValueError(
            "bbox_aug is True, but TEST.BBOX_AUG.ENABLED is False in maskrcnn_benchmark.config.cfg, where the views "
            "come from. Merge your file into that cfg, or wrap the model yourself: "
            "maskrcnn_benchmark.engine.bbox_aug.make_bbox_aug(cfg, model)."
        )
    if not originals:
        raise ValueError(
            "bbox_aug is True, but the loader gives images that are resized already. Make it by make_data_loader(cfg, "
            "is_train=False) with TEST.BBOX_AUG.ENABLED True."
        )
    return make_bbox_aug(default_cfg, getattr(model, "module", model))
