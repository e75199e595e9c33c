"""What COCO evaluation compares with: an annotation file, or what a dataset says of its images.

A file is read as the dataset reads it, so that both have the same objects: what training leaves out is not evaluated.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection

import numpy as np

from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable
from maskrcnn_benchmark.data.datasets.coco_annotations import load_json, table_of
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.evaluation.coco_results import NOT_COMPUTED
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.rle import decode_counts, encode_window, parse_counts

logger = logging.getLogger("maskrcnn_benchmark.inference")

# COCO counts so many detections of a class in an image.
MOST_DETECTIONS = 100


def ground_truth_of(dataset, iou_types: Collection[str] = ("bbox",)) -> dict:
    """The ground truth in the form of a COCO instances file, fit for every evaluator.

    Annotation ids are numbered from 1: nothing that is reported depends on them, and the evaluators take a match with
    id 0 for no match. Every annotation has `iscrowd` and `area`.

    Args:
        dataset: has `ann_file`, a COCO file, and image_id(index) and get_img_info(index) for the images that count; or
            offers get_groundtruth(index) and class_names besides, as an AbstractDataset does.
        iou_types: "segm" adds "segmentation" (polygons, or RLE of the image's size; the outline of the box where there
            is none), "keypoints" adds "keypoints" and "num_keypoints".

    Raises:
        ValueError: the file is no COCO instances file.
    """
    content = _of_file(dataset, iou_types) if hasattr(dataset, "ann_file") else _of_items(dataset)
    for annotation in content["annotations"]:
        if "keypoints" in iou_types:
            annotation.setdefault("keypoints", [])
            annotation["num_keypoints"] = sum(flag > 0 for flag in annotation["keypoints"][2::3])
        if "segm" in iou_types and "segmentation" not in annotation:
            x, y, w, h = annotation["bbox"]
            annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    counts = Counter((a["image_id"], a["category_id"]) for a in content["annotations"] if not a["iscrowd"])
    crowded = list(dict.fromkeys(image_id for (image_id, _), count in counts.items() if count > MOST_DETECTIONS))
    if crowded:
        logger.warning(
            f"{source_of(dataset)}: {len(crowded)} images have more than {MOST_DETECTIONS} objects of a class (image "
            f"ids {', '.join(map(str, crowded[:5]))}); COCO counts {MOST_DETECTIONS} detections of a class in an "
            "image, so the others are missed"
        )
    return content


def load_ground_truth(
    ann_file,
    iou_types: Collection[str] = ("bbox",),
    sizes: dict | None = None,
    reading: Reading | None = None,
    factors: dict | None = None,
) -> dict:
    """The content of a COCO instances file as `ground_truth_of` returns it; the file itself is not changed.

    Annotations that the dataset would drop are left out and counted in a warning.

    Args:
        sizes: (width, height) of the images by id; others are left out. None takes all, in the sizes of the file.
        reading: choices about annotations (data.datasets.reading); None takes the defaults.
        factors: in x and y by image id, by which the dataset scales the annotations; None or missing: 1.

    Raises:
        ValueError: the file is no COCO instances file, or masks are asked for and sizes are not known.
    """
    ann_file = os.fspath(ann_file)
    report = DatasetReport(ann_file)
    data = load_json(ann_file)
    if data.get("annotations") is None:
        logger.warning(f"{ann_file} has no 'annotations': every figure will be {NOT_COMPUTED:g} (not computed)")
    table = table_of(data, ann_file, report, reading, crowd_masks=True)
    if sizes is None:
        fitted = table.given_sizes.copy()
        unknown = (fitted == 0).any(axis=1)
        if unknown.any() and "segm" in iou_types:
            raise ValueError(f"{ann_file}: {unknown.sum()} images have no width and height, which masks need")
        fitted[unknown] = NO_LIMIT
    else:
        table.select_pictures(np.array([image_id in sizes for image_id in table.image_ids], dtype=bool))
        fitted = np.array([sizes[image_id] for image_id in table.image_ids], dtype=np.int64).reshape(-1, 2)
    if "segm" not in iou_types:
        table.masks = None
    of_images = [(factors or {}).get(image_id) or (1.0, 1.0) for image_id in table.image_ids]
    table.fit(fitted, report, np.array(of_images).reshape(-1, 2) if factors else None)
    dropped = [finding for finding in report.findings("dropped") if finding.whose == "annotation ids"]
    if dropped:
        logger.warning(f"{ann_file}: not evaluated: {', '.join(map(str, dropped))}")
    if "segm" in iou_types and table.masks is None and len(table.boxes):
        logger.warning(f"{ann_file} has no usable segmentation; the boxes are taken for masks")
    return content_of(table, fitted, iou_types)


# Pixels a side of an image whose size is not known.
NO_LIMIT = 10**8


def _of_file(dataset, iou_types: Collection[str]) -> dict:
    sizes, factors = {}, {}
    factors_of = getattr(dataset, "annotation_factors", lambda index: None)
    for index in range(len(dataset)):
        image_id, info, factor = dataset.image_id(index), dataset.get_img_info(index), factors_of(index)
        sizes[image_id] = int(info["width"]), int(info["height"])
        if factor is not None:
            factors[image_id] = factor
    return load_ground_truth(dataset.ann_file, iou_types, sizes, getattr(dataset, "reading", None), factors)


def content_of(table: AnnotationTable, sizes: np.ndarray, iou_types: Collection[str] = ("bbox",)) -> dict:
    """A table, crowd regions included, in the form of a COCO instances file.

    Args:
        table: of a COCO file, fitted to its images.
        sizes: (I, 2) width, height of the images.
    """
    areas = np.where(np.isnan(table.areas), table.xywh[:, 2] * table.xywh[:, 3], table.areas).tolist()
    picture, labels, boxes, crowd = (a.tolist() for a in (table.picture, table.labels, table.xywh, table.crowd))
    annotations = []
    for k in range(len(boxes)):
        annotation = {
            "id": k + 1,
            "image_id": table.image_ids[picture[k]],
            "category_id": table.category_ids[labels[k] - 1],
            "bbox": boxes[k],
            "area": areas[k],
            "iscrowd": int(crowd[k]),
        }
        if table.masks is not None and "segm" in iou_types:
            annotation["segmentation"] = _of_size(table.masks.segmentation(k), sizes[picture[k]])
        if table.keypoints is not None and "keypoints" in iou_types:
            annotation["keypoints"] = table.keypoints[k].reshape(-1).tolist()
        annotations.append(annotation)
    images = [
        {"id": image_id, "file_name": name, "width": width, "height": height}
        for image_id, name, (width, height) in zip(table.image_ids, table.file_names, sizes.tolist(), strict=True)
    ]
    names = zip(table.category_ids, table.class_names, strict=True)
    categories = [{"id": number, "name": name} for number, name in names]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def _of_size(segmentation: list | dict, size: np.ndarray) -> list | dict:
    """Polygons as they are, RLE cut or padded to (width, height)."""
    if isinstance(segmentation, list) or segmentation["size"] == size[::-1].tolist():
        return segmentation
    width, height = size.tolist()
    runs = parse_counts(segmentation["counts"], segmentation["size"])
    return encode_window(decode_counts(runs, *segmentation["size"])[:height, :width], 0, 0, height, width)


def _of_items(dataset) -> dict:
    images, annotations = [], []
    for index in range(len(dataset)):
        image_id, info = dataset.image_id(index), dataset.get_img_info(index)
        images.append({"id": image_id, "width": int(info["width"]), "height": int(info["height"])})
        target = dataset.get_groundtruth(index)
        labels = target.get_field("labels").tolist()
        for label, shape in zip(labels, _shapes(target), strict=True):
            head = {"id": len(annotations) + 1, "image_id": image_id, "category_id": label, "iscrowd": 0}
            annotations.append(head | shape)
    categories = [{"id": label, "name": name} for label, name in enumerate(dataset.class_names, start=1)]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def _shapes(target: BoxList) -> list[dict]:
    """By object: "bbox" and "area", and as far as the target has them "segmentation" and "keypoints"."""
    width, height = (int(side) for side in target.size)
    boxes = target.convert("xywh").bbox.tolist()
    shapes = [{"bbox": box, "area": box[2] * box[3]} for box in boxes]
    if target.has_field("masks"):
        for shape, mask in zip(shapes, target.get_field("masks"), strict=True):
            pixels = mask.get_mask_tensor().numpy()
            shape |= {"segmentation": encode_window(pixels, 0, 0, height, width), "area": int(pixels.sum())}
    if target.has_field("keypoints"):
        for shape, points in zip(shapes, target.get_field("keypoints").keypoints, strict=True):
            shape["keypoints"] = points.flatten().tolist()
    return shapes


def source_of(dataset) -> str:
    """What messages call the ground truth: its file or folder, else the dataset's type."""
    place = getattr(dataset, "ann_file", getattr(dataset, "annotations", None))
    return type(dataset).__name__ if place is None else os.fspath(place)
