"""Compare fused convolutions and linear layers with their separate steps."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from maskrcnn_benchmark.fast import fused
from maskrcnn_benchmark.fast.fused import FusedConv2d, FusedLinear


def channels_last(*shape):
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


def close(result, expected, tolerance):
    assert result.shape == expected.shape
    assert (result.float() - expected.float()).abs().max() <= tolerance * expected.float().abs().max()


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("with_plus", [False, True])
@pytest.mark.parametrize("options", [{"bias": True}, {"stride": 2}, {"groups": 4}, {"dilation": 2}])
def test_fused_convolution_equals_its_steps(rng_seed, relu, with_plus, options):
    conv = nn.Conv2d(8, 16, 3, padding=1, **options).to(memory_format=torch.channels_last)
    layer = FusedConv2d(conv, relu)
    x = channels_last(2, 8, 13, 11)
    with torch.inference_mode():
        expected = conv(x)
        plus = torch.randn_like(expected) if with_plus else None
        kept = None if plus is None else plus.clone()
        if with_plus:
            expected = expected + plus
        if relu:
            expected = expected.relu()
        result = layer(x, plus)
        close(result, expected, 1e-5)
        assert result.is_contiguous(memory_format=torch.channels_last)
        if with_plus:
            assert torch.equal(plus, kept)
            close(layer(x, plus, overwrite=True), expected, 1e-5)


def test_contiguous_maps_and_empty_batches(rng_seed):
    conv = nn.Conv2d(8, 16, 3, padding=1)
    layer, x = FusedConv2d(conv, relu=True), torch.randn(2, 8, 9, 7)
    with torch.inference_mode():
        close(layer(x), conv(x).relu(), 1e-5)
        assert layer(x[:0]).shape == (0, 16, 9, 7)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_autocast_returns_half_precision(rng_seed, stored):
    conv = nn.Conv2d(8, 16, 3, padding=1).to(memory_format=torch.channels_last)
    linear = nn.Linear(8, 16)
    x, rows = channels_last(2, 8, 9, 7), torch.randn(5, 8)
    expected = conv(x).relu(), linear(rows).relu()
    layers = FusedConv2d(conv.to(stored), relu=True), FusedLinear(linear.to(stored), relu=True)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        results = layers[0](x), layers[1](rows)
    for result, value in zip(results, expected, strict=True):
        assert result.dtype == torch.bfloat16
        close(result, value, 2e-2)


def test_float64_stays_float64(rng_seed):
    conv = nn.Conv2d(4, 4, 3).double()
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(FusedConv2d(conv, relu=True)(x), F.relu(conv(x)))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_fused_linear_equals_its_steps(rng_seed, relu, rows):
    linear = nn.Linear(24, 16)
    x, layer = torch.randn(rows, 24), FusedLinear(linear, relu)
    expected = linear(x).relu() if relu else linear(x)
    assert torch.equal(layer(x), expected)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_steps_run_separately_without_fused_ops(rng_seed, monkeypatch):
    monkeypatch.setattr(fused, "has_fused_ops", lambda: False)
    conv, linear, x = nn.Conv2d(4, 8, 3), nn.Linear(9, 5), torch.randn(1, 4, 9, 9)
    with torch.inference_mode():
        assert torch.equal(FusedConv2d(conv, relu=True)(x), conv(x).relu())
        assert torch.equal(FusedLinear(linear, relu=True)(x[0, 0]), linear(x[0, 0]).relu())


def test_gradients_flow_if_enabled(rng_seed):
    conv, linear = nn.Conv2d(8, 8, 1), nn.Linear(8, 8)
    x = torch.randn(2, 8, 5, 5, requires_grad=True)
    plus = torch.randn(2, 8, 5, 5)
    kept = plus.clone()
    result = FusedLinear(linear, relu=True)(FusedConv2d(conv, relu=True)(x, plus, overwrite=True).mean((2, 3)))
    expected = linear((conv(x) + plus).relu().mean((2, 3))).relu()
    torch.testing.assert_close(result, expected)
    for ours, theirs in zip(
        torch.autograd.grad(result.sum(), (x, conv.weight)),
        torch.autograd.grad(expected.sum(), (x, conv.weight)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
    assert torch.equal(plus, kept)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_tracers_see_ordinary_ops(rng_seed):
    conv, x = nn.Conv2d(4, 4, 3), torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        traced = torch.jit.trace(FusedConv2d(conv, relu=True), x)
    assert "mkldnn" not in str(traced.inlined_graph)
    close(traced(x), conv(x).relu(), 1e-5)
