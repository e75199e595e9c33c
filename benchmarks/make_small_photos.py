"""Make many small, distinct photographs with boxes from a few real ones.

    python benchmarks/make_small_photos.py /tmp/photos --sources folder/of/photographs           # 100,000 images
    python benchmarks/make_small_photos.py /tmp/photos --sources folder/of/photographs --count 1000

Each image is a window of a source, of 25 to 60 % of its short side at a random place, mirrored or not, with other
brightness, contrast, colors and noise, as a JPEG of about 100 pixels. One in --repeat images is an earlier one,
compressed again. OUT/images has 1,000 images a folder; OUT/instances.json has --boxes boxes an image. The content
depends on the sources and --seed only.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

SIDES = 80, 121  # of an image in pixels; the upper bound is exclusive
WINDOW = 0.25, 0.6  # share of the source's short side
TURN = 1_000
CATEGORIES = "bird", "cat", "dog", "horse", "sheep"


def photo(sources: list[np.ndarray], seed: int, number: int) -> Image.Image:
    """Make image `number`, which depends only on its number, the sources and the seed."""
    rng = np.random.default_rng((seed, number))
    source = sources[rng.integers(len(sources))]
    width, height = rng.integers(*SIDES, 2).tolist()
    side = rng.uniform(*WINDOW) * min(source.shape[:2])
    window = np.minimum(np.array([width, height]) * side / min(width, height), source.shape[1::-1])
    left, top = rng.uniform(0, np.array(source.shape[1::-1]) - window + 1e-6)
    box = left, top, left + window[0], top + window[1]
    image = Image.fromarray(source).resize((width, height), Image.Resampling.BILINEAR, box=box)
    pixels = np.asarray(image, dtype=np.float32)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    pixels = (pixels - 128) * rng.uniform(0.7, 1.3) + 128 + rng.uniform(-25, 25) + rng.uniform(-12, 12, 3)
    pixels = pixels + rng.normal(0, rng.uniform(1, 5), pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def annotations(rng: np.random.Generator, size: tuple[int, int], mean: float) -> Iterator[tuple[int, list[float]]]:
    """Yield category id and x, y, width, height of an image's boxes."""
    for _ in range(rng.poisson(mean)):
        sides = np.exp(rng.uniform(np.log(6), np.log(size)))
        left, top = rng.uniform(0, np.array(size) - sides)
        yield int(rng.integers(1, len(CATEGORIES) + 1)), [round(float(each), 2) for each in (left, top, *sides)]


def write_part(out: Path, sources: list[Path], numbers: range, seed: int, boxes: float, repeat: int) -> list[tuple]:
    """Write images; return (number, width, height, boxes) of each."""
    loaded = [np.asarray(Image.open(path).convert("RGB")) for path in sources]
    rows = []
    for number in numbers:
        path = out / "images" / name_of(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng((seed, number, 1))
        is_copy = number > 0 and rng.random() < 1 / repeat
        image = photo(loaded, seed, int(rng.integers(number)) if is_copy else number)
        image.save(path, quality=60 if is_copy else 85)
        rows.append((number, *image.size, list(annotations(rng, image.size, boxes))))
    return rows


def name_of(number: int) -> str:
    return f"{number // 1000:04d}/{number:08d}.jpg"


def write(out: Path, sources: list[Path], count: int, seed: int, boxes: float, repeat: int, workers: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    parts = [range(first, min(first + TURN, count)) for first in range(0, count, TURN)]
    with ProcessPoolExecutor(workers) as pool:
        jobs = [pool.submit(write_part, out, sources, part, seed, boxes, repeat) for part in parts]
        rows = [row for job in jobs for row in job.result()]
    images = [{"id": n + 1, "file_name": name_of(n), "width": w, "height": h} for n, w, h, _ in rows]
    objects = [
        {"image_id": number + 1, "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for number, *_, found in rows
        for category, box in found
    ]
    content = {
        "images": images,
        "annotations": [{"id": k, **each} for k, each in enumerate(objects, start=1)],
        "categories": [{"id": k, "name": name} for k, name in enumerate(CATEGORIES, start=1)],
    }
    (out / "instances.json").write_text(json.dumps(content))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sources", type=Path, required=True, help="folder of photographs (.jpg)")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--boxes", type=float, default=5.0, help="mean number of boxes an image (default 5)")
    parser.add_argument("--repeat", type=int, default=1_000, help="one in this many images is a copy (default 1,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    sources = sorted(args.sources.glob("*.jpg"))
    if not sources:
        parser.error(f"--sources {args.sources} has no .jpg")
    write(args.out, sources, args.count, args.seed, args.boxes, args.repeat, args.workers)
    print(f"{args.out / 'instances.json'}: {args.count:,} images in {args.out / 'images'}")


if __name__ == "__main__":
    main()
