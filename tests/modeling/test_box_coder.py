"""Compare box codes with the original."""

import math

import pytest
import torch

from maskrcnn_benchmark.modeling.box_coder import BoxCoder


@pytest.mark.parametrize("case", ["box_coder_1", "box_coder_10"])
def test_codes_and_boxes_equal_the_originals(units, case):
    recorded = units[case]
    coder = BoxCoder(weights=recorded["weights"])
    proposals = torch.tensor(recorded["proposals"])
    codes = coder.encode(torch.tensor(recorded["ref"]), proposals)
    torch.testing.assert_close(codes, torch.tensor(recorded["encode"]), rtol=1e-6, atol=1e-6)
    boxes = coder.decode(torch.tensor(recorded["rel_codes"]), proposals)
    torch.testing.assert_close(boxes, torch.tensor(recorded["decode"]), rtol=1e-6, atol=1e-5)


def random_boxes(count):
    corners = torch.rand(count, 2) * 100
    return torch.cat((corners, corners + torch.rand(count, 2) * 50 + 1), dim=1)


@pytest.mark.parametrize("box_offset", [0.0, 1.0])
def test_decoding_undoes_encoding(box_offset, rng_seed):
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0), box_offset=box_offset)
    boxes, proposals = random_boxes(50), random_boxes(50)
    torch.testing.assert_close(coder.decode(coder.encode(boxes, proposals), proposals), boxes, rtol=1e-4, atol=1e-3)


def test_only_growth_is_clipped():
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    box = torch.tensor([[0.0, 0, 15, 15]])
    grown = coder.decode(torch.tensor([[0.0, 0, 100, -100]]), box)[0]
    assert grown[2] - grown[0] + 1 == pytest.approx(1000, rel=1e-5)
    assert grown[3] - grown[1] + 1 == pytest.approx(0, abs=1e-5)
    bounded = BoxCoder((1.0, 1.0, 1.0, 1.0), bbox_xform_clip=math.log(2)).decode(torch.full((1, 4), 9.0), box)[0]
    assert bounded[2] - bounded[0] + 1 == pytest.approx(32)


def test_no_boxes():
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    assert coder.encode(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)
    assert coder.decode(torch.zeros(0, 8), torch.zeros(0, 4)).shape == (0, 8)
