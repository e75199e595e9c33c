"""The parity check fails where one of the models returns NaN."""

import types

import numpy as np
import pytest
import torch
from helpers.export_cases import case, noise

from maskrcnn_benchmark.engine.predictor_setup import setup_of
from maskrcnn_benchmark.export import runtime
from maskrcnn_benchmark.export.metadata import describe
from maskrcnn_benchmark.export.model import make_exportable
from maskrcnn_benchmark.export.parity import KEYPOINT_SHARE, Parity, _compare_detections, compare, compare_maps
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.keypoint import PersonKeypoints

NAN = float("nan")
BOXES = np.float32([[10, 10, 40, 50], [20, 5, 30, 30]])
SCORES = np.float32([0.9, 0.5])


def eager_detections(**fields) -> BoxList:
    boxlist = BoxList(torch.from_numpy(BOXES), (64, 64))
    fields = {"scores": torch.from_numpy(SCORES), "labels": torch.tensor([1, 1]), **fields}
    for name, values in fields.items():
        boxlist.add_field(name, values)
    return boxlist


def exported_detections(**outputs) -> dict:
    return {"boxes": BOXES, "scores": SCORES, "labels": np.array([1, 1]), "count": np.array(2), **outputs}


def with_masks(mask: float, mask_score: float) -> BoxList:
    return eager_detections(mask=torch.full((2, 1, 4, 4), mask), mask_scores=torch.full((2,), mask_score))


@pytest.mark.parametrize(
    ("spoiled", "attribute", "message"), [((NAN, 0.5), "mask", "masks differ"), ((0.5, NAN), "score", "scores differ")]
)
def test_nan_of_one_image_outlasts_the_finite_differences_of_the_next(spoiled, attribute, message):
    outputs = exported_detections(masks=np.full((2, 4, 4), 0.5), mask_scores=np.full(2, 0.5))
    parity = Parity()
    for values in ((0.5, 0.5), spoiled, (0.5001, 0.5)):
        _compare_detections(with_masks(*values), outputs, {}, parity)
    assert np.isnan(getattr(parity, attribute))
    assert any(message in failure for failure in parity.failures())


def test_nan_of_one_map_outlasts_the_finite_differences_of_the_next():
    given = torch.arange(12.0).reshape(1, 3, 4)
    outputs = {"first": given.numpy().copy(), "second": given.numpy()}
    outputs["first"][0, 0, 0] = np.nan
    model = types.SimpleNamespace(
        prepare=lambda image: (image[None], image.shape[:2]), run=lambda batch, sizes: outputs
    )

    class Part:
        names = ("first", "second")

        def __call__(self, images, sizes):
            return given, given

    parity = compare_maps(None, model, noise((8, 8)), Part())
    assert np.isnan(parity.maps) and any("maps differ" in failure for failure in parity.failures())


@pytest.mark.parametrize("column", [0, 2])
def test_nan_keypoint_fails_below_the_share_that_may_be_apart(column):
    count = round(2 / KEYPOINT_SHARE)
    places = torch.full((2, count, 3), 20.0)
    keypoints = PersonKeypoints(places, (64, 64), flip_inds=range(count))
    keypoints.add_field("logits", places[:, :, 2])
    found = places.numpy().copy()
    equal, spoiled = Parity(), Parity()
    _compare_detections(eager_detections(keypoints=keypoints), exported_detections(keypoints=found), {}, equal)
    found[1, 3, column] = np.nan
    _compare_detections(eager_detections(keypoints=keypoints), exported_detections(keypoints=found), {}, spoiled)
    assert not equal.failures()
    assert any("NaN or infinity in keypoints" in failure for failure in spoiled.failures())


def test_nan_logits_of_the_eager_models_keypoints_fail():
    keypoints = PersonKeypoints(torch.full((2, 17, 3), 20.0), (64, 64))
    keypoints.add_field("logits", torch.full((2, 17), NAN))
    parity = Parity()
    outputs = exported_detections(keypoints=np.full((2, 17, 3), 20.0))
    _compare_detections(eager_detections(keypoints=keypoints), outputs, {}, parity)
    assert parity.failures() == ["logits of keypoints differ by nan"]


def test_nan_box_fails_although_its_score_is_on_a_threshold():
    boxes = BOXES.copy()
    boxes[1] = np.nan
    eager = eager_detections(labels=torch.tensor([1, 2]))
    parity = Parity()
    # all detection slots are used, so rounding may decide about the one with the lowest score
    _compare_detections(eager, exported_detections(boxes=boxes, labels=np.array([1, 2])), {"detections": 2}, parity)
    assert parity.missing == parity.on_edge == 2
    assert parity.failures() == ["the exported model returns NaN or infinity in boxes"]


def test_nan_in_unused_slots_is_ignored():
    outputs = exported_detections(boxes=np.concatenate((BOXES, np.full((1, 4), np.nan, dtype=np.float32))))
    outputs |= {"scores": np.append(SCORES, np.float32("nan")), "labels": np.array([1, 1, 0])}
    parity = Parity()
    _compare_detections(eager_detections(), outputs, {}, parity)
    assert parity.detections == 2 and not parity.failures()


class InMemory(runtime.Model):
    """Exportable model that PyTorch runs, with the interface of an exported file; `spoil` changes the outputs."""

    def __init__(self, cfg, model, label_names, spoil):
        exportable = make_exportable(cfg, model)
        self.metadata = describe(cfg, model, exportable, label_names)
        self._exportable, self._spoil = exportable, spoil

    @torch.no_grad()
    def run(self, images, sizes, original_sizes=None):
        values = self._exportable(torch.from_numpy(images), torch.as_tensor(np.asarray(sizes)))
        outputs = {name: value.numpy() for name, value in zip(self.metadata["outputs"], values, strict=True)}
        self._spoil(outputs["semantic"])
        return outputs


def test_nan_of_one_pixel_fails_below_the_share_that_may_have_another_class():
    def spoil(logits):
        logits[0, 1, 5, 6] = np.nan

    parts = case("deeplab")
    equal, spoiled = (
        compare(setup_of(*parts), InMemory(*parts, change), noise((128, 128)))
        for change in (lambda logits: None, spoil)
    )
    assert equal.pixels == 128 * 128 and not equal.failures()
    assert spoiled.pixels_apart <= 1
    assert spoiled.failures() == ["the exported model returns NaN or infinity in semantic"]


@pytest.mark.parametrize("name", ["boxes", "scores"])
def test_nan_differs_from_everything(name):
    boxes = torch.tensor([[10.0, 10, 40, 50], [20, 5, 30, 30]])
    eager = BoxList(boxes, (64, 64))
    eager.add_field("scores", torch.tensor([0.9, 0.5]))
    eager.add_field("labels", torch.tensor([1, 2]))
    outputs = {"boxes": boxes.numpy(), "scores": np.float32([0.9, 0.5]), "labels": np.array([1, 2]), "count": 2}
    equal, spoiled = Parity(), Parity()
    _compare_detections(eager, outputs, {}, equal)
    _compare_detections(eager, outputs | {name: outputs[name] * np.float32("nan")}, {}, spoiled)
    assert not equal.failures() and spoiled.failures()
