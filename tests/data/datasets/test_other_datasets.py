import pytest

from maskrcnn_benchmark.data.datasets import COCODataset, ConcatDataset, ListDataset
from maskrcnn_benchmark.data.datasets.string_table import StringTable


def test_concat_dataset_returns_joined_indices(make_coco_folder):
    parts = []
    for name, ids in (("a", [1, 2, 3]), ("b", [1, 9])):
        folder = make_coco_folder(name)
        for image_id in ids:
            folder.add_image(image_id, size=(50 + image_id, 40))
        parts.append(COCODataset(**folder.write(), remove_images_without_annotations=False))
    joined = ConcatDataset(parts)
    assert len(joined) == 5 and joined.class_names == ["cat", "dog"] and joined.categories == {1: "cat", 2: "dog"}
    assert [joined.get_idxs(i) for i in range(5)] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert [joined.image_id(i) for i in range(5)] == [1, 2, 3, 1, 9]
    assert joined.get_img_info(4)["width"] == 59
    assert [joined[i][2] for i in range(5)] == [0, 1, 2, 3, 4]


def test_concat_dataset_without_datasets_is_an_error():
    with pytest.raises(ValueError, match="at least one dataset"):
        ConcatDataset([])


def test_list_dataset_gives_a_box_over_the_whole_image(coco_folder):
    path = coco_folder.add_image(1, size=(60, 40))
    dataset = ListDataset([str(path)])
    image, target = dataset[0]
    assert len(dataset) == 1 and image.size == (60, 40) and target.bbox.tolist() == [[0, 0, 60, 40]]
    assert ListDataset([str(path)], lambda image, target: ("x", target))[0][0] == "x"


def test_string_table_returns_its_strings():
    texts = ["a.jpg", "", "ä/ö ü.jpg", "\udce4.png"]
    table = StringTable(texts)
    assert list(table) == texts and len(table) == 4
