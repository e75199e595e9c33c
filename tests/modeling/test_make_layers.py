import pytest
import torch
from torch import nn

from maskrcnn_benchmark.modeling.make_layers import conv_with_kaiming_uniform, make_conv3x3, make_fc


def test_bare_layers_have_bare_keys_and_zero_biases():
    for layer in (conv_with_kaiming_uniform()(4, 8, 3), make_conv3x3(4, 8), make_fc(4, 8)):
        assert list(layer.state_dict()) == ["weight", "bias"]
        assert not layer.bias.any()


def test_group_norm_replaces_the_bias():
    for layer in (
        conv_with_kaiming_uniform(use_gn=True, use_relu=True)(4, 64, 3),
        make_conv3x3(4, 64, use_gn=True, use_relu=True),
        make_fc(4, 64, use_gn=True),
    ):
        assert list(layer.state_dict()) == ["0.weight", "1.weight", "1.bias"]


def test_relu_alone_keeps_the_bias():
    assert list(make_conv3x3(4, 8, use_relu=True).state_dict()) == ["0.weight", "0.bias"]


def test_group_norm_options_reach_the_norm():
    norm = make_fc(4, 64, use_gn=True, num_groups=-1, dim_per_gp=4, eps=1e-3)[1]
    assert (norm.num_groups, norm.eps) == (16, 1e-3)


@pytest.mark.parametrize("dilation", [1, 2])
def test_stride_one_keeps_the_size_and_two_halves_it(dilation):
    x = torch.zeros(1, 4, 9, 12)
    assert make_conv3x3(4, 8, dilation=dilation)(x).shape == (1, 8, 9, 12)
    assert make_conv3x3(4, 8, dilation=dilation, stride=2)(x).shape == (1, 8, 5, 6)
    assert conv_with_kaiming_uniform()(4, 8, 3, 2, dilation)(x).shape == (1, 8, 5, 6)


def test_initial_standard_deviations(rng_seed):
    # From 64 * 64 * 9 samples the standard deviation is accurate to 0.4 %.
    expected = {
        make_conv3x3(64, 64, kaiming_init=False): 0.01,
        make_conv3x3(64, 64): (2 / (64 * 9)) ** 0.5,
        conv_with_kaiming_uniform()(64, 64, 3): (1 / (64 * 9)) ** 0.5,
    }
    for layer, std in expected.items():
        assert isinstance(layer, nn.Conv2d)
        assert layer.weight.std().item() == pytest.approx(std, rel=0.03)
