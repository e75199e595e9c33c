"""Compare anchors with the originals."""

import copy
import json

import pytest
import torch
from helpers.golden_models import GOLDEN

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.modeling.rpn.anchor_generator import (
    AnchorGenerator,
    cell_anchors,
    make_anchor_generator,
    make_anchor_generator_retinanet,
)
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list

FPN = ["MODEL.RPN.USE_FPN", True, "MODEL.RPN.ANCHOR_STRIDE", (4, 8, 16, 32, 64)]


def config(*opts):
    cfg = copy.deepcopy(defaults)
    cfg.merge_from_list(list(opts))
    return cfg


@pytest.mark.parametrize(
    "case, make, opts",
    [
        ("cell_anchors_c4_default", make_anchor_generator, []),
        ("cell_anchors_fpn", make_anchor_generator, FPN),
        ("cell_anchors_retinanet", make_anchor_generator_retinanet, []),
    ],
)
def test_cell_anchors_equal_the_originals(units, case, make, opts):
    generator = make(config(*opts))
    recorded = [torch.tensor(level) for level in units[case]]
    assert generator.num_anchors_per_location() == [len(level) for level in recorded]
    for ours, level in zip(generator.cell_anchors, recorded, strict=True):
        torch.testing.assert_close(ours, level, rtol=1e-6, atol=0)
    assert list(generator.state_dict()) == [f"cell_anchors.{level}" for level in range(len(recorded))]


def test_other_conventions_have_their_published_anchors():
    continuous = cell_anchors(4, [32], [0.5], rounding="none", at_cell_center=False, box_offset=0.0)
    torch.testing.assert_close(continuous, torch.tensor([[-22.627417, -11.313708, 22.627417, 11.313708]]))
    corners = cell_anchors(4, [32], [0.5, 1.0, 2.0], rounding="corners")
    assert corners.tolist() == [[-21, -9, 24, 12], [-14, -14, 17, 17], [-9, -21, 12, 24]]
    with pytest.raises(ValueError, match="'sizes'"):
        cell_anchors(4, [32], [1.0], rounding="sizes")


def test_grid_and_visibility_equal_the_originals(units):
    generator = make_anchor_generator(config(*FPN))
    levels = units["grid_anchors_fpn_60x90"]
    images = to_image_list([torch.zeros(3, 60, 90)], 32)
    maps = [torch.zeros(1, 1, 64 // stride, -(-96 // stride)) for stride in generator.strides]
    for boxlist, recorded in zip(generator(images, maps)[0], levels, strict=True):
        assert isinstance(boxlist, BoxList) and boxlist.size == (90, 60)
        assert len(boxlist) == recorded["n"]
        assert boxlist.bbox[:6].tolist() == recorded["first6"] and boxlist.bbox[-3:].tolist() == recorded["last3"]
        assert int(boxlist.get_field("visibility").sum()) == recorded["visible"]


def test_visibility_uses_each_image_size():
    generator = AnchorGenerator((8,), (1.0,), (8,), straddle_thresh=0)
    images = to_image_list([torch.zeros(3, 32, 32), torch.zeros(3, 16, 24)])
    anchors = generator(images, [torch.zeros(2, 1, 4, 4)])
    visible = [image[0].get_field("visibility").reshape(4, 4) for image in anchors]
    assert visible[0].all()
    assert visible[1].tolist() == [[True] * 3 + [False]] * 2 + [[False] * 4] * 2


def test_negative_straddle_threshold_makes_all_anchors_visible():
    generator = AnchorGenerator((256,), (1.0,), (8,), straddle_thresh=-1)
    ((anchors,),) = generator(to_image_list([torch.zeros(3, 32, 32)]), [torch.zeros(1, 1, 4, 4)])
    assert anchors.get_field("visibility").all()


def test_grid_is_cached_until_its_size_or_the_cell_anchors_change():
    generator = AnchorGenerator((8,), (1.0,), (8,))
    (first,) = generator.grid_anchors([(4, 5)])
    assert generator.grid_anchors([(4, 5)])[0] is first
    assert generator.grid_anchors([(5, 4)])[0].tolist() != first.tolist()
    generator.load_state_dict({"cell_anchors.0": torch.tensor([[0.0, 0, 1, 1]])})
    assert generator.grid_anchors([(4, 5)])[0][:2].tolist() == [[0, 0, 1, 1], [8, 0, 9, 1]]


def test_generator_moved_in_inference_mode_works_in_both_modes():
    with torch.inference_mode():
        generator = AnchorGenerator((8,), (1.0,), (8,))
        inside = generator.grid_anchors([(2, 2)])[0].tolist()
    assert generator.grid_anchors([(2, 2)])[0].tolist() == inside


def test_wrong_number_of_maps_or_sizes_is_refused():
    with pytest.raises(ValueError, match="the backbone returned 2"):
        AnchorGenerator().grid_anchors([(4, 4), (2, 2)])
    with pytest.raises(ValueError, match="require one size per level"):
        AnchorGenerator(sizes=(8, 16), anchor_strides=(4, 8, 16))
    with pytest.raises(ValueError, match="MODEL.RPN.ANCHOR_STRIDE"):
        make_anchor_generator(config("MODEL.RPN.ANCHOR_STRIDE", (8, 16)))
    with pytest.raises(ValueError, match="MODEL.RPN.ANCHOR_SIZES"):
        make_anchor_generator(config(*FPN, "MODEL.RPN.ANCHOR_SIZES", (8, 16)))
    with pytest.raises(ValueError, match="MODEL.RETINANET.ANCHOR_SIZES"):
        make_anchor_generator_retinanet(config("MODEL.RETINANET.ANCHOR_SIZES", (8, 16)))


def grid_of(generator, height, width):
    return generator.grid_anchors([(-(-height // s), -(-width // s)) for s in generator.strides])


@pytest.mark.parametrize("case", ["rpn_fpn", "retinanet"])
def test_number_of_anchors_equals_the_originals(case):
    recorded = json.loads((GOLDEN / "assign_anchors.json").read_text())
    make = {"rpn_fpn": make_anchor_generator, "retinanet": make_anchor_generator_retinanet}[case]
    grid = grid_of(make(config(*FPN)), *recorded["padded_input_hw"])
    assert sum(len(level) for level in grid) == recorded[case][0]["n_anchors"]
