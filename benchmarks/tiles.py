"""Count the objects of single images that a model also detects in a collage of them, with and without windows.

    python benchmarks/tiles.py --weights out/model_final.pth --images ../shared/data/bccd/JPEGImages

The collage has --columns rows of --columns images. An object of a single image counts as found if a detection in the
collage has the same class and an IoU of at least 0.5 with it. Detections that the single images lack are counted, too;
those across a seam are halves of objects from neighboring images.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
from PIL import Image

from maskrcnn_benchmark.engine.image_sources import find_sources
from maskrcnn_benchmark.engine.predictor import Predictor

SAME = 0.5


def make_collage(images: list[Image.Image], columns: int) -> tuple[Image.Image, list[tuple[int, int]]]:
    """Arrange the images in a grid; return the collage and the upper left corner of each image."""
    width, height = (max(image.size[k] for image in images) for k in (0, 1))
    corners = [(k % columns * width, k // columns * height) for k in range(len(images))]
    collage = Image.new("RGB", (width * columns, height * -(-len(images) // columns)))
    for image, corner in zip(images, corners, strict=True):
        collage.paste(image, corner)
    return collage, corners


def count_found(single, corners, whole) -> tuple[int, int, int]:
    """Match the detections of single images and collage one to one.

    Returns:
        The numbers of objects in the single images, of matches, and of unmatched detections of the collage that cross
        the border of an image.
    """
    total, used = 0, set()
    for prediction, corner in zip(single, corners, strict=True):
        for box, label in zip(prediction.boxes + np.array(corner * 2), prediction.labels, strict=True):
            total += 1
            overlap = [
                _iou(box, other) if label == other_label and k not in used else 0.0
                for k, (other, other_label) in enumerate(zip(whole.boxes, whole.labels, strict=True))
            ]
            if overlap and max(overlap) >= SAME:
                used.add(int(np.argmax(overlap)))
    starts = np.unique([corner[0] for corner in corners]), np.unique([corner[1] for corner in corners])
    others = np.delete(whole.boxes, sorted(used), axis=0)
    across = [((others[:, k, None] < starts[k]) & (starts[k] < others[:, k + 2, None])).any(axis=1) for k in (0, 1)]
    return total, len(used), int((across[0] | across[1]).sum())


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    common = (np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).clip(min=0).prod()
    return float(common / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - common))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, metavar="FILE")
    parser.add_argument("--config-file", metavar="FILE")
    parser.add_argument("--images", required=True, metavar="FOLDER")
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--score", type=float, default=0.5)
    parser.add_argument("--tiles", type=int, help="side of the windows (default: the shortest side of an image)")
    parser.add_argument("--overlap", type=float, default=0.2)
    args = parser.parse_args()
    sources, _ = find_sources([args.images])
    options = {"score_threshold": args.score}
    predictor = Predictor(args.config_file, args.weights, **options)
    chosen = itertools.islice(sources, args.columns**2)
    images = [Image.open(source.path).convert("RGB") for source in chosen]
    single = predictor(images)
    collage, corners = make_collage(images, args.columns)
    # a window's shorter side becomes INPUT.MIN_SIZE_TEST, like that of an image
    side = args.tiles or min(min(image.size) for image in images)
    print(f"{len(images)} images, a collage of {collage.width} x {collage.height} pixels, scores from {args.score}")
    for name, tiles in (("whole", 0), (f"windows of {side}, overlap {args.overlap}", side)):
        by = Predictor(args.config_file, args.weights, tiles=tiles, overlap=args.overlap, **options)
        whole = by(collage)
        total, found, seams = count_found(single, corners, whole)
        share = found / total if total else float("nan")
        print(
            f"{name}: {found} of {total} objects ({share:.1%}), and {len(whole) - found} others, {seams} of them "
            "across a seam"
        )


if __name__ == "__main__":
    main()
