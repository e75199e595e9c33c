"""Compare Conv2d and ConvTranspose2d with torch's own, for every algorithm of training."""

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.layers.conv import Conv2d, ConvTranspose2d
from maskrcnn_benchmark.layers.winograd import suits


def close(result, expected, tolerance):
    assert result.shape == expected.shape
    assert (result.float() - expected.float()).abs().max() <= tolerance * expected.float().abs().max()


def twin(conv):
    plain = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    plain.load_state_dict(conv.state_dict())
    return plain


def used_winograd(result):
    return "Winograd" in type(result.grad_fn).__name__


@pytest.mark.parametrize("options", [{"padding": 1}, {"padding": 2}, {"stride": 2}, {"dilation": 2}])
def test_training_equals_torch(rng_seed, options):
    conv = Conv2d(16, 32, 3, **options)
    plain = twin(conv)
    x = torch.randn(2, 16, 19, 15, requires_grad=True)
    result, expected = conv(x), plain(x)
    assert used_winograd(result) == ("padding" in options and suits(conv))
    close(result, expected, 1e-5)
    direction = torch.randn_like(expected)
    found = torch.autograd.grad(result, (x, conv.weight, conv.bias), direction)
    for ours, theirs in zip(
        found, torch.autograd.grad(expected, (x, plain.weight, plain.bias), direction), strict=True
    ):
        close(ours, theirs, 1e-5)


def test_winograd_can_be_disabled(rng_seed):
    conv, x = Conv2d(16, 32, 3, padding=1), torch.randn(1, 16, 9, 9)
    if not suits(conv):
        pytest.skip("this CPU has no AVX2")
    assert used_winograd(conv(x))
    conv.winograd = False
    assert not used_winograd(conv(x)) and torch.equal(conv(x), twin(conv)(x))


def test_forward_without_gradients_equals_torch(rng_seed):
    conv, x = Conv2d(16, 32, 3, padding=1), torch.randn(2, 16, 9, 9)
    with torch.inference_mode():
        assert torch.equal(conv(x), twin(conv)(x))


@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
@pytest.mark.parametrize("count", [0, 3, 15, 16, 17])
def test_padded_batches_give_equal_results(rng_seed, kind, count):
    conv = kind(8, 8, 2)
    x = torch.randn(count, 8, 6, 6, requires_grad=True)
    plain = {Conv2d: nn.Conv2d, ConvTranspose2d: nn.ConvTranspose2d}[kind](8, 8, 2)
    plain.load_state_dict(conv.state_dict())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result, expected = conv(x), plain(x)
    assert result.shape == expected.shape
    direction = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(result, (x, conv.weight, conv.bias), direction),
        torch.autograd.grad(expected, (x, plain.weight, plain.bias), direction),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("channels", [16, 64])
def test_wrong_number_of_channels_raises_torchs_error(grad, channels):
    conv = Conv2d(32, 32, 3, padding=1, bias=False)
    with torch.set_grad_enabled(grad), pytest.raises(RuntimeError, match=f"to have 32 channels, but got {channels}"):
        conv(torch.zeros(1, channels, 8, 8))
    with torch.set_grad_enabled(grad):
        assert conv(torch.zeros(32, 8, 8)).shape == (32, 8, 8)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_functional_transforms_and_tracers_pass(rng_seed):
    conv = Conv2d(16, 16, 3, padding=1).requires_grad_(False)
    x = torch.randn(2, 16, 9, 7)
    expected = torch.autograd.grad(twin(conv)(leaf := x.clone().requires_grad_()).relu().sum(), leaf)[0]
    close(torch.func.grad(lambda x: conv(x).relu().sum())(x), expected, 1e-5)
    _, along = torch.func.jvp(lambda x: conv(x).relu(), (x,), (torch.ones_like(x),))
    close(along.sum(), expected.sum(), 1e-4)
    with torch.no_grad():
        close(torch.func.vmap(lambda image: conv(image[None])[0])(x), conv(x), 1e-5)
    close(torch.jit.trace(conv, x)(x), conv(x), 1e-5)
