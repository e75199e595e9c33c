"""Check a dataset's image files against its annotations before training or testing starts.

Shapes: I images, B boxes of all images together.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable
from maskrcnn_benchmark.data.datasets.image_paths import find_images, hint_for_missing
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.images import (
    ImageHeader,
    default_range,
    read_headers,
    value_extremes,
)
from maskrcnn_benchmark.data.datasets.report import EXAMPLES, DatasetReport
from maskrcnn_benchmark.data.datasets.shards import ShardIndex, are_shards, shard_paths
from maskrcnn_benchmark.utils.counted import counted
from maskrcnn_benchmark.utils.text_file import did_you_mean, nearest_name

# Kinds of images that cannot be used, see `BoxDataset.leave_out`.
MISSING, UNDECODABLE = "missing images", "images that cannot be decoded"
# Sizes that differ by at most this many pixels count as equal: programs round.
ROUNDING = 1
# A box sticks out of its image if it exceeds it by more than this share of the image's side plus one pixel.
STICKS_OUT = 0.01
# Maximum number of images of more than 8 bits whose values are checked, and the share of the range below which a
# warning says that they are nearly black.
SAMPLES = 32
USED_PART = 0.5
# An error suggests the name nearest to a missing one only if the shards have fewer files than this.
MANY_NAMES = 20_000


@dataclass
class CheckedImages:
    """Result of `check_images`.

    Attributes:
        file_names: I names of files in the image folder.
        sizes: (I, 2) int64 width and height of the images as the dataset returns them.
        turned: (I,) bool, true if the EXIF rotation is applied.
        factors: (I, 2) float64, factors in x and y to scale the annotations by; None if all are 1.
        truncated: (I,) bool, true if the file ends early.
        places: (I, 3) int64, for images in tar files: shard number, byte offset and size in bytes; None in a folder.
    """

    file_names: list[str]
    sizes: np.ndarray
    turned: np.ndarray
    factors: np.ndarray | None
    truncated: np.ndarray
    places: np.ndarray | None = None

    def select(self, keep: np.ndarray) -> CheckedImages:
        """Return the images for which `keep`, (I,) bool, is true."""
        names = [self.file_names[i] for i in np.flatnonzero(keep)]
        factors, places = (None if each is None else each[keep] for each in (self.factors, self.places))
        return CheckedImages(names, self.sizes[keep], self.turned[keep], factors, self.truncated[keep], places)


def check_images(
    table: AnnotationTable,
    root: str,
    annotations: str,
    source: str,
    report: DatasetReport,
    settings: ImageSettings,
    known_headers: Mapping[str, ImageHeader] | None = None,
) -> CheckedImages:
    """Find all image files, read their headers, and decide how to handle rotations and sizes.

    Args:
        table: its file names, given sizes and boxes are used.
        root: image folder, or tar files (shards.py).
        annotations: annotation file or folder, for messages.
        source: name of the annotation format, such as "json", for messages.
        report: receives the findings.
        settings: EXIF rotation and size mismatches.
        known_headers: headers that the reader of the annotations has read already, by file name.

    Raises:
        FileNotFoundError: the folder or images are missing; the first few are named.
        OSError: images cannot be decoded; the first few are named.
        ValueError: image sizes differ from the annotated ones, and the settings do not allow it.
    """
    if table.file_names and not are_shards(root) and not os.path.isdir(root):
        raise FileNotFoundError(f"dataset {report.name}: image folder {root} does not exist.{did_you_mean(root)}")
    check = _Check(table, root, annotations, source, report, settings, known_headers or {})
    file_names, headers = check.headers()
    stored = np.array([(h.width, h.height) for h in headers], dtype=np.int64).reshape(-1, 2)
    turned = check.rotations(headers, stored)
    quarter_turned = turned & np.array([h.quarter_turn for h in headers], dtype=bool)
    sizes = np.where(quarter_turned[:, None], stored[:, ::-1], stored)
    rotated = np.array([h.rotated for h in headers], dtype=bool)
    factors = check.factors(sizes, rotated)
    check.kinds(headers, file_names)
    truncated = np.array([h.truncated for h in headers], dtype=bool)
    return CheckedImages(file_names, sizes, turned, factors, truncated, check.places)


class _Check:
    """Steps of `check_images` and the state that they share."""

    def __init__(self, table, root, annotations, source, report, settings, known_headers):
        self.table, self.root, self.annotations, self.source = table, root, annotations, source
        self.report, self.settings, self.known_headers = report, settings, known_headers
        self.files: list = []  # path or ShardMember of each image
        self.places: np.ndarray | None = None

    def note(self, action: str, what: str, where) -> None:
        ids = [self.table.image_ids[i] for i in np.flatnonzero(where)]
        self.report.add(action, what, ids, "image ids")

    def note_places(self, what: str, places: list[int]) -> None:
        self.report.add("repaired", what, [self.table.image_ids[i] for i in places], "image ids")

    def headers(self) -> tuple[list[str], list[ImageHeader]]:
        """Find all image files and read their headers."""
        file_names = list(self.table.file_names)
        if are_shards(self.root):
            return self._headers_in_shards(file_names)
        headers = headers_of(self.root, file_names, self.known_headers)
        missing = [i for i, header in enumerate(headers) if isinstance(header, (FileNotFoundError, NotADirectoryError))]
        if missing:
            found = find_images(self.root, file_names, missing)
            if found.missing:
                self._refuse_missing(found, len(file_names))
            file_names = found.file_names
            found_headers = read_headers(os.path.join(self.root, file_names[i]) for i in missing)
            for i, header in zip(missing, found_headers, strict=True):
                headers[i] = header
            self.note_places("image names found in another spelling", found.respelled)
            what = f"image names found without the folders that the {self.source} writes before them"
            self.note_places(what, found.moved)
            if found.elsewhere:
                i = found.elsewhere[0]
                self.report.warn(
                    f"dataset {self.report.name}: {counted(len(found.elsewhere), 'images')}, such as "
                    f"{self.table.file_names[i]!r}, read from {self.root} although the {self.source} names another "
                    f"folder. Check that IMAGES belongs to {self.annotations}."
                )
        self.files = [os.path.join(self.root, name) for name in file_names]
        refuse_broken(self.report.name, self.root, self.annotations, file_names, headers)
        return file_names, headers

    def _headers_in_shards(self, file_names: list[str]) -> tuple[list[str], list[ImageHeader]]:
        index = ShardIndex(shard_paths(self.root))
        found = [index.find(name) for name in file_names]
        missing = [name for name, place in zip(file_names, found, strict=True) if place is None]
        if missing:
            examples = ", ".join(missing[:EXAMPLES]) + (", ..." if len(missing) > EXAMPLES else "")
            near = nearest_name(os.path.basename(missing[0]), index.names) if len(index.names) < MANY_NAMES else None
            raise FileNotFoundError(
                f"dataset {self.report.name}: {len(missing):,} of {len(file_names):,} images are in none of the "
                f"{len(index.paths):,} shards of {self.root}, or their names are there twice: {examples}. The shards "
                f"have {len(index.names):,} files{f', {near} among them' if near else ''}."
            )
        names = [index.names[place] for place in found]
        moved = [i for i, (name, given) in enumerate(zip(names, file_names, strict=True)) if name != given]
        self.note_places("image names found in another spelling, or another folder, in the shards", moved)
        self.files = [index.member(place) for place in found]
        self.places = index.places[found]
        headers = read_headers(self.files)
        refuse_broken(self.report.name, self.root, self.annotations, names, headers)
        return names, headers

    def _refuse_missing(self, found, count: int) -> None:
        examples = ", ".join(self.table.file_names[i] for i in found.missing[:EXAMPLES])
        ambiguous = (
            f" {len(found.ambiguous):,} of them would share a file with another image once the folders before their "
            "names are left out."
            if found.ambiguous
            else ""
        )
        raise FileNotFoundError(
            f"dataset {self.report.name}: {len(found.missing):,} of {count:,} images are missing in {self.root}: "
            f"{examples}{', ...' if len(found.missing) > EXAMPLES else ''}.{ambiguous} Do the image folder (IMAGES) "
            f"and the annotations (ANNOTATIONS, {self.annotations}) belong together? Either may be of another split."
            f"{hint_for_missing(self.root, self.table.file_names[found.missing[0]])}"
        )

    def rotations(self, headers: list[ImageHeader], stored: np.ndarray) -> np.ndarray:
        """Return (I,) bool, true for images to rotate by their EXIF orientation."""
        setting, given = self.settings.exif_rotation, self.table.given_sizes
        rotated = np.array([h.rotated for h in headers], dtype=bool)
        if not rotated.any():
            return rotated
        # Sizes and boxes reveal only quarter turns of images that are not square.
        shows = np.array([h.quarter_turn for h in headers], dtype=bool) & (stored[:, 0] != stored[:, 1])
        known = (given > 0).all(axis=1)
        upright_size = shows & known & (np.abs(given - stored[:, ::-1]) <= ROUNDING).all(axis=1)
        stored_size = shows & known & (np.abs(given - stored) <= ROUNDING).all(axis=1)
        out_stored, out_upright = self._stick_out(stored), self._stick_out(stored[:, ::-1])
        upright_box = shows & out_stored & ~out_upright
        stored_box = shows & out_upright & ~out_stored
        if setting == "stored":
            turned = np.zeros_like(rotated)
        elif setting == "upright":
            turned = rotated
            self.note("repaired", "images rotated as EXIF says (DATASETS.EXIF_ROTATION: upright)", turned)
        else:
            sized = upright_size | stored_size
            for_upright = upright_size | upright_box & ~sized
            for_stored = stored_size | stored_box & ~sized
            others = rotated & ~sized & (for_upright.any() and not for_stored.any())
            turned = upright_size | others
            what = f"images rotated as EXIF says, because the {self.source} has the rotated size"
            self.note("repaired", what, upright_size)
            what = "images rotated as EXIF says, as sizes or boxes of the dataset show (DATASETS.EXIF_ROTATION: auto)"
            self.note("repaired", what, others)
        what = f"images with an EXIF rotation, used as stored (DATASETS.EXIF_ROTATION: {setting})"
        self.note("noted", what, rotated & ~turned)
        self._warn_of_rotation(
            upright_box & ~turned, "as they are stored, but boxes stick out that way and not upright", "upright"
        )
        self._warn_of_rotation(
            stored_box & turned, "rotated as EXIF says, but boxes stick out that way and not as stored", "stored"
        )
        if setting == "auto":
            by_boxes = upright_box & turned & ~upright_size
            why = "rotated as EXIF says, because boxes stick out as stored and not upright"
            self._warn_of_rotation(by_boxes, why, "upright")
        return turned

    def _warn_of_rotation(self, where: np.ndarray, how: str, setting: str) -> None:
        if where.any():
            names = ", ".join(str(self.table.image_ids[i]) for i in np.flatnonzero(where)[:EXAMPLES])
            which = "all" if setting == "upright" else "none"
            self.report.warn(
                f"dataset {self.report.name}: {int(where.sum()):,} images with an EXIF rotation (image ids {names}) "
                f"are used {how}. DATASETS.EXIF_ROTATION: {setting} rotates {which} of the dataset's images."
            )

    def _stick_out(self, sizes: np.ndarray) -> np.ndarray:
        """Return (I,) bool, true if a box sticks out of an image of that size at the right or at the bottom."""
        outside = np.zeros(len(sizes), dtype=bool)
        limits = (sizes * (1 + STICKS_OUT) + ROUNDING)[self.table.image_index]
        outside[self.table.image_index[(self.table.boxes[:, 2:] + 1 > limits).any(axis=1)]] = True
        return outside

    def factors(self, sizes: np.ndarray, rotated: np.ndarray) -> np.ndarray | None:
        """Return (I, 2) factors to scale the annotations by, or None if all are 1.

        Args:
            sizes: (I, 2) width, height of the images as the dataset returns them.
            rotated: (I,) bool, true if EXIF asks for a rotation. Unless exif_rotation is "auto", swapped sizes of these
                images are accepted.
        """
        given, setting, source = self.table.given_sizes, self.settings.size_mismatch, self.source
        known = (given > 0).all(axis=1)
        self.note("noted", f"images without a size in the {source}", ~known)
        differs = known & (given != sizes).any(axis=1)
        by_rounding = differs & (np.abs(given - sizes) <= ROUNDING).all(axis=1)
        self.note("noted", f"images of another size than the {source} says, by a pixel", by_rounding)
        differs &= ~by_rounding
        swapped = differs & (np.abs(given - sizes[:, ::-1]) <= ROUNDING).all(axis=1)
        swapped &= ~self._stick_out(sizes) | rotated & (self.settings.exif_rotation != "auto")
        self.note("noted", f"images with width and height swapped in the {source}; their boxes fit", swapped)
        differs &= ~swapped
        annotated = np.zeros(len(sizes), dtype=bool)
        annotated[self.table.image_index] = True
        self.note("noted", f"images without boxes of another size than the {source} says", differs & ~annotated)
        wrong = differs & annotated
        if not wrong.any():
            return None
        if setting == "keep":
            what = (
                f"images of another size than the {source} says, boxes used as they are (DATASETS.SIZE_MISMATCH: keep)"
            )
            self.note("noted", what, wrong)
            return None
        compared = annotated & known & ~swapped
        factor = _common_factor(given[compared], sizes[compared])
        own = np.zeros(len(sizes), dtype=bool)
        own[wrong] = [_common_factor(given[i : i + 1], sizes[i : i + 1]) is not None for i in np.flatnonzero(wrong)]
        if setting == "error" or setting == "scale" and factor is None or not own[wrong].all():
            self._refuse_sizes(wrong, own, factor, sizes)
        scaled = f"by {factor:.4g}" if setting == "scale" else "each by its own factor"
        what = f"images of another size than the {source} says, annotations scaled {scaled} (DATASETS.SIZE_MISMATCH)"
        self.note("repaired", what, wrong)
        return np.where(wrong[:, None], sizes / np.maximum(given, 1), 1.0)

    def _refuse_sizes(self, wrong, own, factor, sizes) -> None:
        given, table = self.table.given_sizes, self.table
        places = np.flatnonzero(wrong)
        examples = "; ".join(
            f"{table.file_names[i]} {sizes[i, 0]} x {sizes[i, 1]}, annotated {given[i, 0]} x {given[i, 1]}"
            for i in places[:EXAMPLES]
        )
        if factor is not None:
            remedy = (
                f"All are {factor:.4g} times as large as annotated: DATASETS.SIZE_MISMATCH: scale scales boxes, masks "
                "and keypoints."
            )
        elif own[wrong].all():
            remedy = (
                "Their sizes do not agree on one factor, but each image has kept its proportions: "
                "DATASETS.SIZE_MISMATCH: scale_each scales the annotations of each by its own factor."
            )
        else:
            odd = table.file_names[np.flatnonzero(wrong & ~own)[0]]
            remedy = f"Proportions have changed too ({odd}): no factor fits. Use the images that were annotated."
        raise ValueError(
            f"dataset {self.report.name}: {len(places):,} of {len(wrong):,} images have another size than the "
            f"{self.source} says: {examples}{'; ...' if len(places) > EXAMPLES else ''}. {remedy} If only the sizes in "
            f"the {self.source} are wrong and the boxes are in pixels of these files, set DATASETS.SIZE_MISMATCH: keep."
        )

    def kinds(self, headers: list[ImageHeader], file_names: list[str]) -> None:
        """Report truncated images and those that are not 8-bit RGB."""
        self.note("repaired", "truncated images (what is missing is grey)", [h.truncated for h in headers])
        self.note("noted", "images with several frames, of which the first is used", [h.animated for h in headers])
        modes = Counter(h.mode for h in headers if h.mode != "RGB")
        for mode in sorted(modes):
            self.note("repaired", f"images of mode {mode} converted to RGB", [h.mode == mode for h in headers])
        deep = np.flatnonzero([h.deep for h in headers])
        if len(deep):
            self._check_values(headers, [self.files[i] for i in deep], [headers[i].mode for i in deep])

    def _check_values(self, headers, files: list, modes: list[str]) -> None:
        """Report how images of more than 8 bits are mapped; warn if values exceed the range or use little of it."""
        value_range = self.settings.value_range
        chosen = np.unique(np.linspace(0, len(files) - 1, min(SAMPLES, len(files))).astype(int))
        extremes = []
        for i in chosen:
            try:
                extremes.append((*value_extremes(files[i]), modes[i]))
            except OSError:  # truncated; reported as such
                continue
        if not extremes:
            return
        low, high = min(e[0] for e in extremes), max(e[1] for e in extremes)
        ranges = {value_range or default_range(mode, top) for _, top, mode in extremes}
        stated = " or ".join(f"{a:g}..{b:g}" for a, b in sorted(ranges))
        what = f"images of more than 8 bits, values {stated} mapped to 0..255 (INPUT.VALUE_RANGE)"
        self.note("noted", what, [h.deep for h in headers])
        bottom, top = min(a for a, _ in ranges), max(b for _, b in ranges)
        if len(ranges) > 1:
            trouble = "have different ranges"
        elif high > top or low < bottom:
            trouble = f"exceed the range {stated} and are clipped"
        elif high - bottom < USED_PART * (top - bottom):
            trouble = (
                f"use {(high - bottom) / (top - bottom):.2%} of the range {stated}, so that images are nearly black"
            )
        else:
            return
        self.report.warn(
            f"dataset {self.report.name}: values of {len(extremes):,} images of more than 8 bits ({low:g}..{high:g}) "
            f"{trouble}. INPUT.VALUE_RANGE: ({low:g}, {high:g}) maps them to 0..255; use the same for every dataset "
            "of a model."
        )


def headers_of(root: str, file_names: Sequence[str], known: Mapping[str, ImageHeader]) -> list[ImageHeader | OSError]:
    """Return the headers of images in a folder, in order. For a file that cannot be read the element is the error.

    Headers in `known`, by file name, are not read again.
    """
    unknown = [name for name in file_names if name not in known]
    read = dict(zip(unknown, read_headers(os.path.join(root, name) for name in unknown), strict=True))
    return [read[name] if name in read else known[name] for name in file_names]


def refuse_broken(dataset: str, root: str, annotations: str, file_names: Sequence[str], headers: Sequence) -> None:
    """Raise OSError if a header is an error; the first few are named.

    Args:
        dataset: its name. root: image folder. annotations: annotation file or folder.
        file_names, headers: one of each per image, see `read_headers`.
    """
    broken = [i for i, header in enumerate(headers) if isinstance(header, OSError)]
    if broken:
        names = "; ".join(f"{file_names[i]}: {headers[i]}" for i in broken[:EXAMPLES])
        raise OSError(
            f"dataset {dataset}: {len(broken):,} of {len(headers):,} images in {root} cannot be decoded: {names}"
            f"{'; ...' if len(broken) > EXAMPLES else ''}. Replace them or take them out of {annotations}."
        )


def _common_factor(given: np.ndarray, sizes: np.ndarray) -> float | None:
    """Return f with |sizes - f * given| <= ROUNDING, (N, 2) each, or None if there is none."""
    lowest, highest = ((sizes - ROUNDING) / given).max(), ((sizes + ROUNDING) / given).min()
    return None if lowest > highest else float(np.clip((sizes / given).mean(), lowest, highest))
