import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.visual.drawing import (
    cut_text,
    draw_boxes,
    draw_masks,
    draw_note,
    draw_segments,
    fit_width,
    grid,
    label_colors,
    save_image,
    side_by_side,
    tag_texts,
)
from maskrcnn_benchmark.visual.fonts import font_for


def _boxes(boxes, size, labels=None, scores=None):
    boxlist = BoxList(boxes, size)
    if labels is not None:
        boxlist.add_field("labels", torch.tensor(labels))
    if scores is not None:
        boxlist.add_field("scores", torch.tensor(scores))
    return boxlist


def test_drawing_changes_only_a_copy_and_only_at_the_box():
    image = np.full((120, 160, 3), 200, np.uint8)
    drawn = draw_boxes(image, _boxes([[40, 50, 99, 99]], (160, 120)))
    assert (image == 200).all() and drawn.dtype == np.uint8 and drawn.shape == image.shape
    changed = np.argwhere((drawn != image).any(axis=2))
    assert changed.min(axis=0).tolist() == [49, 39] and changed.max(axis=0).tolist() == [100, 100]
    assert (drawn[60:90, 50:90] == 200).all()


def test_boxes_of_another_image_size_are_resized():
    image = np.full((120, 160, 3), 200, np.uint8)
    here = draw_boxes(image, _boxes([[40, 50, 99, 98]], (160, 120)))
    resized = draw_boxes(image, _boxes([[20, 25, 49.5, 49]], (80, 60)))
    assert (here == resized).all()


def test_boxes_below_the_threshold_are_not_drawn():
    image = np.zeros((120, 160, 3), np.uint8)
    low = _boxes([[40, 50, 99, 99]], (160, 120), [1], [0.2])
    assert (draw_boxes(image, low, score_threshold=0.3) == image).all()
    assert (draw_boxes(image, low, score_threshold=0.2) != image).any()


def test_tags_of_boxes_at_every_border_stay_inside():
    image = np.zeros((60, 80, 3), np.uint8)
    corners = [[0, 0, 5, 5], [74, 0, 79, 5], [0, 54, 5, 59], [74, 54, 79, 59], [-20, -20, 200, 200]]
    drawn = draw_boxes(image, _boxes(corners, (80, 60), [1] * 5, [0.5] * 5), ["a class with a name that is too long"])
    assert drawn.shape == image.shape


@pytest.mark.parametrize("background", [0, 255])
def test_every_box_is_visible_on_black_and_on_white(background):
    image = np.full((60, 80, 3), background, np.uint8)
    for label in range(1, 81):
        drawn = draw_boxes(image, _boxes([[10, 30, 69, 49]], (80, 60), [label])).astype(int)
        assert np.abs(drawn - background).max(axis=2).max() > 90


def test_no_boxes_leave_the_image_unchanged():
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    assert (draw_boxes(image, _boxes([], (30, 20), [], [])) == image).all()


def test_masks_are_tinted_with_an_opaque_outline():
    image = np.full((20, 30, 3), 100, dtype=np.uint8)
    mask = torch.zeros(1, 20, 30, dtype=torch.uint8)
    mask[0, 5:10, 5:15] = 1
    drawn = draw_masks(image, mask, [1])
    color = label_colors([1])[0]
    assert (image == 100).all()
    assert (drawn[5, 5] == color).all() and (drawn[9, 14] == color).all()
    assert (drawn[7, 8] == (100 * 0.55 + color * 0.45).astype(np.uint8)).all()
    assert (drawn[4] == 100).all() and (drawn[:, 15:] == 100).all()


def test_masks_are_resized_and_no_masks_change_nothing():
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    mask = np.zeros((1, 20, 30), dtype=bool)
    mask[0, :10] = True
    drawn = draw_masks(image, mask, [3])
    assert drawn[:20].any(axis=2).all() and not drawn[20:].any()
    assert (draw_masks(image, torch.zeros(0, 40, 60), []) == image).all()


def test_grid_places_images_of_different_sizes():
    images = [np.full((h, w, 3), value, np.uint8) for h, w, value in ((10, 20, 1), (30, 10, 2), (5, 5, 3))]
    canvas = grid(images, columns=2, gap=4)
    assert canvas.shape == (4 + 30 + 4 + 5 + 4, 4 + 20 + 4 + 10 + 4, 3)
    assert [(canvas == value).all(axis=2).sum() for value in (1, 2, 3)] == [200, 300, 25]
    assert (canvas[4, 4] == 1).all() and (canvas[4, 28] == 2).all() and (canvas[38, 4] == 3).all()


def test_side_by_side_width():
    left, right = np.zeros((10, 20, 3), np.uint8), np.ones((12, 5, 3), np.uint8)
    joined = side_by_side(left, right, gap=3)
    assert joined.shape == (12, 28, 3)
    assert (joined[:10, :20] == 0).all() and (joined[:, 23:] == 1).all()


def test_captions_are_above_their_images_and_cut_to_fit():
    images = [np.zeros((10, 60, 3), np.uint8)] * 2
    plain = grid(images, columns=2)
    canvas = grid(images, columns=2, captions=["short", "much longer than sixty pixels can hold"])
    assert canvas.shape[0] == plain.shape[0] + 21 and canvas.shape[1] == plain.shape[1]
    assert (canvas[:, -12:] == 255).all()  # nothing runs into the border
    with pytest.raises(ValueError, match="2 images and 1 captions"):
        grid(images, columns=2, captions=["one"])
    with pytest.raises(ValueError, match="at least one"):
        grid([], columns=2)


def test_cut_texts_end_with_dots_and_fit():
    text = "much longer than sixty pixels can hold"
    font = font_for([text], 13)
    cut = cut_text(text, 60, font)
    assert cut.endswith("...") and text.startswith(cut[:-3]) and font.getlength(cut) <= 60
    assert cut_text("short", 60, font) == "short"
    assert cut_text(text, 1, font) == "..."


def test_tags_of_a_crowded_image_are_scores_and_cover_little():
    image = np.full((240, 320, 3), 200, np.uint8)
    corners = [[x, y, x + 30, y + 30] for x in range(0, 300, 40) for y in range(20, 220, 40)]
    boxes = _boxes(corners, (320, 240), [1] * len(corners), [0.5] * len(corners))
    bare = draw_boxes(image, _boxes(corners, (320, 240), None, None), None)
    tagged = draw_boxes(image, boxes, ["a class with quite a long name"])
    assert (tagged[:, :, 0] != bare[:, :, 0]).mean() < 0.5
    few = _boxes(corners[:1], (320, 240), [1], [0.5])
    named = draw_boxes(image, few, ["a class with quite a long name"])
    assert (named[:, 100:] != image[:, 100:]).any()  # the name is written if there is room


def test_title_is_wrapped_above_all_images():
    images = [np.zeros((10, 90, 3), np.uint8)] * 2
    plain, canvas = (grid(images, columns=2, title=title) for title in (None, "a title that needs two lines here"))
    lines = (canvas.shape[0] - plain.shape[0]) / 24
    assert lines == 2 and canvas.shape[1] == plain.shape[1]
    assert (canvas[12:60] != 255).any() and (canvas[:, -12:] == 255).all()


def test_fit_width():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert fit_width(image, 7, 20).shape == (6, 9, 3)
    assert (fit_width(image, 7, 20)[::3, ::3] == image).all()
    assert fit_width(image, 3, 20) is image
    assert fit_width(np.zeros((20, 40, 3), np.uint8), 5, 10).shape == (5, 10, 3)


def test_saving_by_extension(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    save_image(image, tmp_path / "new" / "folder" / "a.png")
    assert (np.asarray(Image.open(tmp_path / "new" / "folder" / "a.png")) == image).all()
    save_image(image, tmp_path / "a.JPG")
    assert Image.open(tmp_path / "a.JPG").format == "JPEG"
    with pytest.raises(ValueError, match=r"'\.txt' is unknown; use \.png"):
        save_image(image, tmp_path / "a.txt")


def test_segments_are_tinted_separated_and_named():
    image = np.full((120, 160, 3), 200, np.uint8)
    numbers = np.zeros((60, 80), np.uint8)
    numbers[:40, :30], numbers[:40, 30:] = 1, 2
    drawn = draw_segments(image, numbers, ["cat", "x" * 60], [1, 80])
    assert (image == 200).all() and drawn.shape == image.shape
    assert (drawn[90:] == 200).all()
    tints = (200 * 0.4 + label_colors([1, 80]) * 0.6).astype(np.uint8)
    assert (drawn[2, 2] == tints[0]).all() and (drawn[2, 150] == tints[1]).all()
    assert (drawn[:20, 60] == 255).all() and (drawn[80, :] == 255).all()
    left = drawn[5:75, 5:55].reshape(-1, 3)
    assert (left == 255).all(axis=1).any(), "the name is written"
    unnamed = draw_segments(image, numbers, ["", ""], [1, 80])
    assert not (unnamed[5:75, 5:55] == 255).any()


def test_segments_without_room_or_pixels_are_not_named():
    image = np.full((60, 80, 3), 200, np.uint8)
    numbers = np.zeros((60, 80), np.int32)
    numbers[20:24] = 1
    drawn = draw_segments(image, numbers, ["thin", "nowhere"], [1, 2])
    assert (drawn[:20] == 200).all() and (drawn[25:] == 200).all()


def test_track_ids_are_written_on_tags_and_zero_is_none():
    boxes = _boxes([[10, 10, 50, 50]] * 3, (80, 60), [1, 2, 3], [0.91, 0.8, 0.7])
    boxes.add_field("track_ids", torch.tensor([12, 0, 3]))
    texts, short_texts = tag_texts(boxes, ["cat", "dog"])
    assert texts == ["#12 cat 0.91", "dog 0.80", "#3 3 0.70"] and short_texts == ["#12 0.91", "0.80", "#3 0.70"]
    assert tag_texts(boxes.copy_with_fields([]))[0] == ["", "", ""]


@pytest.mark.parametrize("background", [0, 255])
def test_a_note_is_in_the_lower_left_corner(background):
    image = np.full((60, 120, 3), background, np.uint8)
    noted = draw_note(image, "12.3 FPS")
    changed = np.argwhere((noted != image).any(axis=2))
    assert (image == background).all() and changed[:, 0].min() > 30 and changed[:, 0].max() < 56
    assert 4 <= changed[:, 1].min() and 60 < changed[:, 1].max() < 118
