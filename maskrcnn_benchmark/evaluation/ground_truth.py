"""Ground truth for COCO evaluation, from an annotation file or from a dataset's targets.

A file is read by the same rules as in the dataset, so that objects dropped in training are not evaluated either.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection

import numpy as np

from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable
from maskrcnn_benchmark.data.datasets.coco_annotations import table_of
from maskrcnn_benchmark.data.datasets.coco_json import load_json
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.evaluation.coco_results import NOT_COMPUTED
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.rle import decode_counts, encode_window, parse_counts

logger = logging.getLogger("maskrcnn_benchmark.inference")

# COCO evaluates at most this many detections of a class per image.
MOST_DETECTIONS = 100


def ground_truth_of(dataset, iou_types: Collection[str] = ("bbox",)) -> dict:
    """Return a dataset's ground truth in the layout of a COCO instances file.

    Annotations are renumbered from 1, because the evaluators treat a match with id 0 as no match. Every annotation has
    `iscrowd` and `area`.

    Args:
        dataset: has image_id(index) and get_img_info(index), and one of: `ann_file` (a COCO file), `read_records` (see
            RecordsDataset), or get_groundtruth(index) and class_names (see AbstractDataset). Only its images are
            evaluated.
        iou_types: "segm" adds "segmentation" (polygons, RLE of the image's size, or the outline of the box if there is
            none), "keypoints" adds "keypoints" and "num_keypoints".

    Raises:
        ValueError: the file is not a COCO instances file.
    """
    has_file = _annotation_file(dataset) is not None or hasattr(dataset, "read_records")
    content = _of_file(dataset, iou_types) if has_file else _of_items(dataset)
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
            f"ids {', '.join(map(str, crowded[:5]))}); COCO evaluates at most {MOST_DETECTIONS} detections of a class "
            "per image, so the other objects are missed"
        )
    return content


def load_ground_truth(
    ann_file,
    iou_types: Collection[str] = ("bbox",),
    sizes: dict | None = None,
    reading: Reading | None = None,
    factors: dict | None = None,
) -> dict:
    """Read a COCO instances file in the form of `ground_truth_of`.

    Annotations that the dataset would drop are dropped and counted in a warning.

    Args:
        ann_file: COCO instances file.
        iou_types: see `ground_truth_of`.
        sizes: (width, height) by image id; other images are dropped. None keeps all, with the sizes in the file.
        reading: see data.datasets.reading; None is Reading().
        factors: by image id, factors (x, y) by which the dataset scales the annotations; missing ones are 1.

    Raises:
        ValueError: the file is not a COCO instances file, or masks are requested and image sizes are unknown.
    """
    ann_file = os.fspath(ann_file)
    return _ground_truth(load_json(ann_file), ann_file, DatasetReport(ann_file), iou_types, sizes, reading, factors)


def _ground_truth(
    data: dict,
    ann_file: str,
    report: DatasetReport,
    iou_types: Collection[str],
    sizes: dict | None,
    reading: Reading | None,
    factors: dict | None,
) -> dict:
    """Convert content in COCO's layout that is already read, see `load_ground_truth`; errors name `ann_file`."""
    if data.get("annotations") is None:
        logger.warning(f"{ann_file} has no 'annotations'; every figure will be {NOT_COMPUTED:g} (not computed)")
    table = table_of(data, ann_file, report, reading, crowd_masks=True)
    if sizes is None:
        fitted = table.given_sizes.copy()
        unknown = (fitted == 0).any(axis=1)
        if unknown.any() and "segm" in iou_types:
            raise ValueError(f"{ann_file}: {unknown.sum()} images have no width and height, which masks require")
        fitted[unknown] = NO_LIMIT
    else:
        table.select_images(np.array([image_id in sizes for image_id in table.image_ids], dtype=bool))
        fitted = np.array([sizes[image_id] for image_id in table.image_ids], dtype=np.int64).reshape(-1, 2)
    if "segm" not in iou_types:
        table.masks = None
    of_images = [(factors or {}).get(image_id) or (1.0, 1.0) for image_id in table.image_ids]
    table.fit(fitted, report, np.array(of_images).reshape(-1, 2) if factors else None)
    dropped = [finding for finding in report.findings("dropped") if finding.whose == "annotation ids"]
    if dropped:
        logger.warning(f"{ann_file}: not evaluated: {', '.join(map(str, dropped))}")
    if "segm" in iou_types and table.masks is None and len(table.boxes):
        logger.warning(f"{ann_file} has no usable segmentation; the boxes are used as masks")
    return content_of(table, fitted, iou_types)


# Side, in pixels, assumed for an image of unknown size.
NO_LIMIT = 10**8


def _annotation_file(dataset):
    """Return the COCO file of a dataset; None if it has none, such as a panoptic one without INSTANCES."""
    return getattr(dataset, "ann_file", None)


def _of_file(dataset, iou_types: Collection[str]) -> dict:
    sizes, factors = {}, {}
    factors_of = getattr(dataset, "annotation_factors", lambda index: None)
    for index in range(len(dataset)):
        image_id, info, factor = dataset.image_id(index), dataset.get_img_info(index), factors_of(index)
        sizes[image_id] = int(info["width"]), int(info["height"])
        if factor is not None:
            factors[image_id] = factor
    reading = getattr(dataset, "reading", None)
    if _annotation_file(dataset) is not None:
        return load_ground_truth(dataset.ann_file, iou_types, sizes, reading, factors)
    report = DatasetReport(dataset.name)
    return _ground_truth(dataset.read_records(report), source_of(dataset), report, iou_types, sizes, reading, factors)


def content_of(table: AnnotationTable, sizes: np.ndarray, iou_types: Collection[str] = ("bbox",)) -> dict:
    """Convert an annotation table, including crowd regions, to the layout of a COCO instances file.

    Args:
        table: read from a COCO file and fitted to its images.
        sizes: (I, 2) width, height of the images.
        iou_types: see `ground_truth_of`.
    """
    areas = np.where(np.isnan(table.areas), table.xywh[:, 2] * table.xywh[:, 3], table.areas).tolist()
    owners, labels, boxes, crowd = (a.tolist() for a in (table.image_index, table.labels, table.xywh, table.crowd))
    annotations = []
    for k in range(len(boxes)):
        annotation = {
            "id": k + 1,
            "image_id": table.image_ids[owners[k]],
            "category_id": table.category_ids[labels[k] - 1],
            "bbox": boxes[k],
            "area": areas[k],
            "iscrowd": int(crowd[k]),
        }
        if table.masks is not None and "segm" in iou_types:
            annotation["segmentation"] = _of_size(table.masks.segmentation(k), sizes[owners[k]])
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
    """Crop or pad RLE to (width, height); polygons are returned unchanged."""
    if isinstance(segmentation, list) or segmentation["size"] == size[::-1].tolist():
        return segmentation
    width, height = size.tolist()
    runs = parse_counts(segmentation["counts"], segmentation["size"])
    return encode_window(decode_counts(runs, *segmentation["size"])[:height, :width], 0, 0, height, width)


def _of_items(dataset) -> dict:
    images, annotations = [], []
    numbers = getattr(dataset, "contiguous_category_id_to_json_id", {})
    for index in range(len(dataset)):
        image_id, info = dataset.image_id(index), dataset.get_img_info(index)
        images.append({"id": image_id, "width": int(info["width"]), "height": int(info["height"])})
        target = dataset.get_groundtruth(index)
        labels = target.get_field("labels").tolist()
        for label, shape in zip(labels, _shapes(target), strict=True):
            category = numbers.get(label, label)
            head = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category, "iscrowd": 0}
            annotations.append(head | shape)
    categories = [{"id": numbers.get(k, k), "name": name} for k, name in enumerate(dataset.class_names, start=1)]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def _shapes(target: BoxList) -> list[dict]:
    """Return "bbox", "area" and, if the target has them, "segmentation" and "keypoints" of each object."""
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
    """Return the name of the ground truth for messages: its file or folder, else the dataset's type."""
    place = _annotation_file(dataset) or getattr(dataset, "annotations", None)
    return type(dataset).__name__ if place is None else os.fspath(place)
