"""The ops of exported graphs, and what they become in ONNX and torchvision, compute what layers do."""

import numpy as np
import pytest
import torch
from helpers.onnx_session import OnnxSession
from torch import nn

from maskrcnn_benchmark.export import ops
from maskrcnn_benchmark.export.regions import Rows
from maskrcnn_benchmark.export.selection import best, clip
from maskrcnn_benchmark.layers.roi_align import multilevel_roi_align

SCALES = [0.25, 0.125]


class Both(nn.Module):
    """Both ops, with numbers that hit their corners."""

    def __init__(self, box_offset: float, aligned: bool, most: int):
        super().__init__()
        self.options = box_offset, aligned, most

    def forward(self, boxes, scores, fine, coarse, rois, levels):
        box_offset, aligned, most = self.options
        kept = ops.suppress(boxes, scores, 0.4, 0.2, box_offset, most)
        return kept, ops.pool_levels([fine, coarse], rois, levels, SCALES, 3, 2, 2, aligned)


def inputs(count: int, rois: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*shape, generator=generator)

    corners = rand(2, count, 2) * 60
    boxes = torch.cat((corners, corners + rand(2, count, 2) * 40), dim=2)
    where = rand(rois, 2) * 70 - 5
    regions = torch.cat((torch.arange(rois)[:, None] % 2, where, where + rand(rois, 2) * 50), dim=1)
    return (boxes, rand(2, 3, count), rand(2, 5, 20, 24), rand(2, 5, 10, 12), regions, torch.arange(rois) % 2)


def reference(model, boxes, scores, fine, coarse, rois, levels):
    kept, _ = model(boxes, scores, fine, coarse, rois, levels)
    return kept, multilevel_roi_align([fine, coarse], rois, levels, (3, 2), SCALES, 2, model.options[1])


def test_suppress_keeps_at_most_so_many_of_a_class():
    boxes, scores, *_ = inputs(50, 2)
    few = ops.suppress(boxes, scores, 0.4, 0.2, 1.0, 4)
    many = ops.suppress(boxes, scores, 0.4, 0.2, 1.0, 1000)
    assert few.sum(dim=2).max() == 4 and many.sum(dim=2).max() > 4
    assert not (few & ~many).any() and not (many & (scores <= 0.2)).any()


@pytest.mark.parametrize(("box_offset", "aligned", "most"), [(1.0, False, 1000), (0.0, True, 3)])
def test_torchvision_decompositions_equal_the_ops(box_offset, aligned, most):
    model = Both(box_offset, aligned, most)
    table = ops.torchvision_decompositions()
    given = inputs(40, 7)
    expected = reference(model, *given)
    suppress, pool = (
        table[getattr(torch.ops.maskrcnn_benchmark_export, name).default] for name in ("suppress", "pool_levels")
    )
    boxes, scores, fine, coarse, rois, levels = given
    assert torch.equal(suppress(boxes, scores, 0.4, 0.2, box_offset, most), expected[0])
    pooled = pool([fine, coarse], rois, levels, SCALES, 3, 2, 2, aligned)
    torch.testing.assert_close(pooled, expected[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("box_offset", "aligned", "most"), [(1.0, False, 1000), (0.0, True, 3)])
def test_onnx_translations_equal_the_ops(box_offset, aligned, most):
    model = Both(box_offset, aligned, most)
    run = OnnxSession(model, inputs(40, 7), [(1,), (2,), (), (), (0,), (0,)], ops.onnx_translations)
    for count, rois in ((40, 7), (100, 12), (3, 2)):
        given = inputs(count, rois, seed=count)
        kept, pooled = run(*given)
        expected = reference(model, *given)
        assert torch.equal(kept, expected[0])
        torch.testing.assert_close(pooled, expected[1], atol=1e-5, rtol=0)


def test_best_pads_and_sorts():
    scores = torch.tensor([[0.2, -1e9, 0.9], [-1e9, -1e9, -1e9]])
    found = best(scores, 4, torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.ones(2, 3, 4))
    assert found[0].tolist() == [[pytest.approx(0.9), pytest.approx(0.2), 0, 0], [0] * 4]
    assert found[1].sum(dim=1).tolist() == [2, 0] and found[2].tolist() == [[3, 1, 0, 0], [0] * 4]
    assert found[3].shape == (2, 4, 4) and not found[3][1].any()


def test_clip_uses_each_images_own_size():
    boxes = torch.tensor([[[-5.0, 2, 300, 300]], [[-5.0, 2, 300, 300]]])
    clipped = clip(boxes, torch.tensor([[100, 200], [50, 60]]), 1.0)
    assert clipped.tolist() == [[[0, 2, 199, 99]], [[0, 2, 59, 49]]]


def test_rows_are_those_in_use_and_come_back_to_their_places():
    used = torch.tensor([[True, False, True], [False, True, False]])
    values = torch.arange(6.0).reshape(2, 3, 1) + 1
    rows = Rows(used)
    assert rows.index.tolist() == [0, 2, 4, 0]
    assert rows.spread(rows.gather(values)).flatten().tolist() == [1, 0, 3, 0, 5, 0]
    regions = rows.regions(torch.ones(2, 3, 4), torch.tensor([[10, 20], [30, 40]]))
    assert regions.rois[:, 0].tolist() == [0, 0, 1, 0]
    assert regions.image_areas.tolist() == [200, 200, 1200, 200]
    assert Rows(used, all_places=True).index.tolist() == list(range(6))


def test_ceil_mode_of_pooling_equals_a_line_of_padding():
    onnx_ir = pytest.importorskip("onnx_ir", reason="onnx_ir is not installed: pip install -e '.[export]'")
    from maskrcnn_benchmark.export.formats import _pad_pooling

    def pooling(**settings):
        x = onnx_ir.Value(
            name="x", shape=onnx_ir.Shape(["n", 2, "h", "w"]), type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
        )
        node = onnx_ir.node("MaxPool", [x], attributes={"kernel_shape": [3, 3], **settings})
        node.outputs[0].name = "y"
        node.outputs[0].type = x.type
        return onnx_ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": ops.OPSET}, name="pooling")

    for settings in ({"strides": [1, 1], "ceil_mode": 1}, {"strides": [2, 2], "ceil_mode": 0}):
        graph = pooling(**settings)
        _pad_pooling(graph)
        assert not graph[0].attributes.get_ints("pads", [])
    graph = pooling(strides=[2, 2], ceil_mode=1)
    _pad_pooling(graph)
    assert not graph[0].attributes.get_int("ceil_mode")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    model = onnx_ir.to_proto(onnx_ir.Model(graph, ir_version=10)).SerializeToString()
    session = onnxruntime.InferenceSession(model)
    for size in ((2, 2), (3, 5), (8, 7), (9, 4)):
        x = torch.randn(1, 2, *size)
        expected = torch.nn.functional.max_pool2d(x, 3, 2, ceil_mode=True)
        np.testing.assert_array_equal(session.run(None, {"x": x.numpy()})[0], expected.numpy())
