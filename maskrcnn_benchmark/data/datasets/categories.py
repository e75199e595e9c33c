"""Remove placeholder categories, which exporters list although they are not classes."""

from __future__ import annotations

import numpy as np

from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable
from maskrcnn_benchmark.data.datasets.coco_values import whole_number
from maskrcnn_benchmark.data.datasets.report import DatasetReport

# Compared in lower case and without surrounding "_", "-" and spaces: labelme's converter lists "_background_" and
# "__ignore__".
PLACEHOLDERS = ("background", "ignore", "bg")


def drop_placeholder_categories(table: AnnotationTable, categories: list[dict], report: DatasetReport) -> None:
    """Remove unused placeholder categories from the table.

    A placeholder is category 0 if it is the supercategory of all others (Roboflow writes the project's name there), or
    a "background" or "ignore" category with id 0 or less. All other categories are classes, used or not.
    """
    used = np.isin(np.arange(1, len(table.category_ids) + 1), table.labels)
    supers = {whole_number(entry["id"]): entry.get("supercategory") for entry in categories}
    keep = np.ones(len(table.category_ids), dtype=bool)
    for k, (number, name) in enumerate(zip(table.category_ids, table.class_names, strict=True)):
        root = number == 0 and len(supers) > 1 and all(supers[other] == name for other in supers if other != number)
        keep[k] = used[k] or not (root or (number <= 0 and name.strip("_ -").lower() in PLACEHOLDERS))
    if keep.all() or not keep.any():
        return
    names = [table.class_names[k] for k in np.flatnonzero(~keep)]
    hint = "DATASETS.KEEP_PLACEHOLDER_CATEGORIES True keeps them"
    report.add("dropped", "unused categories that name the project or the background", names, "names", hint)
    table.labels = np.cumsum(keep)[table.labels - 1]
    table.category_ids = [number for number, kept in zip(table.category_ids, keep, strict=True) if kept]
    table.class_names = [name for name, kept in zip(table.class_names, keep, strict=True) if kept]
