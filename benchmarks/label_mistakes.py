"""Measure how many of the doctor's first suggestions are right, on mistakes planted in clean annotations.

    python benchmarks/label_mistakes.py bccd/coco/instances_test.json --images bccd/JPEGImages --weights model_final.pth

There are three kinds of mistakes, each planted in --share of the boxes: another class, a deleted box, and a box shifted
by half its size. A suggestion is right if it is the first one at a planted mistake of its kind. Later ones at the same
mistake are wrong, and so are those at mistakes that the annotations had before. Use images that the model was not
trained on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from maskrcnn_benchmark import Predictor
from maskrcnn_benchmark.doctor.examine import config_of_file, read_splits
from maskrcnn_benchmark.doctor.mistakes import mistake_findings
from maskrcnn_benchmark.structures.bounding_box import TO_REMOVE
from maskrcnn_benchmark.structures.box_arrays import pairwise_iou

SHIFT = 0.5  # of a box's width and height
# Kind of planted mistake -> check of the doctor that should find it.
CHECK = {"class": "label-mistake", "deleted": "missing-box", "shifted": "misplaced-box"}
SAME_IOU = 0.5  # least IoU of a right suggestion with the true box


def plant(content: dict, share: float, seed: int) -> dict[str, list[tuple]]:
    """Change annotations in place; return (image id, x, y, width, height) of the true boxes by kind of mistake."""
    rng = np.random.default_rng(seed)
    rows = [row for row in content["annotations"] if not row.get("iscrowd")]
    chosen = rng.permutation(len(rows))
    count = round(share * len(rows))
    categories = [category["id"] for category in content["categories"]]
    planted: dict[str, list[tuple]] = {kind: [] for kind in CHECK}
    for place, kind in zip(chosen[: len(CHECK) * count], np.repeat(list(CHECK), count), strict=False):
        row = rows[place]
        x, y, width, height = row["bbox"]
        planted[kind].append((row["image_id"], x, y, width, height))
        if kind == "class":
            row["category_id"] = int(rng.choice([each for each in categories if each != row["category_id"]]))
        elif kind == "deleted":
            content["annotations"].remove(row)
        else:
            dx, dy = rng.choice([-SHIFT, SHIFT], 2)
            row["bbox"] = [x + dx * width, y + dy * height, width, height]
            row.pop("segmentation", None)
    return planted


def are_right(examples: list, boxes: list[tuple]) -> list[bool]:
    """Match each example, in order, with a planted mistake; return whether it has a match.

    A mistake is matched once. Its true box and the example's last box have an IoU of at least SAME_IOU.
    """
    left, right = list(boxes), []
    for example in examples:
        place = np.array(example.boxes[-1:], dtype=np.float64)
        near = [box for box in left if box[0] == example.image_id]
        true = np.array([(x, y, x + w - 1, y + h - 1) for _, x, y, w, h in near], dtype=np.float64).reshape(-1, 4)
        ious = pairwise_iou(place, true, TO_REMOVE)[0]
        right.append(bool(ious.max(initial=0) >= SAME_IOU))
        if right[-1]:
            left.remove(near[ious.argmax()])
    return right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--images", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--share", type=float, default=0.03, help="of the boxes, for each kind (default 0.03)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    content = json.loads(args.annotations.read_text())
    planted = plant(content, args.share, args.seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "planted.json"
        path.write_text(json.dumps(content))
        (split,) = read_splits(config_of_file(str(path), args.images), False)
        findings = {each.check: each for each in mistake_findings(split, Predictor(None, args.weights))}
    print(f"{len(split.dataset):,} images, {len(split.table.boxes):,} boxes; seed {args.seed}")
    for kind, check in CHECK.items():
        examples = findings[check].examples if check in findings else []
        hits = are_right(examples, planted[kind])
        first = Counter({count: sum(hits[:count]) for count in (10, 20, len(planted[kind])) if count <= len(hits)})
        shown = ", ".join(f"{found} of the first {count}" for count, found in sorted(first.items()))
        print(f"{kind}: {len(planted[kind])} planted, {len(hits)} suggestions, {sum(hits)} right; {shown}")


if __name__ == "__main__":
    main()
