"""Compare WinogradConv2d with a plain convolution, up to float32 rounding."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.fast.winograd_conv import WinogradConv2d, winograd_chain
from maskrcnn_benchmark.native import library

pytestmark = pytest.mark.skipif(not library.kernels_for(torch.device("cpu")), reason="no compiled ops")


def rounding_error(result, expected):
    """Return the largest difference from float64 `expected`, relative to its standard deviation."""
    return ((result.double() - expected).abs().max() / expected.std()).item()


def reference(conv, x, relu):
    expected = nn.functional.conv2d(x.double(), conv.weight.double(), None, padding=conv.padding)
    if conv.bias is not None:
        expected = expected + conv.bias.double().view(-1, 1, 1)
    return expected.relu() if relu else expected


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "shape, filters, padding",
    [
        ((1, 16, 1, 1), 16, 1),
        ((1, 16, 3, 3), 32, 0),
        ((3, 32, 5, 9), 16, 1),
        ((2, 64, 21, 18), 80, 1),  # panels of different widths
        ((1, 160, 40, 31), 224, 2),
        ((20, 16, 14, 14), 48, 1),  # several blocks, each of several images
    ],
)
@torch.no_grad()
def test_equals_the_convolution(rng_seed, shape, filters, padding, bias, relu):
    conv = nn.Conv2d(shape[1], filters, 3, padding=padding, bias=bias)
    x = torch.randn(shape)
    expected = reference(conv, x, relu)
    fast = WinogradConv2d(conv, relu)
    for given in (x, x.contiguous(memory_format=torch.channels_last), torch.cat((x, x), 1)[:, : shape[1]]):
        result = fast(given)
        assert result.is_contiguous(memory_format=torch.channels_last)
        assert rounding_error(result, expected) < 5e-5
    half = fast(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert rounding_error(half, reference(conv, x.bfloat16(), relu)) < 0.05


@pytest.mark.parametrize(
    "size, dilation, padding", [((33, 33), 2, 2), ((12, 16), 4, 4), ((5, 3), 4, 4), ((17, 20), 3, 0), ((6, 7), 2, 4)]
)
@torch.no_grad()
def test_dilated_convolutions(rng_seed, size, dilation, padding):
    conv = nn.Conv2d(16, 32, 3, padding=padding, dilation=dilation)
    x = torch.randn(2, 16, *size)
    expected = nn.functional.conv2d(
        x.double(), conv.weight.double(), conv.bias.double(), padding=padding, dilation=dilation
    ).relu()
    result = WinogradConv2d(conv, relu=True)(x)
    assert result.shape == expected.shape and result.is_contiguous(memory_format=torch.channels_last)
    assert rounding_error(result, expected) < 5e-5


@torch.no_grad()
def test_results_do_not_depend_on_the_number_of_threads(rng_seed):
    fast = WinogradConv2d(nn.Conv2d(48, 64, 3, padding=1))
    x = torch.randn(2, 48, 50, 61)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            results.append(fast(x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results[1:])


@torch.no_grad()
def test_nan_stays_local(rng_seed):
    x = torch.randn(1, 16, 12, 12)
    x[0, 3, 5, 5] = float("nan")
    result = WinogradConv2d(nn.Conv2d(16, 16, 3, padding=1), relu=True)(x)
    assert result[0, :, 4:7, 4:7].isnan().all()
    assert not result[0, :, 8:].isnan().any()


@torch.no_grad()
def test_empty_batch():
    assert WinogradConv2d(nn.Conv2d(16, 32, 3, padding=1))(torch.zeros(0, 16, 7, 9)).shape == (0, 32, 7, 9)


@torch.no_grad()
def test_chain_equals_the_concatenation(rng_seed):
    sizes = ((32, 48, True), (48, 48, False), (48, 16, True))
    convs = [nn.Conv2d(inputs, filters, 3, padding=1, bias=bias) for inputs, filters, bias in sizes]
    x = torch.randn(2, 32, 19, 23)
    expected = [x]
    for conv in convs:
        expected.append(conv(expected[-1]).relu())
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        result = winograd_chain(given, [WinogradConv2d(conv, relu=True) for conv in convs])
        assert result.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(result, torch.cat(expected, 1), rtol=0, atol=5e-5)


@pytest.mark.parametrize("capability", ["avx2", "default"])
def test_narrower_cpus_give_the_same_results(capability):
    """In a subprocess, because ATEN_CPU_CAPABILITY is read once per process."""
    script = (
        "import torch; from torch import nn; from maskrcnn_benchmark.fast.winograd_conv import WinogradConv2d\n"
        "torch.manual_seed(3); conv = nn.Conv2d(80, 112, 3, padding=1).requires_grad_(False)\n"
        "x = torch.randn(2, 80, 13, 10); fast = WinogradConv2d(conv)\n"
        "print((fast(x) - conv(x)).abs().max().item(), (fast(x.bfloat16()) - conv(x)).abs().max().item())"
    )
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    exact, half = map(float, done.stdout.split())
    assert exact < 5e-5 and half < 0.05


def test_inputs_that_require_gradients_are_refused():
    fast = WinogradConv2d(nn.Conv2d(16, 16, 3, padding=1))
    x = torch.zeros(1, 16, 8, 8, requires_grad=True)
    for call in (lambda: fast(x), lambda: winograd_chain(x, [fast])):
        with pytest.raises(RuntimeError, match=r"the input requires one; .* winograd=False"):
            call()
    with torch.no_grad():
        assert fast(x).shape == x.shape


@torch.no_grad()
def test_other_shapes_and_dtypes(rng_seed):
    conv = nn.Conv2d(32, 16, 3, padding=1)
    fast = WinogradConv2d(conv)
    x = torch.randn(32, 8, 9)
    torch.testing.assert_close(fast(x), conv(x), rtol=0, atol=1e-5)
    half = fast(x.half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), conv(x), rtol=0, atol=5e-3)
    with pytest.raises(ValueError, match=r"input is \(1, 16, 8, 8\); expected \(N, 32, H, W\)"):
        fast(torch.zeros(1, 16, 8, 8))
    with pytest.raises(TypeError, match=r"float64.*winograd=False"):
        fast(x.double())


@torch.no_grad()
def test_weights_are_saved_and_stay_float32_on_the_cpu(rng_seed):
    fast, other = (nn.Sequential(WinogradConv2d(nn.Conv2d(16, 16, 3, padding=1))) for _ in range(2))
    x = torch.randn(1, 16, 8, 8)
    expected = fast(x)
    assert torch.equal(fast.bfloat16()(x), expected) and torch.equal(fast.half()(x), expected)
    other.load_state_dict(fast.state_dict())
    assert torch.equal(other(x), expected)
    with pytest.raises(RuntimeError, match=r"cannot move to meta; move the model itself"):
        fast.to("meta")


@torch.inference_mode()
def test_autocast_decides_the_dtype_of_the_result(rng_seed):
    conv, x = nn.Conv2d(16, 32, 3, padding=1), torch.randn(1, 16, 9, 9)
    fast = WinogradConv2d(conv, relu=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fast(x).dtype == torch.bfloat16
        assert winograd_chain(x, [fast]).dtype == torch.bfloat16
