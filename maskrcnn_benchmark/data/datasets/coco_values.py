"""Read values of a COCO json as exporters write them: numbers as text, flags as words, ids of two types.

Every function accepts whatever JSON can hold. Training and evaluation both use these functions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.data.datasets.value_column import ValueColumn

FLAGS = {"": False, "0": False, "false": False, "no": False, "none": False, "null": False} | {
    "1": True,
    "true": True,
    "yes": True,
}

# Square pixels. COCO's area ranges end here; larger objects are never counted.
LARGEST_AREA = 1e10

_WHOLE = re.compile(r"\s*([+-]?[0-9]{1,18})(\.0*)?\s*", re.ASCII)


def whole_number(value) -> int | None:
    """Convert an int, float or text to a whole number; None for everything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    match = _WHOLE.fullmatch(value) if isinstance(value, str) else None
    return int(match[1]) if match else None


def real_number(value) -> float:
    """Convert an int, float or text to a number; NaN for everything else."""
    try:
        return float(value) if isinstance(value, (int, float, str)) else float("nan")
    except (ValueError, OverflowError):
        return float("nan")


def flag(value) -> bool | None:
    """Convert a value to True or False; a missing one is False. None if it is neither."""
    if value is None:
        return False
    if isinstance(value, str):
        known = FLAGS.get(value.strip().lower())
        if known is not None:
            return known
        value = real_number(value)
    if isinstance(value, (int, float)) and value == value:  # not NaN
        return bool(value)
    return None


def flags(values: Sequence, ids: Sequence, name: str, ann_file: str, report: DatasetReport) -> np.ndarray:
    """Convert a column of 0 and 1 to (len(values),) bool. Text is converted and counted.

    Raises:
        ValueError: a value cannot be read as a flag.
    """
    read = np.zeros(len(values), dtype=bool)
    as_text = []
    for i, value in enumerate(values):
        if value is None or value is False or value == 0:
            continue
        known = flag(value)
        if known is None:
            raise ValueError(
                f"'annotations' of {ann_file}: annotation id {ids[i]!r:.80} has {name} {value!r:.80}; write 0 or 1"
            )
        read[i] = known
        if isinstance(value, str):
            as_text.append(ids[i])
    report.add("repaired", f"{name} written as text", as_text)
    return read


def positions(
    values: Sequence, known: Sequence, report: DatasetReport | None = None, kind: str = "image"
) -> np.ndarray:
    """Return (len(values),) int64, the index of each value in `known`; -1 if it is not there.

    1, 1.0 and "1" are the same id where `known` has only one of them; these matches are counted.
    """
    places = {value: place for place, value in enumerate(known)}
    try:
        found = np.fromiter((places.get(value, -1) for value in values), dtype=np.int64, count=len(values))
    except TypeError:  # an id that is a list or an object
        found = [places.get(value, -1) if isinstance(value, (int, float, str)) else -1 for value in values]
        found = np.array(found, dtype=np.int64)
    lost = np.flatnonzero(found < 0)
    if not len(lost):
        return found
    by_number: dict = {}
    for place, value in enumerate(known):
        number = whole_number(value)
        by_number[number] = -1 if number in by_number else place  # two ids with this number: ambiguous
    by_number.pop(None, None)
    matched = []
    for i in lost:
        place = by_number.get(whole_number(values[i]), -1)
        if place >= 0:
            found[i] = place
            matched.append(values[i])
    if report is not None and matched:
        there, here = _type_of(known[found[lost[found[lost] >= 0][0]]]), _type_of(matched[0])
        what = f"{kind} ids that are {here} in one table and {there} in the other, taken as the same"
        report.add("repaired", what, [repr(value) for value in matched], "ids")
    return found


def _type_of(value) -> str:
    return "text" if isinstance(value, str) else "numbers"


def boxes(values: Sequence) -> tuple[np.ndarray, list[int], list[int]]:
    """Convert boxes to numbers.

    Returns:
        Boxes, (len(values), 4) float64, NaN where an entry is not four numbers.
        Indices of the entries whose numbers were written as text.
        Indices of all entries that were not lists of four numbers, including those written as text.
    """
    if not len(values):
        return np.zeros((0, 4)), [], []
    try:
        array = np.array(values)
        if array.shape == (len(values), 4) and array.dtype.kind in "iuf":
            return array.astype(np.float64), [], []
    except (TypeError, ValueError, OverflowError):
        pass
    array = np.full((len(values), 4), np.nan)
    as_text, odd = [], []
    for i, (row, box) in enumerate(zip(array, values, strict=True)):
        text = isinstance(box, str)
        if text:
            box = box.strip(" []()").replace(",", " ").split()
        if text or not isinstance(box, list) or len(box) != 4 or not {int, float}.issuperset(map(type, box)):
            odd.append(i)
        if not isinstance(box, (list, tuple)) or len(box) != 4:
            continue
        row[:] = [real_number(value) for value in box]
        if (text or str in map(type, box)) and np.isfinite(row).all():
            as_text.append(i)
    return array, as_text, odd


def areas(values: ValueColumn, ids: Sequence, report: DatasetReport) -> np.ndarray:
    """Convert areas to (len(values),) float64; NaN where the area of the box is to be used instead.

    Values outside (0, LARGEST_AREA] become NaN and are counted; missing ones are not counted.
    """
    try:
        # None becomes NaN, text is parsed
        array = np.array(values if values.array is None else values.array, dtype=np.float64).reshape(len(values))
    except (TypeError, ValueError, OverflowError):
        array = np.array([real_number(value) for value in values])
    usable = (array > 0) & (array <= LARGEST_AREA)
    odd = [ids[i] for i in np.flatnonzero(~usable) if values[i] is not None]
    report.add("repaired", "areas that are no number above 0, replaced by that of the box", odd)
    if values.array is None:
        as_text = [ids[i] for i, value in enumerate(values) if isinstance(value, str)]
        report.add("repaired", "areas written as text", as_text)
    return np.where(usable, array, np.nan)
