"""Open Images: boxes of many images in one csv."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Set

from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable
from maskrcnn_benchmark.data.datasets.coco_values import flag, real_number
from maskrcnn_benchmark.data.datasets.file_lists import image_names, list_images
from maskrcnn_benchmark.data.datasets.image_checks import MISSING
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings, upright_unless_stored
from maskrcnn_benchmark.data.datasets.left_out import drop_crowd
from maskrcnn_benchmark.data.datasets.open_images_csv import csv_rows, read_ancestors, read_classes
from maskrcnn_benchmark.data.datasets.open_images_masks import MaskTable, with_masks
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.records import ObjectRecord
from maskrcnn_benchmark.data.datasets.records_dataset import RecordsDataset
from maskrcnn_benchmark.data.datasets.report import EXAMPLES, DatasetReport
from maskrcnn_benchmark.data.datasets.sources import Sources, absolute, status_of
from maskrcnn_benchmark.utils.text_file import did_you_mean, read_text

COLUMNS = ("ImageID", "LabelName", "XMin", "YMin", "XMax", "YMax")
HINT = "; MASKS of the block names the csv of masks, and ANNOTATIONS that of boxes"


class OpenImagesDataset(RecordsDataset):
    """Images of a folder with boxes from an Open Images csv, sorted by ImageID.

    A row with IsGroupOf 1 is a crowd region, neither trained on nor evaluated. Coordinates are relative to the upright
    image. The dataset is evaluated with COCO's metrics; image-level labels are not used.

    Args:
        root: folder of the images, ImageID.jpg, searched recursively. Only images that are there are used, so that
            a part of a split can be downloaded.
        ann_file: csv with the columns ImageID, LabelName, XMin, XMax, YMin, YMax and optionally IsGroupOf.
        classes_file: csv with LabelName and name of each class, such as class-descriptions-boxable.csv; its order is
            that of the labels, and boxes of other classes are left out. None: the LabelNames in the csv, sorted.
        split_file: list or csv with an ImageID at the start of each line. If given, each of these images must exist.
        masks_file: csv with MaskPath, ImageID, LabelName, BoxXMin, BoxXMax, BoxYMin and BoxYMax. A mask belongs to the
            box with these coordinates. Boxes without a mask are then crowd regions.
        mask_dir: folder of the masks' PNG files, searched recursively.
        hierarchy_file: json with LabelName and Subcategory, such as bbox_labels_600_hierarchy.json. In evaluation,
            objects and detections then also count for every class above their own.
        remove_images_without_annotations: drop images without a usable box (for training).
        transforms: (image, target) -> (image, target); None returns PIL images.
        name: name of the dataset in messages; default: the csv's file name without its ending.
        images: how image files are read. The EXIF rotation is applied unless it is "stored". None is ImageSettings().
        reading: how annotations are read, and whether they are cached in a table file; None is Reading().
        rebuild: ignore an existing table file and write a new one (table_cache.py).

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
        masks_file: str | None = None,
        mask_dir: str | None = None,
        hierarchy_file: str | None = None,
        rebuild: bool = False,
    ):
        if (masks_file is None) != (mask_dir is None):
            raise ValueError(
                "masks of Open Images require both MASKS, their csv, and MASK_IMAGES, the folder of PNG files"
            )
        self._masks_file, self._mask_dir, self._hierarchy_file = masks_file, mask_dir, hierarchy_file
        self._csv, self._classes_file, self._split_file = os.fspath(ann_file), classes_file, split_file
        super().__init__(
            os.fspath(root),
            self._csv,
            "csv",
            remove_images_without_annotations,
            transforms,
            name=name or os.path.splitext(os.path.basename(self._csv))[0],
            images=upright_unless_stored(images),  # annotators saw upright images
            reading=reading,
            sources=Sources(
                self._csv,
                {
                    "root": absolute(root),
                    "ann_file": absolute(ann_file),
                    "classes_file": absolute(classes_file),
                    "split_file": absolute(split_file),
                    "remove_images_without_annotations": remove_images_without_annotations,
                    "masks_file": absolute(masks_file),
                    "mask_dir": absolute(mask_dir),
                    "hierarchy_file": absolute(hierarchy_file),
                },
                self._find_sources,
            ),
            rebuild=rebuild,
        )
        self.ancestors()  # a wrong hierarchy is an error now, not when the evaluation begins

    def _find_sources(self) -> tuple[list[str], dict]:
        files = filter(None, (self._csv, self._classes_file, self._split_file, self._masks_file))
        others = {"the names of its images": image_names(self.root)}
        if self._mask_dir is not None:
            masks = image_names(self._mask_dir)
            status = status_of([os.path.join(self._mask_dir, name) for name in masks])
            others["the masks"] = [masks, status[:, :2].tolist()]  # sizes and modification times
        return list(files), others

    def read_records(self, report: DatasetReport) -> dict:
        classes = self._classes()
        paths = self._images(report.name)
        files = {image_id: os.path.relpath(path, self.root) for image_id, path in paths.items() if path is not None}
        sizes = self.upright_sizes(files)
        numbers = {label: k for k, label in enumerate(classes, start=1)}
        return {
            "categories": [{"id": numbers[label], "name": name} for label, name in classes.items()],
            "images": [
                {"id": image_id, "file_name": files[image_id], "width": width, "height": height}
                for image_id, (width, height) in sizes.items()
            ],
            "annotations": with_masks(self._objects(sizes, numbers, paths.keys() - sizes.keys(), report), report),
        }

    def _classes(self) -> dict[str, str]:
        """Return the names of the classes by LabelName, in the order of labels."""
        if self._classes_file is None:
            labels = sorted({label for _, _, label, *_ in self._boxes()} - {""})
            if not labels:
                raise ValueError(f"annotation file {self._csv} has no rows: its classes are unknown")
            return {label: label for label in labels}
        return read_classes(self._classes_file)

    def ancestors(self) -> dict[int, list[int]]:
        """Return the category ids of the ancestors of each class in the hierarchy; classes without any are left out.

        Raises:
            ValueError: the file is not a hierarchy, or has none of the classes.
        """
        if self._hierarchy_file is None:
            return {}
        above = read_ancestors(self._hierarchy_file)
        if self._classes_file is None:
            numbers = {name: k for k, name in self.categories.items()}
        else:
            numbers = {label: k for k, label in enumerate(read_classes(self._classes_file), start=1)}
        if not above.keys() & numbers.keys():
            raise ValueError(
                f"dataset {self.name}: {self._hierarchy_file} (HIERARCHY) has none of the {len(numbers)} classes, "
                f"{next(iter(numbers))} among them"
            )
        found = {
            k: sorted(numbers[each] for each in above.get(label, ()) if each in numbers) for label, k in numbers.items()
        }
        return {k: classes for k, classes in found.items() if classes}

    def _leave_out_crowd(self, table: AnnotationTable) -> None:
        # without the warning about single objects: a group may be the only box of its class
        drop_crowd(table, self.report)

    def _images(self, name: str) -> dict[str, str | None]:
        """Return the path of each image by ImageID, sorted; None for missing ones, if that is not an error."""
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
            error = FileNotFoundError(
                f"dataset {name}: {len(missing):,} of {len(wanted):,} images of {self._split_file} (SPLIT) are missing "
                f"in {self.root}: {names}"
            )
            if len(missing) == len(wanted):
                raise error
            self.leave_out(MISSING, [(image_id, image_id) for image_id in missing], error)
        return {image_id: there.get(image_id) for image_id in wanted}

    def _boxes(self) -> Iterator[tuple]:
        """Yield (line, ImageID, LabelName, XMin, YMin, XMax, YMax, IsGroupOf) of the csv; all but line are text."""
        return csv_rows(self._csv, "ANNOTATIONS", COLUMNS, "IsGroupOf", HINT)

    def _objects(
        self, sizes: dict, numbers: dict[str, int], left_out: Set[str], report: DatasetReport
    ) -> Iterator[tuple]:
        """Yield (record, path of its mask or None, (width, height) of the image) for the images in `sizes`.

        Rows of images in `left_out` are not counted as dropped: these images have been reported already.
        """
        elsewhere: Counter[str] = Counter()
        repeated: list[str] = []
        without: list[str] = []
        seen: set[tuple] = set()
        last = None
        name = os.path.basename(self._csv)
        masks = None
        if self._masks_file is not None:
            masks = MaskTable(self._masks_file, self._mask_dir, sizes.keys(), report.name)
        for line, *values, is_group in self._boxes():
            image_id, label, *sides = values
            size = sizes.get(image_id)
            if size is None:
                elsewhere[image_id] += image_id not in left_out
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
            record = ObjectRecord(
                id=f"{name}#{line}",
                image_id=image_id,
                category_id=numbers.get(label, f"label {label!r}"),
                bbox=box if all(map(math.isfinite, box)) else None,
                iscrowd=_crowd(is_group),
            )
            mask = None
            if masks is not None and record.iscrowd != 1:
                mask = masks.take(image_id, label, (x1, y1, x2, y2))
                if mask is None:
                    record.iscrowd = 1
                    without.append(record.id)
            yield record, mask, size
        if masks is not None:
            masks.report(report)
            report.add("noted", "boxes without a mask, read as crowd regions", without, "rows")
        report.add("dropped", "repeated rows", repeated, "rows")
        places = [image_id for image_id, count in elsewhere.items() for _ in range(count)]
        report.add(
            "dropped", "boxes of images that are not used (not in the folder, or not in SPLIT)", places, "images"
        )


def _crowd(text: str | None) -> int | str | None:
    """Convert IsGroupOf to "iscrowd". -1 (unknown) becomes 0; an invalid flag is returned, for `flags` to reject."""
    known = flag(text)
    return text if known is None else int(known and not real_number(text) < 0)
