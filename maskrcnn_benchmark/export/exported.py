"""Use an exported model in place of a PyTorch model, in Predictor and in tests on datasets.

Shapes: N images, H x W their padded size, C semantic classes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from maskrcnn_benchmark.config import cfg as default_cfg
from maskrcnn_benchmark.config.yaml_files import parse
from maskrcnn_benchmark.data.transforms import build_transforms
from maskrcnn_benchmark.data.transforms.transforms import Compose, Normalize, to_pixels
from maskrcnn_benchmark.engine.predictor_setup import PredictorSetup, use_tiles, window_transform
from maskrcnn_benchmark.engine.semantic_views import make_semantic_views
from maskrcnn_benchmark.export import runtime
from maskrcnn_benchmark.export.exporting import open_exported
from maskrcnn_benchmark.modeling.detector.panoptic_merge import MergeRules, merge_segments
from maskrcnn_benchmark.modeling.semantic.maps import classes_of_images
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.keypoint import PersonKeypoints
from maskrcnn_benchmark.structures.label_names import LabelNames
from maskrcnn_benchmark.structures.packed_map import PackedMap
from maskrcnn_benchmark.structures.paste_masks import MaskPasting

logger = logging.getLogger("maskrcnn_benchmark.predictor")


class ExportedModel(nn.Module):
    """Exported model with the interface of a detector in evaluation.

    Args:
        model: runtime.Model of a whole model.

    Forward takes an ImageList of pixels (N, 3, H, W), 0..255 RGB, or a list of such images, and `output_sizes`, N pairs
    (width, height) that default to the sizes of the images. It returns N BoxLists, as GeneralizedRCNN and PanopticFPN
    do.

    Raises:
        ValueError: an image does not fit into the fixed size of the model.
    """

    takes_output_sizes = True

    def __init__(self, model: runtime.Model):
        super().__init__()
        self.exported = model
        data = model.metadata
        self.box_offset = data["box_offset"]
        self.mask_pasting = MaskPasting(**data["mask_pasting"])
        self.merge_rules = None if data["merge"] is None else MergeRules(**data["merge"])

    def forward(self, images, targets=None, output_sizes=None) -> list[BoxList]:
        images = to_image_list(images)
        sizes = [(int(height), int(width)) for height, width in images.image_sizes]
        output_sizes = output_sizes or [(width, height) for height, width in sizes]
        outputs = self._run(images.tensors, sizes, [(height, width) for width, height in output_sizes])
        return [
            self._boxlist({name: value[k] for name, value in outputs.items()}, size, output_size)
            for k, (size, output_size) in enumerate(zip(sizes, output_sizes, strict=True))
        ]

    def logits(self, images) -> Tensor:
        """Return the semantic logits (N, C, H, W), including padding, of images from `AsPixels(marked=True)`."""
        pixels = to_image_list(images).tensors
        inside = pixels[:, 0] > 0
        sizes = [(int(each.any(dim=1).sum()), int(each.any(dim=0).sum())) for each in inside]
        logits = self._run((pixels - 1).clamp(min=0), sizes, sizes)["semantic"]
        return torch.from_numpy(logits)[:, :, : pixels.shape[2], : pixels.shape[3]]

    def _run(self, pixels: Tensor, sizes: list, original_sizes: list) -> dict[str, np.ndarray]:
        """Run a batch. For a model of fixed size, pad the images, and split and fill up the batch to the model's."""
        data = self.exported.metadata
        batch = np.ascontiguousarray(pixels.to(torch.uint8).permute(0, 2, 3, 1).numpy())
        if data["fixed_size"] is None:
            least = data["pad_to"] or (1, 1)
            more = [(0, max(side - own, 0)) for side, own in zip(least, batch.shape[1:3], strict=True)]
            return self.exported.run(np.pad(batch, ((0, 0), *more, (0, 0))), sizes, original_sizes)
        (height, width), step = data["fixed_size"], data["batch"]
        if any(size[0] > height or size[1] > width for size in sizes):
            raise ValueError(
                f"an image of {max(sizes)} (height, width) does not fit into the model's size, {height} x {width}; "
                "lower INPUT.MIN_SIZE_TEST and MAX_SIZE_TEST, choose smaller tiles, or export another size"
            )
        batch = batch[:, :height, :width]
        filled = np.zeros((-(-len(batch) // step) * step, height, width, 3), dtype=np.uint8)
        filled[: len(batch), : batch.shape[1], : batch.shape[2]] = batch
        sizes, original_sizes = ([*each, *each[-1:] * (len(filled) - len(batch))] for each in (sizes, original_sizes))
        parts = [
            self.exported.run(*(each[k : k + step] for each in (filled, sizes, original_sizes)))
            for k in range(0, len(filled), step)
        ]
        return {name: np.concatenate([part[name] for part in parts])[: len(batch)] for name in parts[0]}

    def _boxlist(self, outputs: dict, size: tuple[int, int], output_size: tuple[int, int]) -> BoxList:
        height, width = size
        count = int(outputs.pop("count", 0))
        values = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in outputs.items()}
        boxes = values["boxes"][:count] if "boxes" in values else torch.zeros((0, 4))
        boxlist = BoxList(boxes, (width, height), box_offset=self.box_offset)
        for name in values.keys() & {"scores", "labels", "mask_scores"}:
            boxlist.add_field(name, values[name][:count])
        if "masks" in values:
            boxlist.add_field("mask", values["masks"][:count, None])
        if "keypoints" in values:
            points = values["keypoints"][:count]
            places = torch.cat((points[:, :, :2], torch.ones_like(points[:, :, 2:])), dim=2)
            keypoints = PersonKeypoints(places, (width, height))
            keypoints.add_field("logits", points[:, :, 2])
            boxlist.add_field("keypoints", keypoints)
        if "semantic" in values:
            (classes,) = classes_of_images(values["semantic"][None], [size], [output_size])
            if self.merge_rules is not None:
                instances = boxlist.resize(output_size)
                boxlist.add_field("panoptic", merge_segments(instances, classes, self.merge_rules, self.mask_pasting))
            boxlist.add_field("semantic", PackedMap(classes))
        return boxlist


class AsPixels:
    """Transform (image, target) -> (image, target) that converts to (3, H, W) uint8 without normalization.

    Args:
        marked: return int16 values 1..256 instead, so that black (1) differs from padding (0).
    """

    def __init__(self, marked: bool = False):
        self.marked = marked

    def __call__(self, image, target=None):
        pixels = to_pixels(image)
        if self.marked:
            pixels = pixels.to(torch.int16) + 1
        return pixels if target is None else (pixels, target)

    def __repr__(self) -> str:
        return f"AsPixels(marked={self.marked})"


def pixel_transforms(cfg) -> Compose:
    """Build the test transforms without normalization, which is part of an exported model."""
    return _without_normalization(cfg, build_transforms(cfg, is_train=False))


def _without_normalization(cfg, transforms: Compose) -> Compose:
    pixels = AsPixels(marked=cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor")
    return Compose([pixels if isinstance(step, Normalize) else step for step in transforms.transforms])


def _window_transform(cfg, model: runtime.Model, tiles: int) -> Callable | None:
    """Build the transform of a window of a large image, see `predictor_setup.window_transform`."""
    if "image_size" not in model.metadata:
        logger.warning(
            "%s was exported without the size of the training images, so windows are resized like whole images. If "
            "objects are missed, choose smaller tiles, or export the model again",
            model.path,
        )
        return None
    return _without_normalization(cfg, window_transform(cfg, tiles, model.metadata["image_size"]))


def config_of(model: runtime.Model):
    """Return the configuration that the model was exported with, not frozen."""
    cfg = default_cfg.clone()
    cfg.merge_from_other_cfg(parse(model.metadata["config"], f"configuration in {model.path}"))
    return cfg


def open_whole(path: str | os.PathLike, threads: int | None = None) -> runtime.Model:
    """Open an exported model; reject one that holds the dense part only.

    Raises:
        ValueError: the file was not written by tools/export.py, or holds the dense part alone.
        ImportError: its engine is not installed.
    """
    model = open_exported(os.fspath(path), threads or torch.get_num_threads())
    if model.metadata["form"] != "whole":
        raise ValueError(f"{path} holds the dense part of a model, which predicts nothing: leave out --dense-only")
    return model


def exported_setup(
    path: str | os.PathLike, threads: int | None = None, tiles: int = 0, overlap: float = 0.2
) -> PredictorSetup:
    """Make the PredictorSetup of an exported model, for Predictor(setup=...).

    Args:
        path, threads: see `open_whole`, which also raises the errors.
        tiles, overlap: see Predictor; pass the same values to it.
    """
    model = open_whole(path, threads)
    data, cfg = model.metadata, config_of(model)
    use_tiles(cfg, tiles, overlap)
    network = ExportedModel(model)
    pasting = network.mask_pasting
    is_semantic = "boxes" not in data["outputs"]
    return PredictorSetup(
        model=make_semantic_views(cfg, network) if is_semantic else network,
        transform=pixel_transforms(cfg),
        takes_originals=False,
        size_divisible=data["size_divisible"],
        device=torch.device("cpu"),
        dtype=torch.float32,
        label_names=LabelNames(data["class_names"], data["category_ids"], data["semantic_names"], data["semantic_ids"]),
        upright=data["upright"],
        value_range=None if data["value_range"] is None else tuple(data["value_range"]),
        box_offset=data["box_offset"],
        tiles_itself=is_semantic,
        mask_pasting=pasting,
        window_transform=_window_transform(cfg, model, tiles) if tiles and not is_semantic else None,
    )
