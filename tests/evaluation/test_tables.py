from maskrcnn_benchmark.evaluation.coco_evaluator import ClassFigures
from maskrcnn_benchmark.evaluation.tables import class_table, per_class_table


def test_few_classes_are_one_aligned_column():
    figures = [ClassFigures("RBC", 1, 819, 0.5, 0.75), ClassFigures("Platelets", 3, 0, -1, -1)]
    assert per_class_table("bbox", figures).splitlines() == [
        "bbox, per class:",
        "class      boxes      AP    AP50",
        "RBC          819  0.5000  0.7500",
        "Platelets      0       -       -",
    ]


def test_many_classes_are_folded_into_columns_without_loss():
    figures = [ClassFigures(f"c{k}", k, k, 0.5, 0.5) for k in range(1, 81)]
    table = per_class_table("bbox", figures)
    assert len(table.splitlines()) == 2 + 27
    assert sorted(word for word in table.split() if word[0] == "c" and word[1:].isdigit()) == sorted(
        entry.name for entry in figures
    )


def test_no_classes_leave_the_header():
    assert per_class_table("bbox", []).splitlines()[1].split() == ["class", "boxes", "AP", "AP50"]


def test_rows_are_aligned_under_their_keys():
    rows = [{"class": "cat", "IoU": 0.5, "pixels": 7}, {"class": "sky", "IoU": 1.0, "pixels": 1200}]
    assert class_table("semantic", rows).splitlines() == [
        "semantic, per class:",
        "class     IoU  pixels",
        "cat    0.5000       7",
        "sky    1.0000    1200",
    ]
    assert class_table("panoptic", []).splitlines() == ["panoptic, per class:", "class"]
