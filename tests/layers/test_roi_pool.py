import torch

from maskrcnn_benchmark.layers import ROIPool, roi_pool


def test_bins_contain_the_maximum():
    maps = torch.arange(36.0).reshape(1, 1, 6, 6)
    rois = torch.tensor([[0.0, 0, 0, 3, 3], [0.0, 2, 2, 2, 2], [0.0, 0, 0, 10, 10]])
    pooled = ROIPool((2, 2), 1.0)(maps, rois)
    assert pooled[0, 0].tolist() == [[7, 9], [19, 21]]
    assert pooled[1, 0].tolist() == [[14, 14], [14, 14]]
    torch.testing.assert_close(pooled, roi_pool(maps, rois, (2, 2), 1.0))


def test_gradient_flows_to_the_maximum():
    maps = torch.arange(16.0).reshape(1, 1, 4, 4).requires_grad_()
    roi_pool(maps, torch.tensor([[0.0, 0, 0, 3, 3]]), 1, 1.0).sum().backward()
    assert maps.grad.flatten().tolist() == [0.0] * 15 + [1.0]


def test_coordinates_are_exact_for_lists_and_half_types():
    maps = torch.arange(2 * 2048.0).reshape(1, 1, 2, 2048)
    boxes = torch.tensor([[1025.0, 0, 1027, 1], [2047, 0, 2047, 0]])  # bfloat16 cannot represent 1025
    expected = roi_pool(maps, torch.cat((torch.zeros(2, 1), boxes), dim=1), 1, 1.0)
    assert expected.flatten().tolist() == [2048 + 1027, 2047]
    assert roi_pool(maps, [boxes], 1, 1.0).equal(expected)
    pooled = roi_pool(maps.bfloat16(), [boxes], 1, 1.0)
    assert pooled.dtype == torch.bfloat16 and pooled.equal(expected.bfloat16())
