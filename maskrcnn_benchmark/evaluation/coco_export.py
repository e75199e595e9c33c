"""Convert a dataset of any format to the layout of a COCO file, repaired as in training and evaluation."""

from __future__ import annotations

import numpy as np

from maskrcnn_benchmark.data.datasets import COCOPanopticDataset, LVISDataset
from maskrcnn_benchmark.data.datasets.box_dataset import BoxDataset
from maskrcnn_benchmark.evaluation.ground_truth import ground_truth_of
from maskrcnn_benchmark.structures.rle import encode_window


def coco_content(dataset: BoxDataset) -> dict:
    """Return a dataset in the layout of a COCO instances file.

    Image and category ids are kept if all are positive integers. Otherwise they are renumbered from 1. Difficult
    objects of Pascal VOC become crowd regions, which are neither trained on nor evaluated. LVIS's lists of absent and
    not exhaustively annotated categories are kept. For a panoptic dataset, only things are included.

    Args:
        dataset: opened for testing, so that crowd regions, difficult objects and images without objects are included.

    Raises:
        ValueError: the dataset has no boxes, or its annotations are malformed.
    """
    if not dataset.class_names:
        raise ValueError(f"dataset {dataset.name} has no boxes to convert")
    kinds = ["bbox"] + ["segm"] * dataset.has_masks + ["keypoints"] * bool(dataset.num_keypoints)
    content = ground_truth_of(dataset, kinds)
    for index, image in enumerate(_by_index(content["images"], dataset)):
        info = dataset.get_img_info(index)
        image.update(file_name=info["file_name"].replace("\\", "/"), width=info["width"], height=info["height"])
    _mark_difficult(content["annotations"], dataset)
    if isinstance(dataset, COCOPanopticDataset) and dataset.ann_file is None:
        content["annotations"] += _crowd_segments(dataset, len(content["annotations"]) + 1)
    for annotation in content["annotations"]:
        _as_json(annotation)
    if dataset.keypoint_names and dataset.num_keypoints:
        for category in content["categories"]:
            category.update(keypoints=list(dataset.keypoint_names), skeleton=[])
    if isinstance(dataset, LVISDataset):
        _add_federation(content, dataset)
    _renumber(content["images"], content["annotations"], "image_id")
    numbers = _renumber(content["categories"], content["annotations"], "category_id")
    for image in content["images"]:
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            if key in image:
                image[key] = [numbers[number] for number in image[key] if number in numbers]
    return {"info": {"description": dataset.name}, **{key: value for key, value in content.items() if key != "info"}}


def _by_index(images: list[dict], dataset) -> list[dict]:
    by_id = {image["id"]: image for image in images}
    return [by_id[dataset.image_id(index)] for index in range(len(dataset))]


def _mark_difficult(annotations: list[dict], dataset) -> None:
    if not len(dataset) or not dataset.get_groundtruth(0).has_field("difficult"):
        return
    flags = [flag for i in range(len(dataset)) for flag in dataset.get_groundtruth(i).get_field("difficult").tolist()]
    for annotation, is_difficult in zip(annotations, flags, strict=True):
        if is_difficult:
            annotation.update(iscrowd=1, difficult=1)


def _crowd_segments(dataset: COCOPanopticDataset, first_id: int) -> list[dict]:
    """Return the crowd regions of a panoptic dataset, which its targets leave out."""
    found = []
    for index in range(len(dataset)):
        panoptic = dataset.panoptic(index)
        crowd = [k for k, each in enumerate(panoptic.segments, start=1) if each["is_thing"] and each["crowd"]]
        ids = panoptic.unpack() if crowd else None
        for k in crowd:
            rows, columns = np.nonzero(ids == k)
            if not len(rows):
                continue
            x, y, width, height = columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1
            label = panoptic.segments[k - 1]["label"]
            annotation = {
                "id": first_id + len(found),
                "image_id": dataset.image_id(index),
                "category_id": dataset.contiguous_category_id_to_json_id[label],
                "bbox": [float(x), float(y), float(width), float(height)],
                "area": len(rows),
                "iscrowd": 1,
                "segmentation": encode_window(ids == k, 0, 0, *ids.shape),
            }
            found.append(annotation)
    return found


def _as_json(annotation: dict) -> None:
    """Convert RLE counts from bytes, which JSON does not support, to text."""
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], bytes):
        annotation["segmentation"] = {**segmentation, "counts": segmentation["counts"].decode("ascii")}


def _add_federation(content: dict, dataset: LVISDataset) -> None:
    federation = dataset.federation()
    for image in content["images"]:
        image["neg_category_ids"] = sorted(federation.absent.get(image["id"], ()))
        image["not_exhaustive_category_ids"] = sorted(federation.incomplete.get(image["id"], ()))
    for category in content["categories"]:
        if category["id"] in federation.frequency:
            category["frequency"] = federation.frequency[category["id"]]


def _renumber(entries: list[dict], annotations: list[dict], key: str) -> dict:
    """Renumber ids from 1, in place, unless all are positive integers; return the new ids by old ids."""
    ids = [entry["id"] for entry in entries]
    if all(type(number) is int and number > 0 for number in ids):
        return {number: number for number in ids}
    numbers = {number: k for k, number in enumerate(ids, start=1)}
    for entry in entries:
        entry["id"] = numbers[entry["id"]]
    for annotation in annotations:
        annotation[key] = numbers[annotation[key]]
    return numbers
