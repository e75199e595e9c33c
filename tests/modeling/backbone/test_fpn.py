import pytest
import torch
from torch import nn
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from maskrcnn_benchmark.modeling.make_layers import conv_with_kaiming_uniform


def small_fpn(in_channels_list=(4, 8, 16), top_blocks=None):
    return FPN(in_channels_list, 6, conv_with_kaiming_uniform(), top_blocks)


def test_zero_channels_skip_a_level_and_keep_the_names():
    fpn = small_fpn((0, 8, 16))
    assert {key.split(".")[0] for key in fpn.state_dict()} == {"fpn_inner2", "fpn_layer2", "fpn_inner3", "fpn_layer3"}
    maps = fpn([torch.rand(1, 4, 16, 16), torch.rand(1, 8, 8, 8), torch.rand(1, 16, 4, 4)])
    assert [tuple(m.shape) for m in maps] == [(1, 6, 8, 8), (1, 6, 4, 4)]


def test_exact_halves_are_summed_as_with_scale_factor_two(rng_seed):
    fpn = small_fpn((4, 8))
    fine, coarse = torch.rand(2, 4, 12, 20), torch.rand(2, 8, 6, 10)
    top = fpn.fpn_inner2(coarse)
    expected = fpn.fpn_layer1(fpn.fpn_inner1(fine) + F.interpolate(top, scale_factor=2, mode="nearest"))
    torch.testing.assert_close(fpn([fine, coarse])[0], expected, rtol=0, atol=0)


def test_coarse_maps_are_resized_to_the_finer_ones():
    maps = small_fpn()([torch.rand(1, 4, 25, 33), torch.rand(1, 8, 12, 17), torch.rand(1, 16, 6, 8)])
    assert [tuple(m.shape[2:]) for m in maps] == [(25, 33), (12, 17), (6, 8)]


def test_max_pool_takes_every_second_point():
    p5 = torch.arange(15.0).view(1, 1, 3, 5)
    (p6,) = LastLevelMaxPool()(None, p5)
    assert torch.equal(p6, p5[:, :, ::2, ::2])


@pytest.mark.parametrize(("in_channels", "source"), [(6, "p5"), (16, "c5")])
def test_p6_is_computed_from_p5_if_the_channels_agree(rng_seed, in_channels, source):
    top = LastLevelP6P7(in_channels, 6)
    maps = {"c5": torch.rand(1, 16, 7, 9), "p5": torch.rand(1, 6, 7, 9)}
    p6, p7 = top(maps["c5"], maps["p5"])
    torch.testing.assert_close(p6, top.p6(maps[source]))
    torch.testing.assert_close(p7, top.p7(p6.clamp(min=0)))
    assert p6.shape == (1, 6, 4, 5) and p7.shape == (1, 6, 2, 3)
    assert isinstance(top.p6, nn.Conv2d) and not top.p6.bias.any()


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (5, 1), (1, 7)])
def test_gradients_of_the_smallest_maps_are_right_in_bfloat16(rng_seed, size):
    top = LastLevelP6P7(32, 32)
    nn.init.constant_(top.p6.bias, 10.0)  # keeps P6 away from 0, where rounding would decide the ReLU
    p5 = torch.randn(2, 32, *size)
    gradients = []
    for autocast in (False, True):
        for _ in range(5):  # the content of freed memory varies
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                p6, p7 = top(None, p5)
            gradients.append(torch.autograd.grad(p6.float().sum() + p7.float().sum(), top.parameters()))
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            # bfloat16 has 8 bits; sums of two of its products differ by less than 3 % of the largest.
            torch.testing.assert_close(a, b, rtol=0, atol=0.03 * a.abs().max().item() + 1e-6)
