"""Build the model of a Predictor from a config and a checkpoint."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from maskrcnn_benchmark.checkpoint.checkpointer import Checkpointer, DetectronCheckpointer
from maskrcnn_benchmark.config import cfg as default_cfg
from maskrcnn_benchmark.config import check_values
from maskrcnn_benchmark.config.convention import get_convention
from maskrcnn_benchmark.config.paths_catalog import DatasetCatalog
from maskrcnn_benchmark.config.yaml_files import parse
from maskrcnn_benchmark.data import resolve_num_classes
from maskrcnn_benchmark.data.datasets.image_settings import image_settings
from maskrcnn_benchmark.data.datasets.voc import PascalVOCDataset
from maskrcnn_benchmark.data.label_space import num_classes_keys
from maskrcnn_benchmark.data.published_classes import COCO_THINGS
from maskrcnn_benchmark.data.transforms import Resize, build_transforms
from maskrcnn_benchmark.engine.bbox_aug import BBoxAug
from maskrcnn_benchmark.engine.inference_model import make_inference_model
from maskrcnn_benchmark.engine.run_model import run_model
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.modeling.roi_heads.mask_head.inference import mask_pasting
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.label_names import LabelNames
from maskrcnn_benchmark.structures.paste_masks import DEFAULT_PASTING, MaskPasting
from maskrcnn_benchmark.utils.comm import unwrapped
from maskrcnn_benchmark.utils.compute_dtype import autocast

logger = logging.getLogger("maskrcnn_benchmark.predictor")


@dataclass
class PredictorSetup:
    """A model and the preparation of its input; independent of the config.

    Attributes:
        model: fused model in eval mode, on `device`.
        transform: RGB image -> network input (3, H, W).
        takes_originals: whether the model takes RGB images (test-time augmentation).
        size_divisible: batches are padded to a multiple of it; 0 does not pad.
        device: device of the model.
        dtype: dtype of autocast.
        label_names: LabelNames of the model.
        upright, value_range: how images are read, see `datasets.images.read_image`.
        box_offset: box offset of the model's convention, see BoxList.
        tiles_itself: whether the model cuts large images into windows, see TEST.SEMANTIC.
        mask_pasting: how masks are pasted into the image.
        window_transform: like `transform`, for the windows of a large image; None is `transform`.
    """

    model: nn.Module
    transform: Callable
    takes_originals: bool
    size_divisible: int
    device: torch.device
    dtype: torch.dtype
    label_names: LabelNames
    upright: bool
    value_range: tuple[float, float] | None
    box_offset: float
    tiles_itself: bool
    mask_pasting: MaskPasting = DEFAULT_PASTING
    window_transform: Callable | None = None

    def run(self, inputs: Sequence, sizes: Sequence[tuple[int, int]]) -> list[BoxList]:
        """Run the model on N images.

        Args:
            inputs: N results of `transform`, or N RGB images with `takes_originals`.
            sizes: N pairs (width, height) of the original images.

        Returns:
            N BoxLists on the CPU, in pixels of the network input. A model with the argument output_sizes returns them
            in pixels of the original images.
        """
        images = list(inputs)
        if not self.takes_originals:
            images = to_image_list(images, self.size_divisible).to(self.device)
        with torch.inference_mode(), autocast(self.device, self.dtype):
            return [output.to("cpu") for output in run_model(self.model, images, sizes)]


def make_setup(
    cfg, weights, opts, device, dtype, class_names, category_ids, model, tiles: int = 0, overlap: float = 0.2
) -> PredictorSetup:
    """Build, load and fuse the model. The arguments are Predictor's.

    Raises:
        ValueError, OSError: see Predictor.
    """
    cfg, model, labels, image_size = load_model(
        cfg, weights, opts, device, dtype, class_names, category_ids, model, tiles, overlap
    )
    setup = setup_of(cfg, model, labels)
    if tiles and not setup.tiles_itself:
        setup.window_transform = window_transform(cfg, tiles, image_size)
    return setup


def load_model(
    cfg,
    weights,
    opts=(),
    device=None,
    dtype=None,
    class_names=None,
    category_ids=None,
    model=None,
    tiles: int = 0,
    overlap: float = 0.2,
) -> tuple:
    """Build and load the model; arguments are Predictor's.

    Returns:
        (cfg, model, LabelNames, image size): the config, the plain model on its device, its label names, and the
        typical [width, height] of the training images, None if unknown.

    Raises:
        ValueError, OSError: see Predictor.
    """
    checkpoint = None
    if cfg is None:
        if weights is None or model is not None:
            raise ValueError("Predictor requires a configuration, or a checkpoint that contains one")
        weights = _checkpoint_file(weights)
        checkpoint = Checkpointer(None).read(weights)
        cfg = config_of(checkpoint, weights)
    elif isinstance(cfg, (str, os.PathLike)):
        path, cfg = cfg, default_cfg.clone()
        cfg.merge_from_file(path)
    else:
        cfg = cfg.clone()
        cfg.defrost()
    cfg.merge_from_list(list(opts))
    _adapt(cfg, device, dtype)
    use_tiles(cfg, tiles, overlap)
    if model is None:
        weights = weights or cfg.MODEL.WEIGHT
        if not weights:
            raise ValueError("no weights to predict with: give weights=FILE, or a configuration with MODEL.WEIGHT")
        if checkpoint is None:
            checkpoint = DetectronCheckpointer(cfg, None).read(weights)
    labels = _label_names(cfg, checkpoint or {}, class_names, category_ids)
    if labels.class_names:
        source = "class_names" if class_names else f"the checkpoint {weights}"
        resolve_num_classes(cfg, labels.class_names, source, labels.semantic_names or None)
    check_values(cfg)
    if model is None:
        model = build_detection_model(cfg)
        checkpointer = DetectronCheckpointer(cfg, model)
        checkpointer.load(weights, use_latest=False)
        _refuse_missing(checkpointer.report, weights)
    image_size = (checkpoint or {}).get("image_size")
    del checkpoint
    return cfg, unwrapped(model).to(cfg.MODEL.DEVICE), labels, image_size


def setup_of(cfg, model: nn.Module, label_names: LabelNames) -> PredictorSetup:
    """Fuse a loaded model as tools/test_net.py does, and collect the image settings of the config."""
    model, dtype = make_inference_model(cfg, model)
    settings = image_settings(cfg)
    return PredictorSetup(
        model=model,
        transform=build_transforms(cfg, is_train=False),
        takes_originals=isinstance(model, BBoxAug),
        size_divisible=cfg.DATALOADER.SIZE_DIVISIBILITY,
        device=torch.device(cfg.MODEL.DEVICE),
        dtype=dtype,
        label_names=label_names,
        # "auto" decides by the annotations, which are missing here; upright is how people see images
        upright=settings.exif_rotation != "stored",
        value_range=settings.value_range,
        tiles_itself=cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor",
        box_offset=get_convention(cfg.MODEL.CONVENTION).box_offset,
        mask_pasting=mask_pasting(cfg),
    )


def window_transform(cfg, tiles: int, image_size: Sequence[int] | None) -> Callable:
    """Build the transform of a window of a large image.

    A window is resized like any other image, unless that would shrink it more than the training images were shrunk.
    Then it is resized by the factor of the training images, so that its objects are as large as in training.

    Args:
        cfg: config of the model.
        tiles: side of a window in pixels.
        image_size: typical [width, height] of the training images. None (unknown) sets no limit.
    """
    transforms = build_transforms(cfg, is_train=False)
    (resize,) = (each for each in transforms.transforms if isinstance(each, Resize))
    side = min(resize.get_size((tiles, tiles)))
    if image_size is None:
        if side < tiles:
            logger.warning(
                "Windows of %d pixels are shrunk to %d (INPUT.MIN_SIZE_TEST). The weights do not say how large the "
                "training images were: if objects are missed, choose smaller tiles or a larger INPUT.MIN_SIZE_TEST",
                tiles,
                side,
            )
        return transforms
    factor = min(resize.get_size(tuple(image_size))) / min(image_size)
    if side >= tiles * factor:
        return transforms
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.MIN_SIZE_TEST = cfg.INPUT.MAX_SIZE_TEST = round(tiles * factor)
    return build_transforms(cfg, is_train=False)


def config_of(checkpoint: dict, path: str | os.PathLike):
    """Read the config in a checkpoint of tools/train_net.py.

    Raises:
        ValueError: the checkpoint has none.
    """
    text = checkpoint.get("config")
    if not isinstance(text, str):
        raise ValueError(
            f"{path} contains no configuration, so it was not written by tools/train_net.py. Pass the configuration: "
            f"Predictor('config.yaml', weights={os.fspath(path)!r})"
        )
    return config_with(parse(text, f"configuration in {path}"))


def config_with(settings: dict):
    """Merge a nested dict of settings into a copy of the default config."""
    cfg = default_cfg.clone()
    cfg.merge_from_other_cfg(settings)
    return cfg


def _checkpoint_file(path: str | os.PathLike) -> str:
    path = os.path.expanduser(path)
    if not os.path.isdir(path):
        return path
    found = Checkpointer(None, save_dir=path).get_checkpoint_file()
    if not found:
        raise FileNotFoundError(f"{path} is a folder without last_checkpoint: pass the checkpoint file")
    return found


def _adapt(cfg, device: str | None, dtype: str | None) -> None:
    """Adapt the config of a training to prediction on this machine."""
    if device is not None:
        cfg.MODEL.DEVICE = str(device)
    if not re.fullmatch(r"cpu|cuda(:\d+)?", cfg.MODEL.DEVICE):
        raise ValueError(f"device (MODEL.DEVICE) must be 'cpu', 'cuda' or 'cuda:N', got {cfg.MODEL.DEVICE!r}")
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        if device is not None:
            raise ValueError(f"device is {device!r}, but torch finds no GPU: leave it out, or pass 'cpu'")
        logger.info("MODEL.DEVICE is %r but torch finds no GPU: predicting on the CPU", cfg.MODEL.DEVICE)
        cfg.MODEL.DEVICE = "cpu"
    if dtype is not None:
        cfg.DTYPE = str(dtype).removeprefix("torch.")
    # masks are pasted into the original image, not into the network input
    cfg.MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS = False


def use_tiles(cfg, tiles: int, overlap: float) -> None:
    """Set sliding windows of `tiles` pixels in the config of a SemanticSegmentor; 0 keeps its own windows.

    The configs of other models are not changed.

    Raises:
        ValueError: the model is panoptic.
    """
    if tiles and cfg.MODEL.META_ARCHITECTURE == "PanopticFPN":
        raise ValueError(
            "tiles does not work with MODEL.META_ARCHITECTURE PanopticFPN: the segments of windows cannot be merged. "
            "Leave tiles out."
        )
    if tiles and cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        cfg.TEST.SEMANTIC.MODE, cfg.TEST.SEMANTIC.WINDOW, cfg.TEST.SEMANTIC.OVERLAP = "slide", (tiles, tiles), overlap


def _label_names(cfg, checkpoint: dict, class_names, category_ids) -> LabelNames:
    semantic = checkpoint.get("semantic_names") or ()
    count = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if not semantic and cfg.MODEL.META_ARCHITECTURE in ("SemanticSegmentor", "PanopticFPN") and count > 0:
        semantic = [f"class {k}" for k in range(count)]
    if class_names is None and not checkpoint.get("class_names"):
        class_names, known_ids = _published_names(cfg)
        category_ids = known_ids if category_ids is None else category_ids
    elif class_names is None:
        class_names = checkpoint["class_names"]
        category_ids = checkpoint.get("category_ids") if category_ids is None else category_ids
    return LabelNames(class_names, category_ids, semantic, checkpoint.get("semantic_ids"))


def _published_names(cfg) -> tuple[Sequence[str], Sequence | None]:
    """Return names and ids for weights without names: those of the config's datasets if the number matches."""
    keys = num_classes_keys(cfg)
    if not keys:
        return (["proposal"] if cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN" else []), None
    node, leaf = keys[0].split(".")
    count = cfg.MODEL[node][leaf] - 1
    entries = [DatasetCatalog.name(entry) for entry in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)]
    if count == 1 and any(name.startswith("keypoints_coco") for name in entries):
        return ["person"], [1]
    for prefix, names, ids in (
        ("coco_", list(COCO_THINGS.values()), list(COCO_THINGS)),
        ("voc_", list(PascalVOCDataset.CLASSES[1:]), None),
    ):
        if len(names) == count and any(name.startswith(prefix) for name in entries):
            return names, ids
    if count < 1:
        raise ValueError(f"MODEL.{keys[0]} is {count + 1}, and the weights have no class names: pass class_names")
    logger.warning("The weights have no class names, so classes are numbered. Pass class_names to name them.")
    return [f"class {k}" for k in range(1, count + 1)], None


def _refuse_missing(report, weights) -> None:
    """Raise ValueError if the weights leave tensors of the model at their random initialization."""
    lacking = [key for key in report.missing if key.rsplit(".", 1)[-1] in ("weight", "bias")]
    if lacking:
        some = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
        raise ValueError(
            f"{weights} lacks {len(lacking)} tensors of the model ({some}), which would keep random values. "
            "Use the configuration that the weights were trained with. Weights of a backbone alone are for training."
        )
