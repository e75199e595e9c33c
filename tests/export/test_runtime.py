"""The runtime file needs numpy alone, and computes what the package does."""

import ast
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from maskrcnn_benchmark.data.transforms.transforms import Resize
from maskrcnn_benchmark.export import runtime
from maskrcnn_benchmark.modeling.detector.panoptic_merge import MergeRules, merge_segments
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.paste_masks import MaskPasting, paste_masks, paste_rles

METADATA = {
    "form": "whole",
    "upright": True,
    "class_names": ["a", "b", "c"],
    "category_ids": [1, 2, 3],
    "semantic_names": ["things", "grass", "sky", "sea"],
    "semantic_ids": [0, 10, 11, 12],
    "min_size": 80,
    "max_size": 133,
    "resize_to_nearest": False,
    "size_divisible": 32,
    "fixed_size": None,
    "batch": 0,
    "pad_to": [32, 32],
    "box_offset": 1.0,
    "mask_pasting": {"padding": 1, "aligned": False},
    "merge": None,
}


def model_of(**changes) -> runtime.Model:
    model = runtime.Model.__new__(runtime.Model)
    model.metadata = METADATA | changes
    return model


def test_file_imports_only_numpy_and_engines_and_has_300_lines():
    text = open(runtime.__file__).read()
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level
            names.add(node.module.split(".")[0])
    assert names <= {"__future__", "importlib", "json", "os", "dataclasses", "numpy", "PIL"}
    assert set(runtime.ENGINES.values()) == {"onnxruntime", "openvino"}
    assert len(text.splitlines()) <= 300


@pytest.mark.parametrize("size", [(240, 320), (61, 500), (97, 53), (33, 34)])
def test_resize_equals_pillow_within_one_level(size, rng_seed):
    image = np.random.randint(0, 256, (120, 160, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    found = runtime.resize(image, size)
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("to_nearest", [False, True])
def test_target_size_equals_the_transform(to_nearest):
    resize = Resize(80, 133, to_nearest)
    for size in ((480, 640), (640, 480), (80, 100), (31, 900), (900, 31), (80, 80), (7, 5)):
        assert runtime.target_size(size, 80, 133, to_nearest) == resize.get_size(size[::-1])


def test_images_are_padded_to_the_divisor():
    batch, size = model_of().prepare(np.full((100, 120, 3), 7, dtype=np.uint8))
    assert size == (80, 96) and batch.shape == (1, 96, 96, 3)
    assert (batch[0, :80] == 7).all() and not batch[0, 80:].any()


def test_small_images_are_padded_to_the_least_size():
    batch, size = model_of(min_size=None, size_divisible=0, pad_to=[32, 40]).prepare(np.full((3, 50, 3), 7, np.uint8))
    assert size == (3, 50) and batch.shape == (1, 32, 50, 3) and not batch[0, 3:].any()


def test_fixed_size_shrinks_images_that_do_not_fit_and_fills_the_batch():
    batch, size = model_of(fixed_size=[64, 64], batch=2).prepare(np.full((50, 200, 3), 7, dtype=np.uint8))
    assert batch.shape == (2, 64, 64, 3) and size == (16, 64) and not batch[1].any()


def random_masks(count: int):
    masks = torch.rand(count, 14, 14)
    corners = torch.rand(count, 2) * 60 - 10
    return masks, torch.cat((corners, corners + torch.rand(count, 2) * 50), dim=1)


@pytest.mark.parametrize("aligned", [False, True])
def test_pasted_masks_equal_the_packages(aligned, rng_seed):
    masks, boxes = random_masks(20)
    pasting = {"padding": 0 if aligned else 1, "aligned": aligned}
    model = model_of(mask_pasting=pasting)
    outputs = {"boxes": boxes.numpy(), "scores": np.linspace(1, 0.1, 20, dtype=np.float32), "count": np.int64(20)}
    outputs |= {"labels": np.ones(20, dtype=np.int64), "masks": masks.numpy()}
    found = model.predict(outputs, (57, 71), (57, 71))
    expected = paste_masks(masks, boxes, (71, 57), pasting=MaskPasting(**pasting)).numpy() != 0
    assert (found.mask_arrays() != expected).sum() <= 3  # pixels on the threshold
    rles = paste_rles(masks, boxes, (71, 57), pasting=MaskPasting(**pasting))
    equal = [mine == theirs for mine, theirs in zip(found.masks, rles, strict=True)]
    assert sum(equal) >= 18


def test_boxes_are_scaled_to_the_original_and_empty_ones_dropped():
    outputs = {"boxes": np.float32([[10, 20, 30, 40], [5, 5, 3, 9], [0, 0, 0, 0]]), "count": np.int64(2)}
    outputs |= {"scores": np.float32([0.9, 0.8, 0]), "labels": np.int64([2, 1, 0])}
    found = model_of().predict(outputs, (80, 100), (160, 150))
    assert found.size == (150, 160) and found.names == ["b"] and found.category_ids == [2]
    np.testing.assert_allclose(found.boxes, [[15, 40, 45, 80]])


def test_enlarge_equals_interpolate(rng_seed):
    maps = torch.rand(3, 13, 17)
    expected = F.interpolate(maps[None], (40, 29), mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(runtime.enlarge(maps.numpy(), (40, 29)), expected.numpy(), atol=1e-6)


def test_panoptic_merge_equals_the_packages(rng_seed):
    rules = {"score": 0.3, "overlap": 0.5, "stuff_area": 40}
    model = model_of(merge=rules, mask_pasting={"padding": 0, "aligned": True}, box_offset=0.0)
    masks, boxes = random_masks(12)
    scores = torch.linspace(0.95, 0.1, 12)
    labels = torch.arange(12) % 3 + 1
    logits = F.interpolate(torch.randn(1, 4, 5, 6), (57, 71), mode="bilinear")[0]
    outputs = {"boxes": boxes.numpy(), "scores": scores.numpy(), "labels": labels.numpy(), "masks": masks.numpy()}
    found = model.predict(outputs | {"count": np.int64(12), "semantic": logits.numpy()}, (57, 71), (57, 71))
    boxlist = BoxList(boxes, (71, 57), box_offset=0.0)
    for name, value in (("scores", scores), ("labels", labels), ("mask", masks[:, None])):
        boxlist.add_field(name, value)
    classes = logits.argmax(dim=0).to(torch.uint8)
    expected = merge_segments(boxlist, classes, MergeRules(**rules), MaskPasting(0, True))
    kept = [(each["label"], each["is_thing"]) for each in found.segments]
    assert kept == [(each["label"], each["is_thing"]) for each in expected.segments]
    assert (found.panoptic_map != expected.unpack()).mean() < 1e-3
    assert found.segments[-1]["name"] in METADATA["semantic_names"]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3)), "got float64 of shape .4, 4, 3."),
        (np.zeros((4, 4), dtype=np.uint8), "got uint8 of shape .4, 4."),
        (np.zeros((3, 4, 4), dtype=np.uint8), "got uint8 of shape .3, 4, 4."),
        (np.zeros((4, 0, 3), dtype=np.uint8), "got uint8 of shape .4, 0, 3."),
    ],
)
def test_array_of_another_kind_is_refused(array, message):
    with pytest.raises(ValueError, match=f"uint8 RGB, {message}"):
        model_of()(array)


def test_path_without_pillow_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="a.png needs Pillow; without it, pass an array"):
        model_of()("a.png")


def test_file_of_more_than_8_bits_is_refused(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((5, 6), 40000, dtype=np.uint16)).save(path)
    with pytest.raises(ValueError, match="more than 8 bits"):
        model_of()(path)


def test_dense_part_gives_no_predictions():
    model = model_of(form="dense")
    model.path = "dense.onnx"
    with pytest.raises(ValueError, match="dense part"):
        model(np.zeros((4, 4, 3), dtype=np.uint8))


def test_network_takes_no_other_pixels_than_uint8():
    model = model_of(inputs=["images", "sizes"], outputs=["count"])
    model._run = lambda feeds: [len(feeds["images"])]
    assert model.run(np.zeros((2, 4, 4, 3), dtype=np.uint8), [(4, 4)] * 2) == {"count": 2}
    with pytest.raises(TypeError, match="float32.*uint8"):
        model.run(np.zeros((2, 4, 4, 3), dtype=np.float32), [(4, 4)] * 2)
