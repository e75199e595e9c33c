import numpy as np

from maskrcnn_benchmark.data.datasets.annotation_table import AnnotationTable
from maskrcnn_benchmark.data.datasets.categories import drop_placeholder_categories
from maskrcnn_benchmark.data.datasets.report import DatasetReport


def test_a_placeholder_is_found_among_many_categories_without_comparing_all_pairs(counted):
    count = 100
    ids = [counted(k) for k in range(count)]
    names = ["pets", *(f"breed {k}" for k in range(1, count))]
    table = AnnotationTable(
        image_ids=[1],
        file_names=["1.jpg"],
        given_sizes=np.array([[40, 30]]),
        category_ids=ids,
        class_names=names,
        boxes=np.array([[1, 2, 9, 9]], dtype=np.float32),
        image_index=np.array([0]),
        labels=np.array([2]),
        crowd=np.array([False]),
        annotation_ids=[1],
    )
    categories = [{"id": k, "name": name, "supercategory": "pets"} for k, name in zip(ids, names, strict=True)]
    drop_placeholder_categories(table, categories, DatasetReport("test"))
    assert table.class_names == names[1:] and table.labels.tolist() == [1]
    assert counted.comparisons < 10 * count
