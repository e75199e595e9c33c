import cv2
import numpy as np
import pytest
import torch

from maskrcnn_benchmark.data.datasets.coco import has_valid_annotation
from maskrcnn_benchmark.forks import (
    cat,
    concat_box_prediction_layers,
    findContours,
    keep_only_positive_boxes,
    permute_and_flatten,
)
from maskrcnn_benchmark.modeling.rpn.anchor_generator import BufferList
from maskrcnn_benchmark.structures.bounding_box import BoxList


@pytest.mark.parametrize("version", [2, 3])
def test_contours_and_hierarchy_of_every_opencv_version(monkeypatch, version):
    image = np.zeros((20, 30), dtype=np.uint8)
    image[5:10, 7:15] = 1
    real = cv2.findContours
    monkeypatch.setattr(cv2, "findContours", lambda *args, **kw: (None,) * (version - 2) + tuple(real(*args, **kw)))
    contours, hierarchy = findContours(image, cv2.RETR_TREE, method=cv2.CHAIN_APPROX_SIMPLE)
    assert sorted(map(tuple, contours[0][:, 0].tolist())) == [(7, 5), (7, 9), (14, 5), (14, 9)]
    assert hierarchy.shape == (1, 1, 4)


def test_cat_accepts_lists_and_tuples(rng_seed):
    parts = [torch.rand(2, 3), torch.rand(4, 3)]
    assert torch.equal(cat(parts), torch.cat(parts))
    assert torch.equal(cat(tuple(parts), 0), torch.cat(parts))
    assert torch.equal(cat([parts[0].t(), parts[1].t()], dim=1), torch.cat([p.t() for p in parts], 1))
    assert cat([parts[0]]) is parts[0]
    with pytest.raises(TypeError, match="list or tuple"):
        cat(parts[0])


def test_flattened_order_is_image_level_row_column_anchor(rng_seed):
    N, A, K = 2, 3, 5
    sizes = ((4, 6), (2, 3))
    logits = [torch.rand(N, A * K, *size) for size in sizes]
    codes = [torch.rand(N, A * 4, *size) for size in sizes]
    flat = permute_and_flatten(logits[0], N, A, K, *sizes[0])
    assert flat.shape == (N, 4 * 6 * A, K)
    assert torch.equal(flat[1, (2 * 6 + 5) * A + 1], logits[0][1, K : 2 * K, 2, 5])

    all_logits, all_codes = concat_box_prediction_layers(logits, codes)
    anchors = (4 * 6 + 2 * 3) * A
    assert all_logits.shape == (N * anchors, K) and all_codes.shape == (N * anchors, 4)
    row = anchors + 4 * 6 * A + (1 * 3 + 2) * A + 2  # image 1, level 1, row 1, column 2, anchor 2
    assert torch.equal(all_logits[row], logits[1][1, 2 * K :, 1, 2])
    assert torch.equal(all_codes[row], codes[1][1, 8:, 1, 2])


def test_only_boxes_with_positive_labels_are_kept(rng_seed):
    boxes = BoxList(torch.rand(4, 4) * 9, (20, 10))
    boxes.add_field("labels", torch.tensor([0, 2, -1, 1]))
    empty = boxes[torch.zeros(0, dtype=torch.int64)]
    (kept, none), chosen = keep_only_positive_boxes([boxes, empty])
    assert kept.get_field("labels").tolist() == [2, 1] and torch.equal(kept.bbox, boxes.bbox[[1, 3]])
    assert chosen[0].tolist() == [False, True, False, True]
    assert len(none) == 0 and chosen[1].dtype == torch.bool


@pytest.mark.parametrize(
    ("annotations", "valid"),
    [
        ([], False),
        ([{"bbox": [0, 0, 1, 9]}, {"bbox": [0, 0, 9, 1]}], False),
        ([{"bbox": [0, 0, 1, 9]}, {"bbox": [0, 0, 9, 2]}], True),
        ([{"bbox": [0, 0, 9, 9], "keypoints": [1, 1, 2] * 9}], False),
        ([{"bbox": [0, 0, 9, 9], "keypoints": [1, 1, 1] * 5 + [0, 0, 0]}] * 2, True),
    ],
)
def test_images_with_valid_annotations(annotations, valid):
    assert has_valid_annotation(annotations) is valid


def test_buffers_are_moved_and_saved_with_their_module():
    buffers = BufferList([torch.ones(2)])
    buffers.extend([torch.zeros(3)])
    assert [len(buffer) for buffer in buffers] == [2, 3] and len(buffers) == 2
    assert list(buffers.state_dict()) == ["0", "1"]
    assert all(buffer.dtype == torch.float64 for buffer in buffers.double())
