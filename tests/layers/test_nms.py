"""Compare nms with the original, its twin and torchvision, and test its contract."""

import math

import pytest
import torch
from helpers.ops_helpers import needs_kernels

from maskrcnn_benchmark.layers.nms import batched_nms, ml_nms, nms, nms_twin


def random_boxes(n, extent=200.0, side=60.0, dtype=torch.float32):
    corner = torch.rand(n, 2) * extent
    return torch.cat([corner, corner + torch.rand(n, 2) * side], dim=1).to(dtype)


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_original_results(units, threshold):
    case = units["nms"]
    kept = nms(torch.tensor(case["boxes"]), torch.tensor(case["scores"]), threshold)
    assert kept.dtype == torch.int64
    assert kept.tolist() == case[f"keep_{threshold}"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("max_keep", [-1, 0, 5, 10_000])
def test_equals_twin(rng_seed, dtype, inclusive, max_keep):
    boxes, scores = random_boxes(400, dtype=dtype), torch.rand(400).to(dtype)  # half types make many equal scores
    for groups in (None, torch.randint(-3, 4, (400,))):
        expected = nms_twin(boxes, scores, groups, 0.4, inclusive, max_keep)
        assert batched_nms(boxes, scores, groups, 0.4, inclusive=inclusive, max_keep=max_keep).equal(expected)


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 1.0, 1.5])
def test_pairs_at_the_threshold_equal_the_exact_quotient(rng_seed, threshold):
    # integer corners: many pairs have an IoU of exactly the threshold, where only ">" is right
    boxes = torch.randint(0, 12, (600, 2)).float()
    boxes = torch.cat([boxes, boxes + torch.randint(0, 8, (600, 2))], dim=1)
    scores = torch.rand(600)
    for inclusive in (False, True):
        expected = nms_twin(boxes, scores, None, threshold, inclusive, -1)
        assert batched_nms(boxes, scores, None, threshold, inclusive=inclusive).equal(expected)


def test_equals_torchvision(rng_seed):
    torchvision = pytest.importorskip("torchvision")
    boxes, scores, groups = random_boxes(2000), torch.rand(2000), torch.randint(0, 20, (2000,))
    assert batched_nms(boxes, scores, None, 0.5).equal(torchvision.ops.nms(boxes, scores, 0.5))
    per_group = [torchvision.ops.nms(boxes[groups == g], scores[groups == g], 0.5) for g in range(20)]
    kept = torch.cat([torch.nonzero(groups == g)[:, 0][k] for g, k in enumerate(per_group)])
    assert batched_nms(boxes, scores, groups, 0.5).sort().values.equal(kept.sort().values)


def test_max_keep_takes_the_best_of_all_groups(rng_seed):
    boxes, scores, groups = random_boxes(1500), torch.rand(1500), torch.randint(0, 7, (1500,))
    everything = batched_nms(boxes, scores, groups, 0.5)
    assert (scores[everything].diff() <= 0).all()
    for k in (1, 100, 300):
        assert batched_nms(boxes, scores, groups, 0.5, max_keep=k).equal(everything[:k])


def test_equal_scores_keep_the_lower_index():
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 3 + [[50.0, 50, 60, 60]])
    assert batched_nms(boxes, torch.ones(4), None, 0.5).tolist() == [0, 3]


def test_nan_scores_and_boxes():
    nan, inf = math.nan, math.inf
    boxes = torch.tensor([[0.0, 0, 10, 10], [nan, 0, 10, 10], [0, 0, 10, 10], [0, 0, inf, inf], [-inf, 0, inf, 10]])
    scores = torch.tensor([0.5, 0.9, nan, 0.1, -inf])
    # The NaN score is dropped; boxes with NaN or infinite corners overlap nothing.
    assert batched_nms(boxes, scores, None, 0.5).tolist() == [1, 0, 3, 4]
    assert nms_twin(boxes, scores, None, 0.5, False, -1).tolist() == [1, 0, 3, 4]
    assert batched_nms(torch.full((300, 4), nan), torch.zeros(300), None, 0.5).tolist() == list(range(300))
    assert batched_nms(torch.zeros(300, 4), torch.full((300,), nan), None, 0.5).tolist() == []


def test_boxes_without_area_and_inverted_boxes_equal_twin(rng_seed):
    boxes = torch.randint(0, 6, (300, 4)).float()
    for inclusive in (False, True):
        expected = nms_twin(boxes, torch.arange(300.0), None, 0.3, inclusive, -1)
        assert batched_nms(boxes, torch.arange(300.0), None, 0.3, inclusive=inclusive).equal(expected)


def test_zero_and_one_box():
    assert batched_nms(torch.zeros(0, 4), torch.zeros(0), None, 0.5).shape == (0,)
    assert batched_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5).dtype == torch.int64
    assert nms(torch.rand(1, 4), torch.rand(1), 0.5).tolist() == [0]


@needs_kernels  # the twin takes half a minute
def test_twenty_thousand_boxes_equal_torchvision(rng_seed):
    torchvision = pytest.importorskip("torchvision")
    boxes, scores = random_boxes(20_000, extent=1000.0), torch.rand(20_000)
    kept = batched_nms(boxes, scores, None, 0.5)
    assert 1000 < len(kept) < 20_000
    assert kept.equal(torchvision.ops.nms(boxes, scores, 0.5))


def test_strided_inputs(rng_seed):
    boxes, scores = random_boxes(100), torch.rand(100)
    wide = torch.stack([boxes, boxes + 7], dim=2)
    assert batched_nms(wide[..., 0], scores.repeat(2).view(2, 100).t()[:, 0], None, 0.5).equal(
        batched_nms(boxes, scores, None, 0.5)
    )


def test_ml_nms_separates_labels_given_as_floats(rng_seed):
    boxes, scores, labels = random_boxes(200), torch.rand(200), torch.randint(1, 4, (200,))
    kept = ml_nms(boxes, scores, labels.float(), 0.4)
    assert kept.equal(batched_nms(boxes, scores, labels, 0.4, inclusive=True).sort().values)


def test_boxes_that_need_gradients_are_accepted(rng_seed):
    boxes = random_boxes(20).requires_grad_()
    assert not batched_nms(boxes, torch.rand(20, requires_grad=True), None, 0.5).requires_grad
    with torch.inference_mode():
        assert len(batched_nms(random_boxes(20), torch.rand(20), None, 0.5)) > 0


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"boxes": torch.rand(3, 5)}, ValueError, r"\(3, 5\)"),
        ({"scores": torch.rand(4)}, ValueError, r"\(4,\)"),
        ({"boxes": torch.zeros(3, 4, dtype=torch.int64)}, TypeError, "int64"),
        ({"groups": torch.rand(3)}, TypeError, "float32"),
        ({"groups": torch.zeros(2, dtype=torch.int64)}, ValueError, r"\(2,\)"),
        ({"iou_threshold": -0.1}, ValueError, "-0.1"),
        ({"iou_threshold": math.nan}, ValueError, "nan"),
        ({"scores": torch.rand(3, device="meta")}, ValueError, "meta"),
    ],
)
def test_invalid_arguments_are_refused(change, error, words):
    arguments = {"boxes": torch.rand(3, 4), "scores": torch.rand(3), "groups": None, "iou_threshold": 0.5} | change
    with pytest.raises(error, match=words):
        batched_nms(**arguments)


@needs_kernels
def test_opcheck(rng_seed):
    op = torch.ops.maskrcnn_benchmark.nms.default
    groups = torch.randint(0, 3, (50,))
    torch.library.opcheck(op, (random_boxes(50), torch.rand(50), groups, 0.5, True, -1))
    torch.library.opcheck(op, (random_boxes(50, dtype=torch.float64), torch.rand(50), None, 0.5, False, 10))


@needs_kernels
def test_runs_inside_torch_compile(rng_seed):
    boxes, scores, groups = random_boxes(100), torch.rand(100), torch.randint(0, 3, (100,))
    compiled = torch.compile(lambda b, s, g: b[batched_nms(b, s, g, 0.5)] * 2, fullgraph=True, backend="aot_eager")
    assert compiled(boxes, scores, groups).equal(boxes[batched_nms(boxes, scores, groups, 0.5)] * 2)


@needs_kernels
def test_autocast_computes_in_float32(rng_seed):
    boxes, scores = random_boxes(300), torch.rand(300)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kept = batched_nms(boxes, scores, None, 0.5)
        batched_nms(boxes.bfloat16(), scores.bfloat16(), None, 0.5)
    assert kept.equal(batched_nms(boxes, scores, None, 0.5))
