"""Generate the built-in example dataset: handwritten digits on photographs.

scikit-learn contains 1,797 handwritten digits (8x8) and two photographs. Digits are enlarged smoothly, coloured and
pasted on crops of the photographs. Boxes, masks and semantic maps are exact, as they are computed from the pasted
pixels. Training and test scenes share no digit and no pixel of the photographs.

Files in the output folder:

    train/000000.jpg ...   test/000000.jpg ...       images
    annotations/instances_train.json, instances_test.json   COCO instances, masks as RLE
    semantic/train/000000.png ..., semantic/test/...  index maps: 0 background, else the category id (1..10)
    digits.json                                       arguments of the generator
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

VERSION = 1
CLASS_NAMES = tuple("0123456789")
RECIPE_FILE = "digits.json"

# Share of the digits and of the photographs' width reserved for test scenes.
TEST_SHARE = 0.3
MAX_DIGITS = 6
# Range of the side of a digit's square, relative to the scene's side. The strokes fill about four fifths of the square.
DIGIT_SIDE = (0.2, 0.48)
# Maximum overlap of two digits' boxes, relative to the area of the smaller one.
MAX_OVERLAP = 0.1
# Minimum difference in mean brightness (0 to 255) between a digit's colour and its background.
MIN_CONTRAST = 90
# Pixels with a coverage above this belong to the mask.
MASK_THRESHOLD = 0.4
JPEG_QUALITY = 92


def make_digits(
    output: str | os.PathLike,
    train: int = 2000,
    test: int = 200,
    size: int = 160,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Generate the dataset, unless it exists already.

    Args:
        output: folder to create. The dataset is written to a temporary folder beside it and then renamed, so that the
            folder is never incomplete.
        train, test: number of scenes.
        size: side of a scene in pixels.
        seed: the same arguments give the same scenes (JPEG bytes may depend on the JPEG library).
        progress: called with (scenes done, total scenes) after each scene.

    Returns:
        True if the dataset was written, False if the same dataset existed.

    Raises:
        ImportError: scikit-learn is not installed.
        FileExistsError: `output` holds files that this function has not written; they are not changed.
        ValueError: a number is too small.
    """
    for name, value, least in (("train", train, 1), ("test", test, 1), ("size", size, 64), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"make_digits: {name} must be at least {least}, got {value}")
    output = Path(output).absolute()
    recipe = {"version": VERSION, "train": train, "test": test, "size": size, "seed": seed}
    before = _recipe_of(output)
    if before == recipe:
        return False

    partial, replaced = output.with_name(f".{output.name}.partial"), output.with_name(f".{output.name}.replaced")
    for leftover in (partial, replaced):  # of a run that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    done = 0
    try:
        for split, count in (("train", train), ("test", test)):
            for _ in _write_split(partial, split, count, size, seed):
                done += 1
                if progress is not None:
                    progress(done, train + test)
        (partial / RECIPE_FILE).write_text(json.dumps(recipe, indent=2) + "\n")
        if output.exists():
            output.rename(replaced)
        partial.rename(output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(replaced, ignore_errors=True)
    return True


def _recipe_of(output: Path) -> dict | None:
    """Read the arguments that a folder's dataset was generated with.

    Returns:
        The arguments; None for a missing or empty folder; {} for an incomplete dataset.

    Raises:
        FileExistsError: the folder has other files.
    """
    if not output.exists():
        return None
    if not output.is_dir():
        raise FileExistsError(f"{output} is a file. Give a folder that does not exist yet.")
    files = {path.relative_to(output).as_posix() for path in output.rglob("*") if not path.is_dir()}
    if not files:
        return None
    try:
        recipe = json.loads((output / RECIPE_FILE).read_text())
        foreign = files - _files(recipe["train"], recipe["test"])
    except (OSError, ValueError, KeyError, TypeError):
        foreign = files
    if foreign:
        names = ", ".join(sorted(foreign)[:3]) + (", ..." if len(foreign) > 3 else "")
        raise FileExistsError(
            f"{output} holds files that make_digits has not written ({names}). Nothing was changed. Give another "
            f"folder, or move them away."
        )
    # a deleted file makes the dataset incomplete
    return recipe if files == _files(recipe["train"], recipe["test"]) else {}


def _files(train: int, test: int) -> set[str]:
    files = {RECIPE_FILE}
    for split, count in (("train", train), ("test", test)):
        files.add(f"annotations/instances_{split}.json")
        for number in range(count):
            files.update((f"{split}/{number:06d}.jpg", f"semantic/{split}/{number:06d}.png"))
    return files


def _write_split(folder: Path, split: str, count: int, size: int, seed: int):
    """Write all scenes of a split, yielding after each."""
    digits, labels, photographs = _sources(split)
    for name in (split, f"semantic/{split}", "annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(count):
        rng = np.random.default_rng([seed, ("train", "test").index(split), number])
        pixels, masks = compose_scene(rng, digits, labels, photographs, size)
        file_name = f"{number:06d}.jpg"
        Image.fromarray(pixels).save(folder / split / file_name, quality=JPEG_QUALITY, subsampling=0)
        semantic = np.zeros((size, size), dtype=np.uint8)
        images.append({"id": number + 1, "file_name": file_name, "width": size, "height": size})
        for label, mask in masks:
            semantic[mask] = label + 1
            annotations.append(_annotation(len(annotations) + 1, number + 1, label + 1, mask))
        Image.fromarray(semantic).save(folder / "semantic" / split / f"{number:06d}.png")
        yield
    _write_annotations(folder / "annotations" / f"instances_{split}.json", split, images, annotations)


def write_scene(path: str | os.PathLike, size: int = 480, seed: int = 0, split: str = "test") -> None:
    """Write one scene, and its objects in COCO's format to a .json beside it.

    Args:
        path: .jpg file.
        size: side of the scene in pixels.
        seed: seed of the random numbers.
        split: "train" or "test", the source of digits and photographs.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: the path does not end with .jpg, or the scene would be smaller than 64 pixels.
    """
    path = Path(path)
    if path.suffix != ".jpg" or size < 64:
        raise ValueError(f"write_scene: expected a .jpg and a size of at least 64 pixels, got {path} and {size}")
    pixels, masks = compose_scene(np.random.default_rng(seed), *_sources(split), size)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=JPEG_QUALITY, subsampling=0)
    image = {"id": 1, "file_name": path.name, "width": size, "height": size}
    annotations = [_annotation(number, 1, label + 1, mask) for number, (label, mask) in enumerate(masks, start=1)]
    _write_annotations(path.with_suffix(".json"), split, [image], annotations)


def _write_annotations(path: Path, split: str, images: list[dict], annotations: list[dict]) -> None:
    content = {
        "info": {"description": f"handwritten digits on photographs, composed from scikit-learn's data ({split})"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": k, "name": name} for k, name in enumerate(CLASS_NAMES, start=1)],
    }
    path.write_text(json.dumps(content))


def _sources(split: str) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return a split's digits (D, 8, 8) in 0..1, their values (D,), and its photographs (H, W, 3) uint8."""
    try:
        from sklearn.datasets import load_digits, load_sample_images
    except ImportError as error:
        raise ImportError(
            "the example dataset is generated from scikit-learn's digits, and scikit-learn is not installed: "
            "pip install scikit-learn"
        ) from error
    bunch = load_digits()
    # rows seem to be sorted by writer, so a cut also separates most writers
    cut = round(len(bunch.target) * (1 - TEST_SHARE))
    part = slice(None, cut) if split == "train" else slice(cut, None)
    photographs = []
    for photograph in load_sample_images().images:
        border = round(photograph.shape[1] * (1 - TEST_SHARE))
        photographs.append(photograph[:, :border] if split == "train" else photograph[:, border:])
    return bunch.images[part] / 16.0, bunch.target[part], photographs


def compose_scene(
    rng: np.random.Generator, digits: np.ndarray, labels: np.ndarray, photographs: list[np.ndarray], size: int
) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Compose one scene with 1 to 6 digits.

    Args:
        rng: random numbers.
        digits: (D, 8, 8) in 0..1.
        labels: (D,) values of the digits.
        photographs: (H, W, 3) uint8 each.
        size: side of the scene in pixels.

    Returns:
        Pixels (size, size, 3) uint8, and a list of (value, visible pixels (size, size) bool), one per digit.
    """
    scene = _background(rng, photographs, size).astype(np.float32)
    placed: list[tuple[int, np.ndarray]] = []
    boxes: list[tuple[int, int, int, int]] = []
    for _ in range(rng.integers(1, MAX_DIGITS + 1)):
        which = rng.integers(len(digits))
        side = round(size * rng.uniform(*DIGIT_SIDE))
        coverage = _enlarge(digits[which], side)
        mask = coverage > MASK_THRESHOLD
        x1, y1, x2, y2 = tight_box(mask)
        coverage, mask = coverage[y1 : y2 + 1, x1 : x2 + 1], mask[y1 : y2 + 1, x1 : x2 + 1]
        height, width = mask.shape
        corner = _free_corner(rng, boxes, width, height, size)
        if corner is None:
            continue  # no space left
        left, top = corner
        window = np.s_[top : top + height, left : left + width]
        colour = _contrasting_colour(rng, scene[window][mask].mean(axis=0))
        scene[window] += coverage[..., None] * (colour - scene[window])
        whole = np.zeros((size, size), dtype=bool)
        whole[window] = mask
        placed = [(label, earlier & ~whole) for label, earlier in placed]
        placed.append((int(labels[which]), whole))
        boxes.append((left, top, left + width, top + height))
    noise = rng.normal(0.0, 2.5, scene.shape)
    visible = [(label, mask) for label, mask in placed if mask.any()]
    return (scene + noise).clip(0, 255).astype(np.uint8), visible


def tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return the inclusive bounding box x1, y1, x2, y2 of a mask's pixels."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def _background(rng: np.random.Generator, photographs: list[np.ndarray], size: int) -> np.ndarray:
    """Crop a random square of a photograph and randomly scale, mirror and brighten or darken it."""
    photograph = photographs[rng.integers(len(photographs))]
    height, width = photograph.shape[:2]
    side = int(rng.integers(min(height, width) // 2, min(height, width) + 1))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    square = Image.fromarray(photograph[top : top + side, left : left + side])
    pixels = np.asarray(square.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    return (pixels * rng.uniform(0.6, 1.2)).clip(0, 255)


def _enlarge(digit: np.ndarray, side: int) -> np.ndarray:
    """Enlarge (8, 8) in 0..1 to (side, side) coverage in 0..1 with smooth but sharp edges."""
    padded = Image.fromarray(np.pad(digit, 1).astype(np.float32))
    smooth = np.asarray(padded.resize((side, side), Image.Resampling.BICUBIC))
    return ((smooth - 0.3) / 0.4).clip(0, 1)


def _free_corner(rng: np.random.Generator, boxes: list, width: int, height: int, size: int) -> tuple[int, int] | None:
    """Draw a position where the box overlaps others by at most MAX_OVERLAP; None after 20 failed attempts."""
    for _ in range(20):
        left, top = int(rng.integers(size - width + 1)), int(rng.integers(size - height + 1))
        for x1, y1, x2, y2 in boxes:
            shared = max(0, min(left + width, x2) - max(left, x1)) * max(0, min(top + height, y2) - max(top, y1))
            if shared > MAX_OVERLAP * min(width * height, (x2 - x1) * (y2 - y1)):
                break
        else:
            return left, top
    return None


def _contrasting_colour(rng: np.random.Generator, ground: np.ndarray) -> np.ndarray:
    """Draw a colour, (3,) in 0..255, that contrasts with `ground`."""
    while True:
        colour = rng.uniform(0, 255, 3)
        # the brightness must differ, not just the hue, for strokes to be visible
        if abs(colour.mean() - ground.mean()) > MIN_CONTRAST:
            return colour.astype(np.float32)


def _annotation(number: int, image_id: int, category_id: int, mask: np.ndarray) -> dict:
    """Build a COCO annotation. Its box covers whole pixels; (x + w - 1, y + h - 1) is the last one."""
    from pycocotools import mask as run_lengths

    encoded = run_lengths.encode(np.asfortranarray(mask, dtype=np.uint8))
    x1, y1, x2, y2 = tight_box(mask)
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [x1, y1, x2 - x1 + 1, y2 - y1 + 1],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")},
    }
