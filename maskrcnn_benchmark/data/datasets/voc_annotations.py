"""Read Pascal VOC xml into flat arrays. Questionable objects are dropped and counted.

Shapes: I images, B boxes, K foreground classes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np

from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable
from maskrcnn_benchmark.data.datasets.coco_values import flag
from maskrcnn_benchmark.data.datasets.file_lists import IMAGE_ENDINGS, list_files, list_images
from maskrcnn_benchmark.data.datasets.report import EXAMPLES, DatasetReport
from maskrcnn_benchmark.utils.text_file import did_you_mean, open_regular, read_text

# Class-specific split files write one of these after each name: whether the class is in the image.
PRESENCE = ("-1", "0", "1")

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(
    folder: str,
    file_names: dict[str, str],
    class_names: Sequence[str],
    use_difficult: bool,
    report: DatasetReport,
    first_pixel: int = 1,
) -> AnnotationTable:
    """Read `folder`/NAME.xml of the named images.

    Files count pixels from 1, the table from 0: its boxes are those of the files minus 1, with inclusive corners. With
    first_pixel 0 coordinates are edges, counted from 0, and xmax is xmin + width. An object without <difficult> is not
    difficult. Parts of objects (<part>) are not read.

    An image without an xml file has no objects: some exporters write no file for such images.

    Dropped and counted:
    - objects of other classes;
    - boxes that are missing, not finite, inverted, or at most one pixel wide or high;
    - difficult objects, unless use_difficult;
    - objects that repeat the class and box of another object of their image.

    Args:
        folder: folder of the xml files.
        file_names: image file by NAME; the table keeps this order.
        class_names: K names.
        use_difficult: keep difficult objects.
        report: receives the findings.
        first_pixel: 1 or 0.

    Raises:
        FileNotFoundError: more than half of the xml files are missing; the first few are named.
        ValueError: a file is not XML.
    """
    paths = {name: os.path.join(folder, f"{name}.xml") for name in file_names}
    missing = [name for name, path in paths.items() if not os.path.exists(path)]
    if 2 * len(missing) > len(paths):
        names = ", ".join(f"{name}.xml" for name in missing[:EXAMPLES])
        raise FileNotFoundError(
            f"dataset {report.name}: {len(missing):,} of {len(paths):,} annotation files are missing in {folder}: "
            f"{names}{', ...' if len(missing) > EXAMPLES else ''}. Is the annotation folder the right one?"
        )
    report.add("noted", "images without an xml file", missing, "images")
    label_of = {name: label for label, name in enumerate(class_names, start=1)}
    sizes, rows, without = [], [], set(missing)
    unknown, broken, inverted, flat, hard, repeated, from_zero = [], [], [], [], [], [], []
    shifts = (first_pixel, first_pixel, 1, 1)
    annotated = np.zeros(len(paths), dtype=bool)
    for image, (name, path) in enumerate(paths.items()):
        if name in without:
            sizes.append([0, 0])
            continue
        root = _parse(path)
        sizes.append([_side(root.findtext(f"size/{side}")) for side in ("width", "height")])
        seen = set()
        for number, element in enumerate(root.findall("object"), start=1):
            annotated[image] = True
            where = f"{name}#{number}"
            corners = [_number(element.findtext(f"bndbox/{corner}")) for corner in CORNERS]
            box = [value - shift for value, shift in zip(corners, shifts, strict=True)]
            if first_pixel == 1 and min(corners[:2]) < 1:
                from_zero.append(where)
            label = label_of.get((element.findtext("name") or "").strip())
            difficult = flag(element.findtext("difficult")) or False
            if label is None:
                unknown.append(where)
            elif not all(map(math.isfinite, box)):
                broken.append(where)
            elif box[2] < box[0] or box[3] < box[1]:
                inverted.append(where)
            elif box[2] == box[0] or box[3] == box[1]:
                flat.append(where)
            elif difficult and not use_difficult:
                hard.append(where)
            elif (label, *box) in seen:
                repeated.append(where)
            else:
                seen.add((label, *box))
                rows.append((image, label, difficult, box, where))

    for what, places in (
        (f"objects of other classes than {', '.join(class_names)}", unknown),
        ("boxes that are missing, not four numbers, or not finite", broken),
        ("inverted boxes", inverted),
        ("boxes without area (at most one pixel wide or high)", flat),
        ("difficult objects", hard),
        ("repeated objects", repeated),
    ):
        report.add("dropped", what, places, "objects")
    hint = "FIRST_PIXEL: 0 in the block if this exporter counts pixels from 0"
    report.add("noted", "boxes that begin before pixel 1", from_zero, "objects", hint)
    return AnnotationTable(
        image_ids=list(file_names),
        file_names=list(file_names.values()),
        given_sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        category_ids=list(range(1, len(class_names) + 1)),
        class_names=list(class_names),
        boxes=np.array([row[3] for row in rows], dtype=np.float32).reshape(-1, 4),
        image_index=np.array([row[0] for row in rows], dtype=np.int64),
        labels=np.array([row[1] for row in rows], dtype=np.int64),
        crowd=np.zeros(len(rows), dtype=bool),
        annotation_ids=[row[4] for row in rows],
        difficult=np.array([row[2] for row in rows], dtype=bool),
        annotated=annotated,
    )


def find_class_names(folder: str) -> list[str]:
    """Return the class names of all objects in a folder's xml files, in alphabetical order.

    All files are read, whatever the split, so that training and test data have the same classes.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: no xml file has an object with a name, or a file is not XML.
    """
    names = set()
    for file_name in list_files(folder, ".xml"):
        objects = _parse(os.path.join(folder, file_name)).findall("object")
        names |= {(element.findtext("name") or "").strip() for element in objects}
    names.discard("")
    if not names:
        raise ValueError(f"annotation folder {folder} has no xml file with an object that has a name")
    return sorted(names)


def find_images(folder: str, split_file: str | None, annotations: str) -> dict[str, str]:
    """Return the image file of each name in the split file, in its order.

    Args:
        folder: folder of the images, which may have any of IMAGE_ENDINGS.
        split_file: text file with one name per line, with or without an ending, optionally followed by -1, 0 or 1.
            None uses the names of all xml files in `annotations`.
        annotations: folder of the xml files.

    Returns:
        Image file by name without ending. A missing image gets the ending .jpg. Repeated names are returned once.

    Raises:
        FileNotFoundError: a folder or the split file does not exist.
        ValueError: the split is empty.
    """
    for path in (folder, annotations):
        if not os.path.isdir(path):
            raise FileNotFoundError(f"folder {path} of a Pascal VOC dataset does not exist.{did_you_mean(path)}")
    there: dict[str, str] = {}
    for path in list_images(folder):
        file_name = os.path.relpath(path, folder)
        there.setdefault(os.path.splitext(file_name)[0], file_name)
    if split_file is None:
        lines = sorted(os.path.splitext(file_name)[0] for file_name in list_files(annotations, ".xml"))
    else:
        try:
            lines = [line.strip() for line in read_text(split_file).splitlines() if line.strip()]
        except FileNotFoundError:
            raise FileNotFoundError(
                f"split file {split_file} (SPLIT) of a Pascal VOC dataset does not exist.{did_you_mean(split_file)}"
            ) from None
        except ValueError as error:
            raise ValueError(f"split file (SPLIT) {error}") from None
    if not lines:
        raise ValueError(f"{split_file or annotations} names no image")
    names = [_name(line, there) for line in lines]
    return {name: there.get(name, f"{name}.jpg") for name in names}


def find_by_filename(
    file_names: dict[str, str], folder: str, annotations: str, report: DatasetReport
) -> dict[str, str]:
    """Replace each missing image by the file that <filename> or <path> of its xml names, if that exists.

    Args:
        file_names: see `find_images`.
        folder: folder of the images.
        annotations: folder of the xml files.
        report: receives the findings.
    """
    found, replaced = dict(file_names), []
    for name, file_name in file_names.items():
        xml = os.path.join(annotations, f"{name}.xml")
        if os.path.isfile(os.path.join(folder, file_name)) or not os.path.isfile(xml):
            continue
        root = _parse(xml)
        for text in (root.findtext("filename"), root.findtext("path")):
            given = os.path.basename((text or "").strip().replace("\\", "/"))
            endings = ("", *IMAGE_ENDINGS) if given else ()
            there = next((given + e for e in endings if os.path.isfile(os.path.join(folder, given + e))), None)
            if there is not None:
                found[name] = there
                replaced.append(name)
                break
    report.add("repaired", "images found by the <filename> of their xml", replaced, "images")
    return found


def _name(line: str, there: dict[str, str]) -> str:
    """Return the name of the image in a line of a split file."""
    words = line.split()
    candidates = [line, " ".join(words[:-1])] if len(words) > 1 and words[-1] in PRESENCE else [line]
    for candidate in candidates:
        stem, ending = os.path.splitext(candidate)
        if candidate in there:
            return candidate
        if ending.lower() in IMAGE_ENDINGS:
            return stem
    return candidates[-1]


def _parse(path: str) -> ElementTree.Element:
    try:
        with open_regular(path) as file:
            return ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # bad XML; bad text; unknown encoding
        raise ValueError(f"annotation file {path} is not XML: {error}") from error


def _number(text: str | None) -> float:
    """Parse a number; anything else is NaN."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


def _side(text: str | None) -> int:
    """Parse a width or height; anything but a positive number is 0."""
    value = _number(text)
    return int(value) if 0 < value < 2**31 else 0
