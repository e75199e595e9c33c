"""Panoptic evaluation: panoptic quality, and metrics of semantic maps and of instances.

Shapes: H x W pixels of an image.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import numpy as np

from maskrcnn_benchmark.evaluation.coco import coco_evaluation
from maskrcnn_benchmark.evaluation.coco_results import Results
from maskrcnn_benchmark.evaluation.options import EvaluationOptions
from maskrcnn_benchmark.evaluation.panoptic_quality import PanopticQuality
from maskrcnn_benchmark.evaluation.panoptic_results import write_panoptic_results
from maskrcnn_benchmark.evaluation.predictions import Predictions, numbered
from maskrcnn_benchmark.evaluation.semantic import SemanticConfusion
from maskrcnn_benchmark.evaluation.tables import class_table
from maskrcnn_benchmark.structures.panoptic_map import PanopticMap
from maskrcnn_benchmark.utils.atomic_write import write_json

logger = logging.getLogger("maskrcnn_benchmark.inference")


def panoptic_evaluation(
    dataset,
    predictions: Predictions,
    output_folder: str | None,
    box_only: bool = False,
    iou_types: Sequence[str] = ("bbox",),
    options: EvaluationOptions | None = None,
) -> Results:
    """Evaluate segments and, if predicted, semantic maps and instances.

    Args:
        dataset: a COCOPanopticDataset.
        predictions: by dataset index, with the field "panoptic" (PanopticMap) and optionally "semantic" (PackedMap of
            semantic classes), both in the size of the original image. An image without a prediction counts as an image
            without segments.
        output_folder: folder for panoptic.json, the segment maps in panoptic/, and panoptic_results.json; None or ""
            writes nothing.
        box_only: skip the evaluation of instances.
        iou_types, options: see `coco_evaluation`, which runs if the dataset has an instances file.

    Returns:
        Results of the tasks "panoptic" (PQ, SQ, RQ, and the same with _th for things and _st for stuff), "semantic"
        (mIoU, fwIoU, mACC, pACC), and the iou types.

    Raises:
        ValueError: predictions have no segments, segments of another size, or labels that the dataset does not have.
    """
    found = {index: _panoptic(prediction, dataset, index) for index, prediction in numbered(predictions)}
    missing = len(dataset) - len(found)
    if missing:
        logger.warning(f"{missing} of {len(dataset)} images have no predictions; they count as missed")
    if output_folder:
        write_panoptic_results(dataset, found, output_folder)

    quality = _panoptic_quality(dataset, found)
    is_thing = np.arange(len(quality.iou)) < len(dataset.class_names)
    results = Results({"panoptic": quality.figures(is_thing)})
    names = [*dataset.class_names, *dataset.stuff_names]
    per_class = {"panoptic": _panoptic_rows(quality, names)}
    confusion = _semantic_confusion(dataset, dict(numbered(predictions)))
    if confusion is not None:
        results.results["semantic"] = confusion.figures()
        per_class["semantic"] = _semantic_rows(confusion, dataset.semantic_names)
    if dataset.ann_file and not box_only:
        instances = coco_evaluation(dataset, predictions, output_folder, iou_types=iou_types, options=options)
        results.results.update(instances.results)
        results.detections = instances.detections
    _report(results, per_class, output_folder, dataset)
    return results


def _panoptic(prediction, dataset, index: int) -> PanopticMap:
    if not prediction.has_field("panoptic"):
        raise ValueError(
            f"the prediction of image {dataset.image_id(index)} has no field 'panoptic', only {prediction.fields()}: "
            "the model predicts no segments. Use MODEL.META_ARCHITECTURE PanopticFPN, or FORMAT: coco to evaluate only "
            "boxes and masks"
        )
    found, info = prediction.get_field("panoptic"), dataset.get_img_info(index)
    if found.size != (info["width"], info["height"]):
        raise ValueError(
            f"the segments of image {dataset.image_id(index)} have (width, height) {found.size}, the image has "
            f"{info['width']} x {info['height']}"
        )
    for segment in found.segments:
        kind, names = ("thing", dataset.class_names) if segment["is_thing"] else ("stuff", dataset.stuff_names)
        if not 1 <= segment["label"] <= len(names):
            raise ValueError(
                f"a segment has the {kind} label {segment['label']}, but dataset {dataset.name} has {len(names)} of "
                "them: the model was trained for another dataset"
            )
    return found


def _panoptic_quality(dataset, found: dict[int, PanopticMap]) -> PanopticQuality:
    quality = PanopticQuality(len(dataset.class_names) + len(dataset.stuff_names))
    for index in range(len(dataset)):
        quality.add_maps(dataset.panoptic(index), found.get(index), len(dataset.class_names))
    return quality


def _semantic_confusion(dataset, predictions: dict) -> SemanticConfusion | None:
    """Count the semantic maps' pixels by class; None if no prediction has a semantic map.

    The pixels of images without a prediction are missed.
    """
    maps = {i: found.get_field("semantic") for i, found in predictions.items() if found.has_field("semantic")}
    if not maps:
        return None
    confusion = SemanticConfusion(len(dataset.semantic_names))
    for index in range(len(dataset)):
        found = maps[index].unpack() if index in maps else None
        confusion.add(dataset.get_groundtruth(index).get_field("semantic").labels.numpy(), found)
    return confusion


def _panoptic_rows(quality: PanopticQuality, names: list[str]) -> list[dict]:
    """Return one row per class that occurs in the ground truth or in predictions."""
    columns = {name: values.tolist() for name, values in quality.per_class().items()}
    columns |= {name: getattr(quality, name).tolist() for name in ("right", "wrong", "missed")}
    rows = [dict(zip(("class", *columns), row, strict=True)) for row in zip(names, *columns.values(), strict=True)]
    return [row for row in rows if row["right"] + row["wrong"] + row["missed"]]


def _semantic_rows(confusion: SemanticConfusion, names: list[str]) -> list[dict]:
    """Return one row per class of the ground truth."""
    iou, pixels = confusion.class_iou().tolist(), confusion.matrix.sum(axis=1).tolist()
    rows = zip(names, iou, pixels, strict=True)
    return [{"class": name, "IoU": value, "pixels": count} for name, value, count in rows if count]


def _report(results: Results, per_class: dict[str, list[dict]], output_folder: str | None, dataset) -> None:
    """Log figures and tables, and write panoptic_results.json."""
    logger.info(results)
    for task, rows in per_class.items():
        logger.info(f"\n{class_table(task, rows)}\n")
    if output_folder:
        record = {"annotations": dataset.panoptic_file, "images": len(dataset)}
        record |= {"results": results.results, "per_class": per_class}
        write_json(os.path.join(output_folder, "panoptic_results.json"), record, indent=2)
