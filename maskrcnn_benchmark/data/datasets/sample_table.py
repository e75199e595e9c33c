"""Hold the arrays from which a dataset makes its samples, in memory or mapped from a file.

Shapes: I images, B objects of all images together, K foreground classes, J keypoints of an object.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable
from maskrcnn_benchmark.data.datasets.image_checks import CheckedImages
from maskrcnn_benchmark.data.datasets.mask_table import MaskTable
from maskrcnn_benchmark.data.datasets.string_table import StringTable
from maskrcnn_benchmark.data.datasets.value_column import ValueColumn
from maskrcnn_benchmark.utils.array_file import ArrayFile


@dataclass
class SampleTable:
    """Checked images and their objects.

    Attributes:
        ids: I image ids of the annotations.
        file_names: I names below the image folder.
        sizes: (I, 2) int64 width and height before transforms.
        turned: (I,) bool, true if the EXIF rotation is applied.
        truncated: (I,) bool, true if the file ends early.
        factors, places: (I, 2) float64 and (I, 3) int64, or None, see CheckedImages.
        offsets: (I + 1,) int64, the first object of each image, and B.
        boxes: (B, 4) float32 inclusive corners x1, y1, x2, y2 in pixels.
        labels: (B,) int64, 1..K.
        masks: masks of the B objects, or None.
        keypoints, difficult, segments: (B, J, 3) float32, (B,) bool and (B,) int64, or None, see AnnotationTable.
        category_ids, class_names: K each.
        keypoint_names: J strings, or None.
        more: further arrays by name, added by the dataset's class.
        file: file that the arrays are mapped from; None if they are in memory.
    """

    ids: ValueColumn
    file_names: StringTable
    sizes: np.ndarray
    turned: np.ndarray
    truncated: np.ndarray
    factors: np.ndarray | None
    places: np.ndarray | None
    offsets: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    masks: MaskTable | None
    keypoints: np.ndarray | None
    difficult: np.ndarray | None
    segments: np.ndarray | None
    category_ids: list
    class_names: list[str]
    keypoint_names: list[str] | None
    more: dict[str, np.ndarray] = field(default_factory=dict)
    file: ArrayFile | None = None

    @classmethod
    def of(cls, table: AnnotationTable, checked: CheckedImages, more: dict[str, np.ndarray]) -> SampleTable:
        """Make a table from annotations that are fitted to checked images."""
        return cls(
            ids=ValueColumn(table.image_ids),
            file_names=StringTable(table.file_names),
            sizes=checked.sizes,
            turned=checked.turned,
            truncated=checked.truncated,
            factors=checked.factors,
            places=checked.places,
            offsets=np.searchsorted(table.image_index, np.arange(len(table.image_ids) + 1)),
            boxes=table.boxes,
            labels=table.labels,
            masks=table.masks,
            keypoints=table.keypoints,
            difficult=table.difficult,
            segments=table.segments,
            category_ids=table.category_ids,
            class_names=table.class_names,
            keypoint_names=table.keypoint_names,
            more=more,
        )

    def to_file(self) -> tuple[dict, dict[str, np.ndarray]]:
        """Return the fields that are not arrays, for JSON, and the arrays by name."""
        meta, arrays = {}, {}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "file":
                continue
            if isinstance(value, np.ndarray):
                arrays[each.name] = value
            elif isinstance(value, (ValueColumn, StringTable, MaskTable)):
                arrays |= {f"{each.name}.{name}": array for name, array in value.to_arrays().items()}
            elif each.name == "more":
                arrays |= {f"more.{name}": array for name, array in value.items()}
            else:
                meta[each.name] = value
        return meta, arrays

    @classmethod
    def from_file(cls, file: ArrayFile) -> SampleTable:
        """Make a table with mapped arrays; `file.meta["table"]` is the first result of `to_file`.

        Raises:
            KeyError: a field is missing.
        """
        values, known = dict(file.meta["table"]), {each.name for each in fields(cls)}
        parts: dict[str, dict[str, np.ndarray]] = {"more": {}}
        for name, array in file.arrays.items():
            whole, _, part = name.partition(".")
            if whole not in known:  # arrays of a SourceState (sources.py)
                continue
            if part:
                parts.setdefault(whole, {})[part] = array
            else:
                values[name] = array
        kinds = {"ids": ValueColumn.from_arrays, "file_names": StringTable.from_arrays, "masks": MaskTable.from_arrays}
        values |= {name: kinds.get(name, dict)(arrays) for name, arrays in parts.items()}
        missing = known - values.keys() - {"file"}
        if missing:
            raise KeyError(f"{file.path} lacks {', '.join(sorted(missing))}")
        return cls(**values, file=file)

    def __getstate__(self) -> dict:
        """Pickle a mapped table as its path: the other process maps the file too."""
        return self.__dict__ if self.file is None else {"path": self.file.path, "crc": self.file.crc}

    def __setstate__(self, state: dict) -> None:
        if "crc" in state:
            file = ArrayFile(state["path"], check=False)
            if file.crc != state["crc"]:
                raise RuntimeError(f"annotation table {file.path} has been replaced while in use; start again")
            state = self.from_file(file).__dict__
        self.__dict__.update(state)
