import numpy as np
import pytest
import torch

from maskrcnn_benchmark.structures.box_arrays import areas, intersections, pairwise_iou
from maskrcnn_benchmark.structures.boxes import box_area, box_iou

BOXES = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 3]], dtype=np.float64)


def test_iou_of_continuous_boxes():
    assert pairwise_iou(BOXES[:1], BOXES)[0] == pytest.approx([1, 1 / 3, 0, 0])


def test_iou_of_boxes_with_inclusive_corners():
    boxes = np.array([[0.0, 0, 9, 9], [5, 0, 14, 9], [20, 20, 29, 29]])
    assert pairwise_iou(boxes, boxes[:2], 1) == pytest.approx(np.array([[1, 1 / 3], [1 / 3, 1], [0, 0]]))


@pytest.mark.parametrize("offset", [0, 1])
def test_arrays_equal_tensors(offset, rng_seed):
    corners = torch.rand(9, 2, dtype=torch.float64) * 40
    a = torch.cat((corners, corners + torch.rand(9, 2) * 30), dim=1)
    b = a[:5] + 4
    assert areas(a.numpy(), offset) == pytest.approx(box_area(a, offset).numpy())
    assert pairwise_iou(a.numpy(), b.numpy(), offset) == pytest.approx(box_iou(a, b, offset).numpy())


def test_reversed_corners_have_no_area():
    reversed_box = np.array([[10.0, 10, 0, 0]])
    assert areas(reversed_box).tolist() == [0] and intersections(reversed_box, BOXES).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("count", [0, 2])
def test_no_boxes(count):
    assert pairwise_iou(BOXES[:0], BOXES[:count]).shape == (0, count)
