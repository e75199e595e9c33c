"""YOLO datasets: data.yaml, folders of images, and a text file of relative boxes or polygons beside each image."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from maskrcnn_benchmark.data.datasets.image_checks import MISSING
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings, upright_unless_stored
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.records import ObjectRecord
from maskrcnn_benchmark.data.datasets.records_dataset import RecordsDataset
from maskrcnn_benchmark.data.datasets.report import EXAMPLES, DatasetReport
from maskrcnn_benchmark.data.datasets.sources import Sources, absolute
from maskrcnn_benchmark.data.datasets.yolo_splits import YoloSplit, read_split
from maskrcnn_benchmark.utils.text_file import decode_text, open_regular

# Coordinates beyond this are taken to be pixels instead of relative.
FARTHEST = 2.0

NOT_NUMBERS = "lines that are not numbers"
WRONG_LENGTH = "lines of a wrong number of columns"


class YOLODataset(RecordsDataset):
    """Images of a split of a YOLO dataset, sorted by path.

    A line of a label file is `class x y width height` (center and size) or `class x1 y1 x2 y2 x3 y3 ...` (a polygon),
    relative to the size of the upright image. With `kpt_shape` in the yaml a box is followed by its keypoints. Images
    without a label file, or with an empty one, have no objects.

    Args:
        data_file: data.yaml, or darknet's obj.data; see `read_split`.
        split: "train", "val", "test".
        remove_images_without_annotations: drop images without a usable box (for training).
        transforms: (image, target) -> (image, target); None returns PIL images.
        name: name of the dataset in messages; default: folder and split.
        images: how image files are read. The EXIF rotation is applied unless it is "stored". None is ImageSettings().
        reading: how annotations are read, and whether they are cached in a table file; None is Reading().
        rebuild: ignore an existing table file and write a new one (table_cache.py).

    Image ids are paths relative to the dataset's folder, category ids the class numbers of the files.

    Raises:
        FileNotFoundError: the yaml, the split or images are missing.
        ValueError: the yaml is malformed, coordinates are pixels, or no image is left to train on.
        OSError: images cannot be decoded; the first few are named.
    """

    def __init__(
        self,
        data_file: str,
        split: str,
        remove_images_without_annotations: bool,
        transforms=None,
        *,
        name: str | None = None,
        images: ImageSettings | None = None,
        reading: Reading | None = None,
        rebuild: bool = False,
    ):
        self._data_file, self._split_name = os.fspath(data_file), split
        self._found = found = read_split(data_file, split)
        folder = os.path.basename(os.path.dirname(os.path.abspath(data_file)))
        arguments = {
            "data_file": absolute(data_file),
            "split": split,
            "remove_images_without_annotations": remove_images_without_annotations,
        }
        super().__init__(
            found.root,
            self._data_file,
            "label files",
            remove_images_without_annotations,
            transforms,
            name=name or f"{folder}_{split}",
            images=upright_unless_stored(images),  # YOLO programs apply the EXIF rotation
            reading=reading,
            sources=Sources(found.data_file, arguments, lambda: _sources_of(found)),
            rebuild=rebuild,
        )
        self._found = None  # its lists of paths would be copied into every worker

    def read_records(self, report: DatasetReport) -> dict:
        split = self._found or read_split(self._data_file, self._split_name)
        if split.moved:
            what = "values of 'path' that are no folder here, replaced by the folder of the yaml"
            report.add("repaired", what, [split.moved], "folders")
        if split.missing:
            names = ", ".join(split.missing[:EXAMPLES]) + (", ..." if len(split.missing) > EXAMPLES else "")
            message = (
                f"{len(split.missing):,} of the {len(split.missing) + len(split.images):,} images that "
                f"{self.annotations} lists for {split.name} do not exist below {split.root}: {names}"
            )
            self.leave_out(MISSING, [(name, name) for name in split.missing], FileNotFoundError(message))
        ids = [_relative(path, split.root) for path in split.images]
        without = [image for image, label in zip(ids, split.labels, strict=True) if label is None]
        report.add("noted", "images without a label file", without, "images")
        report.add("noted", "label files without an image", [_relative(p, split.root) for p in split.unused], "files")
        if len(without) == len(ids):
            report.warn(
                f"dataset {report.name}: none of {len(ids):,} images has a label file; that of {split.images[0]} is "
                "expected in the folder 'labels' beside 'images', or beside the image"
            )
        sizes = self.upright_sizes({each: each for each in ids})
        keypoints = {"keypoints": split.keypoint_names} if split.keypoint_names else {}
        return {
            "categories": [{"id": k, "name": name, **keypoints} for k, name in enumerate(split.class_names)],
            "images": [
                {"id": each, "file_name": each, "width": width, "height": height}
                for each, (width, height) in sizes.items()
            ],
            "annotations": _objects(split, ids, sizes, report),
        }


def _sources_of(split: YoloSplit) -> tuple[list[str], dict]:
    """Return the files and other values to compare, see `Sources.find`."""
    lists = asdict(split)
    names, labels, unused = (lists.pop(name) for name in ("images", "labels", "unused"))
    files = [*filter(None, labels), *unused]
    return files, {
        "the names of its images": names,
        "the places of its label files": labels,
        "the contents of its yaml": lists,
    }


def _relative(path: str, root: str) -> str:
    """Return a path with forward slashes, relative to `root` if it is below it."""
    inside = path[len(root) + 1 :] if path.startswith(root + os.sep) else path
    return inside.replace(os.sep, "/")


def _objects(
    split: YoloSplit, image_ids: Sequence[str], sizes: Mapping[str, tuple[int, int]], report: DatasetReport
) -> Iterator[ObjectRecord]:
    """Yield the objects of all label files of images whose size is known.

    Raises:
        ValueError: most objects have coordinates beyond FARTHEST.
    """
    odd: dict[str, list[str]] = defaultdict(list)
    count, far = 0, []
    for image_id, path in zip(image_ids, split.labels, strict=True):
        if path is None or image_id not in sizes:
            continue
        width, height = sizes[image_id]
        seen = set()
        name = os.path.basename(path)
        for number, line in enumerate(_lines(path), start=1):
            words = line.split()
            if not words:
                continue
            where = f"{name}#{number}"
            key = tuple(words)
            if key in seen:
                odd["repeated lines"].append(where)
                continue
            seen.add(key)
            try:
                category, *values = map(float, words)
            except ValueError:
                odd[NOT_NUMBERS].append(where)
                continue
            if len(values) == 5 and not split.keypoints:
                odd["confidence"].append(where)
                values.pop()
            record = _record(values, width, height, split.keypoints, split.dims)
            if record is None:
                odd[WRONG_LENGTH].append(where)
                continue
            record.id, record.image_id = where, image_id
            record.category_id = int(category) if category.is_integer() else category
            count += 1
            if max(map(abs, values[:4])) > FARTHEST:
                far.append(where)
            yield record
    if far and 2 * len(far) > count:
        raise ValueError(
            f"dataset {report.name}: {len(far):,} of {count:,} lines of label files have coordinates beyond "
            f"{FARTHEST:g} ({', '.join(far[:3])}, ...); expected are shares of width and height, 0 to 1. "
            "Divide pixels by the image's size."
        )
    what = "boxes followed by a sixth column (a confidence), which is not used"
    report.add("repaired", what, odd["confidence"], "lines")
    for what in ("repeated lines", NOT_NUMBERS, WRONG_LENGTH):
        report.add("dropped", what, odd[what], "lines")


def _lines(path: str) -> list[str]:
    with open_regular(path) as file:
        data = file.read()
    return decode_text(data, path).splitlines() if data else []


def _record(values: list[float], width: int, height: int, keypoints: int, dims: int) -> ObjectRecord | None:
    """Build the object from the numbers after the class in a line; None if there is a wrong number of them."""
    if len(values) == 4 or (keypoints and len(values) == 4 + keypoints * dims):
        x, y, w, h = values[:4]
        record = ObjectRecord(bbox=[(x - w / 2) * width, (y - h / 2) * height, w * width, h * height])
        if len(values) > 4:
            record.keypoints = _keypoints(values[4:], width, height, dims)
        return record
    if keypoints or len(values) < 6 or len(values) % 2:
        return None
    xs, ys = [x * width for x in values[::2]], [y * height for y in values[1::2]]
    polygon = [number for point in zip(xs, ys, strict=True) for number in point]
    left, top = min(xs), min(ys)
    return ObjectRecord(bbox=[left, top, max(xs) - left, max(ys) - top], segmentation=[polygon])


def _keypoints(values: list[float], width: int, height: int, dims: int) -> list[float]:
    found = []
    for i in range(0, len(values), dims):
        x, y = values[i : i + 2]
        # without a third number a keypoint at 0, 0 is one that is not in the image
        visible = values[i + 2] if dims == 3 else 2.0 * (math.isfinite(x) and math.isfinite(y) and (x, y) != (0, 0))
        found += [x * width, y * height, visible]
    return found
