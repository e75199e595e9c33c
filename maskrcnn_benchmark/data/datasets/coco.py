"""Pictures with boxes from a COCO json.

Shapes: I pictures, B boxes (all pictures together), K foreground classes.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
from collections import Counter

import numpy as np
import torch
from torch.utils.data import Dataset

from maskrcnn_benchmark.data.datasets.coco_annotations import CocoAnnotations, read_coco
from maskrcnn_benchmark.data.datasets.pictures import read_headers, read_picture
from maskrcnn_benchmark.data.datasets.report import EXAMPLES, DatasetReport
from maskrcnn_benchmark.data.datasets.string_table import StringTable
from maskrcnn_benchmark.structures.bounding_box import BoxList

logger = logging.getLogger(__name__)

# A box may stick out this far (pixels) before clipping it is worth a line in the report: annotation tools round.
ROUNDING = 1.0


class COCODataset(Dataset):
    """Boxes and labels of a COCO instances json, one item a picture.

    Args:
        ann_file: the json. "info", "licenses", "area", "iscrowd" and "segmentation" are not needed.
        root: folder that the json's file names are relative to.
        remove_images_without_annotations: leave out pictures that have no usable box (for training).
        transforms: called (image, target) -> (image, target); None gives PIL pictures.
        name: what messages call the data set; default: the json's file name without its ending.

    An item is (image, BoxList, index): a PIL RGB picture, inclusive boxes in its pixels with the field "labels"
    (int64, 1..K), and the index asked for; both go through `transforms`. Crowd regions are left out.

    The file and every picture's header are checked at once, and the outcome is logged as one line (`report`). Boxes
    are clipped to the picture as it is on the disk, whatever size the json gives.

    Attributes:
        ids: I image ids, ascending. class_names: K names; label k is class_names[k - 1].
        categories: name by category id of the json.
        json_category_id_to_contiguous_id, contiguous_category_id_to_json_id: category id <-> label.
        id_to_img_map: image id by index. report: what was dropped and repaired.

    Raises:
        FileNotFoundError: the json, the folder, or pictures are missing; the first few are named.
        ValueError: the json is no COCO instances file, contradicts itself, or nothing is left to train on.
        OSError: pictures cannot be decoded; the first few are named.
    """

    def __init__(
        self,
        ann_file: str,
        root: str,
        remove_images_without_annotations: bool,
        transforms=None,
        *,
        name: str | None = None,
    ):
        self.ann_file = os.fspath(ann_file)
        self.root = os.fspath(root)
        self.name = name or os.path.splitext(os.path.basename(self.ann_file))[0]
        self._transforms = transforms
        self._coco = None
        self.report = DatasetReport(self.name)

        table = read_coco(self.ann_file, self.report)
        if remove_images_without_annotations:
            self._leave_out_pictures(table)  # so that the pictures of these need not be there
        sizes, turned = self._check_pictures(table)
        _clip(table, sizes, self.report)
        if remove_images_without_annotations:
            trained = table.pictures_to_train_on()
            sizes, turned = sizes[trained], turned[trained]
            self._leave_out_pictures(table)
        crowd = [table.annotation_ids[i] for i in np.flatnonzero(table.crowd)]
        self.report.add("dropped", "crowd regions", crowd)
        table.select_boxes(~table.crowd)

        self.ids = table.image_ids
        self.class_names = table.class_names
        self.categories = dict(zip(table.category_ids, table.class_names, strict=True))
        self.json_category_id_to_contiguous_id = {number: k for k, number in enumerate(table.category_ids, start=1)}
        self.contiguous_category_id_to_json_id = dict(enumerate(table.category_ids, start=1))
        self.id_to_img_map = dict(enumerate(self.ids))

        # Flat arrays, no object a box: worker processes share them with the parent for good.
        self._file_names = StringTable(table.file_names)
        self._sizes = sizes
        self._turned = turned
        self._boxes = table.boxes
        self._labels = table.labels
        self._offsets = np.searchsorted(table.picture, np.arange(len(self.ids) + 1))

        self.report.totals = {"pictures": len(self.ids), "boxes": len(table.boxes), "classes": len(self.class_names)}
        logger.info("%s", self.report)
        if remove_images_without_annotations and not len(self._boxes):
            raise ValueError(f"data set {self.report} - nothing is left to train on")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int):
        index = range(len(self))[index]  # negative ones count from the end; IndexError past it
        path = self.path(index)
        try:
            image = read_picture(path, upright=bool(self._turned[index]))
            target = self.get_groundtruth(index, image.size)
            if self._transforms is not None:
                image, target = self._transforms(image, target)
        except Exception as error:
            raise RuntimeError(
                f"data set {self.name}: picture {path} (image id {self.ids[index]}) failed: "
                f"{type(error).__name__}: {error}"
            ) from error
        return image, target, index

    def get_groundtruth(self, index: int, size: tuple[int, int] | None = None) -> BoxList:
        """The boxes of a picture, before transforms.

        Args:
            size: (width, height) of the decoded picture, if it is at hand: a file that changed since the start may
                not have boxes outside it.
        """
        rows = slice(self._offsets[index], self._offsets[index + 1])
        known_size = tuple(self._sizes[index].tolist())
        target = BoxList(torch.from_numpy(self._boxes[rows].copy()), size or known_size, mode="xyxy")
        target.add_field("labels", torch.from_numpy(self._labels[rows].copy()))
        if size is not None and size != known_size:
            target = target.clip_to_image(remove_empty=True)
        return target

    def path(self, index: int) -> str:
        """The picture's file."""
        return os.path.join(self.root, self._file_names[index])

    def image_id(self, index: int):
        """What the annotation file calls the picture."""
        return self.ids[index]

    def get_img_info(self, index: int) -> dict:
        """id, file_name, and width and height of the picture as items have it (not what the json says of it)."""
        width, height = self._sizes[index].tolist()
        return {"id": self.ids[index], "file_name": self._file_names[index], "width": width, "height": height}

    @property
    def coco(self):
        """pycocotools' view of the annotation file, read when first asked for; "area" and "iscrowd" are filled in."""
        if self._coco is None:
            self._coco = load_pycocotools(self.ann_file)
        return self._coco

    def __getstate__(self):
        return {**self.__dict__, "_coco": None}  # too big to send to a worker that was not forked

    def _leave_out_pictures(self, table: CocoAnnotations) -> None:
        keep = table.pictures_to_train_on()
        left_out = [table.image_ids[i] for i in np.flatnonzero(~keep)]
        self.report.add("dropped", "pictures without usable annotations", left_out, "image ids")
        table.select_pictures(keep)

    def _check_pictures(self, table: CocoAnnotations) -> tuple[np.ndarray, np.ndarray]:
        """Reads all headers: (I, 2) int64 width and height as items will have them, (I,) bool EXIF turn to apply."""
        if table.file_names and not os.path.isdir(self.root):
            raise FileNotFoundError(f"data set {self.name}: picture folder {self.root} does not exist")
        headers = read_headers(os.path.join(self.root, file_name) for file_name in table.file_names)
        self._refuse_unreadable(table, headers)

        stored = np.array([(h.width, h.height) for h in headers], dtype=np.int64).reshape(-1, 2)
        given = table.json_sizes
        differs = (given != stored).any(axis=1)
        rotated = np.array([h.rotated for h in headers], dtype=bool)
        quarter_turn = np.array([h.quarter_turn for h in headers], dtype=bool)
        turned = quarter_turn & differs & (given == stored[:, ::-1]).all(axis=1)
        unknown = (given == 0).any(axis=1)

        def report(action: str, what: str, where) -> None:
            self.report.add(action, what, [table.image_ids[i] for i in np.flatnonzero(where)], "image ids")

        report("repaired", "truncated pictures (what is missing is grey)", [h.truncated for h in headers])
        report("repaired", "pictures without a size in the json", unknown)
        report("repaired", "pictures of another size than the json says", differs & ~turned & ~unknown)
        report("repaired", "pictures turned as EXIF says, because the json has the turned size", turned)
        report("noted", "pictures with an EXIF rotation, used as stored", rotated & ~turned)
        modes = Counter(h.mode for h in headers if h.mode != "RGB")
        for mode in sorted(modes):
            report("repaired", f"pictures of mode {mode} converted to RGB", [h.mode == mode for h in headers])
        return np.where(turned[:, None], stored[:, ::-1], stored), turned

    def _refuse_unreadable(self, table: CocoAnnotations, headers: list) -> None:
        missing = [i for i, header in enumerate(headers) if isinstance(header, (FileNotFoundError, NotADirectoryError))]
        if missing:
            names = ", ".join(table.file_names[i] for i in missing[:EXAMPLES])
            raise FileNotFoundError(
                f"data set {self.name}: {len(missing):,} of {len(headers):,} pictures are missing in {self.root}: "
                f"{names}{', ...' if len(missing) > EXAMPLES else ''}. Is the picture folder the right one?"
            )
        broken = [i for i, header in enumerate(headers) if isinstance(header, OSError)]
        if broken:
            names = "; ".join(f"{table.file_names[i]}: {headers[i]}" for i in broken[:EXAMPLES])
            raise OSError(
                f"data set {self.name}: {len(broken):,} of {len(headers):,} pictures in {self.root} cannot be decoded: "
                f"{names}{'; ...' if len(broken) > EXAMPLES else ''}. Replace them or take them out of {self.ann_file}."
            )


def load_pycocotools(ann_file: str):
    """pycocotools.coco.COCO of a file, without its prints, with "area", "iscrowd" and "info" filled in if missing."""
    from pycocotools.coco import COCO

    coco = COCO()
    with open(ann_file, encoding="utf-8") as file:
        coco.dataset = json.load(file)
    coco.dataset.setdefault("info", {})
    for number, annotation in enumerate(coco.dataset.setdefault("annotations", []), start=1):
        annotation.setdefault("id", number)
        annotation.setdefault("iscrowd", 0)
        sides = annotation["bbox"][2:] if isinstance(annotation.get("bbox"), list) else []
        usable = len(sides) == 2 and all(isinstance(side, (int, float)) for side in sides)
        annotation.setdefault("area", sides[0] * sides[1] if usable else 0)
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _clip(table: CocoAnnotations, sizes: np.ndarray, report: DatasetReport) -> None:
    """Cuts boxes at the border of their pictures and drops what is empty then; `sizes` is (I, 2) width, height."""
    limits = (sizes[table.picture] - 1).astype(np.float32)
    limits = np.concatenate([limits, limits], axis=1)
    clipped = np.clip(table.boxes, 0, limits)
    inside = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    moved = (np.abs(clipped - table.boxes) > ROUNDING).any(axis=1)

    def ids(where: np.ndarray) -> list:
        return [table.annotation_ids[i] for i in np.flatnonzero(where)]

    report.add("dropped", "boxes outside the picture", ids(~inside))
    report.add("repaired", "boxes clipped to the picture", ids(inside & moved))
    table.boxes = clipped
    table.select_boxes(inside)
