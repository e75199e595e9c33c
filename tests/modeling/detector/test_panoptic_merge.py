"""Test the merge of instances and stuff, on small cases and against detectron2."""

import json

import numpy as np
import pytest
import torch
from helpers.golden_models import GOLDEN

from maskrcnn_benchmark.modeling.detector.panoptic_merge import MergeRules, merge_segments, share_pixels
from maskrcnn_benchmark.structures.bounding_box import BoxList

ALL = MergeRules(stuff_area=1)


def rectangle(left, top, width, height, label=1, score=0.9):
    return {"label": label, "is_thing": True, "score": score}, np.ones((height, width), dtype=bool), left, top


def detections_of(boxes, scores, size=(40, 30), probability=1.0):
    found = BoxList(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), size)
    found.add_field("scores", torch.tensor(scores))
    found.add_field("labels", torch.arange(1, len(scores) + 1))
    found.add_field("mask", torch.full((len(scores), 1, 28, 28), probability))
    return found


@pytest.mark.parametrize("name", ["panoptic_default", "panoptic_alt"])
def test_merge_equals_detectron2(name):
    recorded = json.loads((GOLDEN / "d2" / "units.json").read_text())[name]
    arrays = np.load(GOLDEN / "d2" / "units.npz")
    classes = arrays["panoptic_sem"]
    masks = np.unpackbits(arrays["panoptic_masks_packed"], axis=1).reshape(-1, *classes.shape).astype(bool)
    rules = MergeRules(
        recorded["instances_confidence_thresh"], recorded["overlap_thresh"], recorded["stuff_area_limit"]
    )
    order = sorted(range(len(masks)), key=lambda k: -recorded["scores"][k])
    instances = [
        ({"label": recorded["classes"][k] + 1, "is_thing": True, "score": recorded["scores"][k]}, masks[k], 0, 0)
        for k in order
        if recorded["scores"][k] >= rules.score
    ]
    panoptic = share_pixels(instances, classes, rules)
    assert (panoptic.unpack() == arrays[name.replace("panoptic_", "panoptic_out_")]).all()
    expected = [(entry["isthing"], entry["category_id"]) for entry in recorded["segments_info"]]
    assert [(each["is_thing"], each["label"] - each["is_thing"]) for each in panoptic.segments] == expected


def test_the_instance_with_the_higher_score_keeps_its_pixels():
    panoptic = share_pixels([rectangle(5, 5, 10, 10), rectangle(10, 5, 10, 10, 2)], np.zeros((30, 40), int), ALL)
    ids = panoptic.unpack()
    assert (ids[5:15, 5:15] == 1).all() and (ids[5:15, 15:20] == 2).all()
    assert [segment["label"] for segment in panoptic.segments] == [1, 2]


def test_an_instance_is_dropped_if_more_than_half_of_it_is_taken():
    instances = [rectangle(0, 0, 10, 10), rectangle(5, 0, 10, 10, 2), rectangle(14, 0, 2, 1, 3)]
    instances.append(rectangle(3, 3, 9, 4, 4))
    panoptic = share_pixels(instances, np.zeros((30, 40), int), ALL)
    # taken: half of 2, half of 3, all of 4
    assert [segment["label"] for segment in panoptic.segments] == [1, 2, 3]
    panoptic = share_pixels(instances, np.zeros((30, 40), int), MergeRules(overlap=0.4, stuff_area=1))
    assert [segment["label"] for segment in panoptic.segments] == [1, 3]


def test_stuff_takes_free_pixels_if_they_reach_stuff_area():
    classes = np.zeros((30, 40), dtype=np.uint8)
    classes[:10], classes[10:12] = 7, 3
    panoptic = share_pixels([rectangle(0, 0, 10, 10)], classes, MergeRules(stuff_area=300))
    assert panoptic.segments[1:] == [{"label": 7, "is_thing": False}]
    assert (panoptic.unpack()[:10, 10:] == 2).all() and (panoptic.unpack()[10:] == 0).all()
    # 300 pixels are free, one less than required
    assert len(share_pixels([rectangle(0, 0, 10, 10)], classes, MergeRules(stuff_area=301)).segments) == 1


def test_class_zero_is_not_stuff_and_an_empty_image_has_no_segments():
    panoptic = share_pixels([], np.zeros((30, 40), dtype=np.uint8), ALL)
    assert panoptic.segments == [] and (panoptic.unpack() == 0).all()


def test_detections_are_merged_by_score_above_the_threshold():
    boxes = [[0, 0, 19, 19], [0, 0, 19, 19], [25, 5, 34, 14]]
    panoptic = merge_segments(detections_of(boxes, [0.6, 0.9, 0.49]), torch.zeros(30, 40, dtype=torch.uint8), ALL)
    assert [(segment["label"], round(segment["score"], 3)) for segment in panoptic.segments] == [(2, 0.9)]
    assert (panoptic.unpack()[2:18, 2:18] == 1).all()


def test_empty_masks_and_no_detections_give_no_segments():
    classes = torch.ones(30, 40, dtype=torch.uint8)
    for found in (detections_of([[5, 5, 20, 20]], [0.9], probability=0.1), detections_of([], [])):
        panoptic = merge_segments(found, classes, ALL)
        assert panoptic.segments == [{"label": 1, "is_thing": False}] and (panoptic.unpack() == 1).all()
