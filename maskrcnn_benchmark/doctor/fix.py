"""Write a clean copy of datasets, as COCO files, and a list of every change."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from maskrcnn_benchmark.data.datasets import COCOPanopticDataset
from maskrcnn_benchmark.doctor.splits import Split, read_split
from maskrcnn_benchmark.doctor.training_findings import OF_ANNOTATIONS
from maskrcnn_benchmark.evaluation.coco_export import coco_content
from maskrcnn_benchmark.utils.atomic_write import atomic_write, write_json
from maskrcnn_benchmark.utils.counted import counted

# Starts of findings that change no annotation: they are about pixels, or about entries that the clean copy keeps.
UNCHANGED = ("images of mode", "truncated images", "images rotated", "crowd regions", "images without usable")
# Start of the finding about exact copies of annotations, which the clean copy has once.
COPIES = "annotations with image, class and box of another"


@dataclass(frozen=True)
class Change:
    """One change: what was done to an image or an annotation; ids are those of the source, "" if unknown."""

    split: str
    image_id: object
    annotation_id: object
    what: str


@dataclass(frozen=True)
class CleanCopy:
    """Outcome of `write_clean`.

    Attributes:
        name: name of the dataset.
        path: path of its COCO file; None if it cannot be written.
        block: entry for DATASETS that reads the file.
        images, annotations: numbers of images and annotations in the file.
        remark: why the file is not written, or a setting that it requires.
    """

    name: str
    path: str | None
    block: dict
    images: int
    annotations: int
    remark: str = ""


def write_clean(cfg, splits: Sequence[Split], folder: str) -> tuple[list[CleanCopy], list[Change]]:
    """Write NAME.json for every split, and changes.csv, to a folder.

    Annotations are written as training and evaluation use them; exact copies are left out; crowd regions and images
    without objects are kept. Images stay where they are. Annotations are renumbered.

    Args:
        cfg: see `read_split`.
        splits: see `read_splits`. They are read again, to keep keypoints and images without objects.
        folder: made if it does not exist.
    """
    copies, changes = [], []
    cfg = cfg.clone()
    cfg.MODEL.KEYPOINT_ON = True
    for split in splits:
        whole = read_split(cfg, split.entry, False, split.name)
        reason = _obstacle(whole)
        if reason:
            copies.append(CleanCopy(split.name, None, {}, 0, 0, reason))
            continue
        content = coco_content(whole.dataset)
        content["annotations"] = list(_without_copies(content["annotations"]))
        path = os.path.join(os.path.abspath(folder), re.sub(r"[^\w.-]+", "_", split.name) + ".json")
        write_json(path, content)
        is_lvis = isinstance(split.entry, dict) and split.entry.get("FORMAT") == "lvis"
        block = {
            "NAME": split.name,
            "FORMAT": "lvis" if is_lvis else "coco",
            "IMAGES": os.path.abspath(whole.dataset.root),
            "ANNOTATIONS": path,
        }
        turned = sum(map(whole.dataset.is_turned, range(len(whole.dataset))))
        turned_images = counted(turned, "images are turned as EXIF says: set DATASETS.EXIF_ROTATION: upright")
        remark = turned_images if turned else ""
        numbers = len(content["images"]), len(content["annotations"])
        copies.append(CleanCopy(split.name, path, block, *numbers, remark))
        changes += _changes(whole)
    _write_changes(os.path.join(folder, "changes.csv"), changes)
    return copies, changes


def _obstacle(split: Split) -> str:
    """Return why a dataset cannot be written as a COCO file; "" if it can."""
    if split.table is None:
        return split.troubles[-1].message if split.troubles else "it has no boxes"
    of_all = [trouble.message for trouble in split.troubles if not trouble.places]
    if of_all:
        return of_all[0]  # sizes that differ, for example: the boxes may be anywhere
    if isinstance(split.dataset, COCOPanopticDataset):
        return "a COCO instances file cannot hold its panoptic maps"
    return "" if split.class_names else "it has no boxes"


def _without_copies(annotations: Sequence[dict]) -> Iterator[dict]:
    seen = set()
    for annotation in annotations:
        key = annotation["image_id"], annotation["category_id"], *annotation["bbox"]
        if key not in seen:
            seen.add(key)
            yield annotation


def _changes(split: Split) -> Iterator[Change]:
    for trouble in split.troubles:
        for image_id, _ in trouble.places:
            yield Change(split.name, image_id, "", f"{trouble.what}: left out")
    report = split.dataset.report
    for action, done in (("dropped", "left out"), ("repaired", "changed"), ("noted", "left out")):
        for found in report.findings(action):
            if found.what.startswith(UNCHANGED) or action == "noted" and not found.what.startswith(COPIES):
                continue
            what = f"{found.what}: {done}"
            if found.whose in OF_ANNOTATIONS:
                places = split.examples_by_id(found.examples, len(found.examples))
                yield from (Change(split.name, _known(each.image_id), each.annotation_id, what) for each in places)
            else:
                yield from (
                    Change(split.name, each if found.whose == "image ids" else "", "", what) for each in found.examples
                )


def _known(image_id):
    return "" if image_id is None else image_id


def _write_changes(path: str, changes: Sequence[Change]) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("dataset", "image_id", "annotation_id", "change"))
    writer.writerows((each.split, each.image_id, each.annotation_id, each.what) for each in changes)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode(errors="backslashreplace"))
