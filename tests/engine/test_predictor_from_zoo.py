"""The models that come with the package, as a user calls them."""

import json
import socket

import numpy as np
import pytest
from PIL import Image

import maskrcnn_benchmark
from maskrcnn_benchmark.checkpoint.shipped import shipped_model
from maskrcnn_benchmark.data.sample import sample_image, sample_objects
from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.evaluation.coco_evaluator import run_evaluator

# Lowest AP50 on 40 fresh scenes: the shipped figures less what so few scenes vary by.
LEAST = {"digits_fcos": {"bbox": 0.82}, "digits_mask_rcnn": {"bbox": 0.80, "segm": 0.77}}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Folder of 40 scenes that are not in the test set, of its digits and photographs."""
    pytest.importorskip("sklearn")
    from maskrcnn_benchmark.data.digits import make_digits

    folder = tmp_path_factory.mktemp("data") / "digits"
    make_digits(folder, train=1, test=40, seed=99)
    return folder


@pytest.mark.parametrize("name", list(LEAST))
def test_digits_are_found_in_scenes_composed_here(name, scenes):
    truth = json.loads((scenes / "annotations/instances_test.json").read_text())
    predictor = Predictor.from_zoo(name, score_threshold=None)
    predictions = predictor([scenes / "test" / image["file_name"] for image in truth["images"]])
    entries = []
    for image, prediction in zip(truth["images"], predictions, strict=True):
        entries += prediction.to_coco(image["id"])
    for kind, least in LEAST[name].items():
        figure = run_evaluator(truth, entries, kind).stats[1]
        assert figure > least, f"{kind} AP50 {figure:.3f}"


@pytest.mark.parametrize("name", list(LEAST))
def test_nothing_but_the_package_is_needed(name, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network is used")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    prediction = maskrcnn_benchmark.Predictor.from_zoo(name)(maskrcnn_benchmark.sample_image())
    assert sorted(prediction.names) == sorted(each for each, _ in sample_objects())
    assert prediction.category_ids == [int(each) + 1 for each in prediction.names]
    prediction.save("found.png")
    assert (tmp_path / "found.png").stat().st_size > 1000


def test_images_of_cameras_keep_their_short_side():
    frame = Image.fromarray(np.zeros((480, 640, 3), np.uint8))
    for opts, shape in (([], (3, 160, 213)), (["INPUT.MIN_SIZE_TEST", 192], (3, 192, 256))):
        assert Predictor.from_zoo("digits_fcos", opts=opts).setup.transform(frame).shape == shape


def test_options_are_those_of_predictor():
    with pytest.raises(ValueError, match="no class 'seven'"):
        Predictor.from_zoo("digits_fcos", classes=["seven"])
    predictor = Predictor.from_zoo("digits_fcos", classes=["7"])
    assert set(predictor(sample_image()).names) <= {"7"}


def test_objects_below_the_models_own_threshold_are_left_out_unless_asked_for():
    known = Predictor.from_zoo("digits_fcos")(sample_image())
    everything = Predictor.from_zoo("digits_fcos", score_threshold=None)(sample_image())
    assert len(known) < len(everything)
    assert known.scores.min() >= shipped_model("digits_fcos").score_threshold > everything.scores.min()


@pytest.mark.parametrize("name", ["digits", "", "../digits_fcos", "fcos_V_39_FPN_1x"])
def test_unknown_name_gets_the_names_there_are(name):
    with pytest.raises(ValueError, match="There are: digits_fcos, digits_mask_rcnn"):
        Predictor.from_zoo(name)
