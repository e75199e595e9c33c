"""Translation of key lists and name tables extracted from the original programs."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from maskrcnn_benchmark.checkpoint.class_rows import CLASS_ROWS
from maskrcnn_benchmark.checkpoint.conversion_targets import TARGETS
from maskrcnn_benchmark.checkpoint.translation import convert_state_dict, to_ours

GOLDEN = Path(__file__).parent.parent / "golden" / "d2"
MAPPINGS = json.loads(gzip.decompress((GOLDEN / "key_mapping.json.gz").read_bytes()))
LISTS = {
    str(path.relative_to(GOLDEN / "state_dicts")).removesuffix(".json.gz"): path
    for path in sorted((GOLDEN / "state_dicts").rglob("*.json.gz"))
}
WAY_BACK = {
    "detectron2": "detectron2",
    "vovnet-detectron2": "detectron2",
    "centermask2": "centermask2",
    "CenterMask": "centermask",
    "mmdetection-vovnet": "mmdetection",
    "timm": "timm",
    "VoVNet-DeepLabV3": "deeplab",
}


def tensors(entries):
    """Return tensors with different values in each row, to detect moved rows."""
    rows = {key: torch.arange(shape[0] * 1.0 if shape else 1) for key, shape in entries}
    return {key: rows[key].reshape(-1, *[1] * (len(shape) - 1)) for key, shape in entries}


def key_list(name):
    return [entry[:2] for entry in json.loads(gzip.decompress(LISTS[name].read_bytes()))["keys"]]


@pytest.mark.parametrize("name", MAPPINGS)
def test_names_of_bodies_equal_the_originals(name):
    mapping = MAPPINGS[name]
    state = {key: torch.zeros(1) for key in (*mapping["map"], *mapping["only_in_source"])}
    ours = {key: name.removeprefix("backbone.").removeprefix("body.") for name, key in to_ours(state).file_keys.items()}
    assert {key: ours[key] for key in mapping["map"]} == mapping["map"]


@pytest.mark.parametrize("name", [name for name in LISTS if name.split("/")[0] in WAY_BACK])
def test_converting_to_our_names_and_back_changes_nothing(name):
    state = tensors(key_list(name))
    ours, left_out = convert_state_dict(state, "maskrcnn_benchmark")
    assert not left_out and len(ours) == len(state)
    again, left_out = convert_state_dict(ours, WAY_BACK[name.split("/")[0]])
    assert not left_out and again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) for key in state)


def test_detectron2_background_rows_become_the_first():
    state = {
        "roi_heads.box_predictor.cls_score.weight": torch.tensor([[10.0], [20.0], [99.0]]),
        "roi_heads.box_predictor.bbox_pred.bias": torch.arange(1.0, 9.0),
        "roi_heads.mask_head.predictor.bias": torch.tensor([1.0, 2.0]),
        "proposal_generator.rpn_head.anchor_deltas.bias": torch.arange(12.0),
    }
    ours = to_ours(state).tensors
    assert ours["roi_heads.box.predictor.cls_score.weight"].tolist() == [[99], [10], [20]]
    assert ours["roi_heads.box.predictor.bbox_pred.bias"].tolist() == [0] * 4 + list(range(1, 9))
    assert ours["roi_heads.mask.predictor.mask_fcn_logits.bias"].tolist() == [0, 1, 2]
    assert ours["rpn.head.bbox_pred.bias"].tolist() == list(range(12))


@pytest.mark.parametrize(
    ("key", "rows", "classes", "of_ours"),
    [
        ("roi_heads.box.predictor.bbox_pred.weight", 4, 81, 8),
        ("roi_heads.box.predictor.bbox_pred.weight", 324, 81, 324),
        ("roi_heads.box.predictor.bbox_pred.weight", 8, 2, 8),
        ("roi_heads.box.1.predictor.bbox_pred.weight", 4, 2, 8),
        ("roi_heads.box.1.predictor.cls_score.weight", 4, 4, 4),
    ],
)
def test_mmdetections_class_agnostic_boxes_get_background_rows(key, rows, classes, of_ours):
    order = CLASS_ROWS["shared boxes"]
    theirs = torch.arange(rows * 2.0).reshape(rows, 2)
    ours = order.to_ours(key, theirs)
    assert len(ours) == of_ours and torch.equal(ours[-rows:], theirs)
    score = key.replace("bbox_pred", "cls_score")
    assert torch.equal(order.from_ours(key, ours, {score: torch.zeros(classes, 2)}), theirs)


def test_tensors_with_our_names_keep_their_rows():
    state = {"roi_heads.box.predictor.cls_score.bias": torch.arange(3.0), "backbone.bottom_up.x": torch.ones(1)}
    assert to_ours(state).tensors["roi_heads.box.predictor.cls_score.bias"].tolist() == [0, 1, 2]


def test_old_anchors_of_detectron2_do_not_become_ours():
    anchors = "proposal_generator.anchor_generator.cell_anchors.0"
    ours = to_ours({anchors: torch.ones(3, 4), "backbone.bottom_up.x": torch.ones(1)})
    assert list(ours.tensors) == [anchors, "backbone.body.x"]


def test_our_anchors_and_shared_layers_are_not_converted():
    layer4 = "feature_extractor.head.layer4.0.conv1.weight"
    state = {
        "backbone.body.layer1.0.conv1.weight": torch.ones(1),
        "rpn.anchor_generator.cell_anchors.0": torch.ones(1),
        f"roi_heads.box.{layer4}": torch.ones(1),
        f"roi_heads.mask.{layer4}": torch.ones(1),
    }
    converted, left_out = convert_state_dict(state, "detectron2")
    assert list(converted) == ["backbone.res2.0.conv1.weight", "roi_heads.res5.0.conv1.weight"]
    assert left_out == ["rpn.anchor_generator.cell_anchors.0", f"roi_heads.mask.{layer4}"]
    again = to_ours(converted).tensors
    assert list(again) == ["backbone.body.layer1.0.conv1.weight", f"roi_heads.box.{layer4}"]


def test_a_body_alone_gets_the_programs_prefix():
    body = {"stem.stem_1/conv.weight": torch.ones(1), "stage2.OSA2_1.layers.0.OSA2_1_0/conv.weight": torch.ones(1)}
    assert list(convert_state_dict(body, "detectron2")[0])[0] == "backbone.bottom_up.stem.stem_1/conv.weight"
    assert list(convert_state_dict(body, "mmdetection")[0])[0] == "model.stem.0.weight"
    assert list(convert_state_dict(body, "timm")[0])[0] == "stem.0.conv.weight"


def test_heads_are_dropped_for_programs_with_only_a_body():
    state = {
        "backbone.body.stem.conv1.weight": torch.ones(1),
        "backbone.body.layer1.0.conv1.weight": torch.ones(1),
        "rpn.head.conv.weight": torch.ones(1),
    }
    converted, left_out = convert_state_dict(state, "torchvision")
    assert list(converted) == ["conv1.weight", "layer1.0.conv1.weight"] and left_out == ["rpn.head.conv.weight"]


def test_names_without_a_counterpart_are_an_error():
    state = {"backbone.body.x": torch.ones(1), "roi_heads.keypoint.predictor.kps_score_lowres.bias": torch.ones(1)}
    with pytest.raises(ValueError, match=r"mmdetection has no names for backbone\.body\.x, roi_heads\.keypoint"):
        convert_state_dict(state, "mmdetection")
    with pytest.raises(ValueError, match="timm has no names for backbone.body.x"):
        convert_state_dict(state, "timm")
    with pytest.raises(ValueError, match=f"unknown dialect 'caffe2'; known are {', '.join(map(repr, TARGETS))}"):
        convert_state_dict(state, "caffe2")


def test_bodies_of_mmdetections_resnets_are_under_backbone():
    state = {"backbone.conv1.weight": torch.ones(1), "backbone.layer1.0.conv1.weight": torch.ones(1)}
    state["neck.fpn_convs.0.conv.bias"] = torch.ones(1)
    ours = to_ours(state).tensors
    assert list(ours) == [
        "backbone.body.stem.conv1.weight",
        "backbone.body.layer1.0.conv1.weight",
        "backbone.fpn.fpn_layer1.bias",
    ]
    assert list(convert_state_dict(ours, "mmdetection")[0]) == list(state)
