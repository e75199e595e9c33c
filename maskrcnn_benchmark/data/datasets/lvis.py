"""LVIS: a COCO json whose images are annotated for some of the categories only (Gupta et al., CVPR 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from maskrcnn_benchmark.data.datasets.coco import COCODataset
from maskrcnn_benchmark.data.datasets.coco_json import load_json
from maskrcnn_benchmark.data.datasets.coco_values import whole_number
from maskrcnn_benchmark.utils.text_file import open_regular

FREQUENCIES = ("r", "c", "f")


@dataclass(frozen=True)
class Federation:
    """Federated annotation: for which categories each image is annotated.

    Attributes:
        absent: image id -> ids of the categories without an object in the image ("neg_category_ids").
        incomplete: image id -> ids of the categories whose objects in the image are not all annotated
            ("not_exhaustive_category_ids").
        frequency: category id -> "r" (rare), "c" (common) or "f" (frequent); categories without one are left out.
    """

    absent: dict[object, set[int]]
    incomplete: dict[object, set[int]]
    frequency: dict[int, str]


class LVISDataset(COCODataset):
    """Images of an LVIS json. Arguments, items and errors: see COCODataset.

    File names come from "coco_url" where there is no "file_name": train2017/NUMBER.jpg, below COCO's folder. Evaluation
    follows LVIS, see evaluation/lvis.py.
    """

    def federation(self) -> Federation:
        """Read for which categories each image is annotated.

        Raises:
            ValueError: the file is not an LVIS file.
        """
        content = _read(self.ann_file)
        if not any(i.get("neg_category_ids") or i.get("not_exhaustive_category_ids") for i in content["images"]):
            raise ValueError(
                f"{self.ann_file}: no image has 'neg_category_ids' or 'not_exhaustive_category_ids'; expected an LVIS "
                "file. Use FORMAT: coco for others."
            )
        frequencies = {whole_number(c.get("id")): c.get("frequency") for c in content["categories"]}
        return Federation(
            {image["id"]: _ids(image.get("neg_category_ids")) for image in content["images"]},
            {image["id"]: _ids(image.get("not_exhaustive_category_ids")) for image in content["images"]},
            {number: letter for number, letter in frequencies.items() if letter in FREQUENCIES},
        )


def _ids(numbers: list | None) -> set[int]:
    return set(map(whole_number, numbers or ())) - {None}


class _Content(msgspec.Struct):
    """The part of an LVIS file that `federation` requires, without its annotations."""

    images: list[dict]
    categories: list[dict]


def _read(ann_file: str) -> dict:
    with open_regular(ann_file) as file:
        data = file.read()
    try:
        content = msgspec.json.decode(data, type=_Content)
        return {"images": content.images, "categories": content.categories}
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return load_json(ann_file)
