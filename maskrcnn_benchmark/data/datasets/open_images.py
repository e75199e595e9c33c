"""Open Images: boxes of many images in one csv."""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from maskrcnn_benchmark.data.datasets.coco_values import flag, real_number
from maskrcnn_benchmark.data.datasets.file_lists import image_names, list_images
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.records import ObjectRecord
from maskrcnn_benchmark.data.datasets.records_dataset import RecordsDataset, image_sizes
from maskrcnn_benchmark.data.datasets.report import EXAMPLES, DatasetReport
from maskrcnn_benchmark.data.datasets.sources import Sources, absolute
from maskrcnn_benchmark.utils.text_file import did_you_mean, open_regular, read_text

SIDES = ("XMin", "YMin", "XMax", "YMax")
COLUMNS = ("ImageID", "LabelName", *SIDES)
# First cells of class description files with a header.
HEADERS = ("LabelName", "Label", "MID")


class OpenImagesDataset(RecordsDataset):
    """Images of a folder with boxes from an Open Images csv, sorted by ImageID.

    A row with IsGroupOf 1 is a crowd region, neither trained on nor evaluated. Coordinates are relative to the upright
    image. COCO's metrics evaluate it; the hierarchy of classes and image-level labels of the challenge are not used.

    Args:
        root: folder of the images, ImageID.jpg, which may lie in folders of it. Images that are there are used, so
            that a part of a split can be downloaded.
        ann_file: csv with the columns ImageID, LabelName, XMin, XMax, YMin, YMax and optionally IsGroupOf.
        classes_file: csv with LabelName and name of each class, such as class-descriptions-boxable.csv; its order is
            that of the labels, and boxes of other classes are left out. None: the LabelNames in the csv, sorted.
        split_file: list or csv with an ImageID at the start of each line. If given, each of these images must exist.
        remove_images_without_annotations: drop images without a usable box (for training).
        transforms: (image, target) -> (image, target); None returns PIL images.
        name: name of the dataset in messages; default: the csv's file name without its ending.
        images: how image files are read. The EXIF rotation is applied unless it is "stored". None is ImageSettings().
        reading: how annotations are read, and whether the outcome is kept as a file; None is Reading().
        rebuild: read anew although there is such a file.

    Raises:
        FileNotFoundError: a file, the folder, or images of the split are missing.
        ValueError: a csv lacks columns, or no image is left to train on.
        OSError: images cannot be decoded; the first few are named.
    """

    def __init__(
        self,
        root: str,
        ann_file: str,
        classes_file: str | None = None,
        split_file: str | None = None,
        remove_images_without_annotations: bool = False,
        transforms=None,
        *,
        name: str | None = None,
        images: ImageSettings | None = None,
        reading: Reading | None = None,
        rebuild: bool = False,
    ):
        self._csv, self._classes_file, self._split_file = os.fspath(ann_file), classes_file, split_file
        images = images or ImageSettings()
        if images.exif_rotation == "auto":  # annotators saw upright images
            images = replace(images, exif_rotation="upright")
        super().__init__(
            os.fspath(root),
            self._csv,
            "csv",
            remove_images_without_annotations,
            transforms,
            name=name or os.path.splitext(os.path.basename(self._csv))[0],
            images=images,
            reading=reading,
            sources=Sources(
                self._csv,
                {
                    "root": absolute(root),
                    "ann_file": absolute(ann_file),
                    "classes_file": absolute(classes_file),
                    "split_file": absolute(split_file),
                    "remove_images_without_annotations": remove_images_without_annotations,
                },
                self._find_sources,
            ),
            rebuild=rebuild,
        )

    def _find_sources(self) -> tuple[list[str], dict]:
        files = filter(None, (self._csv, self._classes_file, self._split_file))
        return list(files), {"the names of its images": image_names(self.root)}

    def read_records(self, report: DatasetReport) -> dict:
        classes = self._classes()
        paths = self._images(report.name)
        sizes = dict(zip(paths, image_sizes(list(paths.values()), self.image_settings, report.name), strict=True))
        numbers = {label: k for k, label in enumerate(classes, start=1)}
        return {
            "categories": [{"id": numbers[label], "name": name} for label, name in classes.items()],
            "images": [
                {"id": image_id, "file_name": os.path.relpath(path, self.root), "width": w, "height": h}
                for (image_id, path), (w, h) in zip(paths.items(), sizes.values(), strict=True)
            ],
            "annotations": self._objects(sizes, numbers, report),
        }

    def _classes(self) -> dict[str, str]:
        """Return the names of the classes by LabelName, in the order of labels."""
        if self._classes_file is None:
            labels = sorted({label for _, _, label, *_ in self._rows()} - {""})
            if not labels:
                raise ValueError(f"annotation file {self._csv} has no rows: its classes are unknown")
            return {label: label for label in labels}
        rows = list(csv.reader(read_text(self._classes_file).splitlines()))
        rows = [[cell.strip() for cell in row] for row in rows if any(row)]
        if rows and rows[0][0] in HEADERS:
            rows = rows[1:]
        if not rows or any(len(row) < 2 for row in rows):
            raise ValueError(f"{self._classes_file} (CLASSES): expected lines LabelName,name, as in /m/011k07,Tortoise")
        return {row[0]: ",".join(row[1:]) for row in rows}

    def _images(self, name: str) -> dict[str, str]:
        """Return the path of each image by ImageID, sorted."""
        if not os.path.isdir(self.root):
            raise FileNotFoundError(
                f"dataset {name}: image folder {self.root} does not exist.{did_you_mean(self.root)}"
            )
        there = {os.path.splitext(os.path.basename(path))[0]: path for path in list_images(self.root)}
        if self._split_file is None:
            if not there:
                raise FileNotFoundError(f"dataset {name}: image folder {self.root} has no images")
            return dict(sorted(there.items()))
        lines = read_text(self._split_file).splitlines()
        wanted = [line.split(",")[0].strip().rpartition("/")[2] for line in lines if line.strip()]
        wanted = sorted({os.path.splitext(each)[0] for each in wanted} - {"ImageID"})
        missing = [image_id for image_id in wanted if image_id not in there]
        if missing or not wanted:
            names = ", ".join(missing[:EXAMPLES]) + (", ..." if len(missing) > EXAMPLES else "")
            raise FileNotFoundError(
                f"dataset {name}: {len(missing):,} of {len(wanted):,} images of {self._split_file} (SPLIT) are missing "
                f"in {self.root}: {names}"
            )
        return {image_id: there[image_id] for image_id in wanted}

    def _rows(self) -> Iterator[tuple]:
        """Yield (line, ImageID, LabelName, XMin, YMin, XMax, YMax, IsGroupOf) of the csv, as texts."""
        try:
            with open_regular(self._csv) as file:
                is_marked = file.read(2) in (b"\xff\xfe", b"\xfe\xff")
        except FileNotFoundError:
            raise FileNotFoundError(
                f"annotation file {self._csv} (ANNOTATIONS) does not exist.{did_you_mean(self._csv)}"
            ) from None
        with open(self._csv, encoding="utf-16" if is_marked else "utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [cell.strip() for cell in next(reader, [])]
            lacking = [name for name in COLUMNS if name not in header]
            if lacking:
                raise ValueError(
                    f"annotation file {self._csv} lacks the columns {', '.join(lacking)}; its first line is "
                    f"{','.join(header)!r:.200}. Expected a csv of boxes with {', '.join(COLUMNS)}"
                )
            places = [header.index(name) for name in COLUMNS]
            group = header.index("IsGroupOf") if "IsGroupOf" in header else None
            last = max(places)
            for row in reader:
                if not row:
                    continue
                if len(row) <= last:
                    row += [""] * (last + 1 - len(row))
                is_group = row[group] if group is not None and group < len(row) else None
                yield (reader.line_num, *(row[place] for place in places), is_group)

    def _objects(self, sizes: dict, numbers: dict[str, int], report: DatasetReport) -> Iterator[ObjectRecord]:
        elsewhere: Counter[str] = Counter()
        repeated: list[str] = []
        seen: set[tuple] = set()
        last = None
        name = os.path.basename(self._csv)
        for line, *values, is_group in self._rows():
            image_id, label, *sides = values
            size = sizes.get(image_id)
            if size is None:
                elsewhere[image_id] += 1
                continue
            if image_id != last:  # rows of an image follow each other
                last = image_id
                seen.clear()
            if tuple(values) in seen:
                repeated.append(f"{name}#{line}")
                continue
            seen.add(tuple(values))
            try:
                x1, y1, x2, y2 = map(float, sides)
            except ValueError:
                x1, y1, x2, y2 = map(real_number, sides)
            width, height = size
            box = [x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height]
            yield ObjectRecord(
                id=f"{name}#{line}",
                image_id=image_id,
                category_id=numbers.get(label, f"label {label!r}"),
                bbox=box if all(map(math.isfinite, box)) else None,
                iscrowd=_crowd(is_group),
            )
        report.add("dropped", "repeated rows", repeated, "rows")
        places = [image_id for image_id, count in elsewhere.items() for _ in range(count)]
        report.add(
            "dropped", "boxes of images that are not used (not in the folder, or not in SPLIT)", places, "images"
        )


def _crowd(text: str | None) -> int | str | None:
    """Return IsGroupOf as "iscrowd" of a record; -1 stands for unknown, and what is no flag is left to its check."""
    known = flag(text)
    return text if known is None else int(known and not real_number(text) < 0)
