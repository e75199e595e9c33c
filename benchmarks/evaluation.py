"""Time COCO evaluation against pycocotools; see README.md in this folder for the protocol.

python benchmarks/evaluation.py [--pictures 500] [--repeats 3]
"""

from __future__ import annotations

import argparse
import contextlib
import io

import numpy as np
import timing

from maskrcnn_benchmark.evaluation.coco_evaluator import available_evaluator, run_evaluator
from maskrcnn_benchmark.structures.rle import encode_window

WIDTH, HEIGHT, CLASSES = 640, 480, 80
OBJECTS, DETECTIONS, NEAR = 7, 100, 30  # per image; the first NEAR detections are close to an object


def ellipse(box) -> dict:
    """Return the COCO RLE of the ellipse in a box, clipped to the image."""
    x, y, w, h = box
    left, top = max(int(x), 0), max(int(y), 0)
    right, bottom = min(int(x + w) + 1, WIDTH), min(int(y + h) + 1, HEIGHT)
    rows, columns = np.ogrid[top:bottom, left:right]
    inside = ((columns - x - w / 2) / (w / 2)) ** 2 + ((rows - y - h / 2) / (h / 2)) ** 2 <= 1
    return encode_window(inside, left, top, HEIGHT, WIDTH)


def make_up(num_images: int, masks: bool) -> tuple[dict, list[dict]]:
    """Make random ground truth and detections in the format of run_evaluator."""
    rng = np.random.default_rng(0)
    annotations, detections = [], []

    def anywhere():
        w, h = rng.uniform(10, 200, 2)
        return [rng.uniform(0, WIDTH - w), rng.uniform(0, HEIGHT - h), w, h]

    for image_id in range(1, num_images + 1):
        objects = [(anywhere(), int(rng.integers(1, CLASSES + 1))) for _ in range(OBJECTS)]
        for box, label in objects:
            entry = {"image_id": image_id, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            shape = {"segmentation": ellipse(box)} if masks else {}
            annotations.append({"id": len(annotations) + 1, **entry, **shape})
        for k in range(DETECTIONS):
            box, label = objects[k % OBJECTS] if k < NEAR else (anywhere(), int(rng.integers(1, CLASSES + 1)))
            if k < NEAR:
                x, y, w, h = np.array(box) + rng.normal(0, 0.1, 4) * (box[2], box[3], box[2], box[3])
                box = [min(max(x, 0), WIDTH - 4), min(max(y, 0), HEIGHT - 4), max(w, 2), max(h, 2)]
            shape = {"segmentation": ellipse(box)} if masks else {"bbox": [float(side) for side in box]}
            detections.append({"image_id": image_id, "category_id": label, "score": float(rng.random()), **shape})
    images = [{"id": k, "width": WIDTH, "height": HEIGHT} for k in range(1, num_images + 1)]
    categories = [{"id": k, "name": str(k)} for k in range(1, CLASSES + 1)]
    ground_truth = {"images": images, "annotations": annotations, "categories": categories}
    return {"info": {}, "licenses": [], **ground_truth}, detections


def their_figures(ground_truth: dict, detections: list[dict], iou_type: str):
    """Evaluate as a script with pycocotools does."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        # pycocotools changes its input
        coco.dataset = {**ground_truth, "annotations": [dict(entry) for entry in ground_truth["annotations"]]}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([dict(entry) for entry in detections]), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def our_figures(ground_truth: dict, detections: list[dict], iou_type: str):
    with contextlib.redirect_stdout(io.StringIO()):
        return run_evaluator(ground_truth, detections, iou_type).stats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_options(parser, repeats=3)
    parser.add_argument(
        "--pictures", type=int, default=500, help=f"images, with {DETECTIONS} detections each"
    )
    arguments = parser.parse_args()
    timing.begin(arguments)
    print(f"{arguments.pictures} images with {DETECTIONS} detections each; ours is {available_evaluator()}\n")
    print("| task | ours s | pycocotools s | ratio | largest difference of a metric |\n|---|---|---|---|---|")
    for iou_type in ("bbox", "segm"):
        case = (*make_up(arguments.pictures, iou_type == "segm"), iou_type)
        difference = np.abs(np.array(our_figures(*case))[:12] - their_figures(*case)).max()
        sides = [lambda case=case: our_figures(*case), lambda case=case: their_figures(*case)]
        mine, other = timing.medians(sides, arguments.repeats, arguments.clock)
        print(
            f"| {iou_type} | {mine / 1e3:.2f} | {other / 1e3:.2f} | {other / mine:.1f} | {difference:.0e} |", flush=True
        )


if __name__ == "__main__":
    main()
