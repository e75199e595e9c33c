from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from conftest import GOLDEN

from maskrcnn_benchmark.structures.bounding_box import FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM, BoxList
from maskrcnn_benchmark.structures.segmentation_mask import (
    BinaryMaskList,
    PolygonInstance,
    PolygonList,
    SegmentationMask,
)

# One object with a 14-point outline and the square 100..200.
OUTLINE = [423.0, 306.5, 406.5, 277.0, 400.0, 271.5, 389.5, 277.0, 387.5, 292.0, 384.5, 295.0, 374.5, 220.0]
OUTLINE += [378.5, 210.0, 391.0, 200.5, 404.0, 199.5, 414.0, 203.5, 425.5, 221.0, 438.5, 297.0, 423.0, 306.5]
SQUARE = [100.0, 100, 200, 100, 200, 200, 100, 200]
SIZE = (640, 480)


@pytest.fixture
def both():
    polygons = SegmentationMask([[OUTLINE, SQUARE]], SIZE, "poly")
    return polygons, polygons.convert("mask")


def wrapping_difference(polygons, pixels):
    """Sum as the forks do: uint8 differences of -1 count 255."""
    return (pixels.get_mask_tensor() - polygons.get_mask_tensor()).float().abs().sum().item()


def test_crop_of_polygons_and_pixels_agrees(both):
    polygons, pixels = (mask.crop([400, 250, 500, 300]) for mask in both)
    assert wrapping_difference(polygons, pixels) <= 1
    assert polygons.size == pixels.size == (100, 50) != SIZE


def test_resize_of_polygons_and_pixels_agrees(both):
    polygons, pixels = (mask.resize((50, 25)) for mask in both)
    assert wrapping_difference(polygons, pixels) <= 255
    assert polygons.size == pixels.size == (50, 25)


@pytest.mark.parametrize(("method", "limit"), [(FLIP_LEFT_RIGHT, 53250), (FLIP_TOP_BOTTOM, 42494)])
def test_flip_of_polygons_and_pixels_agrees(both, method, limit):
    polygons, pixels = (mask.transpose(method) for mask in both)
    assert wrapping_difference(polygons, pixels) <= limit
    assert polygons.size == pixels.size == SIZE


def test_converting_back_and_forth_loses_little(both):
    polygons, pixels = both
    there_and_back = pixels.convert("poly").convert("mask")
    assert wrapping_difference(there_and_back, pixels) == wrapping_difference(there_and_back, polygons) <= 8169
    assert wrapping_difference(polygons, pixels) == 0


def test_targets_of_the_mask_head_equal_the_forks(units):
    image = json.loads((GOLDEN / "targets.json").read_text())[0]
    masks = SegmentationMask(image["polygons"], (image["width"], image["height"]))
    for mask, box, expected in zip(
        masks, units["mask_targets"]["proposals"], units["mask_targets"]["targets28"], strict=True
    ):
        target = mask.crop(box).resize((28, 28)).get_mask_tensor()
        assert target.tolist() == expected


def test_crop_shifts_by_the_clamped_corner_and_keeps_the_window_size():
    masks = SegmentationMask([[[10.0, 20, 30, 20, 30, 40]]], (100, 100))
    cropped = masks.crop((-10, 5, 30, 45))
    assert cropped.size == (40, 40)
    assert cropped.instances.polygons[0].polygons[0].tolist() == [10, 15, 30, 15, 30, 35]
    assert cropped.resize((80, 20)).instances.polygons[0].polygons[0].tolist() == [20, 7.5, 60, 7.5, 60, 17.5]


def test_polygons_with_fewer_than_three_points_are_dropped():
    masks = SegmentationMask([[[1.0, 1, 5, 5]], [[1.0, 1], SQUARE]], SIZE)
    assert len(masks) == 1
    assert [len(instance) for instance in masks.instances] == [1]


def some_masks(mode):
    triangles = [[[x, 2.0, x + 4, 2, x, 8]] for x in (0.0, 8, 16)]
    triangles[1].append([1.0, 12, 6, 12, 6, 15])
    return SegmentationMask(triangles, (24, 16)).convert(mode)


@pytest.mark.parametrize("mode", ["poly", "mask"])
@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (1, [1]),
        (-1, [2]),
        (slice(1, None), [1, 2]),
        ([2, 0, 0], [2, 0, 0]),
        ([], []),
        (torch.tensor([1, 1]), [1, 1]),
        (torch.tensor(2), [2]),
        (torch.tensor([True, False, True]), [0, 2]),
        (torch.tensor([0, 1, 1], dtype=torch.uint8), [1, 2]),
        (np.array([False, False, True]), [2]),
        (torch.zeros(0, dtype=torch.int64), []),
    ],
)
def test_indexing_selects_objects(mode, item, expected):
    masks = some_masks(mode)
    every = masks.get_mask_tensor()
    chosen = masks[item]
    assert chosen.mode == mode and len(chosen) == len(expected) and chosen.size == masks.size
    got = chosen.get_mask_tensor()
    assert torch.equal(got[None] if len(expected) == 1 else got, every[expected])


@pytest.mark.parametrize("mode", ["poly", "mask"])
def test_index_out_of_range_raises_index_error(mode):
    with pytest.raises(IndexError):
        some_masks(mode)[3]


@pytest.mark.parametrize("mode", ["poly", "mask"])
def test_nested_iteration(mode):
    masks = some_masks(mode)
    assert sum(1 for _ in masks for _ in masks) == 9
    assert [len(mask) for mask in masks] == [1, 1, 1]


@pytest.mark.parametrize("mode", ["poly", "mask"])
def test_empty_masks_support_all_operations(mode):
    masks = SegmentationMask([], (20, 10), mode)
    for changed in (masks.transpose(0), masks.crop((2, 2, 12, 7)), masks.resize((40, 30)), masks[[]], masks.to("cpu")):
        assert len(changed) == 0
        assert changed.get_mask_tensor().shape == (0, changed.size[1], changed.size[0])
        assert len(changed.convert("poly" if mode == "mask" else "mask")) == 0
    assert list(masks) == []


def test_masks_are_transformed_with_their_boxlist():
    boxes = BoxList([[0, 2, 4, 8], [8, 2, 12, 15], [16, 2, 20, 8]], (24, 16))
    boxes.add_field("masks", some_masks("poly"))
    moved = boxes.resize((48, 32)).transpose(FLIP_LEFT_RIGHT)[torch.tensor([False, True, False])]
    masks = moved.get_field("masks")
    assert len(masks) == 1 and masks.size == (48, 32)
    x1, y1, x2, y2 = moved.bbox[0].tolist()
    rows, columns = masks.get_mask_tensor().nonzero().unbind(1)
    assert columns.min() >= int(x1) and rows.max() <= y2


def test_size_may_be_tensors_and_masks_stay_integers():
    masks = SegmentationMask([[SQUARE]], (torch.tensor(640), torch.tensor(480)))
    assert masks.size == (640, 480)
    assert masks.get_mask_tensor().dtype == torch.uint8
    assert (
        SegmentationMask(torch.ones(2, 4, 5, dtype=torch.bool), (5, 4), "mask").get_mask_tensor().dtype == torch.uint8
    )


def test_pixel_masks_from_tensors_lists_and_rle():
    from pycocotools import mask as coco_mask

    pixels = some_masks("mask").get_mask_tensor()
    compressed = coco_mask.encode(np.asfortranarray(pixels.permute(1, 2, 0).numpy()))
    plain = [{"size": [16, 24], "counts": [0, *runs(mask)] if mask[0, 0] else runs(mask)} for mask in pixels]
    for instances in (pixels, list(pixels), compressed, plain, BinaryMaskList(pixels, (24, 16))):
        assert torch.equal(SegmentationMask(instances, (24, 16), "mask").get_mask_tensor(), pixels)


def runs(mask):
    column_major = mask.t().reshape(-1).numpy()
    borders = np.flatnonzero(np.diff(column_major)) + 1
    return np.diff(np.concatenate(([0], borders, [len(column_major)]))).tolist()


def test_pixel_masks_are_copied():
    pixels = torch.zeros(1, 4, 5, dtype=torch.uint8)
    masks = SegmentationMask(pixels, (5, 4), "mask")
    pixels += 1
    assert masks.get_mask_tensor().sum() == 0


@pytest.mark.parametrize(
    ("instances", "mode"),
    [
        ("abc", "poly"),
        ([5], "poly"),
        ([[[1.0, 2, 3, 4, 5, 6, 7]]], "poly"),
        ("abc", "mask"),
        (torch.zeros(4, 4), "mask"),
    ],
)
def test_invalid_masks_are_refused(instances, mode):
    with pytest.raises(ValueError):
        SegmentationMask(instances, (5, 4), mode)


def test_unknown_modes_and_methods_are_refused():
    for mode in ("poly", "mask"):
        with pytest.raises(NotImplementedError, match="FLIP_LEFT_RIGHT"):
            some_masks(mode).transpose(2)
        with pytest.raises(NotImplementedError, match="poly"):
            some_masks(mode).convert("rle")
    with pytest.raises(NotImplementedError, match="poly"):
        SegmentationMask([], (5, 4), "rle")


def test_operations_on_a_single_object():
    instance = PolygonList([[OUTLINE, SQUARE]], SIZE).polygons[0]
    assert isinstance(instance, PolygonInstance) and len(instance) == 2
    pixels = instance.crop([400, 250, 500, 300]).resize((50, 25)).transpose(0).convert_to_binarymask()
    masks = SegmentationMask([instance], SIZE).crop([400, 250, 500, 300]).resize((50, 25)).transpose(0)
    assert torch.equal(pixels, masks.get_mask_tensor())
    assert len(PolygonInstance([[1.0, 2]], SIZE).crop([0, 0, 5, 5])) == 0


def test_polygons_pickle_as_a_few_arrays():
    masks = SegmentationMask([[[x, 2.0, x + 4, 2, x, 8]] for x in range(200)], (240, 16))
    data = pickle.dumps(masks, protocol=pickle.HIGHEST_PROTOCOL)
    assert len(data) < 200 * (6 * 4 + 16) + 1000
    assert torch.equal(pickle.loads(data).get_mask_tensor(), masks.get_mask_tensor())
