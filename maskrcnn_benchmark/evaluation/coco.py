"""COCO evaluation of detections: result files, figures and tables.

To support a further kind of result, add an entry to PREPARE.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

import torch

from maskrcnn_benchmark.evaluation.box_proposals import proposal_recall
from maskrcnn_benchmark.evaluation.coco_evaluator import (
    available_evaluator,
    per_class_figures,
    run_evaluator,
)
from maskrcnn_benchmark.evaluation.coco_results import COCOResults, check_expected_results
from maskrcnn_benchmark.evaluation.ground_truth import ground_truth_of, source_of
from maskrcnn_benchmark.evaluation.options import EvaluationOptions
from maskrcnn_benchmark.evaluation.predictions import Predictions, numbered
from maskrcnn_benchmark.evaluation.tables import per_class_table
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.keypoint import keypoint_sigmas_problem
from maskrcnn_benchmark.structures.paste_masks import DEFAULT_PASTING, MaskPasting, paste_rles
from maskrcnn_benchmark.structures.rle import encode_window
from maskrcnn_benchmark.utils.atomic_write import atomic_write, write_json

logger = logging.getLogger("maskrcnn_benchmark.inference")


class COCOProtocol:
    """Protocol by which `coco_evaluation` computes figures; lvis.py and open_images.py define others."""

    results = COCOResults

    def prepare(self, ground_truth: dict) -> dict:
        """Return the ground truth that detections are compared with."""
        return ground_truth

    def run(self, ground_truth: dict, detections: list[dict], iou_type: str, sigmas: Sequence[float] | None = None):
        """Return the evaluator's object, see `run_evaluator`."""
        return run_evaluator(ground_truth, detections, iou_type, sigmas=sigmas)

    def update(self, results: COCOResults, coco_eval) -> None:
        """Copy the figures of an evaluator's object into the results."""
        results.update(coco_eval)


def coco_evaluation(
    dataset,
    predictions: Predictions,
    output_folder: str | None,
    box_only: bool = False,
    iou_types: Sequence[str] = ("bbox",),
    expected_results=(),
    expected_results_sigma_tol: float = 4,
    *,
    options: EvaluationOptions | None = None,
    protocol=None,
) -> COCOResults:
    """Evaluate detections against the dataset's ground truth.

    Args:
        dataset: has class_names, image_id(index), get_img_info(index), contiguous_category_id_to_json_id, and
            ann_file or get_groundtruth(index), see `ground_truth_of`.
        predictions: by dataset index, in the size of the network input. An image without a prediction counts as an
            image without detections.
        output_folder: folder for bbox.json, segm.json, keypoints.json, coco_results.pth and coco_results.json, or for
            box_proposals.pth and box_proposals.json with box_only; None or "" writes nothing.
        box_only: evaluate the recall of class-agnostic proposals.
        iou_types: keys of PREPARE; "segm" requires the field "mask", "keypoints" the field "keypoints".
        expected_results, expected_results_sigma_tol: for callers from the forks; `evaluate` has its own check.
        options: further options; its box_only and iou_types are ignored.
        protocol: how figures are computed; None is COCOProtocol().

    Returns:
        The figures. `detections` has the result lists by iou type; it is empty with box_only.

    Raises:
        ValueError: an iou type is unknown, a prediction has a label that the dataset does not have, or the annotation
            file is not a COCO file.
    """
    options, protocol = options or EvaluationOptions(), protocol or COCOProtocol()
    keypoint_sigmas = options.keypoint_sigmas
    unknown = [iou_type for iou_type in iou_types if iou_type not in PREPARE]
    if unknown and not box_only:
        raise ValueError(f"iou_types has {unknown}; COCO evaluation supports {list(PREPARE)}")
    ground_truth = ground_truth_of(dataset, ("bbox",) if box_only else iou_types)
    if "keypoints" in iou_types and not box_only:
        keypoint_sigmas = _sigmas_for(ground_truth, keypoint_sigmas, dataset)
    _warn_of_missing(predictions, dataset, ground_truth)

    if box_only:
        logger.info("Evaluating bbox proposals")
        results = protocol.results("box_proposal")
        results.results["box_proposal"].update(proposal_recall(predictions, dataset, ground_truth))
        _report(results, "", output_folder, "box_proposals", {"results": results.results})
        return results

    logger.info("Preparing results for COCO format")
    detections = {}
    for iou_type in iou_types:
        logger.info(f"Preparing {iou_type} results")
        arguments = (options.mask_pasting,) if iou_type == "segm" else ()
        detections[iou_type] = PREPARE[iou_type](predictions, dataset, *arguments)
        if output_folder:
            write_json(os.path.join(output_folder, f"{iou_type}.json"), detections[iou_type])

    logger.info("Evaluating predictions")
    ground_truth = protocol.prepare(ground_truth)
    results = protocol.results(*iou_types)
    names = {
        json_id: dataset.class_names[label - 1] for label, json_id in dataset.contiguous_category_id_to_json_id.items()
    }
    per_class = {}
    for iou_type in iou_types:
        coco_eval = protocol.run(ground_truth, detections[iou_type], iou_type, keypoint_sigmas)
        protocol.update(results, coco_eval)
        per_class[iou_type] = per_class_figures(coco_eval, ground_truth, names)
    tables = "\n\n".join(per_class_table(iou_type, figures) for iou_type, figures in per_class.items())
    record = {
        "annotations": source_of(dataset),
        "images": len(ground_truth["images"]),
        "detections": {iou_type: len(entries) for iou_type, entries in detections.items()},
        "evaluator": available_evaluator(),
        "results": results.results,
        "per_class": {iou_type: [asdict(entry) for entry in figures] for iou_type, figures in per_class.items()},
    }
    _report(results, tables, output_folder, "coco_results", record)
    results.detections = detections
    results.as_expected = check_expected_results(results, expected_results, expected_results_sigma_tol)
    return results


def _sigmas_for(ground_truth: dict, sigmas: Sequence[float] | None, dataset) -> list[float] | None:
    """Return one sigma per keypoint of the ground truth, or None to use COCO's 17.

    Raises:
        ValueError: no sigmas are given for other than 17 keypoints, or their number differs from the ground truth's.
    """
    counts = {len(annotation["keypoints"]) // 3 for annotation in ground_truth["annotations"]} - {0}
    if not counts:
        return None
    (count,) = counts
    problem = keypoint_sigmas_problem(sigmas or (), count)
    if problem:
        raise ValueError(f"{source_of(dataset)}: {problem}")
    for annotation in ground_truth["annotations"]:
        annotation["keypoints"] = annotation["keypoints"] or [0.0] * 3 * count
    return [*sigmas] * (count if len(sigmas) == 1 else 1) if sigmas else None


def in_original_size(predictions: Predictions, dataset, fields, optional=()) -> Iterator[tuple[int, BoxList]]:
    """Yield (image id, detections with `fields` in pixels of the original image), in ascending order of index.

    Args:
        optional: fields that a prediction may lack.
    """
    for index, prediction in numbered(predictions):
        info = dataset.get_img_info(index)
        named = [*fields, *(name for name in optional if prediction.has_field(name))]
        yield dataset.image_id(index), prediction.copy_with_fields(named).resize((info["width"], info["height"]))


def _finite_detections(
    predictions: Predictions, dataset, fields=(), optional=()
) -> Iterator[tuple[BoxList, list[dict]]]:
    """Yield for each image its detections in original pixels, and their result entries (image, category, score).

    Detections with a box, scores or keypoints that are not finite are dropped and counted in a warning. Boxes without
    area are dropped silently, as continuous boxes at the image's border may have none.

    Raises:
        ValueError: a label is not in the dataset, or a field is missing.
    """
    json_ids = dataset.contiguous_category_id_to_json_id
    dropped = 0
    for index, prediction in numbered(predictions):
        lacking = [name for name in ("scores", "labels", *fields) if not prediction.has_field(name)]
        if lacking:
            raise ValueError(
                f"detections of image {dataset.image_id(index)} have no field {', '.join(lacking)}, only "
                f"{prediction.fields()}; the model does not predict what this evaluation requires"
            )
    for image_id, boxlist in in_original_size(predictions, dataset, ("scores", "labels", *fields), optional):
        finite = torch.isfinite(boxlist.bbox).all(dim=1) & torch.isfinite(boxlist.get_field("scores"))
        if boxlist.has_field("mask_scores"):
            finite &= torch.isfinite(boxlist.get_field("mask_scores"))
        if "keypoints" in fields:
            finite &= torch.isfinite(boxlist.get_field("keypoints").keypoints).flatten(start_dim=1).all(dim=1)
        dropped += int((~finite).sum())
        usable = finite & (boxlist.convert("xywh").bbox[:, 2:] > 0).all(dim=1)
        if not usable.all():
            boxlist = boxlist[usable]
        labels = boxlist.get_field("labels").tolist()
        strange = set(labels) - json_ids.keys()
        if strange:
            raise ValueError(
                f"image {image_id} has detections of label {sorted(strange)}, but {source_of(dataset)} has the labels "
                f"{min(json_ids)} to {max(json_ids)}; the model was trained on another dataset, or NUM_CLASSES is wrong"
            )
        scores = boxlist.get_field("scores").tolist()
        yield (
            boxlist,
            [
                {"image_id": image_id, "category_id": json_ids[label], "score": score}
                for label, score in zip(labels, scores, strict=True)
            ],
        )
    if dropped:
        logger.warning(f"{dropped} detections with a box, score or keypoint that is not finite were dropped")


def prepare_for_coco_detection(predictions: Predictions, dataset) -> list[dict]:
    """Convert detections (fields scores, labels) to COCO results without rounding.

    Boxes become [x, y, width, height] with width = x2 - x1 + box_offset of the detections.

    Raises:
        ValueError: a label is not in the dataset, or a field is missing.
    """
    return [
        entry | {"bbox": box}
        for boxlist, entries in _finite_detections(predictions, dataset)
        for entry, box in zip(entries, boxlist.convert("xywh").bbox.tolist(), strict=True)
    ]


def prepare_for_coco_segmentation(
    predictions: Predictions, dataset, pasting: MaskPasting = DEFAULT_PASTING
) -> list[dict]:
    """Convert masks (field mask) to COCO results: compressed RLE in the size of the original image.

    The score is the field mask_scores (of a MaskIoU head) if a prediction has it, otherwise scores.

    The field mask holds probabilities within the box, (N, 1, M, M), which are pasted into the image (see
    structures.paste_masks) and thresholded at 0.5, or masks of the original image, (N, 1, H, W).

    Raises:
        ValueError: a label is not in the dataset, a field is missing, or masks have another size.
    """
    results = []
    for boxlist, entries in _finite_detections(predictions, dataset, ("mask",), ("mask_scores",)):
        scores = boxlist.get_field("mask_scores" if boxlist.has_field("mask_scores") else "scores").tolist()
        for entry, rle, score in zip(entries, _run_lengths(boxlist, pasting), scores, strict=True):
            results.append(entry | {"segmentation": rle, "score": score})
    return results


def _run_lengths(boxlist: BoxList, pasting: MaskPasting) -> list[dict]:
    """Convert the field "mask" of detections in original pixels to COCO RLE."""
    width, height = boxlist.size
    masks = boxlist.get_field("mask")
    if masks.dim() == 4 and tuple(masks.shape[1:]) == (1, height, width):
        return [encode_window((mask > 0.5).numpy(), 0, 0, height, width) for mask in masks[:, 0]]
    if masks.shape[-1] != masks.shape[-2]:
        raise ValueError(
            f"masks of {tuple(masks.shape[-2:])} pixels are neither square masks of boxes nor masks of the image's "
            f"{height} x {width} pixels; set MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS to False"
        )
    return paste_rles(masks, boxlist.convert("xyxy").bbox, boxlist.size, pasting=pasting)


def prepare_for_coco_keypoint(predictions: Predictions, dataset) -> list[dict]:
    """Convert keypoints (field keypoints, a Keypoints) to COCO results: flat x, y, visibility.

    Detections without a visible keypoint are dropped.

    Raises:
        ValueError: a label is not in the dataset, or a field is missing.
    """
    results = []
    for boxlist, entries in _finite_detections(predictions, dataset, ("keypoints",)):
        points = boxlist.get_field("keypoints").keypoints
        seen = (points[:, :, 2] > 0).any(dim=1).tolist()
        for entry, numbers, visible in zip(entries, points.flatten(start_dim=1).tolist(), seen, strict=True):
            if visible:
                results.append(entry | {"keypoints": numbers})
    return results


PREPARE: dict[str, Callable[[Predictions, object], list[dict]]] = {
    "bbox": prepare_for_coco_detection,
    "segm": prepare_for_coco_segmentation,
    "keypoints": prepare_for_coco_keypoint,
}


def _warn_of_missing(predictions: Predictions, dataset, ground_truth: dict) -> None:
    predicted = {dataset.image_id(index) for index, _ in numbered(predictions)}
    missing = sum(image["id"] not in predicted for image in ground_truth["images"])
    if missing:
        logger.warning(
            f"{missing} of {len(ground_truth['images'])} images of {source_of(dataset)} have no predictions; their "
            "objects count as missed"
        )


def _report(results: COCOResults, tables: str, output_folder: str | None, name: str, record: dict) -> None:
    """Log the figures, and write NAME.pth (the COCOResults) and NAME.json (the record)."""
    logger.info(results)
    if tables:
        logger.info(f"\n{tables}\n")
    if output_folder:
        with atomic_write(os.path.join(output_folder, f"{name}.pth")) as file:
            torch.save(results, file)
        write_json(os.path.join(output_folder, f"{name}.json"), record, indent=2)
