"""Write a subset of a COCO JSON file: some images, their annotations, and all categories."""

from __future__ import annotations

import json

from maskrcnn_benchmark.engine import script


def subset(data: dict, first: int) -> dict:
    """Keep the `first` images by id and their annotations in a COCO dict; other entries are kept unchanged."""
    images = sorted(data["images"], key=lambda image: image["id"])[:first]
    kept = {image["id"] for image in images}
    annotations = [row for row in data.get("annotations", []) if row["image_id"] in kept]
    return {**data, "images": images, "annotations": annotations}


def main() -> int:
    parser = script.make_parser(__doc__)
    parser.add_argument("annotations", help="COCO JSON file to read")
    parser.add_argument("--first", type=int, required=True, metavar="N", help="keep the first N images by id")
    parser.add_argument("--output", required=True, help="COCO JSON file to write")
    args = parser.parse_args()
    if args.first < 1:
        parser.error(f"--first is {args.first}; it should be at least 1")
    try:
        with open(args.annotations, encoding="utf-8") as f:
            taken = subset(json.load(f), args.first)
        with open(args.output, "w", encoding="utf-8") as f:
            json.dump(taken, f)
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.exit(1, f"{parser.prog}: {args.annotations}: {type(error).__name__}: {error}\n")
    print(f"{args.output}: {len(taken['images'])} images, {len(taken['annotations'])} annotations")
    return 0


if __name__ == "__main__":
    script.run(main)
