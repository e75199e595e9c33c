"""Compare the kernels of csrc/cuda, compiled as C++ for the CPU, with the twins: see emulation/cuda_runtime.h.

This tests the index arithmetic, barriers, launch sizes and host code of the CUDA sources. It does not test a GPU's own
arithmetic, memory and atomics.
"""

import ctypes
import math

import pytest
import torch
from helpers import emulated_cuda
from helpers.ops_helpers import needs_kernels
from torch.testing import assert_close

from maskrcnn_benchmark.layers.nms import nms_twin
from maskrcnn_benchmark.layers.roi_align import roi_align_twin
from maskrcnn_benchmark.layers.sigmoid_focal_loss import sigmoid_focal_loss_twin
from maskrcnn_benchmark.native import build_ops

pytestmark = needs_kernels
LAYOUTS = (torch.contiguous_format, torch.channels_last)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.float16: 2e-3, torch.bfloat16: 2e-2}
dtypes = pytest.mark.parametrize("dtype", TOLERANCE)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    try:
        path = emulated_cuda.build(tmp_path_factory.mktemp("emulated"))
    except build_ops.BuildError as error:
        if "no C++ compiler" in str(error):
            pytest.skip(f"the kernels cannot be compiled here: {error}")
        raise
    torch.ops.load_library(str(path))
    return ctypes.CDLL(str(path))


@pytest.fixture(params=["first to last", "last to first", "shuffled"])
def ops(library, request):
    """Return the emulated ops; the parameter is the order in which the threads of a block run."""
    library.set_order(["first to last", "last to first", "shuffled"].index(request.param))
    return torch.ops.maskrcnn_benchmark_emulated


# ---- ROIAlign ------------------------------------------------------------------------------------------------------


def pyramid(channels, dtype, layout):
    sizes = ((13, 18), (7, 9), (1, 1))
    return [torch.randn(2, channels, *size).to(dtype).contiguous(memory_format=layout) for size in sizes]


def regions(count):
    """Make ROIs (count, 5) for an image of 52 x 72 pixels, some of them partly or completely outside, and levels."""
    corner = torch.rand(count, 2) * torch.tensor([90.0, 70.0]) - 10
    rois = torch.cat((torch.randint(0, 2, (count, 1)), corner, corner + torch.rand(count, 2) ** 2 * 60), dim=1)
    return rois, torch.randint(0, 3, (count,))


SCALES = [1 / 4, 1 / 8, 1 / 64]


def twin_with_gradients(maps, rois, levels, bins, ratio, aligned, weights):
    maps = [level.detach().clone(memory_format=torch.preserve_format).requires_grad_() for level in maps]
    pooled = roi_align_twin(maps, rois, levels, SCALES[: len(maps)], *bins, ratio, aligned)
    return [pooled.detach(), *torch.autograd.grad(pooled, maps, weights)]


def kernels_with_gradients(ops, maps, rois, levels, bins, ratio, aligned, weights, deterministic):
    scales, sizes = SCALES[: len(maps)], [side for level in maps for side in level.shape[2:]]
    pooled = ops.roi_align(maps, rois, levels, scales, *bins, ratio, aligned)
    channels_last = not maps[0].is_contiguous()
    arguments = (len(maps[0]), sizes, scales, ratio, aligned, channels_last, deterministic)
    return [pooled, *ops.roi_align_backward(weights, rois, levels, *arguments)]


def assert_all_close(ours, twins, dtype):
    for mine, twin in zip(ours, twins, strict=True):
        assert mine.dtype == dtype
        assert_close(mine, twin, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * max(1.0, float(twin.abs().max())))


@dtypes
@pytest.mark.parametrize("layout", LAYOUTS)
def test_roi_align(ops, dtype, layout, rng_seed):
    # In every dtype several of 16 channels can be read at a time, but of 3 channels only one.
    for channels, ratio, aligned, bins in ((16, 2, True, (3, 2)), (3, 0, False, (2, 5)), (8, 0, True, (7, 7))):
        maps, (rois, levels) = pyramid(channels, dtype, layout), regions(12)
        weights = torch.randn(12, channels, *bins).to(dtype)
        twins = twin_with_gradients(maps, rois, levels, bins, ratio, aligned, weights)
        for deterministic in (False, True):
            ours = kernels_with_gradients(ops, maps, rois, levels, bins, ratio, aligned, weights, deterministic)
            assert_all_close(ours, twins, dtype)
            assert all(x.is_contiguous(memory_format=layout) for x in ours)


def test_deterministic_roi_align_is_identical_in_every_order(library, rng_seed):
    ops = torch.ops.maskrcnn_benchmark_emulated
    maps, (rois, levels) = pyramid(8, torch.float32, torch.channels_last), regions(20)
    weights, results = torch.randn(20, 8, 3, 3), []
    for order in range(3):
        library.set_order(order)
        results.append(kernels_with_gradients(ops, maps, rois, levels, (3, 3), 2, False, weights, True))
    assert all(x.equal(y) for other in results[1:] for x, y in zip(results[0], other, strict=True))


@pytest.mark.parametrize("deterministic", [False, True])
def test_roi_align_of_a_map_not_aligned_for_vector_reads(ops, deterministic, rng_seed):
    store = torch.randn(1 + 2 * 8 * 6 * 5)
    maps = [store[1:].view(2, 6, 5, 8).permute(0, 3, 1, 2)]
    assert maps[0].data_ptr() % 16 and maps[0].is_contiguous(memory_format=torch.channels_last)
    rois, weights = regions(5)[0], torch.randn(5, 8, 2, 2)
    weights = weights.expand(2, 5, 8, 2, 2)[0].transpose(2, 3)  # contiguous in no memory format
    ours = kernels_with_gradients(ops, maps, rois, None, (2, 2), 2, False, weights, deterministic)
    assert_all_close(ours, twin_with_gradients(maps, rois, None, (2, 2), 2, False, weights), torch.float32)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_roi_align_with_many_adaptive_samples(ops, layout, rng_seed):
    maps = [torch.randn(1, 4, 40, 60).contiguous(memory_format=layout)]
    rois = torch.tensor([[0.0, -1e5, -1e5, 1e5, 1e5], [0, 0, 0, 239, 159], [0, 1e6, 1e6, 3e6, 3e6]])
    weights = torch.randn(3, 4, 14, 14)
    twins = twin_with_gradients(maps, rois, None, (14, 14), 0, False, weights)
    for deterministic in (False, True):
        ours = kernels_with_gradients(ops, maps, rois, None, (14, 14), 0, False, weights, deterministic)
        assert_all_close(ours, twins, torch.float32)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_roi_align_returns_zeros_without_samples(ops, layout):
    maps = [torch.ones(1, 4, 6, 6).contiguous(memory_format=layout)] * 2
    nan, inf = math.nan, math.inf
    rois = torch.tensor([[1.0, 0, 0, 4, 4], [-1, 0, 0, 4, 4], [nan, 0, 0, 4, 4], [0, nan, 0, 4, 4], [0, 0, 0, inf, 4]])
    rois = torch.cat((rois, torch.tensor([[0.0, 0, 0, 4, 4]] * 2)))
    levels = torch.tensor([0, 0, 0, 0, 0, 2, -1])
    for ratio in (0, 2):
        weights = torch.ones(7, 4, 2, 2)
        for deterministic in (False, True):
            ours = kernels_with_gradients(ops, maps, rois, levels, (2, 2), ratio, True, weights, deterministic)
            assert all(x.eq(0).all() for x in ours)


def test_roi_align_without_regions_or_images(ops):
    maps = [torch.randn(2, 4, 6, 6)]
    ours = kernels_with_gradients(ops, maps, torch.zeros(0, 5), None, (2, 2), 2, True, torch.zeros(0, 4, 2, 2), False)
    assert ours[0].shape == (0, 4, 2, 2) and ours[1].shape == (2, 4, 6, 6) and ours[1].eq(0).all()
    none = kernels_with_gradients(
        ops, [maps[0][:0]], torch.zeros(0, 5), None, (2, 2), 2, True, torch.zeros(0, 4, 2, 2), True
    )
    assert none[1].shape == (0, 4, 6, 6)


def test_roi_align_refuses_too_many_maps(ops):
    maps, scales = [torch.zeros(1, 1, 2, 2)] * 9, [1.0] * 9
    with pytest.raises(RuntimeError, match="more than 8 maps"):
        ops.roi_align(maps, torch.zeros(1, 5), torch.zeros(1, dtype=torch.int64), scales, 1, 1, 2, True)


# ---- non-maximum suppression ---------------------------------------------------------------------------------------


def boxes_and_scores(count, dtype):
    corner = torch.rand(count, 2, dtype=dtype) * 40
    boxes = torch.cat((corner, corner + torch.rand(count, 2, dtype=dtype) * 30), dim=1)
    return boxes, (torch.rand(count, dtype=dtype) * 20).round() / 20  # many scores are equal


# around the 64 boxes of a tile
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 128, 400])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_nms(ops, count, dtype, rng_seed):
    boxes, scores = boxes_and_scores(count, dtype)
    groups = torch.randint(0, 3, (count,), dtype=torch.int32)
    for given in (None, groups):
        for inclusive, threshold, max_keep in ((False, 0.5, -1), (True, 0.1, -1), (True, 0.7, 5), (False, 0.7, 70)):
            arguments = (boxes, scores, given, threshold, inclusive, max_keep)
            assert ops.nms(*arguments).tolist() == nms_twin(*arguments).tolist()


@pytest.mark.slow
def test_nms_of_more_tiles_than_threads_of_the_sweep(library):
    library.set_order(2)
    ops, side = torch.ops.maskrcnn_benchmark_emulated, 200
    corner = torch.cartesian_prod(torch.arange(side) * 10.0, torch.arange(side) * 10.0)[:33_000]
    boxes = torch.cat((corner, corner + 8), dim=1)
    boxes[32_000:] = boxes[:1000]
    scores = torch.linspace(1, 0, len(boxes))
    assert ops.nms(boxes, scores, None, 0.5, False, -1).tolist() == list(range(32_000))


def test_nms_of_nan_and_non_contiguous_inputs(ops, rng_seed):
    boxes, scores = boxes_and_scores(150, torch.float32)
    scores[:10], scores[10], scores[11] = math.nan, math.inf, -math.inf
    boxes[20:30, 1], boxes[30:40, 2], boxes[40:50, 3] = math.nan, math.inf, -math.inf
    boxes[50:60, 2:] = boxes[50:60, :2]
    wide = torch.stack((boxes, boxes), dim=2)[:, :, 1]
    for inclusive in (False, True):
        arguments = (wide, torch.stack((scores, scores), dim=1)[:, 0], None, 0.4, inclusive, -1)
        assert ops.nms(*arguments).tolist() == nms_twin(*arguments).tolist()


def test_nms_with_max_keep_zero(ops):
    assert ops.nms(torch.zeros(3, 4), torch.ones(3), None, 0.5, True, 0).tolist() == []


# ---- focal loss ----------------------------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("gamma", [2.0, 1.5, 0.0])
def test_focal_loss(ops, dtype, gamma, rng_seed):
    logits = (torch.randn(150, 7) * 20).to(dtype).requires_grad_()
    weights = torch.randn(150, 7).to(dtype)
    for targets in (torch.randint(-1, 8, (150,), dtype=torch.int32), torch.rand(150, 7).to(dtype)):
        twin = sigmoid_focal_loss_twin(logits, targets, gamma, 0.3)
        for given in (weights, weights[:1, :1].expand(150, 7), weights.t().contiguous().t()):
            (gradient,) = torch.autograd.grad(twin, logits, given, retain_graph=True)
            ours = ops.sigmoid_focal_loss(logits.detach(), targets, gamma, 0.3)
            ours_gradient = ops.sigmoid_focal_loss_backward(given, logits.detach(), targets, gamma, 0.3)
            assert_all_close([ours, ours_gradient], [twin.detach(), gradient], dtype)


def test_focal_loss_of_empty_inputs_and_slices(ops, rng_seed):
    assert ops.sigmoid_focal_loss(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64), 2.0, 0.25).shape == (0, 5)
    logits, targets = torch.randn(40, 12)[:, 1:11:3], torch.randint(0, 5, (80,))[::2]
    ours = ops.sigmoid_focal_loss(logits, targets, 2.0, 0.25)
    assert_close(ours, sigmoid_focal_loss_twin(logits, targets, 2.0, 0.25))
