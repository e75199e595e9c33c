from __future__ import annotations

import json

import pytest
import torch
from conftest import GOLDEN

from maskrcnn_benchmark.structures.bounding_box import FLIP_LEFT_RIGHT, BoxList
from maskrcnn_benchmark.structures.keypoint import (
    Keypoints,
    PersonKeypoints,
    flip_inds_from_names,
    flip_inds_from_pairs,
    flip_inds_of,
    keypoint_sigmas_problem,
    keypoints_to_heat_map,
    kp_connections,
    names_have_sides,
)


@pytest.fixture
def image():
    return json.loads((GOLDEN / "targets.json").read_text())[0]


@pytest.fixture
def people(image):
    return PersonKeypoints(image["keypoints"], (image["width"], image["height"]))


def test_heatmap_positions_equal_the_forks(units, people):
    expected = units["keypoint_heatmap"]
    place, valid = keypoints_to_heat_map(people.keypoints, torch.tensor(expected["rois"]), expected["size"])
    assert valid.tolist() == expected["valid"]
    assert place.tolist() == expected["lin_ind"]
    assert list(PersonKeypoints.FLIP_INDS) == expected["flip_inds"]


def test_a_flipped_person_equals_the_forks(units, people):
    mirrored = people.transpose(FLIP_LEFT_RIGHT)
    assert torch.equal(mirrored.keypoints[0], torch.tensor(units["keypoint_hflip_first"]))


def test_flipping_twice_restores_visible_keypoints(people):
    twice = people.transpose(0).transpose(0).keypoints
    visible = people.keypoints[..., 2] > 0
    torch.testing.assert_close(twice[visible], people.keypoints[visible], atol=1e-4, rtol=0)
    assert (twice[~visible] == 0).all()


def test_point_on_the_far_edge_is_in_the_last_bin_and_outside_is_invalid():
    roi = torch.tensor([[10.0, 20, 30, 60]])
    points = torch.tensor([[[10.0, 20, 2], [30, 60, 1], [30.01, 30, 2], [9.99, 30, 2], [20, 40, 0]]])
    place, valid = keypoints_to_heat_map(points, roi, 8)
    assert valid.tolist() == [[1, 1, 0, 0, 0]]
    assert place.tolist() == [[0, 63, 0, 0, 0]]


def test_region_without_width_has_only_the_keypoint_on_it():
    roi = torch.tensor([[10.0, 20, 10, 60]])
    place, valid = keypoints_to_heat_map(torch.tensor([[[12.0, 30, 2], [10, 20, 2], [5, 30, 2]]]), roi, 8)
    assert valid.tolist() == [[0, 1, 0]] and place.tolist() == [[0, 7, 0]]


def test_no_regions_give_empty_positions():
    place, valid = keypoints_to_heat_map(torch.zeros(0, 17, 3), torch.zeros(0, 4), 56)
    assert place.shape == valid.shape == (0, 17) and place.dtype == torch.int64


def test_keypoints_are_transformed_with_their_boxlist(people, image):
    boxes = BoxList(image["boxes_xyxy"], people.size)
    boxes.add_field("keypoints", people)
    moved = boxes.resize((2 * people.size[0], people.size[1]))[torch.tensor([False, True, True])].get_field("keypoints")
    assert isinstance(moved, PersonKeypoints) and len(moved) == 2
    assert torch.equal(moved.keypoints[..., 0], people.keypoints[1:, :, 0] * 2)
    assert torch.equal(moved.keypoints[..., 1:], people.keypoints[1:, :, 1:])


def test_keypoint_fields_are_indexed_and_moved(people):
    people.add_field("logits", torch.arange(3.0)[:, None].expand(3, 17))
    assert people.has_field("logits") and people.to("cpu").get_field("logits").shape == (3, 17)
    assert people[[2, 0]].get_field("logits")[:, 0].tolist() == [2, 0]
    assert people.resize((10, 10)).has_field("logits")


def test_crop_shifts_points_and_hides_those_outside():
    points = Keypoints([[[5.0, 5, 2], [15, 5, 2], [6, 7, 0]]], (20, 20)).crop((4, 4, 10, 12))
    assert points.size == (6, 8)
    assert points.keypoints.tolist() == [[[1, 1, 2], [0, 0, 0], [0, 0, 0]]]


def test_empty_keypoints_support_all_operations():
    nobody = PersonKeypoints([], (20, 10))
    for changed in (
        nobody.resize((40, 20)),
        nobody.transpose(0),
        nobody.crop((1, 1, 5, 5)),
        nobody[[]],
        nobody.to("cpu"),
    ):
        assert changed.keypoints.shape == (0, 17, 3)


def test_keypoints_of_other_objects_are_flipped_by_their_names():
    names = ["tail", "left_wing", "right_wing"]
    assert flip_inds_of(names) == (0, 2, 1)
    bird = Keypoints([[[1.0, 1, 2], [2, 1, 2], [3, 1, 2]]], (10, 10), flip_inds=flip_inds_of(names))
    assert bird.transpose(0).keypoints[0, :, 0].tolist() == [8, 6, 7]
    assert bird[[0]].resize((20, 20)).transpose(0).keypoints[0, :, 0].tolist() == [17, 13, 15]


def test_flipping_keypoints_without_flip_inds_is_refused():
    with pytest.raises(ValueError, match="flip_inds"):
        Keypoints(torch.zeros(1, 3, 3), (10, 10)).transpose(0)
    with pytest.raises(NotImplementedError, match="FLIP_LEFT_RIGHT"):
        PersonKeypoints(torch.zeros(1, 17, 3), (10, 10)).transpose(1)


def test_wrong_shapes_are_value_errors():
    with pytest.raises(ValueError, match="N, K, 3"):
        PersonKeypoints(torch.zeros(1, 34), (10, 10))
    with pytest.raises(ValueError, match="flip_inds"):
        Keypoints(torch.zeros(1, 3, 3), (10, 10), flip_inds=[0, 1])


def test_the_skeleton_has_fifteen_lines():
    assert len(PersonKeypoints.CONNECTIONS) == 15
    assert PersonKeypoints.CONNECTIONS == kp_connections(PersonKeypoints.NAMES)


def test_flip_inds_from_left_and_right():
    assert flip_inds_from_names(["nose", "left_ear", "right_ear"]) == (0, 2, 1)
    assert flip_inds_from_names(["LeftEar", "RIGHTEAR", "Tail"]) == (1, 0, 2)
    assert flip_inds_from_names(PersonKeypoints.NAMES) == PersonKeypoints.FLIP_INDS


@pytest.mark.parametrize(
    "names", [["p0", "p1"], ["L_0", "R_0"], ["left_ear", "tail"], ["cleft", "nose"], ["left", "Left", "right"], []]
)
def test_ambiguous_names_have_no_flip_inds(names):
    assert flip_inds_from_names(names) is None


def test_flip_inds_from_pairs():
    assert flip_inds_from_pairs([["L", "R"]], 3, ["R", "tail", "L"]) == (2, 1, 0)
    assert flip_inds_from_pairs([(0, 2)], 3) == (2, 1, 0)
    assert flip_inds_from_pairs([], 3) == (0, 1, 2)


@pytest.mark.parametrize(
    "pairs, message",
    [
        ("left", "not a list of pairs"),
        ([["a"]], "is not a pair"),
        ([["a", "x"]], "keypoint 'x' is unknown; expected a, b, or the numbers 0 to 1"),
        ([[0, 2]], "keypoint 2 is unknown"),
        ([["a", "b"], [0, 1]], "is also in another pair"),
    ],
)
def test_invalid_pairs_are_refused(pairs, message):
    with pytest.raises(ValueError, match=message):
        flip_inds_from_pairs(pairs, 2, ["a", "b"])


@pytest.mark.parametrize("name", ["left_eye", "RightEar", "L_0", "eyeR", "r", "l-hip", "lft.knee", "leftear"])
def test_names_with_sides(name):
    assert names_have_sides(["nose", name])


def test_names_without_sides():
    assert not names_have_sides(["nose", "k0", "p_11", "tail", "Rear", "lower", ""])


def test_number_of_sigmas_is_checked():
    assert keypoint_sigmas_problem((), 17) == "" == keypoint_sigmas_problem([0.05], 4)
    assert keypoint_sigmas_problem([0.05] * 4, 4) == ""
    assert "Set DATASETS.KEYPOINT_SIGMAS to 4 numbers" in keypoint_sigmas_problem((), 4)
    assert "Give 4, or one" in keypoint_sigmas_problem([0.05] * 5, 4)
    assert "above 0" in keypoint_sigmas_problem([0.0], 4)
