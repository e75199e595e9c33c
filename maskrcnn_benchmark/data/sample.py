"""Sample image that ships with the package, for trying out a model: handwritten digits on a photograph.

`make tiny-models` composes it from scikit-learn's data; `python tools/make_digits.py --scene FILE.jpg` composes others.
Its digits and its part of the photograph are in no training scene. The photograph is by danielbuechele (CC BY 2.0).
"""

from __future__ import annotations

import json
from pathlib import Path

_IMAGE = Path(__file__).resolve().parent / "sample_image" / "digits.jpg"


def sample_image() -> str:
    """Return the path of the image."""
    return str(_IMAGE)


def sample_objects() -> list[tuple[str, tuple[float, float, float, float]]]:
    """Return class name and box of each object in the image; boxes are x, y, width, height in pixels."""
    content = json.loads(_IMAGE.with_suffix(".json").read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in content["categories"]}
    return [(names[each["category_id"]], tuple(each["bbox"])) for each in content["annotations"]]
