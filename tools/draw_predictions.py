"""Draw a contact sheet of test images: ground truth on the left, predictions on the right.

    python tools/draw_predictions.py --config-file configs/quick/fcos_digits.yaml

The predictions are those of OUTPUT_DIR/inference/NAME/predictions.pth, which tools/test_net.py writes. Predictions
below a score threshold are not drawn. The default threshold balances precision and recall on the test dataset (highest
F1 at IoU 0.5).
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys

import numpy as np

from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.config.paths_catalog import DatasetCatalog
from maskrcnn_benchmark.data.build import build_dataset, reading_of
from maskrcnn_benchmark.data.datasets.image_settings import image_settings
from maskrcnn_benchmark.engine import script
from maskrcnn_benchmark.engine.progress import ProgressBar
from maskrcnn_benchmark.evaluation import load_predictions
from maskrcnn_benchmark.evaluation.matching import balancing_score, count_matches
from maskrcnn_benchmark.evaluation.panoptic_quality import PanopticQuality
from maskrcnn_benchmark.evaluation.semantic import SemanticConfusion
from maskrcnn_benchmark.modeling.roi_heads.mask_head.inference import mask_pasting
from maskrcnn_benchmark.structures.paste_masks import DEFAULT_PASTING, MaskPasting, paste_masks
from maskrcnn_benchmark.visual.drawing import (
    draw_boxes,
    draw_masks,
    draw_segments,
    fit_width,
    grid,
    save_image,
    side_by_side,
)
from maskrcnn_benchmark.visual.semantic import draw_semantic

# Smallest and largest width of an image: text is readable, and two pairs fit side by side on a screen.
WIDTHS = (200, 400)
# Threshold if no prediction matches an object, so that no threshold balances precision and recall.
FALLBACK_SCORE = 0.3


def draw_pair(
    dataset, predictions, index: int, score: float, pasting: MaskPasting, font=None
) -> tuple[np.ndarray, str]:
    """Draw one image with ground truth and predictions; return the pair and its caption."""
    if predictions[index] is not None and predictions[index].has_field("panoptic"):
        return draw_panoptic_pair(dataset, predictions[index].get_field("panoptic"), index, font)
    if is_semantic(dataset):
        return draw_semantic_pair(dataset, predictions[index], index, font)
    image, ground_truth, _ = dataset[index]
    detections = predictions[index]
    if detections is None:
        detections, outcome = ground_truth[[]], "no predictions"
    else:
        detections = detections.copy_with_fields(("labels", "scores", "mask"), skip_missing=True).resize(image.size)
        detections = detections[detections.get_field("scores") >= score]
        found = count_matches(ground_truth, detections)
        outcome = f"{found} of {len(ground_truth)} found, {len(detections) - found} false"
    both = (ground_truth, detections)
    images = [_draw(np.asarray(image), boxes, dataset.class_names, pasting, font) for boxes in both]
    pair = side_by_side(*images)
    return pair, f"image {dataset.image_id(index)}: {outcome}"


def is_semantic(dataset) -> bool:
    """Return whether the dataset has semantic maps and no objects."""
    return bool(getattr(dataset, "semantic_names", None)) and not dataset.class_names


def draw_semantic_pair(dataset, prediction, index: int, font=None) -> tuple[np.ndarray, str]:
    """Draw ground truth and prediction of a semantic map; return the pair and its caption.

    Args:
        dataset: dataset with semantic_names.
        prediction: BoxList with the field "semantic" (PackedMap), or None.
    """
    image, target, _ = dataset[index]
    truth, names = target.get_field("semantic").labels.numpy(), dataset.semantic_names
    found, outcome = None, "no predictions"
    if prediction is not None:
        found = prediction.get_field("semantic").unpack()
        confusion = SemanticConfusion(len(names))
        confusion.add(truth, found)
        figures = confusion.figures()
        outcome = f"{figures['pACC']:.1%} of the pixels correct, mIoU {figures['mIoU']:.2f}"
    image = fit_width(np.asarray(image), *WIDTHS)
    drawn = [image if classes is None else draw_semantic(image, classes, names, font) for classes in (truth, found)]
    return side_by_side(*drawn), f"image {dataset.image_id(index)}: {outcome}"


def draw_panoptic_pair(dataset, found, index: int, font=None) -> tuple[np.ndarray, str]:
    """Draw ground truth and prediction of panoptic segments; return the pair and its caption.

    Args:
        dataset: a COCOPanopticDataset.
        found: predicted PanopticMap.
    """
    image, _, _ = dataset[index]
    truth = dataset.panoptic(index)
    quality = PanopticQuality(len(dataset.class_names) + len(dataset.stuff_names))
    quality.add_maps(truth, found, len(dataset.class_names))
    images = []
    for panoptic in (truth, found):
        image = fit_width(np.asarray(image), *WIDTHS)
        classes = panoptic.classes(len(dataset.class_names))
        names = [[*dataset.class_names, *dataset.stuff_names][k] for k in classes]
        images.append(draw_segments(image, panoptic.unpack(), names, classes + 1, font=font))
    right, wrong, missed = quality.right.sum(), quality.wrong.sum(), quality.missed.sum()
    caption = f"image {dataset.image_id(index)}: {right} of {right + missed} segments found, {wrong} false"
    return side_by_side(*images), caption


def _draw(image: np.ndarray, boxes, class_names, pasting, font) -> np.ndarray:
    """Resize the image to a readable width and draw boxes, and masks if there are any."""
    height, width = image.shape[:2]
    if boxes.has_field("masks"):
        image = draw_masks(image, boxes.get_field("masks").convert("mask").instances.masks, boxes.get_field("labels"))
    elif boxes.has_field("mask"):
        pasted = paste_masks(boxes.get_field("mask"), boxes.bbox, (width, height), pasting=pasting)
        image = draw_masks(image, pasted, boxes.get_field("labels"))
    return draw_boxes(fit_width(image, *WIDTHS), boxes, class_names, font=font)


def choose_score(dataset, predictions) -> tuple[float, str]:
    """Choose the score threshold that balances precision and recall over all test images.

    Returns:
        The threshold, and a sentence with its precision, recall and F1.
    """

    def pairs():
        progress = ProgressBar(len(dataset), unit="image")
        for index, prediction in enumerate(predictions):
            truth = dataset.get_groundtruth(index)
            if prediction is not None:
                prediction = prediction.copy_with_fields(("labels", "scores")).resize(truth.size)
            yield truth.copy_with_fields("labels"), prediction
            progress.advance()
        progress.close()

    best = balancing_score(pairs())
    if best is None:
        return FALLBACK_SCORE, "no prediction matches an object at IoU 0.5"
    # rounded down, so that the printed number selects the same predictions
    score = math.floor(best.score * 1000) / 1000
    return score, (
        f"balances precision {best.precision:.2f} and recall {best.recall:.2f} on these {len(dataset):,} images, F1 "
        f"{best.f1:.2f} at IoU 0.5"
    )


def check_predictions(dataset, predictions) -> None:
    """Raise ValueError if the numbers of predictions and images differ."""
    if len(predictions) != len(dataset):
        raise ValueError(
            f"there are predictions of {len(predictions)} images, but the dataset has {len(dataset)}; test again"
        )


def draw_predictions(
    dataset,
    predictions,
    count: int,
    score: float,
    seed: int,
    columns: int = 2,
    pasting: MaskPasting = DEFAULT_PASTING,
    title: str | None = None,
    font: str | None = None,
) -> np.ndarray:
    """Draw the contact sheet.

    Args:
        dataset: dataset without transforms.
        predictions: list of BoxLists by dataset index.
        count: number of images to draw.
        score: minimum score of the drawn detections.
        seed: seed of the random choice of images.
        columns: pairs per row.
        pasting: how masks are pasted.
        title: title of the sheet.
        font: font file; None chooses a font with the letters of the class names.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the numbers of predictions and images differ.
    """
    check_predictions(dataset, predictions)
    indices = list(range(len(dataset)))
    chosen = sorted(random.Random(seed).sample(indices, min(count, len(indices))))
    images, captions = [], []
    progress = ProgressBar(len(chosen), unit="image")
    for index in chosen:
        image, caption = draw_pair(dataset, predictions, index, score, pasting, font)
        images.append(image)
        captions.append(caption)
        progress.advance()
    progress.close()
    return grid(images, columns, captions, title=title, font=font)


def _entry(config, name: str | None):
    """Return the entry of DATASETS.TEST with this name, or the name itself; None returns the first entry."""
    entries = {DatasetCatalog.name(entry): entry for entry in config.DATASETS.TEST}
    if name is None:
        if not entries:
            raise ValueError("DATASETS.TEST is empty: choose a dataset with --dataset or in the config")
        return next(iter(entries.values()))
    return entries.get(name, name)


def main() -> None:
    parser = script.make_parser(__doc__)
    parser.add_argument("--config-file", default="", metavar="FILE", help="config file of the test")
    parser.add_argument("--dataset", metavar="NAME", help="test dataset (default: the first of DATASETS.TEST)")
    parser.add_argument(
        "--predictions",
        metavar="FILE",
        help="file that tools/test_net.py has written (default: OUTPUT_DIR/inference/NAME/predictions.pth)",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="image to write (default: predictions.png in the folder of the predictions)"
    )
    parser.add_argument("--count", type=int, default=12, help="number of images (default: %(default)s)")
    parser.add_argument(
        "--score", type=float, help="minimum score to draw (default: the one with the highest F1 on the dataset)"
    )
    parser.add_argument("--font", metavar="FILE", help="font file (default: one with the letters of all class names)")
    parser.add_argument("--columns", type=int, default=2, help="pairs per row (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of images (default: %(default)s)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config overrides, KEY VALUE KEY VALUE ...")
    args = parser.parse_args()
    if args.count < 1 or args.columns < 1:
        parser.error("--count and --columns must be at least 1")

    config = cfg.clone()
    try:
        if args.config_file:
            config.merge_from_file(args.config_file)
        config.merge_from_list(args.opts)
        entry = _entry(config, args.dataset)
        folder = os.path.join(config.OUTPUT_DIR, "inference", DatasetCatalog.name(entry))
        path = args.predictions or os.path.join(folder, "predictions.pth")
        if not os.path.exists(path):
            raise FileNotFoundError(f"there is no {path}; run tools/test_net.py with the same config first")
        predictions = load_predictions(path)
        (dataset,) = build_dataset(
            [entry],
            None,
            DatasetCatalog,
            is_train=False,
            root=config.DATASETS.ROOT,
            images=image_settings(config),
            reading=reading_of(config),
        )
        pasting = mask_pasting(config)
        check_predictions(dataset, predictions)
        score, title = args.score, f"{DatasetCatalog.name(entry)}: ground truth (left) and predictions (right)"
        has_panoptic = any(each is not None and each.has_field("panoptic") for each in predictions)
        if not has_panoptic and not is_semantic(dataset):
            why = "chosen by --score"
            if score is None:
                score, why = choose_score(dataset, predictions)
            title += f" with a score of at least {score:g} ({why})"
        sheet = draw_predictions(
            dataset, predictions, args.count, score or 0.0, args.seed, args.columns, pasting, title, args.font
        )
        output = args.output or os.path.join(os.path.dirname(path), "predictions.png")
        save_image(sheet, output)
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"error: {error}")
    print(f"{output}: {title}")


if __name__ == "__main__":
    script.run(main)
