import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.structures.bounding_box import FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM, BoxList
from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL, SemanticMap, to_label_batch


def random_map(height, width):
    return SemanticMap(torch.randint(0, 54, (height, width), dtype=torch.uint8))


@pytest.mark.parametrize("size", [(13, 7), (60, 31), (5, 40), (1, 1)])
def test_resize_equals_pil(rng_seed, size):
    semantic = random_map(21, 30)
    expected = np.asarray(Image.fromarray(semantic.labels.numpy()).resize(size, Image.Resampling.NEAREST))
    resized = semantic.resize(size)
    assert resized.size == size and (resized.labels.numpy() == expected).all()


def test_semantic_map_is_transformed_with_its_boxlist(rng_seed):
    boxes = BoxList([[2, 3, 8, 9], [0, 0, 29, 20]], (30, 21))
    boxes.add_field("semantic", random_map(21, 30))
    labels = boxes.get_field("semantic").labels
    assert torch.equal(boxes.transpose(FLIP_LEFT_RIGHT).get_field("semantic").labels, labels.flip(1))
    assert torch.equal(boxes.transpose(FLIP_TOP_BOTTOM).get_field("semantic").labels, labels.flip(0))
    assert boxes.resize((60, 42)).get_field("semantic").size == (60, 42)
    assert torch.equal(boxes.crop((4, 5, 20, 11)).get_field("semantic").labels, labels[5:11, 4:20])
    assert boxes[torch.tensor([1])].get_field("semantic") is boxes.get_field("semantic")
    assert torch.equal(boxes.to("cpu").get_field("semantic").labels, labels)


def test_crop_outside_the_image_is_ignored(rng_seed):
    semantic = random_map(6, 8)
    window = semantic.crop((-2, 4, 5, 9)).labels
    assert torch.equal(window[:2, 2:], semantic.labels[4:, :5])
    assert (window[2:] == IGNORE_LABEL).all() and (window[:, :2] == IGNORE_LABEL).all()
    with pytest.raises(ValueError, match="at least one pixel"):
        semantic.crop((3, 3, 3, 5))


def test_a_batch_is_padded_with_the_ignored_label(rng_seed):
    maps = [random_map(6, 8), random_map(4, 10)]
    batch = to_label_batch(maps, (8, 12))
    assert batch.shape == (2, 8, 12) and batch.dtype == torch.int64
    for padded, semantic in zip(batch, maps, strict=True):
        rows, columns = semantic.labels.shape
        assert torch.equal(padded[:rows, :columns], semantic.labels.long())
        assert (padded == IGNORE_LABEL).sum() == 8 * 12 - rows * columns
    with pytest.raises(ValueError, match="does not fit"):
        to_label_batch(maps, (8, 9))


def test_invalid_shapes_and_dtypes_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        SemanticMap(torch.zeros(3, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"\(1, 3, 4\)"):
        SemanticMap(torch.zeros(1, 3, 4, dtype=torch.uint8))
