import numpy as np
import pytest
from PIL import Image

from maskrcnn_benchmark.structures.panoptic_map import (
    PanopticMap,
    colors_from_ids,
    extents,
    ids_from_colors,
    read_ids,
    renumber,
)


def test_ids_are_restored_from_colors(rng_seed, tmp_path):
    ids = np.random.randint(0, 2**24, (9, 11)).astype(np.int32)
    assert (ids_from_colors(colors_from_ids(ids)) == ids).all()
    assert colors_from_ids(np.array([[1 + 2 * 256 + 3 * 65536]])).tolist() == [[[1, 2, 3]]]
    Image.fromarray(colors_from_ids(ids)).save(tmp_path / "ids.png")
    assert (read_ids(tmp_path / "ids.png") == ids).all()


def test_gray_values_are_ids(rng_seed, tmp_path):
    ids = np.random.randint(0, 256, (9, 11)).astype(np.uint8)
    Image.fromarray(ids).save(tmp_path / "ids.png")
    assert (read_ids(tmp_path / "ids.png") == ids).all()


def test_segments_are_renumbered_in_the_given_order(rng_seed):
    ids = np.random.randint(0, 6, (20, 30)).astype(np.int32)
    numbers = renumber(ids, np.array([4, 1, 5]))
    for old, new in ((0, 0), (4, 1), (1, 2), (5, 3), (2, 4), (3, 4)):
        assert (numbers[ids == old] == new).all()
    assert set(np.unique(renumber(ids, np.zeros(0, dtype=np.int64)))) == {0, 1}


def test_extents_equal_the_pixels(rng_seed):
    ids = np.zeros((20, 30), dtype=np.int32)
    ids[3:7, 5:6], ids[10:12, 20:30], ids[15, 2] = 1, 3, 3
    areas, boxes = extents(ids, 3)
    assert areas.tolist() == [4, 0, 21]
    assert boxes.tolist() == [[5, 3, 1, 4], [0, 0, 0, 0], [2, 10, 28, 6]]


def test_an_id_without_a_segment_is_refused():
    with pytest.raises(ValueError, match="segment id 2, but there are 1 segments"):
        PanopticMap(np.full((2, 2), 2), [{"label": 1, "is_thing": True}])
