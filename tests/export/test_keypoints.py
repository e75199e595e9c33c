"""The forms of the keypoint op give what Keypointer does."""

import pytest
import torch

from maskrcnn_benchmark.export import keypoints


@pytest.mark.parametrize("regions", [0, 1, 6])
def test_form_in_torch_equals_the_op(regions, rng_seed):
    heat_maps = torch.randn(regions, 3, 14, 14)
    corners = torch.rand(regions, 2) * 100 - 20  # boxes of CenterMask2 may begin outside the image
    boxes = torch.cat((corners, corners + 0.3 + torch.rand(regions, 2) * 150), dim=1)
    (decode_in_torch,) = keypoints.torch_decompositions().values()
    found, expected = decode_in_torch(heat_maps, boxes), keypoints.decode_keypoints(heat_maps, boxes)
    assert found.shape == expected.shape == (regions, 3, 3)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-5)


def test_boxes_below_a_pixel_have_one_place():
    heat_maps = torch.arange(16.0).view(1, 1, 4, 4)
    boxes = torch.tensor([[10.0, 20.0, 10.2, 20.0]])
    (decode_in_torch,) = keypoints.torch_decompositions().values()
    expected = keypoints.decode_keypoints(heat_maps, boxes)
    torch.testing.assert_close(decode_in_torch(heat_maps, boxes), expected)
    assert expected[0, 0, :2].tolist() == [10.5, 20.5]
