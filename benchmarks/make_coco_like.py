"""Write an instances json of the size of COCO train2017, with an image for every name.

    python benchmarks/make_coco_like.py /tmp/coco_like                 # 118,287 images, 860,000 polygons, about 440 MB
    python benchmarks/make_coco_like.py /tmp/coco_like_01 --factor 0.1
    python benchmarks/make_coco_like.py /tmp/coco_like_10 --factor 10  # the order of Objects365

OUT/instances.json has the layout of COCO's own file: the same keys, two decimals a coordinate, about 25 points a
polygon, a crowd region in a hundred. OUT/images has one JPEG of about 1 KB under every name, as hard links. The content
depends on --seed only.
"""

from __future__ import annotations

import argparse
import io
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES, POLYGONS = 118_287, 860_000
WIDTH, HEIGHT = 320, 240
CATEGORIES = 80
POINTS = 16, 36  # of a polygon; the upper bound is exclusive
CROWD = 0.01
# Annotations made at a time, to bound memory, and hard links per file, of which ext4 allows 65,000.
TURN, LINKS = 2_000, 60_000


def jpeg() -> bytes:
    """Encode the one image: two grey halves."""
    pixels = np.full((HEIGHT, WIDTH, 3), 96, dtype=np.uint8)
    pixels[:, WIDTH // 2 :] = 160
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=50, optimize=True)
    return buffer.getvalue()


def image_entry(number: int) -> str:
    name = f"{number:012d}.jpg"
    return (
        f'{{"license": {number % 8 + 1},"file_name": "{name}","coco_url": "http://images.cocodataset.org/train2017/'
        f'{name}","height": {HEIGHT},"width": {WIDTH},"date_captured": "2013-11-14 11:18:45",'
        f'"flickr_url": "http://farm9.staticflickr.com/8186/{number * 7919 % 10**10}_{number * 104729 % 10**10:010x}_z'
        f'.jpg","id": {number}}}'
    )


def polygons(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Make `count` random star-shaped polygons inside the image, each (P, 2) with coordinates of two decimals."""
    lengths = rng.integers(*POINTS, count)
    centres = rng.uniform((20, 20), (WIDTH - 20, HEIGHT - 20), (count, 2))
    room = np.minimum(centres, (WIDTH, HEIGHT) - centres).min(axis=1)
    radii = np.exp(rng.uniform(np.log(4), np.log(np.maximum(room, 5))))
    ends = np.cumsum(lengths)
    places = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    angles = 2 * np.pi * places / np.repeat(lengths, lengths)
    distance = np.repeat(radii, lengths) * rng.uniform(0.5, 1, ends[-1])
    points = np.repeat(centres, lengths, axis=0) + distance[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    return np.split(np.clip(points, 0, (WIDTH, HEIGHT)).round(2), ends[:-1])


def annotation_entry(number: int, image: int, category: int, points: np.ndarray, is_crowd: bool) -> str:
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    width, height = right - left, bottom - top
    if is_crowd:
        whole = WIDTH * HEIGHT
        runs = [whole // 3, 50, 190, 60, 180, 55]
        counts = ",".join(map(str, [*runs, whole - sum(runs)]))
        segmentation = f'{{"counts": [{counts}],"size": [{HEIGHT},{WIDTH}]}}'
    else:
        segmentation = f"[[{','.join(map(str, points.reshape(-1).tolist()))}]]"
    return (
        f'{{"segmentation": {segmentation},"area": {width * height * 0.6:.10g},"iscrowd": {int(is_crowd)},'
        f'"image_id": {image},"bbox": [{left:.2f},{top:.2f},{width:.2f},{height:.2f}],"category_id": {category},'
        f'"id": {number}}}'
    )


def write(out: Path, factor: float, seed: int) -> None:
    count, objects = round(IMAGES * factor), round(POLYGONS * factor)
    rng = np.random.default_rng(seed)
    numbers = 1 + np.sort(rng.choice(5 * count, count, replace=False))
    folder = out / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for i, number in enumerate(numbers.tolist()):
        path = folder / f"{number:012d}.jpg"
        if i % LINKS == 0:
            source = path
            source.unlink(missing_ok=True)
            source.write_bytes(jpeg())
        elif not path.exists():
            os.link(source, path)
    names = [{"supercategory": "thing", "id": k, "name": f"class {k}"} for k in range(1, CATEGORIES + 1)]
    with open(out / "instances.json", "w") as file:
        file.write('{"info": {"description": "the size of COCO 2017"},"licenses": [],"images": [')
        for i, number in enumerate(numbers.tolist()):
            file.write(", " * (i > 0) + image_entry(number))
        file.write('],"annotations": [')
        # as in COCO, the annotations of an image are not adjacent, and one image in a hundred has none
        of_image = rng.choice(numbers[rng.random(count) < 0.99], objects)
        categories = rng.integers(1, CATEGORIES + 1, objects)
        crowd = rng.random(objects) < CROWD
        for begin in range(0, objects, TURN):
            turn = range(begin, min(begin + TURN, objects))
            for k, points in zip(turn, polygons(rng, len(turn)), strict=True):
                entry = annotation_entry(k + 1, of_image[k], categories[k], points, crowd[k])
                file.write(", " * (k > 0) + entry)
        file.write(f'],"categories": {json.dumps(names)}}}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--factor", type=float, default=1.0, help="times COCO train2017 (default 1)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write(args.out, args.factor, args.seed)
    path = args.out / "instances.json"
    print(f"{path}: {path.stat().st_size / 1e6:,.0f} MB; images of {len(jpeg()):,} bytes in {args.out / 'images'}")


if __name__ == "__main__":
    main()
