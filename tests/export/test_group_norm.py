"""Group normalization in ONNX is as exact as PyTorch's."""

import pytest
import torch
from helpers.onnx_session import OnnxSession
from torch import nn

from maskrcnn_benchmark.export import group_norm


@pytest.mark.parametrize("affine", [True, False])
def test_maps_of_constant_padding_are_normalized_exactly(affine, rng_seed):
    layer = nn.GroupNorm(4, 8, affine=affine)
    if affine:
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)

    def padded(images, height, width):
        maps = torch.full((images, 8, height, width), 0.7)
        maps[:, :, : height // 4, : width // 4] += torch.randn(images, 8, height // 4, width // 4)
        return maps

    run = OnnxSession(layer, [padded(2, 40, 48)], [(0, 2, 3)], group_norm.onnx_translations)
    exact = nn.GroupNorm(4, 8, affine=affine).double()
    exact.load_state_dict(layer.state_dict())
    for maps in (padded(1, 320, 280), padded(3, 17, 5), torch.randn(1, 8, 1, 1)):
        (found,) = run(maps)
        # InstanceNormalization is 0.0007 to 0.001 off on the first
        torch.testing.assert_close(found.double(), exact(maps.double()), atol=2e-4, rtol=1e-5)
