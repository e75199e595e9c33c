"""Convolutions by Winograd's filtering give what ordinary ones give, up to float32 rounding."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.layers import winograd
from maskrcnn_benchmark.layers.conv import ConvSequential, conv_norm_act
from maskrcnn_benchmark.layers.winograd import (
    WinogradConv2d,
    chain_into_one,
    shared_filters,
    suits,
    winograd_conv2d,
    winograd_relu,
)
from maskrcnn_benchmark.native import library

pytestmark = pytest.mark.skipif(not library.kernels_for(torch.device("cpu")), reason="no compiled ops")


def rounding_error(result, wanted):
    """Of float64 `wanted`, relative to its spread."""
    return ((result.double() - wanted).abs().max() / wanted.std()).item()


def reference(conv, x, relu):
    wanted = nn.functional.conv2d(x.double(), conv.weight.double(), None, padding=conv.padding)
    if conv.bias is not None:
        wanted = wanted + conv.bias.double().view(-1, 1, 1)
    return wanted.relu() if relu else wanted


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
        ((20, 16, 14, 14), 48, 1),  # more blocks than one, each over several pictures
    ],
)
@torch.no_grad()
def test_it_is_the_convolution(rng_seed, shape, filters, padding, bias, relu):
    conv = nn.Conv2d(shape[1], filters, 3, padding=padding, bias=bias)
    x = torch.randn(shape)
    wanted = reference(conv, x, relu)
    fast = WinogradConv2d(conv)
    for given in (x, x.contiguous(memory_format=torch.channels_last), torch.cat((x, x), 1)[:, : shape[1]]):
        result = fast(given, relu=relu)
        assert result.is_contiguous(memory_format=torch.channels_last)
        assert rounding_error(result, wanted) < 5e-5
    half = fast(x.bfloat16(), relu=relu)
    assert half.dtype == torch.bfloat16
    assert rounding_error(half, reference(conv, x.bfloat16(), relu)) < 0.05


@torch.no_grad()
def test_results_are_the_same_for_every_number_of_threads_and_every_time(rng_seed):
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
def test_what_is_not_a_number_stays_where_it_is(rng_seed):
    x = torch.randn(1, 16, 12, 12)
    x[0, 3, 5, 5] = float("nan")
    result = WinogradConv2d(nn.Conv2d(16, 16, 3, padding=1))(x, relu=True)
    assert result[0, :, 4:7, 4:7].isnan().all()
    assert not result[0, :, 8:].isnan().any()


@torch.no_grad()
def test_no_pictures_give_no_pictures():
    assert WinogradConv2d(nn.Conv2d(16, 32, 3, padding=1))(torch.zeros(0, 16, 7, 9)).shape == (0, 32, 7, 9)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda op, w: op.winograd_conv(torch.zeros(1, 32, 8, 8), w, None, 1, False), "32 input channels"),
        (lambda op, w: op.winograd_conv(torch.zeros(16, 8, 8), w, None, 1, False), "3 dimensions"),
        (lambda op, w: op.winograd_conv(torch.zeros(1, 16, 2, 8), w, None, 0, False), "smaller than the filters"),
        (lambda op, w: op.winograd_conv(torch.zeros(1, 16, 8, 8), w, torch.zeros(3), 1, False), "bias"),
        (lambda op, w: op.winograd_conv(torch.zeros(1, 16, 8, 8).double(), w, None, 1, False), "float32"),
        (lambda op, w: op.winograd_weight(torch.zeros(16, 16, 5, 5), False), "wanted .K, C, 3, 3."),
        (lambda op, w: op.winograd_weight(torch.zeros(10, 16, 3, 3), False), "multiples of 16"),
        (lambda op, w: op.winograd_chain(torch.zeros(1, 16, 8, 8), [w], []), "one of each"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    op = torch.ops.maskrcnn_benchmark
    with pytest.raises(RuntimeError, match=message):
        call(op, op.winograd_weight(torch.zeros(16, 16, 3, 3), False))


@pytest.mark.parametrize("shape, filters, padding", [((2, 32, 45, 39), 80, 1), ((1, 16, 9, 50), 32, 0)])
def test_gradients_are_those_of_the_convolution(rng_seed, shape, filters, padding, monkeypatch):
    monkeypatch.setattr(winograd, "GRADIENT_TILES", 0)
    x = torch.randn(shape, requires_grad=True)
    weight = torch.randn(filters, shape[1], 3, 3, requires_grad=True)
    bias = torch.randn(filters, requires_grad=True)
    result = winograd_conv2d(x, weight, bias, padding)
    grad = torch.randn_like(result)
    found = torch.autograd.grad(result, (x, weight, bias), grad)
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, weight, bias)]
    wanted = torch.autograd.grad(nn.functional.conv2d(*exact, padding=padding), exact, grad.double())
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.float32 and rounding_error(one, other) < 1e-4


def test_gradients_in_bfloat16_and_of_small_maps(rng_seed):
    weight, bias = torch.randn(32, 16, 3, 3, requires_grad=True), torch.zeros(32, requires_grad=True)
    for side in (8, 120):  # below and above GRADIENT_TILES
        x = torch.randn(1, 16, side, side, requires_grad=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = winograd_conv2d(x, weight, bias, 1)
        assert result.dtype == torch.bfloat16
        grad = torch.randn_like(result)
        found = torch.autograd.grad(result, (x, weight, bias), grad)
        exact = [tensor.detach().bfloat16().double().requires_grad_() for tensor in (x, weight, bias)]
        wanted = torch.autograd.grad(nn.functional.conv2d(*exact, padding=1), exact, grad.double())
        for one, other in zip(found, wanted, strict=True):
            assert one.dtype == torch.float32 and rounding_error(one, other) < 0.1


def test_gradients_of_filters_do_not_depend_on_the_threads(rng_seed):
    grad, x = torch.randn(2, 32, 33, 47), torch.randn(2, 48, 33, 47)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(torch.ops.maskrcnn_benchmark.winograd_weight_grad(grad, x, 1))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results[1:])


def test_only_wanted_gradients_are_computed(rng_seed):
    x, weight = torch.randn(1, 16, 9, 9), torch.randn(16, 16, 3, 3, requires_grad=True)
    winograd_conv2d(x, weight, None, 1).sum().backward()
    assert x.grad is None and weight.grad.shape == weight.shape
    assert winograd_conv2d(x, weight.detach(), None, 1).grad_fn is None


def test_filters_can_be_shared_by_several_maps(rng_seed, monkeypatch):
    weight = torch.randn(16, 16, 3, 3, requires_grad=True)
    maps = [torch.randn(1, 16, side, side, requires_grad=True) for side in (9, 5, 3)]
    separate = torch.autograd.grad([winograd_conv2d(x, weight, None, 1).square().sum() for x in maps], [weight, *maps])
    transformed = []
    make = winograd._Filters.get

    def get(self, way):
        transformed.append(make(self, way))
        return transformed[-1]

    monkeypatch.setattr(winograd._Filters, "get", get)
    with shared_filters():
        results = [winograd_conv2d(x, weight, None, 1).square().sum() for x in maps]
    shared = torch.autograd.grad(results, [weight, *maps])
    assert all(torch.equal(one, other) for one, other in zip(shared, separate, strict=True))
    assert len(transformed) == 6 and len({taps.data_ptr() for taps in transformed}) == 2
    with torch.no_grad():
        weight.zero_()
    assert winograd_conv2d(maps[0], weight, None, 1).eq(0).all()


@torch.no_grad()
def test_a_chain_is_the_concatenation(rng_seed):
    sizes = ((32, 48, True), (48, 48, False), (48, 16, True))
    convs = [nn.Conv2d(inputs, filters, 3, padding=1, bias=bias) for inputs, filters, bias in sizes]
    x = torch.randn(2, 32, 19, 23)
    wanted = [x]
    for conv in convs:
        wanted.append(conv(wanted[-1]).relu())
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        result = chain_into_one(given, [WinogradConv2d(conv) for conv in convs])
        assert result.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(result, torch.cat(wanted, 1), rtol=0, atol=5e-5)


def test_only_plain_convolutions_suit(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert suits(nn.Conv2d(16, 32, 3, padding=1))
    others = [
        nn.Conv2d(16, 32, 3, stride=2),
        nn.Conv2d(16, 32, 3, dilation=2),
        nn.Conv2d(16, 32, 3, groups=2),
        nn.Conv2d(16, 32, 1),
        nn.Conv2d(3, 32, 3),
        nn.Conv2d(16, 81, 3),
        nn.Conv2d(16, 32, 3, padding="same"),
        nn.Conv2d(16, 32, 3, padding=(0, 1)),
        nn.Conv2d(16, 32, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(16, 32, 3).double(),
        nn.Conv2d(16, 32, 3, device="meta"),
        nn.ConvTranspose2d(16, 32, 3),
        nn.Linear(16, 32),
    ]
    assert not any(suits(other) for other in others)


def test_it_is_not_used_where_it_is_slower(monkeypatch):
    conv = nn.Conv2d(16, 32, 3)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert suits(conv) and not suits(conv, torch.bfloat16) and not suits(conv, torch.float16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert suits(conv, torch.bfloat16)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert not suits(conv)


@torch.inference_mode()
def test_it_joins_the_relu_behind_it_and_follows_autocast(rng_seed):
    conv = nn.Conv2d(16, 32, 3, padding=1)
    fast, x = WinogradConv2d(conv), torch.randn(1, 16, 9, 9)
    layers = ConvSequential(fast, nn.Identity(), nn.ReLU(inplace=True))
    assert winograd_relu(layers) is fast and winograd_relu(nn.Sequential(conv, nn.ReLU())) is None
    torch.testing.assert_close(layers(x), conv(x).relu(), rtol=0, atol=5e-5)
    plus = torch.randn(1, 32, 9, 9)
    torch.testing.assert_close(conv_norm_act(x, fast, relu=True, plus=plus), (conv(x) + plus).relu(), rtol=0, atol=5e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layers(x).dtype == torch.bfloat16
        assert chain_into_one(x, [fast]).dtype == torch.bfloat16


@pytest.mark.parametrize("capability", ["avx2", "default"])
def test_narrower_cpus_compute_the_same(capability):
    """ATEN_CPU_CAPABILITY is read once a process."""
    script = (
        "import torch; from torch import nn; from maskrcnn_benchmark.layers.winograd import WinogradConv2d\n"
        "torch.manual_seed(3); conv = nn.Conv2d(80, 112, 3, padding=1).requires_grad_(False)\n"
        "x = torch.randn(2, 80, 13, 10); fast = WinogradConv2d(conv)\n"
        "print((fast(x) - conv(x)).abs().max().item(), (fast(x.bfloat16()) - conv(x)).abs().max().item())"
    )
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    exact, half = map(float, done.stdout.split())
    assert exact < 5e-5 and half < 0.05


def test_a_compiler_can_see_its_shapes(rng_seed):
    weight = torch.ops.maskrcnn_benchmark.winograd_weight(torch.randn(32, 16, 3, 3), False)
    x, bias = torch.randn(2, 16, 9, 7), torch.randn(32)
    checks = ("test_schema", "test_faketensor")
    ops = torch.ops.maskrcnn_benchmark
    torch.library.opcheck(ops.winograd_conv.default, (x, weight, bias, 1, True), test_utils=checks)
    torch.library.opcheck(ops.winograd_weight.default, (torch.randn(32, 16, 3, 3), True), test_utils=checks)
    torch.library.opcheck(ops.winograd_weight_grad.default, (torch.randn(2, 32, 9, 7), x, 1), test_utils=checks)
    torch.library.opcheck(ops.winograd_chain.default, (x, [weight], [bias]), test_utils=checks)


def test_it_can_be_switched_off():
    conv = nn.Conv2d(16, 32, 3, padding=1)
    if not suits(conv):
        pytest.skip("this CPU has no AVX2")
    with winograd.enabled(False):
        assert not suits(conv)
        result = conv_norm_act(torch.randn(1, 16, 9, 9), conv)
    assert suits(conv) and "Winograd" not in type(result.grad_fn).__name__
    assert "Winograd" in type(conv_norm_act(torch.randn(1, 16, 9, 9), conv).grad_fn).__name__


def test_without_avx_nothing_is_asked_of_the_ops(monkeypatch):
    monkeypatch.setattr(winograd.library, "kernels_for", lambda device: False)
    assert not suits(nn.Conv2d(16, 32, 3))


def test_gradients_can_be_differentiated_again(rng_seed):
    conv = nn.Conv2d(16, 32, 3, padding=1)
    x = torch.randn(2, 16, 20, 25, requires_grad=True)

    def penalty(function):
        (gradient,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), [x, conv.weight, conv.bias])

    ours = penalty(lambda x: winograd_conv2d(x, conv.weight, conv.bias, 1))
    for result, wanted in zip(ours, penalty(conv), strict=True):
        torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())


def test_without_gradients_it_says_so():
    fast = WinogradConv2d(nn.Conv2d(16, 16, 3, padding=1))
    x = torch.zeros(1, 16, 8, 8, requires_grad=True)
    for call in (lambda: fast(x), lambda: chain_into_one(x, [fast])):
        with pytest.raises(RuntimeError, match=r"the input wants one; .* winograd=False"):
            call()
    with torch.no_grad():
        assert fast(x).shape == x.shape


@torch.no_grad()
def test_inputs_of_other_shapes_and_types(rng_seed):
    conv = nn.Conv2d(32, 16, 3, padding=1)
    fast = WinogradConv2d(conv)
    x = torch.randn(32, 8, 9)
    torch.testing.assert_close(fast(x), conv(x), rtol=0, atol=1e-5)
    half = fast(x.half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), conv(x), rtol=0, atol=5e-3)
    with pytest.raises(ValueError, match=r"input is \(1, 16, 8, 8\); wanted \(N, 32, H, W\)"):
        fast(torch.zeros(1, 16, 8, 8))
    with pytest.raises(TypeError, match=r"float64.*winograd=False"):
        fast(x.double())


@torch.no_grad()
def test_its_weights_are_saved_and_stay_float32_on_the_cpu(rng_seed):
    fast, other = (nn.Sequential(WinogradConv2d(nn.Conv2d(16, 16, 3, padding=1))) for _ in range(2))
    x = torch.randn(1, 16, 8, 8)
    wanted = fast(x)
    assert torch.equal(fast.bfloat16()(x), wanted) and torch.equal(fast.half()(x), wanted)
    other.load_state_dict(fast.state_dict())
    assert torch.equal(other(x), wanted)
    with pytest.raises(RuntimeError, match=r"cannot move to meta; move the model itself"):
        fast.to("meta")
