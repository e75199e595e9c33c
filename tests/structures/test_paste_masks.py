from __future__ import annotations

import numpy as np
import pytest
import torch
from naive_paste import pasted_probability

from maskrcnn_benchmark.structures.paste_masks import paste_masks, paste_windows
from maskrcnn_benchmark.structures.rle import decode_counts, encode_window, parse_counts


def golden_input(units):
    case = units["paste"]
    masks = torch.from_numpy(np.random.RandomState(5).uniform(0, 1, (2, 1, 28, 28)).astype(np.float32))
    return masks, torch.tensor(case["boxes"]), case["image_wh"], case["rows_as_01"]


def test_pasted_masks_equal_the_forks(units):
    masks, boxes, size, rows = golden_input(units)
    pasted = paste_masks(masks, boxes, size)
    assert pasted.dtype == torch.uint8
    wanted = torch.tensor([[[int(pixel) for pixel in row] for row in picture] for picture in rows])
    assert torch.equal(pasted, wanted.to(torch.uint8))


@pytest.mark.parametrize("side, threshold", [(28, 0.5), (14, 0.3), (5, 0.7)])
def test_pasted_masks_equal_a_naive_restatement_pixel_by_pixel(side, threshold, rng_seed):
    width, height = 70, 50
    corners = torch.rand(40, 2) * torch.tensor([90.0, 70]) - 20
    boxes = torch.cat((corners, corners + torch.rand(40, 2) * 60), dim=1)
    boxes[:4, 2:] = boxes[:4, :2]  # of one pixel
    masks = torch.rand(40, side, side)
    pasted = paste_masks(masks, boxes, (width, height), threshold).numpy()
    for mask, box, pixels in zip(masks, boxes, pasted, strict=True):
        probability = pasted_probability(mask.numpy(), box.tolist(), (width, height))
        decided = np.abs(probability - threshold) > 1e-5  # float32 rounds below that
        assert (pixels == (probability > threshold))[decided].all() and decided.mean() > 0.99


def test_without_a_threshold_pixels_are_probabilities_times_255(units):
    masks, boxes, size, _ = golden_input(units)
    heat = paste_masks(masks, boxes, size, threshold=-1)
    assert 200 < int(heat.max()) <= 255 and len(heat.unique()) > 100
    assert ((heat > 128) <= (paste_masks(masks, boxes, size) > 0)).all()


@pytest.mark.parametrize("box", [[200.0, 10, 260, 40], [-90, 10, -30, 40], [10, 300, 40, 320], [np.inf] * 4])
def test_a_box_outside_the_picture_leaves_it_empty(box):
    assert paste_masks(torch.ones(1, 28, 28), torch.tensor([box]), (100, 80)).sum() == 0


def test_a_box_of_one_pixel_and_a_box_around_everything():
    boxes = torch.tensor([[5.0, 5, 5, 5], [-50, -50, 150, 150]])
    pasted = paste_masks(torch.ones(2, 14, 14), boxes, (100, 80))
    assert pasted[0].sum() == 1 and pasted[0, 5, 5] == 1
    assert pasted[1].all()


def test_no_masks_make_no_pictures():
    assert paste_masks(torch.zeros(0, 1, 28, 28), torch.zeros(0, 4), (100, 80)).shape == (0, 80, 100)


def test_masks_that_do_not_fit_their_boxes_are_a_value_error():
    with pytest.raises(ValueError, match=r"\(2, 28, 28\)"):
        paste_masks(torch.zeros(2, 28, 28), torch.zeros(1, 4), (10, 10))


def test_windows_encode_to_the_rle_of_the_whole_picture(rng_seed):
    from pycocotools import mask as coco_mask

    width, height = 60, 40
    corners = torch.rand(30, 2) * torch.tensor([80.0, 60]) - 20
    boxes = torch.cat((corners, corners + torch.rand(30, 2) * 70), dim=1)
    boxes[0] = torch.tensor([-10.0, -10, 80, 60])  # columns of full height, whose runs join
    masks = torch.rand(30, 28, 28)
    masks[:5] = masks[:5].round() * 0 + 1
    pictures = paste_masks(masks, boxes, (width, height)).numpy()
    for picture, (window, left, top) in zip(pictures, paste_windows(masks, boxes, (width, height)), strict=True):
        rle = encode_window(window.numpy(), left, top, height, width)
        reference = coco_mask.encode(np.asfortranarray(picture))
        assert rle == {"size": [height, width], "counts": reference["counts"].decode()}
        assert (decode_counts(parse_counts(rle["counts"], rle["size"]), height, width) == picture).all()


def test_uncompressed_counts_are_read(rng_seed):
    picture = (torch.rand(11, 7) > 0.5).numpy()
    rle = encode_window(picture, 0, 0, 11, 7)
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
def test_damaged_run_lengths_are_value_errors(counts, size):
    with pytest.raises(ValueError, match="mask"):
        parse_counts(counts, size)
