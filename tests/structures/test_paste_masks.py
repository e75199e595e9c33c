from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.naive_paste import pasted_probability
from helpers.ops_helpers import needs_kernels
from torch.nn import functional as F

from maskrcnn_benchmark.structures.paste_masks import (
    MaskPasting,
    paste_masks,
    paste_rle_twin,
    paste_rles,
    paste_windows,
)
from maskrcnn_benchmark.structures.rle import decode_counts, encode_window, parse_counts


def golden_input(units):
    case = units["paste"]
    masks = torch.from_numpy(np.random.RandomState(5).uniform(0, 1, (2, 1, 28, 28)).astype(np.float32))
    return masks, torch.tensor(case["boxes"]), case["image_wh"], case["rows_as_01"]


def test_pasted_masks_equal_the_forks(units):
    masks, boxes, size, rows = golden_input(units)
    pasted = paste_masks(masks, boxes, size)
    assert pasted.dtype == torch.uint8
    expected = torch.tensor([[[int(pixel) for pixel in row] for row in image] for image in rows])
    assert torch.equal(pasted, expected.to(torch.uint8))


@pytest.mark.parametrize("side, threshold", [(28, 0.5), (14, 0.3), (5, 0.7)])
def test_pasted_masks_equal_a_naive_implementation(side, threshold, rng_seed):
    width, height = 70, 50
    corners = torch.rand(40, 2) * torch.tensor([90.0, 70]) - 20
    boxes = torch.cat((corners, corners + torch.rand(40, 2) * 60), dim=1)
    boxes[:4, 2:] = boxes[:4, :2]  # boxes of one pixel
    masks = torch.rand(40, side, side)
    pasted = paste_masks(masks, boxes, (width, height), threshold).numpy()
    for mask, box, pixels in zip(masks, boxes, pasted, strict=True):
        probability = pasted_probability(mask.numpy(), box.tolist(), (width, height))
        decided = np.abs(probability - threshold) > 1e-5  # smaller differences are float32 rounding
        assert (pixels == (probability > threshold))[decided].all() and decided.mean() > 0.99


def test_negative_threshold_returns_probabilities_times_255(units):
    masks, boxes, size, _ = golden_input(units)
    heat = paste_masks(masks, boxes, size, threshold=-1)
    assert 200 < int(heat.max()) <= 255 and len(heat.unique()) > 100
    assert ((heat > 128) <= (paste_masks(masks, boxes, size) > 0)).all()


@pytest.mark.parametrize("box", [[200.0, 10, 260, 40], [-90, 10, -30, 40], [10, 300, 40, 320], [np.inf] * 4])
def test_a_box_outside_the_image_is_empty(box):
    assert paste_masks(torch.ones(1, 28, 28), torch.tensor([box]), (100, 80)).sum() == 0


def test_a_box_of_one_pixel_and_a_box_around_the_image():
    boxes = torch.tensor([[5.0, 5, 5, 5], [-50, -50, 150, 150]])
    pasted = paste_masks(torch.ones(2, 14, 14), boxes, (100, 80))
    assert pasted[0].sum() == 1 and pasted[0, 5, 5] == 1
    assert pasted[1].all()


def boxes_around(size, count=40):
    """Make boxes of all sizes in and around an image of (width, height)."""
    corners = torch.rand(count, 2) * torch.tensor(size) * 1.4 - 20
    boxes = torch.cat((corners, corners + torch.rand(count, 2) ** 2 * 150), dim=1)
    boxes[0] = torch.tensor([-50.0, -50, 300, 300])
    boxes[1] = torch.tensor([5.0, 5, 5, 5])
    boxes[2] = torch.tensor([-1e30, -1e9, 1e9, 3e38])
    boxes[3] = torch.tensor([0.0, 0, float("nan"), 9])
    boxes[4] = torch.tensor([30.0, 30, 10, 10])
    boxes[5] = torch.tensor([200.0, 10, 260, 40])
    boxes[6] = torch.tensor([9.25, 9.5, 10.5, 10.0])
    return boxes


def decoded(rle):
    return decode_counts(parse_counts(rle["counts"], rle["size"]), *rle["size"])


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("side", [1, 14, 28, 56])
@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.0])
def test_run_lengths_equal_the_pasted_image(rng_seed, aligned, side, threshold):
    size = (97, 64)
    noise, boxes = torch.rand(40, side, side), boxes_around(size)
    blobs = F.interpolate(torch.rand(40, 1, 3, 3), size=(side, side), mode="bilinear")
    noise[7:10] = threshold
    noise[10, 0, 0] = float("nan")
    noise[11:14] = 1
    for masks in (noise, blobs):
        rles = paste_rles(masks, boxes, size, threshold, pasting=MaskPasting(aligned=aligned))
        images = paste_masks(masks, boxes, size, threshold, pasting=MaskPasting(aligned=aligned))
        assert 0 < images.sum() < images.numel()
        for rle, image in zip(rles, images, strict=True):
            assert rle["size"] == [64, 97] and (decoded(rle) == image.numpy()).all()
        text, ends = paste_rle_twin(masks.view(40, side, side), boxes, 64, 97, threshold, 1, aligned)
        assert text.numpy().tobytes().decode() == "".join(rle["counts"] for rle in rles)
        assert ends.diff(prepend=torch.zeros(1, dtype=torch.int64)).tolist() == [len(rle["counts"]) for rle in rles]


@pytest.mark.parametrize("padding", [0, 2])
def test_padding_applies_to_run_lengths(rng_seed, padding):
    masks, boxes = torch.rand(20, 1, 14, 14), boxes_around((60, 40), 20)
    images = paste_masks(masks, boxes, (60, 40), pasting=MaskPasting(padding))
    rles = paste_rles(masks, boxes, (60, 40), pasting=MaskPasting(padding))
    assert all((decoded(rle) == image.numpy()).all() for rle, image in zip(rles, images, strict=True))
    assert not torch.equal(images, paste_masks(masks, boxes, (60, 40)))


def test_integer_boxes_equal_interpolate(rng_seed):
    masks = torch.rand(30, 28, 28)
    corners = torch.randint(0, 300, (30, 2)).float()
    boxes = torch.cat((corners, corners + torch.randint(0, 300, (30, 2))), dim=1)
    for mask, (x1, y1, x2, y2), image in zip(
        masks, boxes.int().tolist(), paste_masks(masks, boxes, (700, 700), pasting=MaskPasting(padding=0)), strict=True
    ):
        sides = (y2 - y1 + 1, x2 - x1 + 1)
        resized = F.interpolate(mask[None, None], sides, mode="bilinear", align_corners=False)[0, 0]
        differs = image[y1 : y2 + 1, x1 : x2 + 1].bool() != (resized > 0.5)
        assert ((resized[differs] - 0.5).abs() < 1e-6).all()
        assert image.sum() == image[y1 : y2 + 1, x1 : x2 + 1].sum()


def test_aligned_masks_equal_grid_sample(rng_seed):
    width, height = 90, 70
    masks, boxes = torch.rand(40, 28, 28), boxes_around((width, height))
    pasted = paste_masks(masks, boxes, (width, height), pasting=MaskPasting(aligned=True))
    heat = paste_masks(masks, boxes, (width, height), threshold=-1, pasting=MaskPasting(aligned=True))
    for mask, (x1, y1, x2, y2), image, values in zip(masks, boxes, pasted, heat, strict=True):
        if not (x2 > x1 and y2 > y1 and x2 < 1e6):
            assert image.sum() == 0 or x2 > 1e6
            continue
        x = (torch.arange(width) + 0.5 - x1) / (x2 - x1) * 2 - 1
        y = (torch.arange(height) + 0.5 - y1) / (y2 - y1) * 2 - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        sampled = F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]
        differs = image.bool() != (sampled >= 0.5)
        assert ((sampled[differs] - 0.5).abs() < 1e-5).all()
        assert ((values.float() - sampled * 255).abs() < 1.001).all()


def test_threshold_is_inclusive_only_if_aligned():
    masks, boxes = torch.full((1, 28, 28), 0.5), torch.tensor([[-40.0, -40, 139, 119]])
    assert decoded(paste_rles(masks, boxes, (100, 80))[0]).sum() == 0
    assert decoded(paste_rles(masks, boxes, (100, 80), pasting=MaskPasting(aligned=True))[0]).all()


def test_run_lengths_of_any_dtype_and_stride(rng_seed):
    masks, boxes = torch.rand(5, 1, 28, 28), boxes_around((97, 64))[:5]
    for dtype in (torch.float64, torch.bfloat16):
        changed = masks.to(dtype)
        assert paste_rles(changed, boxes, (97, 64)) == paste_rles(changed.float(), boxes, (97, 64))
    turned = masks.transpose(2, 3).contiguous().transpose(2, 3)
    assert paste_rles(turned, boxes.t().contiguous().t(), (97, 64)) == paste_rles(masks, boxes, (97, 64))


def test_no_masks_give_no_run_lengths():
    for aligned in (False, True):
        assert (
            paste_rles(torch.zeros(0, 1, 28, 28), torch.zeros(0, 4), (100, 80), pasting=MaskPasting(aligned=aligned))
            == []
        )
    text, ends = paste_rle_twin(torch.zeros(0, 28, 28), torch.zeros(0, 4), 80, 100, 0.5, 1, False)
    assert text.shape == ends.shape == (0,) and text.dtype == torch.uint8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threshold": -1}, "-1"),
        ({"threshold": float("nan")}, "nan"),
        ({"pasting": MaskPasting(padding=-1)}, "padding of -1"),
        ({"image_size": (0, 5)}, "0 x 5"),
        ({"image_size": (1 << 20, 1 << 20)}, "1048576"),
        ({"boxes": torch.zeros(3, 4)}, r"\(3, 4\)"),
        ({"masks": torch.zeros(2, 0, 0)}, "no pixels"),
    ],
)
def test_invalid_options_of_run_lengths_are_refused(options, words):
    given = {"masks": torch.zeros(2, 28, 28), "boxes": torch.zeros(2, 4), "image_size": (10, 10)} | options
    with pytest.raises(ValueError, match=words):
        paste_rles(**given)


@needs_kernels
def test_opcheck(rng_seed):
    op = torch.ops.maskrcnn_benchmark.paste_masks_rle.default
    for count in (0, 6):
        masks, boxes = torch.rand(count, 14, 14), boxes_around((50, 40))[:count]
        for aligned in (False, True):
            torch.library.opcheck(op, (masks, boxes, 40, 50, 0.5, 1, aligned))


def test_no_masks_give_no_images():
    assert paste_masks(torch.zeros(0, 1, 28, 28), torch.zeros(0, 4), (100, 80)).shape == (0, 80, 100)


def test_masks_that_do_not_match_the_boxes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 28, 28\)"):
        paste_masks(torch.zeros(2, 28, 28), torch.zeros(1, 4), (10, 10))


def test_encoded_windows_equal_the_rle_of_the_image(rng_seed):
    from pycocotools import mask as coco_mask

    width, height = 60, 40
    corners = torch.rand(30, 2) * torch.tensor([80.0, 60]) - 20
    boxes = torch.cat((corners, corners + torch.rand(30, 2) * 70), dim=1)
    boxes[0] = torch.tensor([-10.0, -10, 80, 60])  # columns of full height, whose runs are merged
    masks = torch.rand(30, 28, 28)
    masks[:5] = masks[:5].round() * 0 + 1
    images = paste_masks(masks, boxes, (width, height)).numpy()
    for image, (window, left, top) in zip(images, paste_windows(masks, boxes, (width, height)), strict=True):
        rle = encode_window(window.numpy(), left, top, height, width)
        reference = coco_mask.encode(np.asfortranarray(image))
        assert rle == {"size": [height, width], "counts": reference["counts"].decode()}
        assert (decode_counts(parse_counts(rle["counts"], rle["size"]), height, width) == image).all()


def test_uncompressed_counts_are_parsed(rng_seed):
    image = (torch.rand(11, 7) > 0.5).numpy()
    rle = encode_window(image, 0, 0, 11, 7)
    runs = parse_counts(rle["counts"], [11, 7])
    assert (parse_counts(runs.tolist(), (11, 7)) == runs).all()
    assert (parse_counts(rle["counts"].encode(), (11, 7)) == runs).all()


@pytest.mark.parametrize(
    ("counts", "size"),
    [
        ([5, 5], [2, 2]),
        ([-1, 5], [2, 2]),
        ([[4]], [2, 2]),
        ("", [2, 2]),
        ("\x00\x01", [2, 2]),
        ("ooooooooooo", [2, 2]),
        ("é", [2, 2]),
        (None, [2, 2]),
        (["a"], [2, 2]),
        ([4], [2]),
        ([4], None),
        ([0], [0, 5]),
    ],
)
def test_damaged_run_lengths_are_refused(counts, size):
    with pytest.raises(ValueError, match="mask"):
        parse_counts(counts, size)
