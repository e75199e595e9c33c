"""Convolutions and linear layers joined with what follows them: the same numbers as one after the other."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers import conv as conv_layers
from maskrcnn_benchmark.layers.conv import ConvSequential, conv_norm_act, linear_act
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d


def frozen_norm(channels):
    norm = FrozenBatchNorm2d(channels)
    norm.weight.uniform_(0.5, 1.5)
    norm.bias.normal_()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 1.5)
    return norm


def channels_last(*shape):
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


def close(result, wanted, tolerance):
    assert result.shape == wanted.shape
    assert (result.float() - wanted.float()).abs().max() <= tolerance * wanted.float().abs().max()


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("with_plus", [False, True])
@pytest.mark.parametrize("options", [{"bias": True}, {"stride": 2}, {"groups": 4}, {"dilation": 2}])
def test_a_fused_convolution_gives_what_its_parts_give(rng_seed, relu, with_plus, options):
    conv = nn.Conv2d(8, 16, 3, padding=1, **options).to(memory_format=torch.channels_last)
    x = channels_last(2, 8, 13, 11)
    with torch.inference_mode():
        wanted = conv(x)
        plus = torch.randn_like(wanted) if with_plus else None
        kept = None if plus is None else plus.clone()
        if with_plus:
            wanted = wanted + plus
        if relu:
            wanted = wanted.relu()
        result = conv_norm_act(x, conv, relu=relu, plus=plus)
        close(result, wanted, 1e-5)
        assert result.is_contiguous(memory_format=torch.channels_last)
        if with_plus:
            assert torch.equal(plus, kept)
            close(conv_norm_act(x, conv, relu=relu, plus=plus, overwrite_plus=True), wanted, 1e-5)


def test_contiguous_maps_and_maps_without_pictures_pass(rng_seed):
    conv = nn.Conv2d(8, 16, 3, padding=1)
    x = torch.randn(2, 8, 9, 7)
    with torch.inference_mode():
        close(conv_norm_act(x, conv, relu=True), conv(x).relu(), 1e-5)
        assert conv_norm_act(x[:0], conv, relu=True).shape == (0, 16, 9, 7)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_under_autocast_the_result_is_of_half_precision(rng_seed, stored):
    conv = nn.Conv2d(8, 16, 3, padding=1).to(memory_format=torch.channels_last)
    linear = nn.Linear(8, 16)
    x, rows = channels_last(2, 8, 9, 7), torch.randn(5, 8)
    wanted = conv(x).relu(), linear(rows).relu()
    conv, linear = conv.to(stored), linear.to(stored)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        results = conv_norm_act(x, conv, relu=True), linear_act(rows, linear, relu=True)
    for result, value in zip(results, wanted, strict=True):
        assert result.dtype == torch.bfloat16
        close(result, value, 2e-2)


def test_float64_stays_float64(rng_seed):
    conv = nn.Conv2d(4, 4, 3).double()
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(conv_norm_act(x, conv, relu=True), F.relu(conv(x)))


def test_hooks_see_the_layers_that_they_are_on(rng_seed):
    conv, norm, linear = nn.Conv2d(4, 4, 3, bias=False), frozen_norm(4), nn.Linear(4, 4)
    seen = []
    for layer in (conv, norm, linear):
        layer.register_forward_hook(lambda module, inputs, output: seen.append(module))
    x = torch.randn(1, 4, 8, 8)
    conv_norm_act(x, conv, norm, relu=True)
    with torch.inference_mode():
        conv_norm_act(x, conv, norm, relu=True)
        linear_act(x[0, 0, :, :4], linear)
    assert seen == [conv, norm, conv, norm, linear]


def test_a_frozen_norm_in_training_becomes_part_of_the_weights(rng_seed):
    conv, norm = nn.Conv2d(4, 6, 3, bias=False).double(), frozen_norm(6).double()
    x = torch.randn(2, 4, 9, 7, dtype=torch.float64, requires_grad=True)
    plus = torch.randn(2, 6, 7, 5, dtype=torch.float64, requires_grad=True)
    given = (x, conv.weight, plus)
    wanted = (norm(conv(x)) + plus).relu()
    result = conv_norm_act(x, conv, norm, relu=True, plus=plus)
    torch.testing.assert_close(result, wanted)
    direction = torch.randn_like(wanted)
    for a, b in zip(
        torch.autograd.grad(result, given, direction), torch.autograd.grad(wanted, given, direction), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_what_a_relu_saved_for_its_gradient_is_not_written_over(rng_seed):
    layers = ConvSequential(nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True))
    x = torch.randn(1, 4, 8, 8)
    conv_norm_act(x, layers, plus=torch.randn(1, 4, 6, 6), relu=True).sum().backward()
    plain = nn.Conv2d(4, 4, 3)
    plain.load_state_dict(layers[0].state_dict())
    assert torch.equal(conv_norm_act(x, layers), plain(x).relu())


@pytest.mark.parametrize("mode", ["training", "no_grad", "inference"])
def test_a_sequence_gives_what_its_layers_give(rng_seed, mode):
    layers = [nn.Conv2d(4, 8, 3, bias=False), frozen_norm(8), nn.ReLU(inplace=True)]
    layers += [nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(inplace=True)]
    layers += [nn.Conv2d(8, 8, 3), nn.Identity(), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 1), nn.ReLU6(inplace=True)]
    x = channels_last(2, 4, 13, 11)
    wanted = nn.Sequential(*layers)(x)
    with {"training": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}[mode]():
        close(ConvSequential(*layers)(x), wanted, 1e-5)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_a_fused_linear_layer_gives_what_its_parts_give(rng_seed, relu, rows):
    linear = nn.Linear(24, 16)
    x = torch.randn(rows, 24)
    wanted = linear(x).relu() if relu else linear(x)
    assert torch.equal(linear_act(x, linear, relu=relu), wanted)
    with torch.inference_mode():
        torch.testing.assert_close(linear_act(x, linear, relu=relu), wanted, rtol=1e-5, atol=1e-5)


def test_without_fused_ops_the_parts_run_one_by_one(rng_seed, monkeypatch):
    monkeypatch.setattr(conv_layers, "_has_fused_ops", lambda: False)
    conv, linear, x = nn.Conv2d(4, 8, 3), nn.Linear(9, 5), torch.randn(1, 4, 9, 9)
    with torch.inference_mode():
        assert torch.equal(conv_norm_act(x, conv, relu=True), conv(x).relu())
        assert torch.equal(linear_act(x[0, 0], linear, relu=True), linear(x[0, 0]).relu())


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("count", [0, 3, 15, 16, 17])
def test_maps_that_fill_up_a_batch_change_nothing(rng_seed, kind, count):
    conv = kind(8, 8, 2)
    x = torch.randn(count, 8, 6, 6, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result, wanted = conv_norm_act(x, conv, relu=True), conv(x).relu()
    assert result.shape == wanted.shape
    direction = torch.randn_like(wanted)
    given = (x, conv.weight, conv.bias)
    for a, b in zip(
        torch.autograd.grad(result, given, direction), torch.autograd.grad(wanted, given, direction), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("fused", [False, True])
def test_what_a_hook_was_shown_is_not_changed_afterwards(rng_seed, fused):
    conv, linear, norm = nn.Conv2d(8, 8, 1), nn.Linear(8, 8), frozen_norm(8)
    seen = {}
    for name, module in {"conv": conv, "linear": linear, "norm": norm}.items():
        module.register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: output}))
    x, rows = channels_last(2, 8, 9, 7), torch.randn(5, 8)
    with torch.set_grad_enabled(not fused):
        conv_norm_act(x, conv, relu=True)
        linear_act(rows, linear, relu=True)
        assert torch.equal(seen["conv"], F.conv2d(x, conv.weight, conv.bias))
        assert torch.equal(seen["linear"], F.linear(rows, linear.weight, linear.bias))
        conv_norm_act(x, nn.Conv2d(8, 8, 1), norm, relu=True, plus=torch.randn_like(x))
        kept = seen["norm"].clone()
        conv_norm_act(x, conv, norm, plus=torch.randn_like(x))
        assert (kept < 0).any() and torch.equal(norm(seen["conv"]), seen["norm"])


def test_backward_hooks_are_called(rng_seed):
    conv, linear = nn.Conv2d(8, 8, 1), nn.Linear(8, 8)
    called = []
    for module in (conv, linear):
        module.register_full_backward_hook(lambda module, *_: called.append(module))
    x = channels_last(2, 8, 9, 7).requires_grad_()
    linear_act(conv_norm_act(x, conv, relu=True).mean((2, 3)), linear, relu=True).sum().backward()
    assert called == [linear, conv]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_frozen_norm_follows_a_convolution_of_any_type(rng_seed, dtype):
    conv, norm = nn.Conv2d(8, 8, 1, bias=False).to(dtype), frozen_norm(8).train()
    x = channels_last(2, 8, 9, 7).to(dtype)
    result = conv_norm_act(x, conv, norm)
    assert result.dtype == dtype and result.requires_grad
    close(result, norm(conv(x)), 2e-2)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("channels", [16, 64])
def test_a_wrong_number_of_channels_is_torchs_own_error(grad, channels):
    conv = nn.Conv2d(32, 32, 3, padding=1, bias=False)
    with torch.set_grad_enabled(grad), pytest.raises(RuntimeError, match=f"to have 32 channels, but got {channels}"):
        conv_norm_act(torch.zeros(1, channels, 8, 8), conv)
    with torch.set_grad_enabled(grad):
        assert conv_norm_act(torch.zeros(32, 8, 8), conv, relu=True).shape == (32, 8, 8)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_functional_transforms_and_tracers_pass(rng_seed):
    conv = nn.Conv2d(16, 16, 3, padding=1).requires_grad_(False)
    x = torch.randn(2, 16, 9, 7)

    def function(x):
        return conv_norm_act(x, conv, relu=True)

    wanted = torch.autograd.grad(conv(leaf := x.clone().requires_grad_()).relu().sum(), leaf)[0]
    close(torch.func.grad(lambda x: function(x).sum())(x), wanted, 1e-5)
    _, along = torch.func.jvp(function, (x,), (torch.ones_like(x),))
    close(along.sum(), wanted.sum(), 1e-4)
    with torch.no_grad():
        close(torch.func.vmap(lambda picture: function(picture[None])[0])(x), conv(x).relu(), 1e-5)
    close(torch.jit.trace(function, x)(x), conv(x).relu(), 1e-5)
