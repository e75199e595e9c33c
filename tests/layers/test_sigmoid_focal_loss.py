"""Compare sigmoid_focal_loss with the original, its twin and torchvision, and test its contract."""

import functools
import math

import pytest
import torch
from helpers.ops_helpers import needs_kernels
from torch.testing import assert_close

from maskrcnn_benchmark.layers.sigmoid_focal_loss import (
    SigmoidFocalLoss,
    sigmoid_focal_loss,
    sigmoid_focal_loss_twin,
)


def random_case(n=37, k=20, dtype=torch.float32):
    return (torch.randn(n, k) * 4).to(dtype), torch.randint(-1, k + 1, (n,))


def loss_and_grad(function, logits, targets, *numbers):
    x = logits.detach().clone().requires_grad_()
    loss = function(x, targets, *numbers)
    (grad,) = torch.autograd.grad(loss, x, torch.linspace(0.5, 1.5, loss.numel()).view_as(loss).to(loss.dtype))
    return loss.detach(), grad


def test_equals_the_original(units):
    case = units["sigmoid_focal"]
    expected = torch.tensor(case["elementwise_g2_a0.25"])
    logits, targets = torch.tensor(case["logits"]), torch.tensor(case["targets"])
    for function in (sigmoid_focal_loss, sigmoid_focal_loss_twin):
        assert_close(function(logits, targets, 2.0, 0.25), expected, rtol=1e-5, atol=1e-7)
    assert_close(SigmoidFocalLoss(2.0, 0.25)(logits, targets.int()), expected.sum())


@pytest.mark.parametrize("gamma", [2.0, 1.5, 0.5, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_equals_twin(rng_seed, gamma, dtype):
    logits, labels = random_case(dtype=dtype)
    soft = torch.rand(logits.shape).to(dtype)
    # float32: the implementations of exp and log1p are off by about 1e-7; half types: one rounding of the result
    tolerance = {torch.float32: 2e-6, torch.float64: 1e-12, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    for targets in (labels, labels.int(), soft, (soft > 0.9).to(dtype)):
        ours = loss_and_grad(sigmoid_focal_loss, logits, targets, gamma, 0.25)
        twin = loss_and_grad(sigmoid_focal_loss_twin, logits, targets, gamma, 0.25)
        for mine, other in zip(ours, twin, strict=True):
            assert mine.dtype == dtype
            assert_close(mine, other, rtol=tolerance, atol=tolerance)


def test_relative_accuracy_of_tiny_losses():
    # Single easy negatives do not matter, but there are a million of them.
    x = torch.linspace(-40, 40, 4001)[:, None]
    for label in (0, 1):
        targets = torch.full((len(x),), label)
        exact = loss_and_grad(sigmoid_focal_loss_twin, x.double(), targets, 2.0, 0.25)
        ours = loss_and_grad(sigmoid_focal_loss, x, targets, 2.0, 0.25)
        for mine, other in zip(ours, exact, strict=True):
            assert_close(mine, other.float(), rtol=4e-6, atol=1e-35)


def test_no_logit_overflows():
    x = torch.tensor([[-math.inf, -1e38, -200.0, -89.0, 89.0, 200.0, 1e38, math.inf]]).t().contiguous()
    for targets in (torch.zeros(8, dtype=torch.int64), torch.ones(8, dtype=torch.int64)):
        loss, grad = loss_and_grad(sigmoid_focal_loss, x[1:-1], targets[1:-1], 2.0, 0.25)
        assert torch.isfinite(loss).all() and torch.isfinite(grad).all()
    # an object at logit -200: log(p) is clamped at log(FLT_MIN), as in the original, but the gradient is not 0
    loss, grad = loss_and_grad(sigmoid_focal_loss, torch.tensor([[-200.0]]), torch.tensor([1]), 2.0, 0.25)
    assert_close(loss, torch.tensor([[0.25 * 87.33654475]]))
    assert grad.item() < -0.1


@pytest.mark.parametrize("gamma", [2.0, 1.5, 0.0])
def test_nan_logits_give_nan_losses(gamma):
    x = torch.tensor([[math.nan]])
    for targets in (torch.tensor([0]), torch.tensor([1]), torch.tensor([[0.0]]), torch.tensor([[1.0]])):
        loss, grad = loss_and_grad(sigmoid_focal_loss, x, targets, gamma, 0.25)
        assert torch.isnan(loss).all() and torch.isnan(grad).all()
        assert torch.isnan(sigmoid_focal_loss(x, targets, gamma, 0.25, reduction="sum"))


@pytest.mark.parametrize("gamma", [2.0, 1.3])
def test_dense_targets_equal_torchvision(rng_seed, gamma):
    torchvision = pytest.importorskip("torchvision")
    logits, _ = random_case()
    for targets in (torch.rand(logits.shape), (torch.rand(logits.shape) > 0.5).float()):
        theirs = loss_and_grad(lambda x, t: torchvision.ops.sigmoid_focal_loss(x, t, 0.25, gamma), logits, targets)
        ours = loss_and_grad(sigmoid_focal_loss, logits, targets, gamma, 0.25)
        for mine, other in zip(ours, theirs, strict=True):
            # torchvision computes 1 - p_t by subtraction, with an absolute error of 1e-7
            assert_close(mine, other, rtol=1e-4, atol=2e-5)


def test_integer_and_one_hot_targets_agree(rng_seed):
    logits, _ = random_case()
    labels = torch.randint(0, 21, (len(logits),))
    one_hot = torch.nn.functional.one_hot(labels, 21)[:, 1:].float()
    expected = sigmoid_focal_loss(logits, labels, 2.0, 0.25)
    assert_close(sigmoid_focal_loss(logits, one_hot, 2.0, 0.25), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", [(37, 20), (900, 1), (3, 1500), (211, 83)])
def test_blocks_that_end_within_rows(rng_seed, shape):
    # The CPU kernel processes 512 elements at a time, independent of rows.
    logits, labels = random_case(*shape)
    few = (torch.rand(shape) < 0.01).float()
    half_of_it_soft = torch.rand(shape) * (torch.arange(shape[0])[:, None] > shape[0] // 2)
    for targets in (labels, few, half_of_it_soft):
        ours = loss_and_grad(sigmoid_focal_loss, logits, targets, 2.0, 0.25)
        twin = loss_and_grad(sigmoid_focal_loss_twin, logits, targets, 2.0, 0.25)
        for mine, other in zip(ours, twin, strict=True):
            assert_close(mine, other, rtol=2e-6, atol=2e-6)
        summed = sigmoid_focal_loss(logits, targets, 2.0, 0.25, reduction="sum")
        assert_close(summed, sigmoid_focal_loss_twin(logits.double(), targets, 2.0, 0.25).sum().float())


def test_a_loss_does_not_depend_on_other_targets(rng_seed):
    # Few targets above 0 are corrected one by one, many by another loop.
    logits, _ = random_case(16, 32)
    soft = torch.rand(logits.shape)
    few = soft * (torch.rand(logits.shape) < 0.02)
    many = loss_and_grad(sigmoid_focal_loss, logits, soft, 2.0, 0.25)
    alone = loss_and_grad(sigmoid_focal_loss, logits, few, 2.0, 0.25)
    soft[:8] = 0
    background = loss_and_grad(sigmoid_focal_loss, logits, soft, 2.0, 0.25)
    for with_many, with_few, with_half in zip(many, alone, background, strict=True):
        assert with_few[few > 0].equal(with_many[few > 0])
        assert with_half[:8][few[:8] == 0].equal(with_few[:8][few[:8] == 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_reductions(rng_seed, dtype):
    logits, labels = random_case(dtype=dtype)
    # half types: 3 / 740 is rounded before it is multiplied by the slopes, and the gradient afterwards
    tolerance = {torch.float32: 2e-6, torch.float64: 1e-12, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    for targets in (labels, torch.rand(logits.shape).to(dtype)):
        for reduction in ("sum", "mean"):
            exact, x = logits.double().clone().requires_grad_(), logits.clone().requires_grad_()
            expected = getattr(sigmoid_focal_loss_twin(exact, targets, 2.0, 0.25), reduction)()
            loss = sigmoid_focal_loss(x, targets, 2.0, 0.25, reduction=reduction)
            assert loss.dtype == dtype
            assert_close(loss.double(), expected, rtol=tolerance, atol=0)
            (3 * expected).backward()
            (3 * loss).backward()
            assert_close(x.grad.double(), exact.grad, rtol=tolerance, atol=tolerance)


def test_mean_of_float16_does_not_overflow():
    logits = torch.full((200, 80), 20.0, dtype=torch.float16)
    targets = torch.zeros(200, dtype=torch.int64)
    assert_close(sigmoid_focal_loss(logits, targets, 2.0, 0.25, reduction="mean").item(), 15.0)
    assert sigmoid_focal_loss(logits, targets, 2.0, 0.25, reduction="sum").isinf()
    assert sigmoid_focal_loss(logits[:0], targets[:0], 2.0, 0.25, reduction="mean").isnan()


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_repeated_backward_accumulates_equal_gradients(rng_seed, reduction):
    logits, targets = random_case()
    x = (logits * 1).requires_grad_()
    loss = sigmoid_focal_loss(x * 1, targets, 2.0, 0.25, reduction=reduction).sum()
    loss.backward(retain_graph=True)
    first = x.grad.clone()
    x.grad.mul_(5)  # the returned gradient belongs to the caller
    loss.backward()
    assert_close(x.grad, 6 * first)


def test_ignored_rows_have_neither_loss_nor_gradient(rng_seed):
    logits, _ = random_case()
    loss, grad = loss_and_grad(sigmoid_focal_loss, logits, torch.full((len(logits),), -1), 2.0, 0.25)
    assert loss.abs().sum() == 0 and grad.abs().sum() == 0


@pytest.mark.parametrize("shape", [(0, 80), (5, 0), (1, 1), (3, 1)])
def test_small_shapes(shape):
    logits = torch.randn(shape, requires_grad=True)
    for targets in (torch.zeros(shape[0], dtype=torch.int64), torch.zeros(shape)):
        loss = sigmoid_focal_loss(logits, targets, 2.0, 0.25, reduction="sum")
        loss.backward()
        assert logits.grad.shape == shape


@needs_kernels
def test_large_input_does_not_depend_on_threads(rng_seed):
    logits, targets = random_case(20_000, 80)
    threads = torch.get_num_threads()
    dense = torch.rand(logits.shape) * (torch.rand(logits.shape) < 0.05)
    results = {}
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results[count] = [
                result
                for given in (targets, dense)
                for result in (
                    *loss_and_grad(sigmoid_focal_loss, logits, given, 2.0, 0.25),
                    sigmoid_focal_loss(logits, given, 2.0, 0.25, reduction="sum"),
                )
            ]
    finally:
        torch.set_num_threads(threads)
    for more in (2, 3):
        assert all(one.equal(other) for one, other in zip(results[1], results[more], strict=True))


def test_strided_logits(rng_seed):
    logits, targets = random_case(30, 8)
    expected = loss_and_grad(sigmoid_focal_loss, logits, targets, 2.0, 0.25)
    strided = logits.t().contiguous().t()
    assert not strided.is_contiguous()
    result = loss_and_grad(sigmoid_focal_loss, strided, targets.repeat_interleave(2)[::2], 2.0, 0.25)
    assert_close(result[0], expected[0])
    assert_close(result[1], expected[1])


@pytest.mark.parametrize("gamma", [2.0, 0.7])
def test_gradcheck(rng_seed, gamma):
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    for targets in (torch.tensor([0, 1, 4, -1, 2, 0]), torch.rand(6, 4, dtype=torch.float64)):
        for how in ("none", "sum", "mean"):
            loss = functools.partial(sigmoid_focal_loss, targets=targets, gamma=gamma, alpha=0.25, reduction=how)
            assert torch.autograd.gradcheck(loss, logits)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"logits": torch.rand(3)}, ValueError, r"\(3,\)"),
        ({"logits": torch.zeros(3, 4, dtype=torch.int64)}, TypeError, "int64"),
        ({"targets": torch.zeros(3, 4, dtype=torch.int64)}, ValueError, r"\(3, 4\)"),
        ({"targets": torch.zeros(3)}, ValueError, r"\(3,\)"),
        ({"targets": torch.zeros(3, dtype=torch.bool)}, TypeError, "bool"),
        ({"targets": torch.tensor([0, 5, 1])}, RuntimeError, "5"),
        ({"gamma": -1.0}, ValueError, "-1.0"),
        ({"alpha": 1.5}, ValueError, "1.5"),
        ({"reduction": "max"}, ValueError, "max"),
    ],
)
def test_invalid_arguments_are_refused(change, error, words):
    arguments = {"logits": torch.rand(3, 4), "targets": torch.tensor([0, 1, 4]), "gamma": 2.0, "alpha": 0.25} | change
    with pytest.raises(error, match=words):
        sigmoid_focal_loss(**arguments)


@needs_kernels
def test_opcheck(rng_seed):
    op = torch.ops.maskrcnn_benchmark.sigmoid_focal_loss.default
    reduced = torch.ops.maskrcnn_benchmark.sigmoid_focal_loss_sum.default
    backward = torch.ops.maskrcnn_benchmark.sigmoid_focal_loss_backward.default
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        logits, targets = random_case(dtype=dtype)
        torch.library.opcheck(op, (logits.requires_grad_(), targets, 2.0, 0.25))
        torch.library.opcheck(op, (logits, torch.rand(logits.shape).to(dtype), 1.5, 0.25))
        torch.library.opcheck(reduced, (logits, targets, 2.0, 0.25, dtype.itemsize == 2))
        torch.library.opcheck(backward, (torch.ones_like(logits).detach(), logits.detach(), targets, 2.0, 0.25))


@needs_kernels
def test_runs_inside_torch_compile(rng_seed):
    logits, targets = random_case()
    compiled = torch.compile(SigmoidFocalLoss(2.0, 0.25), fullgraph=True, backend="aot_eager")
    x, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    compiled(x, targets).backward()
    SigmoidFocalLoss(2.0, 0.25)(y, targets).backward()
    assert_close(x.grad, y.grad)


def test_autocast_computes_in_float32(rng_seed):
    logits, targets = random_case()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sigmoid_focal_loss(logits, targets, 2.0, 0.25)
        from_half = sigmoid_focal_loss(logits.bfloat16().requires_grad_(), targets, 2.0, 0.25)
        summed = sigmoid_focal_loss(logits.bfloat16(), targets, 2.0, 0.25, reduction="sum")
    assert loss.equal(sigmoid_focal_loss(logits, targets, 2.0, 0.25))
    assert from_half.dtype == torch.float32
    assert summed.dtype == torch.float32
    assert_close(summed, from_half.sum())
    with torch.inference_mode():
        sigmoid_focal_loss(logits, targets, 2.0, 0.25)


@needs_kernels
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_double_backward_is_refused(reduction):
    logits = torch.randn(6, 4, requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([0, 1, 2, 3, 4, 0]), 2.0, 0.25, reduction=reduction).sum()
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="can't be differentiated twice; sigmoid_focal_loss_twin can"):
        gradient.sum().backward()
