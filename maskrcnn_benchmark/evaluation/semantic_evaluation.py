"""Evaluate semantic segmentation: mean IoU and related metrics, and files of the predicted maps.

Shapes: H x W pixels of an image, K classes.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from maskrcnn_benchmark.evaluation.boundary_iou import BoundaryIoU
from maskrcnn_benchmark.evaluation.coco_results import NOT_COMPUTED, Results
from maskrcnn_benchmark.evaluation.options import EvaluationOptions
from maskrcnn_benchmark.evaluation.predictions import Predictions, numbered
from maskrcnn_benchmark.evaluation.semantic import SemanticConfusion
from maskrcnn_benchmark.evaluation.tables import class_table
from maskrcnn_benchmark.utils.atomic_write import atomic_write, write_json
from maskrcnn_benchmark.visual.confusion import draw_confusion
from maskrcnn_benchmark.visual.drawing import save_image
from maskrcnn_benchmark.visual.palette import voc_palette

logger = logging.getLogger("maskrcnn_benchmark.inference")


def semantic_evaluation(
    dataset,
    predictions: Predictions,
    output_folder: str | None,
    box_only: bool = False,
    iou_types: Sequence[str] = (),
    options: EvaluationOptions | None = None,
) -> Results:
    """Evaluate semantic maps against the dataset.

    Args:
        dataset: has semantic_names, get_groundtruth(index) with the field "semantic", get_img_info and image_id.
        predictions: by dataset index, BoxLists with the field "semantic" (PackedMap of classes) in the size of the
            image. All labelled pixels of an image without a prediction count as missed.
        output_folder: folder for semantic_results.json, confusion.png and maps/; None or "" writes nothing.
        box_only, iou_types: ignored.
        options: only boundary_iou and write_maps are used.

    Returns:
        Results of the task "semantic":
        "mIoU", computed as in VoVNet-DeepLabV3: the mean over all K classes, with 0 for classes without any pixels;
        "mIoU_present", the mean over the classes of the ground truth;
        fwIoU, mACC and pACC, see SemanticConfusion;
        "boundary_mIoU" over the classes of the ground truth, with options.boundary_iou.

    Raises:
        ValueError: predictions have no semantic map, or one of another size or with unknown classes.
    """
    options = options or EvaluationOptions()
    names = list(dataset.semantic_names)
    confusion, boundaries = SemanticConfusion(len(names)), BoundaryIoU(len(names)) if options.boundary_iou else None
    by_index = dict(numbered(predictions))
    missing = len(dataset) - len(by_index)
    if missing:
        logger.warning(f"{missing} of {len(dataset)} images have no predictions; their pixels count as missed")
    for index in range(len(dataset)):
        truth = dataset.get_groundtruth(index).get_field("semantic").labels.numpy()
        found = _classes(by_index[index], dataset, index) if index in by_index else None
        confusion.add(truth, found)
        if boundaries is not None:
            boundaries.add(truth, found)
        if output_folder and options.write_maps and found is not None:
            write_map(found, map_path(output_folder, dataset, index), getattr(dataset, "values", None))

    results = Results({"semantic": _figures(confusion, boundaries)})
    rows = _rows(confusion, boundaries, names)
    logger.info(results)
    logger.info(f"\n{class_table('semantic', rows)}\n")
    if output_folder:
        record = {"images": len(dataset), "results": results.results, "per_class": rows}
        record |= {"confusion": confusion.matrix.tolist()}
        write_json(os.path.join(output_folder, "semantic_results.json"), record, indent=2)
        save_image(draw_confusion(confusion.matrix, names), os.path.join(output_folder, "confusion.png"))
    return results


def map_path(output_folder: str, dataset, index: int) -> str:
    """Return the path to write an image's map to: maps/, the image's file name, .png."""
    stem = os.path.splitext(dataset.get_img_info(index)["file_name"].replace("\\", "/"))[0]
    # a file name may be absolute or contain ".."
    parts = [part for part in stem.split("/") if part not in ("", ".", "..") and not part.endswith(":")]
    return os.path.join(output_folder, "maps", *parts) + ".png"


def write_map(classes: np.ndarray, path: str, values=None) -> None:
    """Write a semantic map as palette PNG in Pascal VOC's colours.

    Args:
        classes: (H, W) uint8.
        path: of the PNG.
        values: K pixel values, one per class; None uses the class numbers. If one exceeds 255, the PNG is grey with 16
            bits.
    """
    if values is not None:
        table = np.zeros(256, dtype=np.uint16)
        table[: len(values)] = values
        classes = table[classes] if max(values) > 255 else table.astype(np.uint8)[classes]
    image = Image.fromarray(classes)
    if classes.dtype == np.uint8:
        image.putpalette(voc_palette().reshape(-1).tolist())
    with atomic_write(path) as file, io.BytesIO() as png:
        image.save(png, format="PNG")
        file.write(png.getvalue())


def _classes(prediction, dataset, index: int) -> np.ndarray:
    if not prediction.has_field("semantic"):
        raise ValueError(
            f"the prediction of image {dataset.image_id(index)} has no field 'semantic', only {prediction.fields()}: "
            "expected a model of MODEL.META_ARCHITECTURE SemanticSegmentor or PanopticFPN"
        )
    classes = prediction.get_field("semantic").unpack()
    info = dataset.get_img_info(index)
    if classes.shape != (info["height"], info["width"]):
        raise ValueError(
            f"the semantic map of image {dataset.image_id(index)} has {classes.shape[1]} x {classes.shape[0]} pixels, "
            f"the image {info['width']} x {info['height']}"
        )
    return classes


def _figures(confusion: SemanticConfusion, boundaries: BoundaryIoU | None) -> dict[str, float]:
    figures = confusion.figures()
    present = figures.pop("mIoU")
    if present == NOT_COMPUTED:
        logger.warning("no pixel of the ground truth has a label; no metric is computed")
    protocol = NOT_COMPUTED if present == NOT_COMPUTED else float(confusion.protocol_iou().mean())
    figures = {"mIoU": protocol, **figures, "mIoU_present": present}
    if boundaries is not None:
        per_class = boundaries.class_iou()
        known = ~np.isnan(per_class)
        figures["boundary_mIoU"] = float(per_class[known].mean()) if known.any() else NOT_COMPUTED
    return figures


def _rows(confusion: SemanticConfusion, boundaries: BoundaryIoU | None, names: list[str]) -> list[dict]:
    """Return one row per class that occurs in the ground truth or in predictions."""
    there, found = confusion.pixels(), confusion.matrix.sum(axis=0)
    iou, right = confusion.protocol_iou(), confusion.matrix.diagonal()
    rows = []
    for k in np.flatnonzero(there + found):
        recall = float(right[k] / there[k]) if there[k] else NOT_COMPUTED
        precision = float(right[k] / found[k]) if found[k] else NOT_COMPUTED
        row = {"class": names[k], "IoU": float(iou[k]), "recall": recall, "precision": precision}
        if boundaries is not None:
            value = float(boundaries.class_iou()[k])
            row["boundary_IoU"] = NOT_COMPUTED if np.isnan(value) else value
        rows.append({**row, "pixels": int(there[k])})
    return rows
