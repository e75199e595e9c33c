"""Examine all datasets of a config, or a single annotation file."""

from __future__ import annotations

import json
import mmap
import os
import re

from maskrcnn_benchmark.config import cfg as default_cfg
from maskrcnn_benchmark.config.paths_catalog import DatasetCatalog
from maskrcnn_benchmark.doctor.boxes import box_findings
from maskrcnn_benchmark.doctor.classes import class_findings
from maskrcnn_benchmark.doctor.findings import Diagnosis, SplitSummary
from maskrcnn_benchmark.doctor.network import build_anchors, build_levels, build_network_input, finest_stride
from maskrcnn_benchmark.doctor.sizes import anchor_findings, input_sides, size_counts, size_findings
from maskrcnn_benchmark.doctor.splits import Split, read_split
from maskrcnn_benchmark.doctor.training_findings import findings_of_labels, findings_of_training

# Folders in which the images of an annotation file are searched, relative to the file.
USUAL_FOLDERS = ("", "images", "..", "../images")


def read_splits(cfg, is_model_known: bool = True) -> list[Split]:
    """Read the datasets of DATASETS.TRAIN and TEST.

    Args:
        cfg: see `read_split`.
        is_model_known: False keeps keypoints, which training drops for models without a keypoint head. It sets
            MODEL.KEYPOINT_ON in cfg.

    Raises:
        ValueError: there are none.
    """
    entries = [(entry, True) for entry in cfg.DATASETS.TRAIN] + [(entry, False) for entry in cfg.DATASETS.TEST]
    if not entries:
        raise ValueError("DATASETS.TRAIN and DATASETS.TEST are both empty: name at least one dataset")
    if not is_model_known:
        cfg.MODEL.KEYPOINT_ON = True
    names: list[str] = []
    for entry, _ in entries:
        name = DatasetCatalog.name(entry)
        copies = sum(each == name or each.startswith(f"{name} #") for each in names)
        names.append(f"{name} #{copies + 1}" if copies else name)  # examples name their dataset
    return [read_split(cfg, *each, name) for each, name in zip(entries, names, strict=True)]


def config_of_file(annotations: str, images: str | None):
    """Return a config with one COCO file as training data.

    Args:
        annotations: COCO json.
        images: its image folder; None searches for it near the file.

    Raises:
        FileNotFoundError: there is no such file or folder.
    """
    if not os.path.isfile(annotations):
        raise FileNotFoundError(f"annotation file {annotations} does not exist")
    folder = images or _usual_folder(annotations)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"image folder {folder} does not exist; give it with --images FOLDER")
    cfg = default_cfg.clone()
    cfg.DATASETS.TEST = ()
    block = {"FORMAT": "coco", "IMAGES": os.path.abspath(folder), "ANNOTATIONS": os.path.abspath(annotations)}
    cfg.DATASETS.TRAIN = ({**block, "NAME": os.path.splitext(os.path.basename(annotations))[0]},)
    return cfg


def _usual_folder(annotations: str) -> str:
    """Return the folder, near the annotation file or named like it, that has the first image of the file."""
    base, stem = os.path.split(os.path.abspath(annotations))
    stem = os.path.splitext(stem)[0].rpartition("_")[2]  # instances_train2017.json: ../train2017
    folders = [os.path.normpath(os.path.join(base, name)) for name in (*USUAL_FOLDERS, stem, f"../{stem}")]
    name = _first_image(annotations)
    candidates = [os.path.join(folder, name) for folder in folders]
    found = [folder for folder, path in zip(folders, candidates, strict=True) if name and os.path.isfile(path)]
    return found[0] if found else folders[1]


def _first_image(annotations: str) -> str:
    """Return the first file name in a COCO file; "" if there is none."""
    with open(annotations, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return ""
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            found = re.search(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")', text)
            return json.loads(found[1]) if found else ""


def examine(cfg, splits: list[Split], subject: str, is_model_known: bool = True) -> Diagnosis:
    """Run all checks that need no pixels.

    Args:
        cfg: config of the detector and its input; not frozen.
        splits: see `read_splits`.
        subject: what is examined, for the report.
        is_model_known: False skips the checks that depend on the detector or on the resize.
    """
    diagnosis = Diagnosis(subject)
    levels, anchors, stride = None, None, None
    if is_model_known:
        levels, anchors, stride = build_levels(cfg), build_anchors(cfg), finest_stride(cfg)
    trains = any(split.role == "train" and split.table is not None for split in splits)
    for split in splits:
        diagnosis.add(findings_of_training(split))
        if split.table is None:
            diagnosis.splits.append(SplitSummary(split.name, split.role, _length(split), 0, {}))
            continue
        network_input = build_network_input(cfg, split.role == "train") if is_model_known else None
        sides = input_sides(split, network_input)
        counts = dict(zip(split.class_names, split.class_counts().tolist(), strict=True))
        sizes = size_counts(sides) if split.class_names else {}
        measured_in = "the image" if network_input is None else "the network input"
        images = len(split.table.image_ids)
        diagnosis.splits.append(SplitSummary(split.name, split.role, images, len(sides), counts, sizes, measured_in))
        diagnosis.add(box_findings(split))
        if network_input is not None:
            diagnosis.add(size_findings(split, sides, network_input, levels, stride))
            if anchors is not None and (split.role == "train" or not trains):
                diagnosis.add(anchor_findings(split, sides, anchors))
    diagnosis.add(class_findings(splits))
    if is_model_known:
        diagnosis.add(findings_of_labels(cfg, splits))
    return diagnosis


def _length(split: Split) -> int:
    return 0 if split.dataset is None else len(split.dataset)
