"""Collect the annotations of a file in columns, a batch of records at a time.

Shapes: A annotations of the file, before any is dropped; J keypoints of an object.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import attrgetter

import numpy as np

from maskrcnn_benchmark.data.datasets.coco_values import boxes
from maskrcnn_benchmark.data.datasets.mask_columns import MaskColumns
from maskrcnn_benchmark.data.datasets.records import ObjectRecord, batches
from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.data.datasets.segmentation_values import bounds_of
from maskrcnn_benchmark.data.datasets.value_column import ValueColumn

# Keys of an annotation that are kept as they are.
KEPT = ("id", "image_id", "category_id", "iscrowd", "area")


class Columns:
    """Values of all annotations of a file, in one array or list per key.

    Args:
        rows: see `records.batches`.
        source: annotation file, for errors.

    Attributes:
        id, image_id, category_id, iscrowd, area: ValueColumn of A values each, as the file has them.
        xywh: (A, 4) float64 boxes; NaN where there is none. Boxes that are missing, or 0 pixels wide and high, are
            replaced by the bounding box of the segmentation.
        text_boxes: indices of the annotations whose box was text.
        completed: indices of the annotations whose box was taken from the segmentation.
        masks, keypoints: see MaskColumns and KeypointColumns.
    """

    def __init__(self, rows: Iterable, source: str):
        self._length = 0
        self.text_boxes: list[int] = []
        self.completed: list[int] = []
        self.masks = MaskColumns()
        self.keypoints = KeypointColumns()
        self._given_boxes: dict[int, object] = {}  # original boxes that are malformed or empty, by annotation
        parts = [self._extend(batch) for batch in batches(rows, source)]
        self.xywh = np.concatenate([np.zeros((0, 4)), *(part.pop("xywh") for part in parts)])
        self.id, self.image_id, self.category_id, self.iscrowd, self.area = (
            ValueColumn.joined([part.pop(key) for part in parts]) for key in KEPT
        )

    def __len__(self) -> int:
        return self._length

    def _extend(self, batch: Sequence[ObjectRecord]) -> dict:
        first = self._length
        self._length += len(batch)
        self.masks.extend([record.segmentation for record in batch])
        self.keypoints.extend([record.keypoints for record in batch])
        given = [record.bbox for record in batch]
        xywh, as_text, odd = boxes(given)
        self.text_boxes += [first + i for i in as_text]
        lacking = ~np.isfinite(xywh).all(axis=1) | (xywh[:, 2:] == 0).all(axis=1)
        self._given_boxes.update((first + i, given[i]) for i in {*odd, *np.flatnonzero(lacking).tolist()})
        for i in np.flatnonzero(lacking).tolist():
            found = bounds_of(batch[i].segmentation)
            if found is not None:
                xywh[i] = found
                self.completed.append(first + i)
        columns = {key: ValueColumn(map(attrgetter(key), batch)) for key in KEPT}
        return {"xywh": xywh, **columns}

    def repeated(self, report: DatasetReport) -> np.ndarray:
        """Return (A,) bool, true if an earlier annotation has the same id, image, category and box."""
        repeated = np.zeros(len(self), dtype=bool)
        if self.id.is_unique():
            return repeated
        first: dict[str, int] = {}
        reused = []
        for i, number in enumerate(self.id):
            if number is None:
                continue  # annotations without ids are not repetitions of each other
            known = first.setdefault(repr(number), i)
            if known != i:
                repeated[i] = self._say_the_same(known, i)
                if not repeated[i]:
                    reused.append(number)
        report.add("noted", "annotation ids used for different annotations", reused)
        return repeated

    def _say_the_same(self, i: int, j: int) -> bool:
        if self.image_id[i] != self.image_id[j] or self.category_id[i] != self.category_id[j]:
            return False
        given = self._given_boxes
        if i in given or j in given:
            return i in given and j in given and given[i] == given[j]
        return bool((self.xywh[i] == self.xywh[j]).all())


class KeypointColumns:
    """The "keypoints" entries of A annotations, in one flat array."""

    def __init__(self):
        self._numbers = array("d")
        self._lengths: list[int] = []
        self._odd: dict[int, object] = {}  # entries that are not lists of numbers

    def extend(self, entries: Sequence) -> None:
        """Append one entry per annotation."""
        if not any(entries):
            odd = {i: entry for i, entry in enumerate(entries) if entry is not None and entry != []}
            self._odd.update((len(self._lengths) + i, entry) for i, entry in odd.items())
            self._lengths += [0] * len(entries)
            return
        for entry in entries:
            before = len(self._numbers)
            if entry is not None and entry != []:
                try:
                    self._numbers.fromlist(entry)
                except (TypeError, OverflowError):
                    del self._numbers[before:]
                    self._odd[len(self._lengths)] = entry
            self._lengths.append(len(self._numbers) - before)

    def table(self, rows: np.ndarray, ids: list, report: DatasetReport) -> np.ndarray | None:
        """Return the keypoints of `rows`, (len(rows), J, 3) float32; None if no row has any.

        J is the most common number of keypoints. Entries that are missing or broken become zeros, which means not
        visible; broken ones are counted.

        Args:
            rows: indices of annotations.
            ids: annotation ids of the rows, for the report.
            report: receives the findings.
        """
        if not self._odd and not self._numbers:
            return None
        starts = np.concatenate(([0], np.cumsum(self._lengths, dtype=np.int64)))
        numbers = np.frombuffer(self._numbers, dtype=np.float64) if self._numbers else np.zeros(0)
        lengths = np.diff(starts)[rows].tolist()
        if self._odd:
            odd = [self._odd.get(i) for i in rows.tolist()]
            lengths = [len(e) if isinstance(e, list) else n for e, n in zip(odd, lengths, strict=True)]
        of_length = Counter(filter(None, lengths))
        if not of_length:
            return None
        size = max(of_length, key=lambda length: (length % 3 == 0, of_length[length]))
        count = size // 3
        table = np.zeros((len(rows), count, 3), dtype=np.float32)
        broken = []
        for row, i, number in zip(table.reshape(len(rows), -1), rows.tolist(), ids, strict=True):
            entry = self._odd.get(i, numbers[starts[i] : starts[i + 1]])
            if i not in self._odd and not len(entry):
                continue
            try:
                with np.errstate(over="ignore"):  # beyond float32: not finite
                    row[:] = np.array(entry if isinstance(entry, (list, np.ndarray)) else [], dtype=np.float32)
            except (TypeError, ValueError, OverflowError):
                row[:] = np.nan  # of another length, or not numbers
            if not np.isfinite(row).all():
                row[:] = 0
                broken.append(number)
        what = f"broken keypoints (not {count} times three finite numbers), taken for not visible"
        report.add("repaired", what, broken)
        return table
