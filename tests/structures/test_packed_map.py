import numpy as np
import pytest
import torch

from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.packed_map import PackedMap


@pytest.mark.parametrize("highest", [1, 255, 256, 2**31 - 1])
def test_packed_map_is_lossless(rng_seed, highest):
    values = np.random.randint(0, highest + 1, (17, 23), dtype=np.int64)
    values[3, 4] = highest
    packed = PackedMap(torch.from_numpy(values))
    assert packed.size == (23, 17) and (packed.unpack() == values).all()


def test_a_segment_map_takes_little_memory():
    values = np.zeros((480, 640), dtype=np.uint8)
    values[100:300, 50:400], values[310:400] = 1, 2
    assert len(PackedMap(values).packed) < 0.02 * values.size


def test_packed_map_keeps_its_size_in_a_boxlist(rng_seed):
    boxes = BoxList([[0, 0, 9, 9], [1, 1, 5, 5]], (20, 10))
    boxes.add_field("semantic", PackedMap(np.random.randint(0, 9, (30, 60))))
    moved = boxes[[1]].resize((40, 20)).to("cpu")
    assert moved.get_field("semantic") is boxes.get_field("semantic")


def test_a_map_without_pixels():
    assert PackedMap(np.zeros((0, 5), dtype=np.uint8)).unpack().shape == (0, 5)


def test_values_out_of_range_and_damaged_data_are_refused():
    with pytest.raises(ValueError, match="0..2"):
        PackedMap(np.array([[-1]]))
    with pytest.raises(ValueError, match="0..2"):
        PackedMap(np.zeros(4, dtype=np.uint8))
    packed = PackedMap(np.arange(20).reshape(4, 5))
    packed.width = 6
    with pytest.raises(ValueError, match="size is wrong"):
        packed.unpack()
    packed.packed = packed.packed[4:].clone()
    with pytest.raises(ValueError, match="damaged"):
        packed.unpack()
