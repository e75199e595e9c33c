import json

import numpy as np
import pytest
from PIL import Image

from maskrcnn_benchmark.data.build import build_dataset
from maskrcnn_benchmark.structures.rle import encode_window
from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL

SIZE = (40, 30)


def square(x, y, side):
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def runs(x, y, side):
    return encode_window(np.ones((side, side), dtype=bool), x, y, SIZE[1], SIZE[0])


def write(root, rows, names=("cat", "dog")):
    Image.fromarray(np.zeros((SIZE[1], SIZE[0], 3), dtype=np.uint8)).save(root / "1.jpg")
    Image.fromarray(np.zeros((SIZE[1], SIZE[0], 3), dtype=np.uint8)).save(root / "2.jpg")
    annotations = []
    for number, (image_id, category, segmentation, (x, y, side), crowd) in enumerate(rows, start=1):
        row = {"id": number, "image_id": image_id, "category_id": category, "iscrowd": crowd}
        annotations.append({**row, "bbox": [x, y, side, side], "segmentation": segmentation(x, y, side)})
    content = {
        "images": [{"id": k, "file_name": f"{k}.jpg", "width": SIZE[0], "height": SIZE[1]} for k in (1, 2)],
        "annotations": annotations,
        "categories": [{"id": 10 * k, "name": name} for k, name in enumerate(names, start=1)],
    }
    (root / "objects.json").write_text(json.dumps(content))
    return {"FORMAT": "coco_semantic", "IMAGES": str(root), "ANNOTATIONS": str(root / "objects.json")}


def test_objects_are_drawn_in_descending_order_of_area(tmp_path):
    block = write(
        tmp_path,
        [(2, 10, square, (12, 12, 4), 0), (2, 20, runs, (5, 5, 20), 0), (1, 20, square, (0, 0, 3), 0)],
    )
    (dataset,) = build_dataset([block], None)
    assert dataset.semantic_names == ["background", "cat", "dog"] and dataset.categories[20] == "dog"
    image, target, _ = dataset[1]
    labels = target.get_field("semantic").labels.numpy()
    expected = np.zeros((30, 40), dtype=np.uint8)
    expected[5:25, 5:25] = 2
    expected[12:16, 12:16] = 1
    assert (labels == expected).all() and len(target) == 0 and image.size == SIZE
    assert dataset[0][1].get_field("semantic").labels.sum() == 2 * 9


def test_crowd_regions_have_no_label_where_no_object_is(tmp_path):
    block = write(
        tmp_path,
        [
            (1, 10, square, (1, 1, 3), 0),
            (2, 10, runs, (0, 0, 10), 1),
            (2, 20, square, (5, 5, 10), 0),
        ],
    )
    (dataset,) = build_dataset([block], None)
    labels = dataset[1][1].get_field("semantic").labels.numpy()
    assert (labels[5:15, 5:15] == 2).all() and (labels[:5, :10] == IGNORE_LABEL).all()
    assert (labels == IGNORE_LABEL).sum() == 75 and (dataset[0][1].get_field("semantic").labels < 2).all()


def test_a_file_without_segmentations_is_refused(tmp_path):
    block = write(tmp_path, [(1, 10, lambda *_: [], (1, 1, 3), 0)])
    with pytest.raises(ValueError, match="no annotation of .* has a segmentation"):
        build_dataset([block], None)
