"""Compare the Winograd algorithm for training with plain convolutions and their gradients, up to float32 rounding."""

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.layers import winograd
from maskrcnn_benchmark.layers.conv import Conv2d
from maskrcnn_benchmark.layers.winograd import suits, winograd_conv2d
from maskrcnn_benchmark.native import library

pytestmark = pytest.mark.skipif(not library.kernels_for(torch.device("cpu")), reason="no compiled ops")


def rounding_error(result, expected):
    """Return the largest difference from float64 `expected`, relative to its standard deviation."""
    return ((result.double() - expected).abs().max() / expected.std()).item()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda op, w: op.winograd_conv(torch.zeros(1, 32, 8, 8), w, None, 1, False), "32 input channels"),
        (lambda op, w: op.winograd_conv(torch.zeros(16, 8, 8), w, None, 1, False), "3 dimensions"),
        (lambda op, w: op.winograd_conv(torch.zeros(1, 16, 2, 8), w, None, 0, False), "smaller than the filters"),
        (lambda op, w: op.winograd_conv(torch.zeros(1, 16, 8, 8), w, torch.zeros(3), 1, False), "bias"),
        (lambda op, w: op.winograd_conv(torch.zeros(1, 16, 8, 8).double(), w, None, 1, False), "float32"),
        (lambda op, w: op.winograd_weight(torch.zeros(16, 16, 5, 5), False), "expected .K, C, 3, 3."),
        (lambda op, w: op.winograd_weight(torch.zeros(10, 16, 3, 3), False), "multiples of 16"),
        (lambda op, w: op.winograd_chain(torch.zeros(1, 16, 8, 8), [w], []), "one of each"),
    ],
)
def test_invalid_arguments_of_the_ops_are_refused(call, message):
    op = torch.ops.maskrcnn_benchmark
    with pytest.raises(RuntimeError, match=message):
        call(op, op.winograd_weight(torch.zeros(16, 16, 3, 3), False))


@pytest.mark.parametrize("shape, filters, padding", [((2, 32, 45, 39), 80, 1), ((1, 16, 9, 50), 32, 0)])
def test_gradients_equal_the_convolution(rng_seed, shape, filters, padding, monkeypatch):
    monkeypatch.setattr(winograd, "GRADIENT_TILES", 0)
    x = torch.randn(shape, requires_grad=True)
    weight = torch.randn(filters, shape[1], 3, 3, requires_grad=True)
    bias = torch.randn(filters, requires_grad=True)
    result = winograd_conv2d(x, weight, bias, padding)
    grad = torch.randn_like(result)
    found = torch.autograd.grad(result, (x, weight, bias), grad)
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, weight, bias)]
    expected = torch.autograd.grad(nn.functional.conv2d(*exact, padding=padding), exact, grad.double())
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32 and rounding_error(one, other) < 1e-4


@pytest.mark.parametrize("size, dilation, padding", [((9, 13), 2, 2), ((17, 14), 4, 4), ((11, 12), 3, 0)])
def test_gradients_of_dilated_convolutions(rng_seed, size, dilation, padding, monkeypatch):
    monkeypatch.setattr(winograd, "GRADIENT_TILES", 0)
    x = torch.randn(2, 16, *size, requires_grad=True)
    conv = Conv2d(16, 32, 3, padding=padding, dilation=dilation)
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, conv.weight, conv.bias)]
    expected = nn.functional.conv2d(*exact, padding=padding, dilation=dilation)
    result = conv(x)
    assert any("WinogradConv" in name for name in ancestors(result))
    assert result.shape == expected.shape and rounding_error(result, expected) < 5e-5
    grad = torch.randn_like(result)
    found = torch.autograd.grad(result, (x, conv.weight, conv.bias), grad)
    for one, other in zip(found, torch.autograd.grad(expected, exact, grad.double()), strict=True):
        assert rounding_error(one, other) < 1e-4


def ancestors(tensor):
    """Return the names of the nodes of autograd's graph."""
    nodes, names = [tensor.grad_fn], []
    while nodes:
        node = nodes.pop()
        if node is not None:
            names.append(type(node).__name__)
            nodes += [parent for parent, _ in node.next_functions]
    return names


@pytest.mark.parametrize(
    "dilation, padding, taken", [(1, 1, True), (2, 2, True), (4, 4, True), (6, 6, False), (2, 1, False)]
)
def test_winograd_is_used_for_small_dilations(dilation, padding, taken):
    assert suits(nn.Conv2d(16, 16, 3, padding=padding, dilation=dilation)) == taken


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
        expected = torch.autograd.grad(nn.functional.conv2d(*exact, padding=1), exact, grad.double())
        for one, other in zip(found, expected, strict=True):
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


def test_only_required_gradients_are_computed(rng_seed):
    x, weight = torch.randn(1, 16, 9, 9), torch.randn(16, 16, 3, 3, requires_grad=True)
    winograd_conv2d(x, weight, None, 1).sum().backward()
    assert x.grad is None and weight.grad.shape == weight.shape
    assert winograd_conv2d(x, weight.detach(), None, 1).grad_fn is None


def test_only_plain_convolutions_are_supported(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert suits(nn.Conv2d(16, 32, 3, padding=1))
    others = [
        nn.Conv2d(16, 32, 3, stride=2),
        nn.Conv2d(16, 32, 3, padding=(2, 4), dilation=(2, 4)),
        nn.Conv2d(16, 32, 3, groups=2),
        nn.Conv2d(16, 32, 1),
        nn.Conv2d(3, 32, 3),
        nn.Conv2d(16, 81, 3),
        nn.Conv2d(16, 32, 3, padding="same"),
        nn.Conv2d(16, 32, 3, padding=(0, 1)),
        nn.Conv2d(16, 32, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(16, 32, 3).double(),
        nn.Conv2d(16, 32, 3, device="meta"),
    ]
    assert not any(suits(other) for other in others)


def test_winograd_is_not_used_where_it_is_slower(monkeypatch):
    conv = nn.Conv2d(16, 32, 3)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert suits(conv) and not suits(conv, torch.bfloat16) and not suits(conv, torch.float16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert suits(conv, torch.bfloat16)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert not suits(conv)


def test_fake_kernels_return_the_shapes(rng_seed):
    weight = torch.ops.maskrcnn_benchmark.winograd_weight(torch.randn(32, 16, 3, 3), False)
    x, bias = torch.randn(2, 16, 9, 7), torch.randn(32)
    checks = ("test_schema", "test_faketensor")
    ops = torch.ops.maskrcnn_benchmark
    torch.library.opcheck(ops.winograd_conv.default, (x, weight, bias, 1, True), test_utils=checks)
    torch.library.opcheck(ops.winograd_weight.default, (torch.randn(32, 16, 3, 3), True), test_utils=checks)
    torch.library.opcheck(ops.winograd_weight_grad.default, (torch.randn(2, 32, 9, 7), x, 1), test_utils=checks)
    torch.library.opcheck(ops.winograd_chain.default, (x, [weight], [bias]), test_utils=checks)


def test_ops_are_not_called_without_avx(monkeypatch):
    monkeypatch.setattr(winograd.library, "kernels_for", lambda device: False)
    assert not suits(nn.Conv2d(16, 32, 3))


def test_gradients_can_be_differentiated_again(rng_seed):
    conv = nn.Conv2d(16, 32, 3, padding=1)
    x = torch.randn(2, 16, 20, 25, requires_grad=True)

    def penalty(function):
        (gradient,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), [x, conv.weight, conv.bias])

    ours = penalty(lambda x: winograd_conv2d(x, conv.weight, conv.bias, 1))
    for result, expected in zip(ours, penalty(conv), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def test_levels_of_a_pyramid_share_transformed_weights(rng_seed, monkeypatch):
    weight = torch.randn(16, 16, 3, 3, requires_grad=True)
    maps = [torch.randn(1, 16, side, side, requires_grad=True) for side in (9, 5, 3)]

    def gradients():
        results = [winograd_conv2d(x, weight, None, 1).square().sum() for x in maps]
        return torch.autograd.grad(results, [weight, *maps])

    separate = [torch.autograd.grad(winograd_conv2d(x, weight, None, 1).square().sum(), [weight, x]) for x in maps]
    transformed = []
    make = torch.ops.maskrcnn_benchmark.winograd_weight

    def count(weight, transposed):
        transformed.append(transposed)
        return make(weight, transposed)

    monkeypatch.setattr(torch.ops.maskrcnn_benchmark, "winograd_weight", count)
    shared = gradients()
    # the cache starts with the second level, so that the forward pass transforms twice
    assert sorted(transformed) == [False, False, True]
    expected = sum(pair[0] for pair in separate)
    torch.testing.assert_close(shared[0], expected, rtol=1e-5, atol=1e-6 * expected.abs().max().item())
    assert all(torch.equal(one, pair[1]) for one, pair in zip(shared[1:], separate, strict=True))
    assert not winograd._taps, "the transformed weights must be freed with the graph"


@pytest.mark.parametrize("change", ["in place", "data", "fused optimizer"])
def test_changed_weights_are_transformed_again(rng_seed, change):
    weight, x = nn.Parameter(torch.randn(16, 16, 3, 3)), torch.randn(1, 16, 9, 9)
    graphs = [winograd_conv2d(x, weight, None, 1) for _ in range(3)]  # kept, so that their taps stay cached
    assert winograd._taps[id(weight)].made
    if change == "in place":
        with torch.no_grad():
            weight.mul_(2)
    elif change == "data":
        weight.data.mul_(2)
    else:
        weight.grad = -weight.detach().clone()
        torch.optim.SGD([weight], lr=1.0, fused=True).step()
    result = winograd_conv2d(x, weight, None, 1)
    torch.testing.assert_close(result, 2 * graphs[0])
