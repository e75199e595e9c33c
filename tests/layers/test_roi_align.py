"""Compare roi_align with the original, its twin and torchvision, and test its contract."""

import math

import numpy as np
import pytest
import torch
from helpers.ops_helpers import needs_kernels
from torch.testing import assert_close

from maskrcnn_benchmark.layers.roi_align import ROIAlign, multilevel_roi_align, roi_align, roi_align_twin

CHANNELS_LAST = torch.channels_last


def random_case(n=2, c=20, h=13, w=17, r=9, dtype=torch.float32):
    """Make maps and ROIs (scale 1/4) of all sizes, some of them partly or completely outside."""
    corner = torch.rand(r, 2) * torch.tensor([w, h]) * 4 * 1.4 - 10
    side = torch.rand(r, 2) ** 2 * 60
    rois = torch.cat([torch.randint(0, n, (r, 1)), corner, corner + side], dim=1)
    return torch.randn(n, c, h, w).to(dtype), rois


def pooled_and_grad(function, maps, *rest):
    x = maps.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    pooled = function(x, *rest)
    weights = torch.linspace(-1, 1, pooled.numel(), dtype=torch.float64).view(pooled.shape).to(pooled.dtype)
    (grad,) = torch.autograd.grad(pooled, x, weights)
    return pooled.detach(), grad


def twin(maps, rois, size, scale, ratio, aligned):
    return roi_align_twin([maps], rois, None, [scale], *size, ratio, aligned)


@pytest.mark.parametrize("ratio", [2, 0])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, CHANNELS_LAST])
def test_equals_the_original(units, ratio, memory_format):
    case = units["roi_align"]
    maps = torch.from_numpy(np.random.RandomState(8).standard_normal((1, 2, 12, 14)).astype(np.float32))
    maps, rois = maps.contiguous(memory_format=memory_format), torch.tensor(case["rois"])
    expected = torch.tensor(case[f"out_3x3_sr{ratio}"])
    assert_close(ROIAlign((3, 3), case["scale"], ratio)(maps, rois), expected, rtol=0, atol=1e-6)
    assert_close(twin(maps, rois, (3, 3), case["scale"], ratio, False), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, CHANNELS_LAST])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
def test_equals_twin(rng_seed, dtype, memory_format, aligned, ratio):
    # few and many ROIs use different code for contiguous maps; 83 channels leave a remainder in the vectorized loop
    for c, r in ((20, 4), (83, 40)):
        maps, rois = random_case(c=c, r=r, dtype=dtype)
        maps = maps.contiguous(memory_format=memory_format)
        ours = pooled_and_grad(roi_align, maps, rois, (5, 4), 0.25, ratio, aligned)
        other = pooled_and_grad(twin, maps, rois, (5, 4), 0.25, ratio, aligned)
        tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
        for mine, theirs in zip(ours, other, strict=True):
            assert mine.dtype == dtype
            assert_close(mine, theirs, rtol=tolerance, atol=tolerance * max(1.0, float(theirs.abs().max())))
        assert ours[0].is_contiguous(memory_format=memory_format)


@needs_kernels
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, CHANNELS_LAST])
def test_gradient_has_the_layout_of_the_maps(rng_seed, memory_format):
    for r in (2, 60):
        maps, rois = random_case(r=r)
        maps = maps.contiguous(memory_format=memory_format)
        _, grad = pooled_and_grad(roi_align, maps, rois, (5, 4), 0.25, 2, False)
        assert grad.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, CHANNELS_LAST])
def test_half_gradients_are_summed_in_float32(rng_seed, dtype, memory_format):
    maps, rois = random_case(r=60)
    maps = maps.to(dtype).contiguous(memory_format=memory_format)
    _, grad = pooled_and_grad(roi_align, maps, rois, (5, 4), 0.25, 2, False)
    weights = torch.linspace(-1, 1, 60 * 20 * 20, dtype=torch.float64).view(60, 20, 5, 4).to(dtype)
    x = maps.float().requires_grad_()
    (expected,) = torch.autograd.grad(roi_align(x, rois, (5, 4), 0.25, 2), x, weights.float())
    assert_close(grad, expected.to(dtype))


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [0, 2])
def test_equals_torchvision(rng_seed, aligned, ratio):
    torchvision = pytest.importorskip("torchvision")
    maps, rois = random_case(r=50)
    theirs = pooled_and_grad(torchvision.ops.roi_align, maps, rois, (7, 7), 0.25, ratio, aligned)
    for memory_format in (torch.contiguous_format, CHANNELS_LAST):
        given = maps.contiguous(memory_format=memory_format)
        ours = pooled_and_grad(roi_align, given, rois, (7, 7), 0.25, ratio, aligned)
        for mine, other in zip(ours, theirs, strict=True):
            assert_close(mine, other, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, CHANNELS_LAST])
@pytest.mark.parametrize("ratio", [0, 2])
def test_gradcheck(rng_seed, memory_format, ratio):
    maps, rois = random_case(n=2, c=2, h=5, w=6, r=3, dtype=torch.float64)
    maps = maps.contiguous(memory_format=memory_format).requires_grad_()
    for aligned in (False, True):
        assert torch.autograd.gradcheck(lambda x, a=aligned: roi_align(x, rois, (2, 3), 0.25, ratio, a), (maps,))


def test_no_roi_gives_empty_output_and_zero_gradient():
    for function in (roi_align, twin):
        maps = torch.randn(1, 3, 8, 8, requires_grad=True)
        pooled = function(maps, torch.zeros(0, 5), (7, 7), 0.25, 2, False)
        assert pooled.shape == (0, 3, 7, 7)
        pooled.sum().backward()
        assert maps.grad.shape == maps.shape and maps.grad.abs().sum() == 0


def test_extreme_rois_terminate_and_sample_the_map():
    maps = torch.ones(1, 20, 8, 8)
    nan, inf = math.nan, math.inf
    rois = torch.tensor(
        [[0, nan, 0, 4, 4], [0, 0, 0, inf, 4], [0, -inf, 0, inf, 4], [0, -1e9, -1e9, 1e9, 1e9], [0, 9, 9, 2, 2]]
    )
    for memory_format in (torch.contiguous_format, CHANNELS_LAST):
        for aligned in (False, True):
            for ratio in (0, 2):
                arguments = (maps.contiguous(memory_format=memory_format), rois, (2, 2), 1.0, ratio, aligned)
                ours, other = pooled_and_grad(roi_align, *arguments), pooled_and_grad(twin, *arguments)
                assert ours[0][:3].abs().sum() == 0
                assert_close(ours[0], other[0])
                assert_close(ours[1], other[1])


@needs_kernels
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, CHANNELS_LAST])
def test_results_do_not_depend_on_threads(rng_seed, memory_format):
    maps, rois = random_case(c=96, h=40, w=40, r=200)
    maps = maps.contiguous(memory_format=memory_format)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = pooled_and_grad(roi_align, maps, rois, (7, 7), 0.25, 2, False)
        torch.set_num_threads(2)
        two = pooled_and_grad(roi_align, maps, rois, (7, 7), 0.25, 2, False)
    finally:
        torch.set_num_threads(threads)
    assert one[0].equal(two[0]) and one[1].equal(two[1])


def test_both_memory_formats_give_identical_results(rng_seed):
    for r in (2, 60):
        maps, rois = random_case(c=70, r=r)
        first = pooled_and_grad(roi_align, maps, rois, (7, 7), 0.25, 2, False)
        last = pooled_and_grad(roi_align, maps.contiguous(memory_format=CHANNELS_LAST), rois, (7, 7), 0.25, 2, False)
        assert first[0].equal(last[0]) and first[1].equal(last[1])


def test_strided_maps_and_rois(rng_seed):
    maps, rois = random_case(c=6)
    expected = roi_align(maps, rois, 3, 0.25, 2)
    wide = torch.stack([maps, maps], dim=-1)[..., 0]
    assert not wide.is_contiguous()
    assert roi_align(wide, rois.t().contiguous().t(), 3, 0.25, 2).equal(expected)
    assert roi_align(maps[:, :5], rois, 3, 0.25, 2).equal(expected[:, :5])
    assert roi_align(maps, rois.double(), 3, 0.25, 2).dtype == torch.float32


def test_gradient_in_another_memory_format(rng_seed):
    maps, rois = random_case()
    for memory_format in (torch.contiguous_format, CHANNELS_LAST):
        x = maps.contiguous(memory_format=memory_format).requires_grad_()
        pooled = roi_align(x, rois, (7, 7), 0.25, 2)
        gradient = torch.randn(pooled.shape)
        plain, turned = (
            torch.autograd.grad(pooled, x, g, retain_graph=True)[0]
            for g in (gradient, gradient.contiguous(memory_format=CHANNELS_LAST))
        )
        assert plain.equal(turned)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"input": torch.rand(3, 8, 8)}, ValueError, r"\(3, 8, 8\)"),
        ({"rois": torch.rand(2, 4)}, ValueError, r"\(2, 4\)"),
        ({"rois": torch.zeros(2, 5).int()}, TypeError, "int32"),
        ({"rois": [torch.zeros(2, 5)]}, ValueError, r"\(2, 5\).*expected \(R_i, 4\)"),
        ({"rois": [torch.zeros(2, 4), torch.zeros(2, 4)]}, ValueError, "list of 2 for 1 images"),
        ({"rois": []}, ValueError, "list of 0 for 1 images"),
        ({"rois": [[1, 2, 3, 4]]}, TypeError, "list"),
        ({"input": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}, TypeError, "uint8"),
        ({"rois": torch.tensor([[1.0, 0, 0, 4, 4]])}, RuntimeError, "1"),
        ({"rois": torch.tensor([[-1.0, 0, 0, 4, 4]])}, RuntimeError, "-1"),
        ({"rois": torch.zeros(2, 5, device="meta")}, ValueError, "meta"),
        ({"output_size": (0, 7)}, ValueError, r"\(0, 7\)"),
        ({"spatial_scale": 0.0}, ValueError, "0.0"),
    ],
)
def test_invalid_arguments_are_refused(change, error, words):
    arguments = {"input": torch.rand(1, 3, 8, 8), "rois": torch.zeros(2, 5), "output_size": 7} | change
    with pytest.raises(error, match=words):
        roi_align(**{"spatial_scale": 0.25, "sampling_ratio": 2, **arguments})


def test_lists_of_boxes_equal_rois_with_image_index(rng_seed):
    maps, rois = random_case()
    per_image = [rois[rois[:, 0] == image, 1:] for image in range(len(maps))]
    sorted_rois = torch.cat([rois[rois[:, 0] == image] for image in range(len(maps))])
    assert roi_align(maps, per_image, 7, 0.25, 2).equal(roi_align(maps, sorted_rois, 7, 0.25, 2))
    assert roi_align(maps, tuple(per_image), 7, 0.25, 2).equal(roi_align(maps, sorted_rois, 7, 0.25, 2))
    none = [torch.zeros(0, 4)] * len(maps)
    assert roi_align(maps, none, 7, 0.25, 2).shape == (0, maps.shape[1], 7, 7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rois_of_half_types_are_computed_in_float32(rng_seed, dtype):
    maps, rois = random_case()
    rois = rois.to(dtype)
    expected = roi_align(maps, rois.float(), 7, 0.25, 2)
    assert roi_align(maps, rois, 7, 0.25, 2).equal(expected)
    assert roi_align(maps, [rois[:, 1:]] + [rois[:0, 1:]] * (len(maps) - 1), 7, 0.25, 2).shape == expected.shape


def test_many_half_rois_keep_their_image_index():
    maps = torch.arange(300.0).view(300, 1, 1, 1).expand(300, 1, 4, 4)
    boxes = [torch.tensor([[0, 0, 2, 2]], dtype=torch.bfloat16)] * 300  # bfloat16 cannot represent 257
    assert roi_align(maps, boxes, 1, 1.0, 1).flatten().equal(torch.arange(300.0))


PYRAMID_SCALES = [1 / 4, 1 / 8, 1 / 16]


def random_pyramid(memory_format=torch.contiguous_format, dtype=torch.float32, c=40, r=30):
    """Make three maps, ROIs, and a level for each of them; no ROI is on the second map."""
    _, rois = random_case(h=24, w=32, r=r)
    maps = [torch.randn(2, c, int(96 * s), int(128 * s)).to(dtype) for s in PYRAMID_SCALES]
    return [x.contiguous(memory_format=memory_format) for x in maps], rois, torch.randint(0, 2, (r,)) * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, CHANNELS_LAST])
def test_every_roi_is_pooled_from_its_level(rng_seed, dtype, memory_format):
    maps, rois, levels = random_pyramid(memory_format, dtype)
    weights = torch.randn(30, 40, 4, 5).to(dtype)

    def pooled_and_grads(function):
        inputs = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in maps]
        pooled = function(inputs)
        return [pooled.detach(), *torch.autograd.grad(pooled, inputs, weights)]

    def level_by_level(inputs):
        rows = torch.cat([torch.nonzero(levels == number)[:, 0] for number in range(3)])
        pooled = [roi_align(x, rois[levels == i], (4, 5), PYRAMID_SCALES[i], 2) for i, x in enumerate(inputs)]
        return torch.cat(pooled)[rows.argsort()]

    ours = pooled_and_grads(lambda inputs: multilevel_roi_align(inputs, rois, levels, (4, 5), PYRAMID_SCALES, 2))
    assert all(x.is_contiguous(memory_format=memory_format) for x in ours)
    assert ours[2].count_nonzero() == 0
    for mine, other in zip(ours, pooled_and_grads(level_by_level), strict=True):
        assert mine.equal(other)
    twins = pooled_and_grads(lambda inputs: roi_align_twin(inputs, rois, levels, PYRAMID_SCALES, 4, 5, 2, False))
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2}[dtype]
    for mine, other in zip(ours, twins, strict=True):
        assert_close(mine, other, rtol=tolerance, atol=tolerance * max(1.0, float(other.abs().max())))


def test_one_channels_last_map_makes_the_result_channels_last(rng_seed):
    maps, rois, levels = random_pyramid()
    pooled = multilevel_roi_align(maps, rois, levels, 3, PYRAMID_SCALES, 2)
    maps[1] = maps[1].contiguous(memory_format=CHANNELS_LAST)
    mixed = multilevel_roi_align(maps, rois, levels, 3, PYRAMID_SCALES, 2)
    assert mixed.is_contiguous(memory_format=CHANNELS_LAST) and mixed.equal(pooled)


@needs_kernels
def test_rois_in_another_order_give_the_same_rows(rng_seed):
    maps, rois, levels = random_pyramid()
    shuffled = torch.randperm(30)
    pooled = multilevel_roi_align(maps, rois, levels, 3, PYRAMID_SCALES, 2)
    assert multilevel_roi_align(maps, rois[shuffled], levels[shuffled], 3, PYRAMID_SCALES, 2).equal(pooled[shuffled])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"levels": None}, ValueError, "levels"),
        ({"inputs": []}, ValueError, "0 maps"),
        ({"spatial_scales": [0.5]}, ValueError, "1 scales"),
        ({"levels": torch.tensor([0, 2])}, RuntimeError, "2"),
        ({"levels": torch.tensor([0, -1])}, RuntimeError, "-1"),
        ({"levels": torch.tensor([0.0, 1.0])}, ValueError, "float32"),
        ({"levels": torch.tensor([0])}, ValueError, r"\(1,\)"),
        ({"inputs": [torch.rand(1, 3, 8, 8), torch.rand(1, 4, 4, 4)]}, ValueError, r"\(1, 4, 4, 4\)"),
        ({"inputs": [torch.rand(1, 3, 8, 8), torch.rand(1, 3, 4, 4).double()]}, ValueError, "float64"),
    ],
)
def test_invalid_arguments_with_several_maps_are_refused(change, error, words):
    arguments = {
        "inputs": [torch.rand(1, 3, 8, 8), torch.rand(1, 3, 4, 4)],
        "rois": torch.zeros(2, 5),
        "levels": torch.tensor([0, 1]),
        "spatial_scales": [0.5, 0.25],
    }
    with pytest.raises(error, match=words):
        multilevel_roi_align(**(arguments | change), output_size=2, sampling_ratio=2)


@needs_kernels
def test_opcheck_of_several_maps(rng_seed):
    maps, rois, levels = random_pyramid(c=3, r=6)
    maps = [x.requires_grad_() for x in maps]
    op = torch.ops.maskrcnn_benchmark.roi_align.default
    torch.library.opcheck(op, (maps, rois, levels, PYRAMID_SCALES, 3, 4, 2, True))
    backward = torch.ops.maskrcnn_benchmark.roi_align_backward.default
    sizes = [side for x in maps for side in x.shape[2:]]
    grad = torch.randn(6, 3, 3, 4)
    torch.library.opcheck(backward, (grad, rois, levels, 2, sizes, PYRAMID_SCALES, 2, True, True, False))


@needs_kernels
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, CHANNELS_LAST])
def test_opcheck(rng_seed, memory_format):
    op = torch.ops.maskrcnn_benchmark.roi_align.default
    backward = torch.ops.maskrcnn_benchmark.roi_align_backward.default
    channels_last = memory_format == CHANNELS_LAST
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        maps, rois = random_case(dtype=dtype)
        maps = maps.contiguous(memory_format=memory_format).requires_grad_()
        torch.library.opcheck(op, ([maps], rois, None, [0.25], 3, 4, 2, False))
        grad = torch.randn(9, 20, 3, 4).to(dtype)
        sizes = list(maps.shape[2:])
        torch.library.opcheck(backward, (grad, rois, None, 2, sizes, [0.25], 2, False, channels_last, False))


@needs_kernels
def test_runs_inside_torch_compile(rng_seed):
    maps, rois = random_case()
    pool = ROIAlign((7, 7), 0.25, 2, aligned=True)
    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager")
    x, y = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    compiled(x, rois).square().sum().backward()
    pool(y, rois).square().sum().backward()
    assert_close(x.grad, y.grad)


def test_autocast_does_not_cast_coordinates(rng_seed):
    maps, rois = random_case()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert roi_align(maps, rois, 7, 0.25, 2).equal(roi_align(maps, rois, 7, 0.25, 2))
        assert roi_align(maps.bfloat16(), rois, 7, 0.25, 2).dtype == torch.bfloat16
    with torch.inference_mode():
        roi_align(maps, rois, 7, 0.25, 2)


@needs_kernels
def test_double_backward_is_refused():
    x = torch.randn(1, 4, 9, 9, requires_grad=True)
    pooled = roi_align(x, torch.tensor([[0.0, 1, 1, 7, 7]]), 3, 1.0, 2)
    (gradient,) = torch.autograd.grad(pooled.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="can't be differentiated twice; roi_align_twin can"):
        gradient.sum().backward()
