"""What COCO evaluation compares with: an annotation file, or what a data set says of its pictures."""

from __future__ import annotations

import os

from maskrcnn_benchmark.evaluation.coco_evaluator import load_ground_truth
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.rle import decode_counts, encode_window, parse_counts, resize_nearest


def ground_truth_of(dataset) -> dict:
    """The ground truth in the form of a COCO instances file, fit for every evaluator.

    Args:
        dataset: has `ann_file`, a COCO file; or offers get_groundtruth(index), get_img_info(index), image_id(index)
            and class_names, as an AbstractDataset does.

    Raises:
        ValueError: the file is no COCO instances file.
    """
    if hasattr(dataset, "ann_file"):
        return _scaled(load_ground_truth(dataset.ann_file), dataset)
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


def _scaled(ground_truth: dict, dataset) -> dict:
    """Scale the annotations of images that the dataset uses in another size than annotated."""
    factors_of = getattr(dataset, "annotation_factors", lambda index: None)
    factors = {dataset.image_id(index): factors_of(index) for index in range(len(dataset))}
    if not any(factors.values()):
        return ground_truth
    sizes = {dataset.image_id(index): dataset.get_img_info(index) for index in range(len(dataset))}
    for image in ground_truth["images"]:
        if factors.get(image["id"]):
            image |= {side: sizes[image["id"]][side] for side in ("width", "height")}
    for annotation in ground_truth["annotations"]:
        x, y = factors.get(annotation["image_id"]) or (1, 1)
        if (x, y) == (1, 1):
            continue
        annotation["bbox"] = [value * factor for value, factor in zip(annotation["bbox"], (x, y, x, y), strict=True)]
        annotation["area"] *= x * y
        if annotation.get("keypoints"):
            points = annotation["keypoints"]
            annotation["keypoints"] = [value * (x, y, 1)[i % 3] for i, value in enumerate(points)]
        shape = annotation.get("segmentation")
        if isinstance(shape, dict):
            info = sizes[annotation["image_id"]]
            mask = decode_counts(parse_counts(shape["counts"], shape["size"]), *shape["size"])
            mask = resize_nearest(mask, (info["width"], info["height"]))
            annotation["segmentation"] = encode_window(mask, 0, 0, *mask.shape)
        elif shape:
            annotation["segmentation"] = [[v * (x, y)[i % 2] for i, v in enumerate(part)] for part in shape]
    return ground_truth


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
    """What messages call the ground truth: its file or folder, else the data set's type."""
    place = getattr(dataset, "ann_file", getattr(dataset, "annotations", None))
    return type(dataset).__name__ if place is None else os.fspath(place)
