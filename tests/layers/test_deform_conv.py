"""Compare deformable convolution with plain convolutions, shifted maps and manual samples."""

import pytest
import torch
from torch.nn import functional as F

from maskrcnn_benchmark.layers import (
    DeformConv,
    DFConv2d,
    ModulatedDeformConv,
    ModulatedDeformConvPack,
    deform_conv,
    modulated_deform_conv,
)


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"), [(1, 1, 1, 1), (2, 0, 2, 2), ((2, 1), (2, 1), 1, 4)]
)
def test_zero_offsets_equal_the_plain_convolution(rng_seed, stride, padding, dilation, groups):
    x, weight = torch.randn(2, 8, 11, 14), torch.randn(4, 8 // groups, 3, 3)
    plain = F.conv2d(x, weight, None, stride, padding, dilation, groups)
    offset = torch.zeros(2, 18, *plain.shape[2:])
    deformed = deform_conv(x, offset, weight, stride, padding, dilation, groups)
    torch.testing.assert_close(deformed, plain, rtol=1e-4, atol=1e-4)


def test_a_constant_offset_shifts_the_map(rng_seed):
    x, weight = torch.randn(1, 3, 12, 12), torch.randn(5, 3, 3, 3)
    offset = torch.zeros(1, 9, 2, 10, 10)
    offset[:, :, 0], offset[:, :, 1] = 2, -1  # two rows down, one column to the left
    deformed = deform_conv(x, offset.flatten(1, 2), weight)
    shifted = F.conv2d(F.pad(x, (1, 0, 0, 2))[:, :, 2:, :-1], weight)
    torch.testing.assert_close(deformed, shifted, rtol=1e-4, atol=1e-4)


def test_every_tap_has_its_own_offset_and_is_bilinear(rng_seed):
    x = torch.randn(1, 1, 6, 6)
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 1, 2] = 1  # tap 5 of 9
    offset = torch.randn(1, 18, 4, 4)
    offset[:, 10], offset[:, 11] = 0.25, -0.5
    column = (x[0, 0, 1:5, 1:5] + x[0, 0, 1:5, 2:6]) / 2
    below = (x[0, 0, 2:6, 1:5] + x[0, 0, 2:6, 2:6]) / 2
    torch.testing.assert_close(deform_conv(x, offset, weight)[0, 0], 0.75 * column + 0.25 * below)


def test_deformable_groups_shift_only_their_channels(rng_seed):
    x, weight = torch.randn(2, 4, 9, 9), torch.randn(3, 4, 3, 3)
    offset, mask = torch.randn(2, 36, 7, 7), torch.rand(2, 18, 7, 7)
    both = modulated_deform_conv(x, offset, mask, weight, deformable_groups=2)
    halves = [
        modulated_deform_conv(x[:, part], offset[:, taps * 18 :][:, :18], mask[:, taps * 9 :][:, :9], weight[:, part])
        for taps, part in enumerate((slice(0, 2), slice(2, 4)))
    ]
    torch.testing.assert_close(both, halves[0] + halves[1], rtol=1e-4, atol=1e-4)


def test_mask_multiplies_the_taps_and_not_the_bias(rng_seed):
    x, weight, bias = torch.randn(2, 4, 8, 8), torch.randn(6, 4, 3, 3), torch.randn(6)
    offset, half = torch.randn(2, 18, 8, 8), torch.full((2, 9, 8, 8), 0.5)
    modulated = modulated_deform_conv(x, offset, half, weight, bias, padding=1)
    expected = deform_conv(x, offset, weight, padding=1) / 2 + bias.view(-1, 1, 1)
    torch.testing.assert_close(modulated, expected, rtol=1e-4, atol=1e-4)


def test_gradients_of_all_operands(rng_seed):
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    # away from integers, where bilinear interpolation has a kink
    offset = (torch.rand(1, 8, 3, 4, dtype=torch.float64) * 0.6 + 0.2).requires_grad_()
    mask = torch.rand(1, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(modulated_deform_conv, (x, offset, mask, weight, bias))


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("shape", [(0, 4, 7, 9), (2, 4, 1, 1), (1, 4, 5, 33)])
def test_empty_batches_and_odd_sizes_keep_every_parameter_in_the_graph(modulated, shape, rng_seed):
    layer = DFConv2d(4, 6, modulated, stride=2, bias=modulated)
    out = layer(torch.randn(shape))
    assert out.shape == F.conv2d(torch.empty(shape), torch.empty(6, 4, 3, 3), stride=2, padding=1).shape
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_half_precision_and_autocast_are_computed_in_float32(rng_seed):
    layer = DFConv2d(4, 6)
    x = torch.randn(2, 4, 9, 9)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = layer(x)
    mixed.sum().backward()
    torch.testing.assert_close(mixed.float(), exact, rtol=0.1, atol=0.1)
    assert layer.offset.weight.grad.dtype == torch.float32 and layer.offset.weight.grad.any()
    halved = layer.bfloat16()(x.bfloat16())
    assert halved.dtype == torch.bfloat16
    torch.testing.assert_close(halved.float(), exact, rtol=0.1, atol=0.1)


def test_channels_last_input_gives_equal_results(rng_seed):
    layer, x = DFConv2d(4, 6), torch.randn(2, 4, 9, 9)
    torch.testing.assert_close(layer(x.contiguous(memory_format=torch.channels_last)), layer(x))


def test_layer_predicts_its_offsets_and_sigmoid_mask(rng_seed):
    layer, x = DFConv2d(4, 6, dilation=2, groups=2, deformable_groups=2), torch.randn(2, 4, 9, 9)
    predicted = layer.offset(x)
    assert predicted.shape == (2, 54, 9, 9)
    expected = modulated_deform_conv(
        x, predicted[:, :36], predicted[:, 36:].sigmoid(), layer.conv.weight, None, 1, 2, 2, 2, 2
    )
    torch.testing.assert_close(layer(x), expected)


def test_initialization_equals_the_forks(rng_seed):
    layer = DFConv2d(64, 32)
    assert [(key, tuple(value.shape)) for key, value in layer.state_dict().items()] == [
        ("offset.weight", (27, 64, 3, 3)),
        ("offset.bias", (27,)),
        ("conv.weight", (32, 64, 3, 3)),
    ]
    # uniform distributions with these bounds
    assert layer.offset.weight.abs().max().item() == pytest.approx((3 / (64 * 9)) ** 0.5, rel=0.02)
    assert layer.conv.weight.abs().max().item() == pytest.approx((1 / (64 * 9)) ** 0.5, rel=0.02)
    assert not layer.offset.bias.any()
    assert ModulatedDeformConv(4, 4, 3).bias is not None and DeformConv(4, 4, 3).bias is None


def test_an_untrained_pack_is_half_the_plain_convolution(rng_seed):
    layer, x = ModulatedDeformConvPack(4, 6, 3, padding=1), torch.randn(2, 4, 9, 9)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight / 2, padding=1), rtol=1e-4, atol=1e-5)


def test_wrong_channels_are_refused():
    x, weight = torch.zeros(1, 4, 5, 5), torch.zeros(2, 4, 3, 3)
    with pytest.raises(ValueError, match="offset has 18 channels; a 3x3 kernel and deformable_groups 2 require 36"):
        deform_conv(x, torch.zeros(1, 18, 3, 3), weight, deformable_groups=2)
    with pytest.raises(ValueError, match="mask has 18 channels"):
        modulated_deform_conv(x, torch.zeros(1, 18, 3, 3), torch.zeros(1, 18, 3, 3), weight)
    with pytest.raises(ValueError, match="input has 4 channels"):
        deform_conv(x, torch.zeros(1, 18, 3, 3), weight, groups=2)
    with pytest.raises(ValueError, match="in_channels 4 cannot be divided into 3 groups"):
        DeformConv(4, 4, 3, deformable_groups=3)
