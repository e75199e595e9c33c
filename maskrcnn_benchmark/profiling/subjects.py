"""From config files to what `measure` takes."""

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

CLASSES = 80  # where the config does not say how many


@contextlib.contextmanager
def subject_of(
    name: str, cfg, weights: str, pictures: int, size: tuple[int, int], own_data: bool = False
) -> Iterator[Subject]:
    """A config, ready to be measured while the context lasts.

    Args:
        name: for the table.
        cfg: not frozen; MODEL.DEVICE becomes "cpu" where torch finds no GPU, and NUM_CLASSES of -1 is filled in.
        weights: file, or "" for random weights.
        pictures: how many different ones.
        size: (width, height) of synthetic pictures.
        own_data: the first pictures of the first set of DATASETS.TEST instead.

    Raises:
        ValueError: own_data, and DATASETS.TEST is empty, or does not fit the config.
    """
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    with tempfile.TemporaryDirectory() as folder:
        if own_data:
            if not cfg.DATASETS.TEST:
                raise ValueError(f"{name}: DATASETS.TEST is empty; name a data set, or measure with synthetic pictures")
            images, reading = image_settings(cfg), reading_of(cfg)
            (dataset,) = build_dataset(
                [cfg.DATASETS.TEST[0]], None, is_train=False, root=cfg.DATASETS.ROOT, images=images, reading=reading
            )
            resolve_num_classes(cfg, dataset.class_names, semantic_names=label_names(dataset).get("semantic_names"))
        else:
            classes = _fill_in_classes(cfg)
            block = write_synthetic_data(Path(folder), pictures, size, classes, cfg.MODEL.KEYPOINT_ON)
            if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
                block["FORMAT"] = "coco_semantic"
            (dataset,) = build_dataset([block], None)
        cfg.freeze()
        yield Subject(name, cfg, Subset(dataset, range(min(pictures, len(dataset)))), weights)


def _fill_in_classes(cfg) -> int:
    """Sets NUM_CLASSES of -1; returns the number of foreground classes."""
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
