import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from maskrcnn_benchmark.engine.prediction import Prediction
from maskrcnn_benchmark.engine.prediction_files import from_json, to_json
from maskrcnn_benchmark.structures.label_names import LabelNames
from maskrcnn_benchmark.structures.packed_map import PackedMap
from maskrcnn_benchmark.structures.panoptic_map import PanopticMap
from maskrcnn_benchmark.structures.rle import encode_window

LABELS = LabelNames(["cat", "dog"], [17, 18], ["things", "sky"], [0, 187])


def make(**fields) -> Prediction:
    window = np.ones((10, 20), dtype=np.uint8)
    return Prediction(
        (60, 40),
        np.array([[5, 5, 24, 14], [30, 20, 49, 29], [0, 0, 9, 9]], dtype=np.float32),
        np.array([0.9, 0.6, 0.3], dtype=np.float32),
        np.array([2, 1, 2]),
        LABELS,
        masks=[
            encode_window(window[:, :width], x, y, 40, 60) for x, y, width in ((5, 5, 20), (30, 20, 20), (0, 0, 10))
        ],
        keypoints=np.tile(np.array([[[8.0, 8.0, 1.0], [9.0, 9.0, 1.0]]], dtype=np.float32), (3, 1, 1)),
        keypoint_scores=np.full((3, 2), 5.0, dtype=np.float32),
        **fields,
    )


def test_coco_entries_have_inclusive_sides_where_boxes_are_inclusive():
    first = make().to_coco(4)[0]
    assert (first["image_id"], first["category_id"], first["bbox"]) == (4, 18, [5, 5, 20, 10])
    assert first["keypoints"] == [8, 8, 1, 9, 9, 1] and first["segmentation"]["size"] == [40, 60]
    assert make(box_offset=0).to_coco()[0]["bbox"] == [5, 5, 19, 9]


def test_json_line_converts_back_to_objects():
    prediction = make(path="a.jpg")
    again = from_json(to_json(prediction), LABELS, prediction.box_offset)
    assert again.boxes.tolist() == prediction.boxes.tolist() and again.labels.tolist() == [2, 1, 2]
    assert again.masks == prediction.masks and again.keypoints.tolist() == prediction.keypoints.tolist()
    assert again.path == "a.jpg" and again.size == (60, 40)


def test_filter_by_scores_and_classes():
    prediction = make()
    assert prediction.filter(score=0.5).names == ["dog", "cat"]
    assert prediction.filter(score={"dog": 0.5}).scores.tolist() == pytest.approx([0.9, 0.6])
    chosen = prediction.filter(classes=["dog"])
    assert chosen.category_ids == [18, 18] and len(chosen.masks) == len(chosen.keypoints) == 2
    assert prediction.filter(classes=[1]).names == ["cat"]
    with pytest.raises(ValueError, match="no class 'dogg'; nearest is 'dog'"):
        prediction.filter(classes=["dogg"])
    with pytest.raises(ValueError, match="labels must be 1 to 2, got 3"):
        prediction.filter(classes=[3])
    with pytest.raises(ValueError, match="from 0 to 1"):
        prediction.filter(score={"dog": 50})


def test_masks_are_decoded_on_demand():
    masks = make().mask_arrays()
    assert masks.shape == (3, 40, 60) and masks.dtype == bool
    assert masks[0, 5:15, 5:25].all() and masks[0].sum() == 200
    none = Prediction((6, 4), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="predicts no masks"):
        none.mask_arrays()
    assert len(none) == 0 and none.to_coco() == [] and "0 objects" not in repr(none)


def test_objects_are_drawn_where_they_are():
    image = np.full((40, 60, 3), 128, dtype=np.uint8)
    drawn = make().filter(score=0.8).draw(image)
    assert (drawn != image)[5:15, 5:25].any(axis=2).mean() > 0.9
    assert (drawn[35:, 50:] == image[35:, 50:]).all() and (image == 128).all()
    with pytest.raises(ValueError, match="pass the image to draw"):
        make().draw()


def test_drawn_image_is_saved_in_the_format_of_the_extension(tmp_path):
    image = np.full((40, 60, 3), 128, dtype=np.uint8)
    prediction = replace(make(), _image=image)
    prediction.save(tmp_path / "found.png", score=0.8)
    assert (np.asarray(Image.open(tmp_path / "found.png")) == prediction.draw(score=0.8)).all()
    with pytest.raises(ValueError, match="extension '.txt'"):
        prediction.save(tmp_path / "found.txt")


def test_segments_and_semantic_classes_are_named_and_drawn():
    image = np.full((40, 60, 3), 128, dtype=np.uint8)
    ids = np.zeros((40, 60), dtype=np.int32)
    ids[:20], ids[20:] = 1, 2
    segments = [{"label": 2, "is_thing": True, "score": 0.9}, {"label": 1, "is_thing": False}]
    panoptic = make(panoptic=PanopticMap(ids, segments))
    assert [(each["name"], each["category_id"]) for each in panoptic.segments] == [("dog", 18), ("sky", 187)]
    assert (panoptic.panoptic_map == ids).all() and "1 dog, 1 sky" in repr(panoptic)
    semantic = make(semantic=PackedMap(np.minimum(ids, 1).astype(np.uint8)))
    assert semantic.semantic_classes == ["sky"] and semantic.semantic_map.max() == 1
    for prediction in (panoptic, semantic):
        assert (prediction.draw(image) != image).mean() > 0.5


def test_supervision_gets_all_fields_and_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", types.SimpleNamespace(Detections=dict))
    given = make().to_supervision()
    assert given["class_id"].tolist() == [1, 0, 1] and given["data"]["class_name"].tolist() == ["dog", "cat", "dog"]
    assert given["xyxy"].shape == (3, 4) and given["mask"].shape == (3, 40, 60)
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        make().to_supervision()
