from __future__ import annotations

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.data.datasets.mask_checks import fit_masks
from maskrcnn_benchmark.data.datasets.mask_columns import MaskColumns
from maskrcnn_benchmark.data.datasets.report import DatasetReport
from maskrcnn_benchmark.structures.rle import encode_window
from maskrcnn_benchmark.utils.counted import counted

SIZE = (24, 16)
TRIANGLE = [0.0, 2, 4, 2, 0, 8]


def table_of(segmentations, wanted=None, size=(500, 500)):
    boxes = np.array([[k, 1, k + 3, 4] for k in range(len(segmentations))], dtype=np.float32).reshape(-1, 4)
    wanted = np.ones(len(segmentations), dtype=bool) if wanted is None else np.array(wanted)
    report = DatasetReport("test")
    ids = list(range(len(segmentations)))
    columns = MaskColumns()
    columns.extend(segmentations)
    table = columns.table(np.arange(len(ids)), wanted, ids, report)
    if table is None:
        return None, report
    sizes = np.tile(size, (len(ids), 1))
    return fit_masks(table, boxes, sizes, np.zeros(len(ids), dtype=bool), ids, report), report


def polygons(masks):
    return [[polygon.tolist() for polygon in instance.polygons] for instance in masks.instances.polygons]


def outline(k):
    """Return the box of object k."""
    return [k, 1, k + 4, 1, k + 4, 5, k, 5]


def test_masks_returns_the_polygons_of_a_range():
    several = [[TRIANGLE], [[8.0, 2, 12, 2, 8, 8], [1.0, 12, 6, 12, 6, 15]], [[2.0, 2, 6, 2, 2, 8]]]
    table, report = table_of(several)
    for first in range(4):
        for last in range(first, 4):
            masks = table.masks(first, last, SIZE)
            assert masks.mode == "poly" and masks.size == SIZE and polygons(masks) == several[first:last]
    assert str(report) == "test: "


def test_select_keeps_polygons_and_runs_of_the_kept_objects(rng_seed):
    rng = np.random.default_rng(rng_seed)
    entries = []
    for _ in range(30):
        if rng.random() < 0.3:
            entries.append(encode_window(rng.random((16, 24)) < 0.5, 0, 0, 16, 24))
        else:
            entries.append([rng.uniform(0, 16, 2 * rng.integers(3, 9)).tolist() for _ in range(rng.integers(0, 4))])
    table, _ = table_of(entries)
    keep = rng.random(30) < 0.5
    kept = table.select(keep)
    assert len(kept) == keep.sum()
    for new, old in enumerate(np.flatnonzero(keep)):
        a, b = kept.masks(new, new + 1, SIZE), table.masks(old, old + 1, SIZE)
        assert a.mode == b.mode and torch.equal(a.get_mask_tensor(), b.get_mask_tensor())


BROKEN = "broken polygons (odd length, fewer than 3 points, or not finite numbers)"
LACKING = "objects without a usable segmentation, with their box as mask"


@pytest.mark.parametrize(
    "polygon",
    [
        [],
        [1.0, 2, 3, 4],
        TRIANGLE + [5.0],
        [1.0, 2, 3, 4, 5, float("nan")],
        [1.0, 2, 3, 4, 5, 1e300],
        [1.0, 2, 3, 4, 5, 10**400],
        [1.0, 2, 3, 4, 5, "x"],
        [1.0, 2, 3, 4, 5, None],
        "polygon",
        {"x": [4]},
        None,
    ],
)
def test_a_broken_polygon_is_dropped_and_counted(polygon):
    table, report = table_of([[TRIANGLE, polygon], [TRIANGLE], [polygon], [TRIANGLE]])
    assert polygons(table.masks(0, 4, SIZE)) == [[TRIANGLE], [TRIANGLE], [outline(2)], [TRIANGLE]]
    assert report.count(BROKEN) == 2 and report.count(LACKING) == 1
    assert f"{counted(1, LACKING)} (annotation ids 2)" in str(report)


@pytest.mark.parametrize("nothing", [[], None, {}, "", 5])
def test_an_object_without_segmentation_gets_its_box(nothing):
    table, report = table_of([nothing, [TRIANGLE], nothing])
    assert polygons(table.masks(0, 3, SIZE)) == [[outline(0)], [TRIANGLE], [outline(2)]]
    assert report.count(LACKING) == 2


def test_a_flat_list_is_one_polygon():
    table, report = table_of([TRIANGLE])
    assert polygons(table.masks(0, 1, SIZE)) == [[TRIANGLE]]
    assert report.count("segmentations in one flat list, read as one polygon") == 1


def test_without_segmentations_there_are_no_masks():
    assert table_of([])[0] is None
    assert table_of([None, [], {}])[0] is None
    assert table_of([[TRIANGLE], None], wanted=[False, True])[0] is None


def test_crowd_is_not_read():
    table, report = table_of([{"counts": "broken", "size": [1, 1]}, [TRIANGLE]], wanted=[False, True])
    assert polygons(table.masks(0, 2, SIZE)) == [[outline(0)], [TRIANGLE]]
    assert str(report) == "test: "


def test_polygons_beside_run_lengths_become_binary_masks():
    pixels = np.zeros((16, 24), dtype=np.uint8)
    pixels[3:9, 5:20] = 1
    runs = encode_window(pixels, 0, 0, 16, 24)
    table, _ = table_of([[TRIANGLE], runs, [TRIANGLE]])
    masks = table.masks(0, 3, SIZE)
    assert masks.mode == "mask" and masks.size == SIZE
    triangle = table.masks(0, 1, SIZE)
    assert triangle.mode == "poly"
    wanted = torch.stack([triangle.get_mask_tensor(), torch.from_numpy(pixels), triangle.get_mask_tensor()])
    assert torch.equal(masks.get_mask_tensor(), wanted)


def test_runs_of_another_size_are_cut_and_padded():
    ones = np.ones((20, 10), dtype=np.uint8)
    table, _ = table_of([encode_window(ones, 0, 0, 20, 10)])
    assert table.of_other_size(np.array([SIZE])).tolist() == [True]
    assert table.of_other_size(np.array([[10, 20]])).tolist() == [False]
    mask = table.masks(0, 1, SIZE).get_mask_tensor()
    assert mask[:, :10].all() and mask.sum() == 160


def test_broken_runs_are_dropped_and_counted():
    table, report = table_of([{"counts": [1, 2], "size": [5, 5]}, {"size": [5, 5]}, {"counts": "1", "size": None}])
    assert polygons(table.masks(0, 3, SIZE)) == [[outline(0)], [outline(1)], [outline(2)]]
    assert report.count("broken RLE masks") == 3 and report.count(LACKING) == 3


def test_any_selection_has_the_masks_of_its_objects(rng_seed):
    rng = np.random.default_rng(rng_seed)
    runs = {"counts": [5, 3, 17], "size": [5, 5]}
    entries = [[[TRIANGLE], [TRIANGLE, TRIANGLE[::-1]], [], runs][kind] for kind in rng.integers(0, 4, 60)]
    table, _ = table_of(entries)
    for share in (0, 0.1, 0.5, 0.9, 1):
        keep = rng.random(60) < share
        selected = table.select(keep)
        assert len(selected) == keep.sum()
        found = [selected.segmentation(i) for i in range(len(selected))]
        assert found == [table.segmentation(i) for i in np.flatnonzero(keep)]
