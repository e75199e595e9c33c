"""Test batches of images of different sizes."""

import pytest
import torch

from maskrcnn_benchmark.structures.image_list import ImageList, to_image_list


def test_images_are_padded_right_and_bottom_with_zeros():
    batch = to_image_list([torch.ones(3, 5, 7), torch.ones(3, 8, 4)], size_divisible=16)
    assert batch.tensors.shape == (2, 3, 16, 16)
    assert batch.image_sizes == [(5, 7), (8, 4)]
    assert batch.tensors[0].sum() == 3 * 5 * 7 and batch.tensors[0, :, :5, :7].min() == 1


def test_without_divisor_the_largest_sides_are_the_size():
    assert to_image_list((torch.ones(3, 5, 7), torch.ones(3, 8, 4))).tensors.shape == (2, 3, 8, 7)


def test_tensors_and_image_lists_are_accepted():
    assert to_image_list(torch.ones(3, 5, 7)).image_sizes == [(5, 7)]
    assert to_image_list(torch.ones(2, 3, 5, 7), 4).tensors.shape == (2, 3, 8, 8)
    batch = ImageList(torch.ones(1, 3, 4, 4), [torch.Size((4, 4))])
    assert to_image_list(batch) is batch
    assert batch.to(torch.float64).tensors.dtype == torch.float64


def test_invalid_arguments_are_refused():
    with pytest.raises(TypeError, match="str"):
        to_image_list("image.jpg")
    with pytest.raises(ValueError, match="empty"):
        to_image_list([])
    with pytest.raises(ValueError, match="one C"):
        to_image_list([torch.ones(3, 4, 4), torch.ones(1, 4, 4)])


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ((torch.uint8, torch.float32), torch.float32),
        ((torch.float16, torch.float32), torch.float32),
        ((torch.float32, torch.float64), torch.float64),
        ((torch.uint8, torch.int64), torch.int64),
        ((torch.bfloat16, torch.bfloat16), torch.bfloat16),
    ],
)
def test_images_of_several_dtypes_are_promoted(dtypes, expected):
    first, second = dtypes
    values = 0.5 if second.is_floating_point else 300
    batch = to_image_list([torch.full((3, 4, 4), 7, dtype=first), torch.full((3, 4, 4), values, dtype=second)])
    assert batch.tensors.dtype == expected
    assert batch.tensors[0].unique().tolist() == [7] and batch.tensors[1].unique().tolist() == [values]
