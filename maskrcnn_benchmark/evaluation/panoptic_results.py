"""Write and read panoptic results in COCO's format: a JSON file and maps of segment ids."""

from __future__ import annotations

import io
import os

import numpy as np
from PIL import Image

from maskrcnn_benchmark.data.datasets.coco_annotations import rows_of
from maskrcnn_benchmark.data.datasets.coco_json import load_json
from maskrcnn_benchmark.structures.panoptic_map import PanopticMap, colors_from_ids, extents, read_ids, renumber
from maskrcnn_benchmark.utils.atomic_write import atomic_write, write_json


def write_panoptic_results(dataset, found: dict[int, PanopticMap], output_folder: str) -> None:
    """Write panoptic.json, and a map of segment ids for each of its entries in the folder panoptic/.

    The json also has "images" and "categories", so that it can be read as an annotation file.
    """
    folder = os.path.join(output_folder, "panoptic")
    os.makedirs(folder, exist_ok=True)
    annotations, images = [], []
    for index, panoptic in sorted(found.items()):
        info = dataset.get_img_info(index)
        name = f"{os.path.splitext(os.path.basename(info['file_name']))[0]}.png"
        ids = panoptic.unpack()
        with atomic_write(os.path.join(folder, name)) as file, io.BytesIO() as png:
            Image.fromarray(colors_from_ids(ids.astype(np.int32))).save(png, format="PNG")
            file.write(png.getvalue())
        areas, boxes = extents(ids, len(panoptic.segments))
        entries = zip(panoptic.segments, areas.tolist(), boxes.tolist(), strict=True)
        segments = [
            {"id": number, "area": area, "bbox": box, **_entry(dataset, segment)}
            for number, (segment, area, box) in enumerate(entries, start=1)
            if area
        ]
        annotations.append({"image_id": info["id"], "file_name": name, "segments_info": segments})
        images.append({key: info[key] for key in ("id", "file_name", "width", "height")})
    categories = [
        {"id": number, "name": name, "isthing": is_thing}
        for ids, names, is_thing in (
            (dataset.contiguous_category_id_to_json_id, dataset.class_names, 1),
            (dataset.stuff_category_ids, dataset.stuff_names, 0),
        )
        for number, name in zip(ids.values(), names, strict=True)
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_json(os.path.join(output_folder, "panoptic.json"), content)


def _entry(dataset, segment: dict) -> dict:
    ids = dataset.contiguous_category_id_to_json_id if segment["is_thing"] else dataset.stuff_category_ids
    entry = {"category_id": ids[segment["label"]], "iscrowd": int(segment.get("crowd", False))}
    return entry | ({"score": segment["score"]} if "score" in segment else {})


def read_panoptic_results(dataset, results_file: str, folder: str) -> dict[int, PanopticMap]:
    """Read the results of `write_panoptic_results` or of another program.

    Args:
        dataset: a COCOPanopticDataset; results of other images are skipped.
        results_file: the json; only "annotations" is read.
        folder: folder of the segment maps.

    Returns:
        Segments by dataset index.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the json contradicts the maps or the dataset.
    """
    labels = {number: (label, True) for label, number in dataset.contiguous_category_id_to_json_id.items()}
    labels |= {number: (label, False) for label, number in dataset.stuff_category_ids.items()}
    indices = {dataset.image_id(index): index for index in range(len(dataset))}
    found = {}
    required = ("image_id", "file_name", "segments_info")
    for row in rows_of(load_json(results_file), "annotations", results_file, required):
        if row["image_id"] not in indices:
            continue
        where = f"{results_file}, image id {row['image_id']}"
        segments = rows_of(row, "segments_info", where, ("id", "category_id"))
        unknown = [segment["category_id"] for segment in segments if segment["category_id"] not in labels]
        if unknown:
            raise ValueError(f"{where}: dataset {dataset.name} has no category {unknown[0]!r}")
        ids = np.array([segment["id"] for segment in segments], dtype=np.int64)
        numbers = renumber(read_ids(os.path.join(folder, row["file_name"])), ids)
        areas, _ = extents(np.minimum(numbers, len(ids)), len(ids))
        if numbers.max(initial=0) > len(ids) or (areas == 0).any() or len(np.unique(ids)) < len(ids):
            raise ValueError(
                f"{where}: the ids of its segments must be those in {row['file_name']}, each once, with "
                "id = R + 256 G + 65536 B"
            )
        kinds = [labels[segment["category_id"]] for segment in segments]
        listed = [
            {"label": label, "is_thing": is_thing, **({"score": segment["score"]} if "score" in segment else {})}
            for segment, (label, is_thing) in zip(segments, kinds, strict=True)
        ]
        found[indices[row["image_id"]]] = PanopticMap(numbers, listed)
    return found
