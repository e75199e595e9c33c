"""Compare BoxList with inclusive boxes with the originals, and test continuous boxes."""

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.structures.bounding_box import FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM, BoxList
from maskrcnn_benchmark.structures.boxlist_ops import (
    boxlist_iou,
    boxlist_ml_nms,
    boxlist_nms,
    cat_boxlist,
    remove_small_boxes,
)

SIZE = (100, 80)


@pytest.fixture
def boxlist(units):
    return BoxList(units["box_coder_1"]["proposals"], SIZE)


def check(boxes, expected):
    np.testing.assert_allclose(boxes.numpy(), np.array(expected, dtype=np.float32), rtol=1e-6, atol=1e-5)


def test_operations_equal_the_original(boxlist, units):
    check(boxlist.convert("xywh").bbox, units["xywh"])
    check(boxlist.convert("xywh").convert("xyxy").bbox, units["box_coder_1"]["proposals"])
    check(boxlist.area(), units["area"])
    check(boxlist.convert("xywh").area(), units["area"])
    check(boxlist.transpose(FLIP_LEFT_RIGHT).bbox, units["hflip"])
    check(boxlist.transpose(FLIP_TOP_BOTTOM).bbox, units["vflip"])
    check(boxlist.resize((150, 90)).bbox, units["resize_150_90"])


def test_iou_equals_the_original(boxlist, units):
    reference = BoxList(units["box_coder_1"]["ref"], SIZE)
    check(boxlist_iou(boxlist, reference), units["iou"])


def test_iou_of_different_images_is_refused(boxlist):
    with pytest.raises(RuntimeError, match="same image"):
        boxlist_iou(boxlist, BoxList(boxlist.bbox, (7, 7)))


def test_clip_removes_empty_boxes():
    boxes = BoxList([[-5.0, -5, 10, 10], [90, 70, 300, 300], [200, 10, 300, 20]], SIZE)
    boxes.add_field("labels", torch.tensor([1, 2, 3]))
    kept = boxes.clip_to_image()
    check(boxes.bbox, [[0, 0, 10, 10], [90, 70, 99, 79], [99, 10, 99, 20]])
    assert kept.get_field("labels").tolist() == [1, 2]
    assert boxes.clip_to_image(remove_empty=False) is boxes


def test_clip_works_on_views_with_autograd():
    whole = torch.tensor([[-5.0, 3.0, 10.0, 9999.0], [1.0, 1.0, 5.0, 5.0]], requires_grad=True)
    first, _ = whole.split(1)
    BoxList(first, SIZE).clip_to_image(remove_empty=False).bbox.sum().backward()
    assert whole.grad.tolist() == [[0, 1, 1, 0], [0, 0, 0, 0]]  # clipped coordinates get no gradient


def test_empty_list_supports_all_operations():
    empty = BoxList([], SIZE)
    empty.add_field("labels", torch.zeros(0, dtype=torch.int64))
    assert empty.bbox.shape == (0, 4)
    for changed in (
        empty.resize((10, 10)),
        empty.transpose(FLIP_LEFT_RIGHT),
        empty.crop((1, 1, 5, 5)),
        empty.convert("xywh").convert("xyxy"),
        empty.clip_to_image(),
        empty[torch.zeros(0, dtype=torch.bool)],
        empty.to("cpu"),
        remove_small_boxes(empty, 3),
        cat_boxlist([empty, empty]),
    ):
        assert len(changed) == 0 and len(changed.get_field("labels")) == 0


def test_crop_shifts_clips_and_keeps_empty_boxes():
    cropped = BoxList([[10, 10, 30, 30], [0, 0, 5, 5]], SIZE).crop((20, 20, 50, 40))
    assert cropped.size == (30, 20)
    check(cropped.bbox, [[0, 0, 10, 10], [0, 0, 0, 0]])


def test_object_fields_are_transformed_and_tensor_fields_are_kept():
    class Recorder:
        calls: list = []

        def resize(self, size):
            self.calls.append(("resize", size))
            return self

        def transpose(self, method):
            self.calls.append(("transpose", method))
            return self

        def crop(self, box):
            self.calls.append(("crop", box))
            return self

    boxes = BoxList([[1.0, 2, 3, 4]], SIZE)
    boxes.add_field("masks", Recorder())
    boxes.add_field("labels", torch.tensor([7]))
    out = boxes.resize((50, 40)).transpose(0).crop((0, 0, 9, 9))
    assert Recorder.calls == [("resize", (50, 40)), ("transpose", 0), ("crop", (0, 0, 9, 9))]
    assert out.get_field("labels").tolist() == [7]


def test_indexing_selects_boxes_and_fields(boxlist):
    boxlist.add_field("labels", torch.arange(6))
    assert boxlist[[4, 1]].get_field("labels").tolist() == [4, 1]
    assert boxlist[2:4].get_field("labels").tolist() == [2, 3]
    assert boxlist[torch.arange(6) > 3].get_field("labels").tolist() == [4, 5]
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        boxlist[0]


def test_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match="(3, 5)"):
        BoxList(torch.zeros(3, 5), SIZE)
    with pytest.raises(ValueError, match="xxyy"):
        BoxList(torch.zeros(3, 4), SIZE, mode="xxyy")
    with pytest.raises(NotImplementedError, match="5"):
        BoxList(torch.zeros(3, 4), SIZE).transpose(5)
    with pytest.raises(KeyError, match="scores"):
        BoxList(torch.zeros(3, 4), SIZE).copy_with_fields("scores")
    assert BoxList(torch.zeros(3, 4), SIZE).copy_with_fields("scores", skip_missing=True).fields() == []


def test_repr_equals_the_forks(boxlist):
    assert repr(boxlist) == "BoxList(num_boxes=6, image_width=100, image_height=80, mode=xyxy)"


def test_nms_keeps_list_order_and_mode():
    boxes = BoxList([[0.0, 0, 9, 9], [0, 0, 9, 9], [50, 50, 59, 59]], SIZE).convert("xywh")
    boxes.add_field("scores", torch.tensor([0.3, 0.9, 0.5]))
    boxes.add_field("labels", torch.tensor([1, 2, 1]))
    assert boxlist_nms(boxes, 0.5).get_field("scores").tolist() == pytest.approx([0.9, 0.5])
    assert boxlist_nms(boxes, 0.5).mode == "xywh"
    assert len(boxlist_nms(boxes, 0.5, max_proposals=1)) == 1
    assert boxlist_nms(boxes, 0) is boxes
    assert len(boxlist_ml_nms(boxes, 0.5)) == 3


def test_cat_refuses_incompatible_lists(boxlist):
    assert len(cat_boxlist([boxlist, boxlist])) == 12
    with pytest.raises(ValueError, match="same fields"):
        other = BoxList(boxlist.bbox, SIZE)
        other.add_field("labels", torch.arange(6))
        cat_boxlist([boxlist, other])
    with pytest.raises(ValueError, match="non-empty"):
        cat_boxlist([])


# ---- continuous boxes


def continuous(**fields):
    boxes = BoxList([[2.0, 3, 12, 10], [0, 0, 30, 20]], (30, 20), box_offset=0)
    for name, data in fields.items():
        boxes.add_field(name, data)
    return boxes


def test_operations_on_continuous_boxes():
    boxes = continuous()
    assert boxes.area().tolist() == [70, 600]
    assert boxes.convert("xywh").bbox[0].tolist() == [2, 3, 10, 7]
    assert boxes.convert("xywh").convert("xyxy").bbox.tolist() == boxes.bbox.tolist()
    assert boxes.transpose(0).bbox.tolist() == [[18, 3, 28, 10], [0, 0, 30, 20]]
    assert boxes.clip_to_image().bbox.tolist() == boxes.bbox.tolist()
    assert boxlist_iou(boxes, boxes)[0].tolist() == pytest.approx([1, 70 / 600])


def test_every_operation_keeps_the_offset():
    boxes = continuous(labels=torch.tensor([1, 2]))
    for made in (
        boxes.convert("xywh"),
        boxes.resize((60, 40)),
        boxes.convert("xywh").resize((60, 40)),
        boxes.transpose(1),
        boxes.crop((1, 1, 9, 9)),
        boxes.clip_to_image(),
        boxes.to("cpu"),
        boxes[:1],
        boxes.copy_with_fields("labels"),
        cat_boxlist([boxes, boxes]),
    ):
        assert made.box_offset == 0


def test_with_offset_keeps_sides_and_fields():
    boxes = continuous(labels=torch.tensor([1, 2]))
    inclusive = boxes.with_offset(1)
    assert inclusive.bbox.tolist() == [[2, 3, 11, 9], [0, 0, 29, 19]] and inclusive.fields() == ["labels"]
    assert inclusive.convert("xywh").bbox.tolist() == boxes.convert("xywh").bbox.tolist()
    assert inclusive.with_offset(0).bbox.tolist() == boxes.bbox.tolist()
    assert boxes.with_offset(0) is boxes
    torch.testing.assert_close(boxlist_iou(boxes, inclusive), boxlist_iou(boxes, boxes))


def test_cat_refuses_different_offsets():
    with pytest.raises(ValueError, match="one box_offset, got 0 and 1"):
        cat_boxlist([continuous(), continuous().with_offset(1)])


def test_fields_are_flipped_with_the_offset_of_the_boxes():
    class Recorder:
        calls = []

        def transpose(self, *arguments):
            self.calls.append(arguments)
            return self

    continuous(field=Recorder()).transpose(0)
    continuous(field=Recorder()).with_offset(1).transpose(0)
    assert Recorder.calls == [(0, 0), (0,)]


def test_pickled_lists_of_older_versions_are_inclusive():
    boxes = continuous()
    del boxes.__dict__["box_offset"]
    assert boxes.box_offset == 1 and boxes.area().tolist() == [88, 31 * 21]
