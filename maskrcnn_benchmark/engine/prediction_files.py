"""Write predictions to files: COCO results and annotations, drawn images, crops, maps, a contact sheet."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from PIL import Image

from maskrcnn_benchmark.engine.prediction import Prediction
from maskrcnn_benchmark.structures.keypoint import PersonKeypoints
from maskrcnn_benchmark.structures.label_names import LabelNames
from maskrcnn_benchmark.structures.panoptic_map import colors_from_ids
from maskrcnn_benchmark.structures.rle import parse_counts
from maskrcnn_benchmark.utils.atomic_write import atomic_write
from maskrcnn_benchmark.visual.drawing import fit_width, grid, save_image

# Extensions that drawn images keep; all others become JPEG.
WRITTEN = (".jpg", ".jpeg", ".png")
SHEET_WIDTHS = (240, 320)
SHEET_IMAGES = 24


def to_json(prediction: Prediction, file_name: str | None = None) -> dict:
    """Convert a prediction to the dict of one JSON line: file_name, width, height, objects.

    Each object has the keys of a COCO result except image_id, and "class_name". With a tracker it has "track_id", which
    is null for untracked objects. Panoptic segments are listed without their pixels.

    Args:
        file_name: value of "file_name"; None is the prediction's path.
    """
    width, height = prediction.size
    objects = prediction.to_coco()
    for entry, name in zip(objects, prediction.names, strict=True):
        del entry["image_id"]
        entry["class_name"] = name
    for entry, number in zip(
        objects, () if prediction.track_ids is None else prediction.track_ids.tolist(), strict=False
    ):
        entry["track_id"] = number or None
    name = prediction.path if file_name is None else file_name
    line = {"file_name": name, "width": width, "height": height, "objects": objects}
    if prediction.panoptic is not None:
        line["segments"] = prediction.segments
    if prediction.semantic is not None:
        line["semantic_classes"] = prediction.semantic_classes
    return line


def from_json(line: dict, label_names: LabelNames, box_offset: float, path: str | None = None) -> Prediction:
    """Convert the dict of `to_json` back to a prediction, without maps and keypoint scores."""
    objects = line["objects"]
    label_of = {number: k for k, number in enumerate(label_names.category_ids, start=1)}
    corners = np.array([each["bbox"] for each in objects], dtype=np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2] - np.float32(box_offset)
    keypoints = [each["keypoints"] for each in objects if "keypoints" in each]
    mask_scores = [each["mask_score"] for each in objects if "mask_score" in each]
    return Prediction(
        size=(line["width"], line["height"]),
        boxes=corners,
        scores=np.array([each["score"] for each in objects], dtype=np.float32),
        labels=np.array([label_of[each["category_id"]] for each in objects], dtype=np.int64),
        label_names=label_names,
        masks=[each["segmentation"] for each in objects] if any("segmentation" in each for each in objects) else None,
        mask_scores=np.array(mask_scores, dtype=np.float32) if mask_scores else None,
        keypoints=np.array(keypoints, dtype=np.float32).reshape(len(objects), -1, 3) if keypoints else None,
        path=path or line["file_name"],
        box_offset=box_offset,
    )


# ---- one file per image


def save_drawn(prediction: Prediction, folder: str, name: str, score) -> None:
    """Draw the objects that pass `Prediction.filter(score)`, and write the image to FOLDER/NAME."""
    save_image(prediction.filter(score=score).draw(), os.path.join(folder, written_name(name)))


def save_crops(prediction: Prediction, folder: str, name: str, score) -> None:
    """Crop each object that passes `Prediction.filter(score)`, and write it to FOLDER/CLASS/NAME_NUMBER.jpg."""
    chosen = prediction.filter(score=score)
    if not len(chosen):
        return
    pixels, (width, height) = chosen.image(), chosen.size
    stem = os.path.splitext(name)[0].replace("/", "_")
    for k, (box, class_name) in enumerate(zip(chosen.boxes.tolist(), chosen.names, strict=True), start=1):
        left, top = max(int(box[0]), 0), max(int(box[1]), 0)
        right = min(max(int(np.ceil(box[2] + chosen.box_offset)), left + 1), width)
        bottom = min(max(int(np.ceil(box[3] + chosen.box_offset)), top + 1), height)
        place = os.path.join(folder, re.sub(r"[^\w.-]+", "_", class_name), f"{stem}_{k}.jpg")
        save_image(pixels[top:bottom, left:right], place)


def save_maps(prediction: Prediction, folder: str, name: str) -> None:
    """Write the maps that the model predicts.

    FOLDER/semantic/NAME.png has the class of each pixel. FOLDER/panoptic/NAME.png has segment numbers encoded as
    colours, in COCO's panoptic format.
    """
    stem = os.path.splitext(name)[0]
    for kind, values in (("semantic", prediction.semantic_map), ("panoptic", prediction.panoptic_map)):
        if values is None:
            continue
        pixels = values if kind == "semantic" else colors_from_ids(values.astype(np.int32))
        with atomic_write(os.path.join(folder, kind, f"{stem}.png")) as file:
            Image.fromarray(pixels).save(file, format="PNG")


def written_name(name: str) -> str:
    """Return the file name of a drawn image; extensions other than WRITTEN get ".jpg" appended."""
    return name if os.path.splitext(name)[1].lower() in WRITTEN else f"{name}.jpg"


# ---- one file for all images


def write_results(lines: Iterable[dict], path: str, image_ids: Mapping[str, object]) -> int:
    """Write a COCO result file from the dicts of `to_json`, read one at a time.

    Args:
        image_ids: image ids by file name.

    Returns:
        Number of objects.
    """
    count = 0
    with _json_list(path) as add:
        for line in lines:
            for each in line.get("objects", ()):
                entry = {"image_id": image_ids[line["file_name"]], **each}
                entry.pop("class_name", None)
                add(entry)
                count += 1
    return count


def write_annotations(
    lines: Iterable[dict],
    path: str,
    image_ids: Mapping[str, object],
    label_names: LabelNames,
    keep,
) -> int:
    """Write a COCO annotation file from the dicts of `to_json`, to correct in a labelling tool and to train on.

    Each annotation keeps its "score".

    Args:
        image_ids: image ids by file name.
        keep: dict of `to_json` -> list of the objects to write.

    Returns:
        Number of annotations.
    """
    images, count, num_keypoints = [], 0, 0
    with atomic_write(path) as file:
        file.write(b'{"annotations": [')
        for line in lines:
            if "objects" not in line:
                continue
            number = image_ids[line["file_name"]]
            images.append({"id": number, **{key: line[key] for key in ("file_name", "width", "height")}})
            for each in keep(line):
                count += 1
                entry = {"id": count, "image_id": number, **each, "area": _area(each), "iscrowd": 0}
                entry.pop("class_name", None)
                if "keypoints" in each:
                    num_keypoints = len(each["keypoints"]) // 3
                    entry["num_keypoints"] = sum(visibility > 0 for visibility in each["keypoints"][2::3])
                file.write((b",\n" if count > 1 else b"\n") + json.dumps(entry).encode())
        categories = [
            {"id": number, "name": name}
            for number, name in zip(label_names.category_ids, label_names.class_names, strict=True)
        ]
        if num_keypoints == len(PersonKeypoints.NAMES):
            categories = [dict(each, keypoints=list(PersonKeypoints.NAMES), skeleton=[]) for each in categories]
        file.write(
            b'\n], "images": %s, "categories": %s}\n' % tuple(json.dumps(x).encode() for x in (images, categories))
        )
    return count


def _area(entry: dict) -> float:
    if "segmentation" in entry:
        return int(parse_counts(entry["segmentation"]["counts"], entry["segmentation"]["size"])[1::2].sum())
    return entry["bbox"][2] * entry["bbox"][3]


def save_sheet(drawn: Iterable[tuple[np.ndarray, str]], path: str, title: str, columns: int = 4) -> None:
    """Write a contact sheet of pairs (drawn image, caption)."""
    images, captions = zip(*((fit_width(pixels, *SHEET_WIDTHS), caption) for pixels, caption in drawn), strict=True)
    save_image(grid(images, columns, captions, title=title), path)


def spread(count: int, total: int) -> list[int]:
    """Return at most `count` indices, evenly spaced over range(total)."""
    return sorted({round(k) for k in np.linspace(0, total - 1, min(count, total))}) if total else []


@contextlib.contextmanager
def _json_list(path: str) -> Iterator:
    """Yield a function that appends an entry to a JSON list. The file appears only if the block succeeds."""
    with atomic_write(path) as file:
        file.write(b"[")
        separators = iter([b"\n"])

        def add(entry: dict) -> None:
            file.write(next(separators, b",\n") + json.dumps(entry, allow_nan=False).encode())

        yield add
        file.write(b"\n]\n")
