"""Prepare configs and their data for `measure`."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import Subset

from maskrcnn_benchmark.data.build import build_dataset, reading_of
from maskrcnn_benchmark.data.datasets.image_settings import image_settings
from maskrcnn_benchmark.data.label_space import label_names, num_classes_keys, resolve_num_classes

from .measure import Subject
from .synthetic import write_synthetic_data

CLASSES = 80  # used if NUM_CLASSES is -1


@contextlib.contextmanager
def subject_of(
    name: str, cfg, weights: str, num_images: int, size: tuple[int, int], own_data: bool = False
) -> Iterator[Subject]:
    """Build the subject of a config; its data exists until the end of the block.

    Args:
        name: name in the table.
        cfg: config, not frozen. MODEL.DEVICE is set to "cpu" if torch finds no GPU, and NUM_CLASSES of -1 is replaced.
        weights: file, or "" for random weights.
        num_images: number of different images.
        size: (width, height) of synthetic images.
        own_data: use the first images of the first dataset of DATASETS.TEST instead of synthetic images.

    Yields:
        Subject.

    Raises:
        ValueError: with own_data, DATASETS.TEST is empty or does not match the config.
    """
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    with tempfile.TemporaryDirectory() as folder:
        if own_data:
            if not cfg.DATASETS.TEST:
                raise ValueError(f"{name}: DATASETS.TEST is empty; set it to a dataset, or measure on synthetic images")
            images, reading = image_settings(cfg), reading_of(cfg)
            (dataset,) = build_dataset(
                [cfg.DATASETS.TEST[0]], None, is_train=False, root=cfg.DATASETS.ROOT, images=images, reading=reading
            )
            resolve_num_classes(cfg, dataset.class_names, semantic_names=label_names(dataset).get("semantic_names"))
        else:
            classes = _fill_in_classes(cfg)
            block = write_synthetic_data(Path(folder), num_images, size, classes, cfg.MODEL.KEYPOINT_ON)
            if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
                block["FORMAT"] = "coco_semantic"
            (dataset,) = build_dataset([block], None)
        cfg.freeze()
        yield Subject(name, cfg, Subset(dataset, range(min(num_images, len(dataset)))), weights)


def _fill_in_classes(cfg) -> int:
    """Replace NUM_CLASSES of -1; return the number of foreground classes."""
    classes = CLASSES
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        if cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == -1:
            cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = CLASSES + 1
        return cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES - 1
    for key in num_classes_keys(cfg):
        node, leaf = key.split(".")
        if cfg.MODEL[node][leaf] == -1:
            cfg.MODEL[node][leaf] = CLASSES + 1
        classes = cfg.MODEL[node][leaf] - 1
    return classes
