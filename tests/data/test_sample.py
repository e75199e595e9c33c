import json
from pathlib import Path

import numpy as np
from PIL import Image

from maskrcnn_benchmark import sample_image
from maskrcnn_benchmark.data.sample import sample_objects


def test_objects_of_the_sample_image_lie_in_it_and_stand_out():
    pixels = np.asarray(Image.open(sample_image()).convert("L"), dtype=int)
    height, width = pixels.shape
    objects = sample_objects()
    assert len(objects) >= 3 and {name for name, _ in objects} <= set("0123456789")
    for _, (x, y, w, h) in objects:
        assert 0 <= x and 0 <= y and x + w <= width and y + h <= height
        assert np.ptp(pixels[y : y + h, x : x + w]) > 60


def test_its_annotations_are_coco_json():
    content = json.loads(Path(sample_image()).with_suffix(".json").read_text())
    assert content["images"][0]["file_name"] == Path(sample_image()).name
    assert all(each["segmentation"]["counts"] for each in content["annotations"])
