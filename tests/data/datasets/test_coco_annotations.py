"""Reading COCO annotation files: entries that are read, dropped or refused."""

import pytest

from maskrcnn_benchmark.data.datasets import COCODataset
from maskrcnn_benchmark.data.datasets.coco_annotations import read_categories
from maskrcnn_benchmark.data.datasets.report import LONGEST, DatasetReport
from maskrcnn_benchmark.utils.counted import counted


def boxes_of(dataset, index=0):
    return dataset[index][1].bbox.tolist()


def test_a_category_id_that_is_not_a_number_is_refused(coco_folder):
    coco_folder.categories = [{"id": "one", "name": "cat"}]
    coco_folder.add_image(1)
    with pytest.raises(ValueError, match=r"boxes\.json: category 'cat' has id 'one'; wanted a whole number"):
        COCODataset(**coco_folder.write(), remove_images_without_annotations=False)


@pytest.mark.filterwarnings("error")
def test_a_box_far_larger_than_the_image_is_clipped_without_overflow(coco_folder):
    coco_folder.add_image(1, size=(60, 40))
    coco_folder.add_box(1, [5, 5, 1e300, 1e300])
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=True)
    assert boxes_of(dataset) == [[5, 5, 59, 39]]
    assert dataset.report.count("boxes clipped to the image") == 1


@pytest.mark.parametrize(
    "bbox, what",
    [
        ([5, 5, 0, 9], "boxes without area (at most one pixel wide or high)"),
        ([5, 5, 9, 1], "boxes without area (at most one pixel wide or high)"),
        ([20, 5, -9, 9], "inverted boxes"),
        ([100, 5, 9, 9], "boxes outside the image"),
        ([-20, 5, 9, 9], "boxes outside the image"),
        ([float("nan"), 5, 9, 9], "boxes that are missing, not four numbers, or not finite"),
        ([5, 5, float("inf"), 9], "boxes that are missing, not four numbers, or not finite"),
        ([5, 5, 9], "boxes that are missing, not four numbers, or not finite"),
        ([5, 5, "wide", 9], "boxes that are missing, not four numbers, or not finite"),
        ([5, 5, [1], 9], "boxes that are missing, not four numbers, or not finite"),
        ([5, 5, 10**400, 9], "boxes that are missing, not four numbers, or not finite"),
        (None, "boxes that are missing, not four numbers, or not finite"),
        ({"x": 1}, "boxes that are missing, not four numbers, or not finite"),
    ],
)
def test_broken_box_is_dropped_and_counted(coco_folder, bbox, what):
    coco_folder.add_image(1)
    coco_folder.add_box(1, [1, 2, 10, 10])
    bad = coco_folder.add_box(1, bbox)
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=True)
    assert boxes_of(dataset) == [[1, 2, 10, 11]]
    assert dataset.report.count(what) == 1
    assert f"{counted(1, what)} (annotation ids {bad})" in str(dataset.report)


def test_annotation_without_bbox_is_dropped(coco_folder):
    coco_folder.add_image(1)
    coco_folder.add_box(1, [1, 2, 10, 10])
    coco_folder.add_box(1, [1, 2, 10, 10])
    del coco_folder.annotations[1]["bbox"]
    assert len(COCODataset(**coco_folder.write(), remove_images_without_annotations=True)[0][1]) == 1


def test_repeated_entries_are_dropped_and_reused_annotation_ids_noted(coco_folder):
    coco_folder.add_image(1)
    coco_folder.images.append(dict(coco_folder.images[0]))
    coco_folder.add_box(1, [1, 2, 10, 10])
    coco_folder.annotations.append(dict(coco_folder.annotations[0]))
    coco_folder.annotations.append({**coco_folder.annotations[0], "bbox": [3, 4, 10, 10]})
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=True)
    assert boxes_of(dataset) == [[1, 2, 10, 11], [3, 4, 12, 13]]
    assert dataset.report.count("repeated image entries") == 1
    assert dataset.report.count("repeated annotations") == 1
    assert dataset.report.count("annotation ids used for different annotations") == 1


def test_annotations_without_ids_are_all_kept(coco_folder):
    coco_folder.add_image(1)
    for x in (1, 3):
        coco_folder.add_box(1, [x, 2, 10, 10])
    for row in coco_folder.annotations:
        del row["id"]
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=True)
    assert len(dataset[0][1]) == 2 and dataset.report.findings("noted") == []


def test_one_image_id_for_two_images_is_an_error(coco_folder):
    coco_folder.add_image(1, file_name="a.jpg")
    coco_folder.add_image(1, file_name="b.jpg")
    with pytest.raises(ValueError, match="image id 1 is both 'a.jpg' and 'b.jpg'"):
        COCODataset(**coco_folder.write(), remove_images_without_annotations=False)


def test_annotations_of_unknown_images_and_categories_are_dropped(coco_folder):
    coco_folder.add_image(1)
    coco_folder.add_box(1, [1, 2, 10, 10])
    coco_folder.add_box(99, [1, 2, 10, 10])
    coco_folder.add_box([1], [1, 2, 10, 10])
    coco_folder.add_box(1, [1, 2, 10, 10], category_id=77)
    coco_folder.add_box(1, [1, 2, 10, 10], category_id=None)
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=True)
    assert len(dataset[0][1]) == 1
    assert dataset.report.count("annotations of unknown images") == 2
    assert dataset.report.count("annotations of unknown categories") == 2


@pytest.mark.parametrize(
    "content, message",
    [
        ("[]", "holds a list"),
        ("{", "is not JSON"),
        ("{}", "lists no categories"),
        ('{"categories": [{"id": 1, "name": "a"}]}', "has no 'images'"),
        ('{"categories": [{"id": 1}], "images": []}', "'categories' .* entry 0 has no 'name'"),
        ('{"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "images": []}', "id 1 is both 'a' and 'b'"),
        ('{"categories": [{"id": 1, "name": "a"}], "images": [3]}', "'images' .* entry 0 is 3"),
        ('{"categories": [{"id": 1, "name": "a"}], "images": [{"id": 1}]}', "entry 0 has no 'file_name'"),
        ('{"categories": [{"id": 1, "name": "a"}], "images": [{"id": 1, "file_name": 5}]}', "wanted text"),
        ('{"categories": [{"id": 1, "name": "a"}], "images": [{"id": {}, "file_name": "a"}]}', "a number or text"),
        ('{"categories": [{"id": 1, "name": "a"}], "images": [], "annotations": {}}', "'annotations' .* is a dict"),
        ('{"categories": [{"id": 1, "name": "a"}], "images": [], "annotations": [1]}', "entry 0 is 1"),
    ],
)
def test_a_file_that_is_not_coco_json_is_an_error(tmp_path, content, message):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        COCODataset(str(tmp_path / "bad.json"), str(tmp_path), False)


def test_many_categories_are_read_without_comparing_all_pairs(counted):
    count = 100
    categories = [{"id": k, "name": counted(str(k // 2))} for k in range(count)]
    report = DatasetReport("test")
    ids, _ = read_categories({"categories": categories}, "many.json", report)
    assert ids == list(range(count))
    assert report.count("class names with more than one category id") == count // 2
    assert counted.comparisons < 10 * count


def test_unknown_category_ids_are_named_in_full(coco_folder):
    coco_folder.add_image(1)
    coco_folder.add_box(1, [1, 2, 10, 10])
    long = "https://example.org/classes/"
    for name in ("apis", "vespa", "x" * LONGEST):
        coco_folder.add_box(1, [1, 2, 10, 10], category_id=long + name)
    text = str(COCODataset(**coco_folder.write(), remove_images_without_annotations=True).report)
    cut = f"'{long}{'x' * LONGEST}"[:LONGEST]
    assert f"of category ids '{long}apis', '{long}vespa', {cut}...; 'categories' lists 1, 2" in text
