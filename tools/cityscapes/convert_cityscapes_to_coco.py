"""Convert the objects of Cityscapes' fine annotations to COCO instances files.

    python tools/cityscapes/convert_cityscapes_to_coco.py --dataset cityscapes_instance_only \\
        --datadir datasets/cityscapes --outdir datasets/cityscapes/annotations

Reads DATADIR/gtFine_trainvaltest/gtFine (or DATADIR/gtFine), and writes OUTDIR/instancesonly_filtered_gtFine_SPLIT.json
for each of val, train and test that exists. configs/cityscapes/*_cocostyle.yaml use these files, and require all images
in one folder. Symbolic links make such a folder:

    mkdir -p datasets/cityscapes/images
    find "$PWD"/datasets/cityscapes/leftImg8bit -name '*_leftImg8bit.png' -exec ln -s -t datasets/cityscapes/images {} +

The polygons of an object are the outer contours of its pixels. As in maskrcnn-benchmark's converter, an object is
skipped if one of its contours has fewer than three points. Groups, which Cityscapes annotates as one object, are
skipped, too.
"""

from __future__ import annotations

import json
import os
import sys

import cv2
import numpy as np

from maskrcnn_benchmark.data.datasets.cityscapes_annotations import (
    BENCHMARK_CLASSES,
    IDS,
    IMAGE_SUFFIX,
    find_names,
    objects_in,
    read_ids,
)
from maskrcnn_benchmark.engine import script
from maskrcnn_benchmark.utils.atomic_write import atomic_write

# Image and annotation ids count through all splits, in this order.
SPLITS = ("val", "train", "test")
DATASET = "cityscapes_instance_only"


def contours_of(window: np.ndarray, left: int, top: int) -> list[list[int]]:
    """Return the outer contours of an object as flat x, y lists of all its border pixels.

    Args:
        window: (h, w) bool mask.
        left, top: position of its first pixel in the image.
    """
    pixels = window.astype(np.uint8)
    contours, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(left, top))
    return [contour.reshape(-1).tolist() for contour in contours]


def convert_split(folder: str, first_image: int, first_annotation: int) -> tuple[dict, int]:
    """Convert one split's folder; return (content of a COCO instances file, number of skipped objects)."""
    categories = [{"id": number, "name": name} for number, name in enumerate(BENCHMARK_CLASSES, start=1)]
    category = {entry["name"]: entry["id"] for entry in categories}
    images, annotations, left_out = [], [], 0
    for image_id, name in enumerate(find_names(folder, IDS), start=first_image):
        ids = read_ids(os.path.join(folder, name + IDS))
        stem = os.path.basename(name)
        size = {"width": ids.shape[1], "height": ids.shape[0]}
        images.append({"id": image_id, **size, "file_name": stem + IMAGE_SUFFIX, "seg_file_name": stem + IDS})
        for class_name, window, left, top in objects_in(ids, BENCHMARK_CLASSES):
            polygons = contours_of(window, left, top)
            if min(map(len, polygons)) <= 4:
                left_out += 1
                continue
            annotations.append(
                {
                    "id": first_annotation + len(annotations),
                    "image_id": image_id,
                    "category_id": category[class_name],
                    "segmentation": polygons,
                    "area": int(window.sum()),
                    "bbox": [left, top, window.shape[1], window.shape[0]],
                    "iscrowd": 0,
                }
            )
    return {"images": images, "categories": categories, "annotations": annotations}, left_out


def convert(data_dir: str, out_dir: str) -> None:
    """Convert every split that exists, and print the written files.

    Raises:
        FileNotFoundError: there is no split.
    """
    candidates = [os.path.join(data_dir, "gtFine_trainvaltest", "gtFine"), os.path.join(data_dir, "gtFine")]
    folder = next((candidate for candidate in candidates if os.path.isdir(candidate)), None)
    splits = [split for split in SPLITS if folder and os.path.isdir(os.path.join(folder, split))]
    if not splits:
        raise FileNotFoundError(f"neither {' nor '.join(candidates)} has a folder {', '.join(SPLITS)}")
    os.makedirs(out_dir, exist_ok=True)
    images = annotations = 0
    for split in splits:
        content, left_out = convert_split(os.path.join(folder, split), images, annotations)
        images, annotations = images + len(content["images"]), annotations + len(content["annotations"])
        path = os.path.join(out_dir, f"instancesonly_filtered_gtFine_{split}.json")
        with atomic_write(path) as file:
            file.write(json.dumps(content).encode())
        print(
            f"{path}: {len(content['images'])} images, {len(content['annotations'])} objects; "
            f"{left_out} skipped because of a contour of one or two points"
        )


def main() -> None:
    parser = script.make_parser(__doc__)
    parser.add_argument("--dataset", help=f"must be {DATASET}")
    parser.add_argument("--datadir", help="folder with gtFine_trainvaltest or gtFine")
    parser.add_argument("--outdir", help="folder for the JSON files")
    if len(sys.argv) == 1:
        parser.print_help()
        sys.exit(1)
    args = parser.parse_args()
    if args.dataset != DATASET:
        sys.exit(f"Dataset not supported: {args.dataset}")
    if args.datadir is None or args.outdir is None:
        parser.error("--datadir and --outdir are required")
    try:
        convert(args.datadir, args.outdir)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    script.run(main)
