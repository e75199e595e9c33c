"""Draws a grid of test pictures: ground truth on the left, what the model found on the right.

    python tools/draw_predictions.py --config-file configs/quick/fcos_digits.yaml

The predictions are those that testing left in OUTPUT_DIR/inference/NAME/predictions.pth.
"""

from __future__ import annotations

import argparse
import os
import random
import sys

import numpy as np

from maskrcnn_benchmark.config import cfg
from maskrcnn_benchmark.config.paths_catalog import DatasetCatalog
from maskrcnn_benchmark.data.build import build_dataset
from maskrcnn_benchmark.data.datasets.image_settings import image_settings
from maskrcnn_benchmark.engine.progress import ProgressBar
from maskrcnn_benchmark.evaluation import load_predictions
from maskrcnn_benchmark.evaluation.matching import count_matches
from maskrcnn_benchmark.evaluation.panoptic_quality import PanopticQuality
from maskrcnn_benchmark.modeling.roi_heads.mask_head.inference import mask_pasting
from maskrcnn_benchmark.structures.paste_masks import paste_masks
from maskrcnn_benchmark.visual.drawing import (
    draw_boxes,
    draw_masks,
    draw_segments,
    fit_width,
    grid,
    save_picture,
    side_by_side,
)

# Text can be read on pictures of these widths, and sixteen pairs still make a file that opens at once.
WIDTHS = (320, 640)


def draw_pair(dataset, predictions, index: int, score: float, pasting: dict) -> tuple[np.ndarray, str]:
    """One picture of the grid and its caption."""
    if predictions[index] is not None and predictions[index].has_field("panoptic"):
        return draw_panoptic_pair(dataset, predictions[index].get_field("panoptic"), index)
    image, ground_truth, _ = dataset[index]
    detections = predictions[index]
    if detections is None:
        detections, outcome = ground_truth[[]], "no predictions"
    else:
        detections = detections.copy_with_fields(("labels", "scores", "mask"), skip_missing=True).resize(image.size)
        detections = detections[detections.get_field("scores") >= score]
        found = count_matches(ground_truth, detections)
        outcome = f"{found} of {len(ground_truth)} found, {len(detections) - found} false"
    pictures = [_draw(np.asarray(image), boxes, dataset.class_names, pasting) for boxes in (ground_truth, detections)]
    pair = side_by_side(*pictures)
    return pair, f"image {dataset.image_id(index)}: {outcome}"


def draw_panoptic_pair(dataset, found, index: int) -> tuple[np.ndarray, str]:
    """The same for a picture's segments.

    Args:
        dataset: a COCOPanopticDataset.
        found: PanopticMap.
    """
    image, _, _ = dataset[index]
    truth = dataset.panoptic(index)
    quality = PanopticQuality(len(dataset.class_names) + len(dataset.stuff_names))
    quality.add_maps(truth, found, len(dataset.class_names))
    pictures = []
    for panoptic in (truth, found):
        picture = fit_width(np.asarray(image), *WIDTHS)
        classes = panoptic.classes(len(dataset.class_names))
        names = [[*dataset.class_names, *dataset.stuff_names][k] for k in classes]
        pictures.append(draw_segments(picture, panoptic.unpack(), names, classes + 1))
    right, wrong, missed = quality.right.sum(), quality.wrong.sum(), quality.missed.sum()
    caption = f"image {dataset.image_id(index)}: {right} of {right + missed} segments found, {wrong} false"
    return side_by_side(*pictures), caption


def _draw(image: np.ndarray, boxes, class_names, pasting) -> np.ndarray:
    """The picture in a readable width with boxes, and with masks where there are any (ground truth or predicted)."""
    height, width = image.shape[:2]
    if boxes.has_field("masks"):
        image = draw_masks(image, boxes.get_field("masks").convert("mask").instances.masks, boxes.get_field("labels"))
    elif boxes.has_field("mask"):
        pasted = paste_masks(boxes.get_field("mask"), boxes.bbox, (width, height), **pasting)
        image = draw_masks(image, pasted, boxes.get_field("labels"))
    return draw_boxes(fit_width(image, *WIDTHS), boxes, class_names)


def draw_predictions(
    dataset, predictions, count: int, score: float, seed: int, columns: int = 2, pasting: dict | None = None
) -> np.ndarray:
    """The grid, (H, W, 3) uint8 RGB.

    Args:
        dataset: without transforms.
        predictions: list of BoxList by data set index.
        count: how many pictures to draw; which ones is decided by seed.
        score: detections below it are left out.
        pasting: padding and aligned of structures.paste_masks; None is maskrcnn-benchmark's way.

    Raises:
        ValueError: the predictions are not of this data set.
    """
    if len(predictions) != len(dataset):
        raise ValueError(
            f"there are predictions of {len(predictions)} pictures, but the data set has {len(dataset)}; test again"
        )
    indices = list(range(len(dataset)))
    chosen = sorted(random.Random(seed).sample(indices, min(count, len(indices))))
    pictures, captions = [], []
    progress = ProgressBar(len(chosen), unit="picture")
    for index in chosen:
        picture, caption = draw_pair(dataset, predictions, index, score, pasting or {})
        pictures.append(picture)
        captions.append(caption)
        progress.advance()
    progress.close()
    return grid(pictures, columns, captions)


def _entry(config, name: str | None):
    """The entry of DATASETS.TEST that goes by that name (the first one without a name), or a catalog name."""
    entries = {DatasetCatalog.name(entry): entry for entry in config.DATASETS.TEST}
    if name is None:
        if not entries:
            raise ValueError("DATASETS.TEST is empty: name a data set with --dataset or in the configuration")
        return next(iter(entries.values()))
    return entries.get(name, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default="", metavar="FILE", help="configuration that was tested")
    parser.add_argument("--dataset", metavar="NAME", help="test data set (default: the first of DATASETS.TEST)")
    parser.add_argument(
        "--predictions", metavar="FILE", help="default: OUTPUT_DIR/inference/NAME/predictions.pth, as testing wrote it"
    )
    parser.add_argument("--output", metavar="FILE", help="picture to write (default: predictions.png beside them)")
    parser.add_argument("--count", type=int, default=16, help="number of pictures (default: %(default)s)")
    parser.add_argument("--score", type=float, default=0.3, help="lowest score that is drawn (default: %(default)s)")
    parser.add_argument("--columns", type=int, default=2, help="pairs in a row (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides which pictures (default: %(default)s)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs that change the configuration")
    args = parser.parse_args()
    if args.count < 1 or args.columns < 1:
        parser.error("--count and --columns are at least 1")

    config = cfg.clone()
    try:
        if args.config_file:
            config.merge_from_file(args.config_file)
        config.merge_from_list(args.opts)
        entry = _entry(config, args.dataset)
        folder = os.path.join(config.OUTPUT_DIR, "inference", DatasetCatalog.name(entry))
        path = args.predictions or os.path.join(folder, "predictions.pth")
        if not os.path.exists(path):
            raise FileNotFoundError(f"there is no {path}; run tools/test_net.py with the same configuration first")
        predictions = load_predictions(path)
        (dataset,) = build_dataset(
            [entry], None, DatasetCatalog, is_train=False, root=config.DATASETS.ROOT, images=image_settings(config)
        )
        pasting = mask_pasting(config)
        picture = draw_predictions(dataset, predictions, args.count, args.score, args.seed, args.columns, pasting)
        output = args.output or os.path.join(os.path.dirname(path), "predictions.png")
        save_picture(picture, output)
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"error: {error}")
    print(f"{output}: ground truth (left) and predictions with a score of at least {args.score:g} (right)")


if __name__ == "__main__":
    main()
