import numpy as np
import pytest
import torch
from helpers.tiny_models import tiny_cfg, tiny_model
from PIL import Image

from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.engine.predictor_setup import window_transform
from maskrcnn_benchmark.engine.tiling import merge_windows, windows_of
from maskrcnn_benchmark.structures.bounding_box import BoxList

TILE = 128


class RectangleFinder(torch.nn.Module):
    """Perfect detector of the visible parts of red (label 1) and green (label 2) rectangles on black.

    Every detection has a full mask. Larger parts have higher scores.
    """

    def forward(self, images):
        import cv2

        outputs = []
        for pixels in images.tensors:
            boxes, labels, scores = [], [], []
            for label, plane in ((1, pixels[0]), (2, pixels[1])):
                found = cv2.connectedComponentsWithStats((plane > 0.5).numpy().astype(np.uint8), connectivity=4)[2][1:]
                for x, y, width, height, _ in found.tolist():
                    boxes.append([x, y, x + width - 1, y + height - 1])
                    labels.append(label)
                    scores.append(0.5 + width * height / (4 * plane.numel()))
            boxlist = BoxList(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), pixels.shape[:0:-1])
            boxlist.add_field("labels", torch.tensor(labels, dtype=torch.int64))
            boxlist.add_field("scores", torch.tensor(scores, dtype=torch.float32))
            boxlist.add_field("mask", torch.ones((len(boxes), 1, 28, 28)))
            outputs.append(boxlist)
        return outputs


def rectangle_predictor(**options) -> Predictor:
    opts = ("INPUT.MIN_SIZE_TEST", TILE, "INPUT.MAX_SIZE_TEST", 4 * TILE, "INPUT.TO_BGR255", False)
    cfg = tiny_cfg("mask", *opts, "INPUT.PIXEL_MEAN", [0, 0, 0])
    return Predictor(cfg, model=RectangleFinder(), class_names=["red", "green"], **options)


def draw(size, rectangles) -> np.ndarray:
    """Draw rectangles (label, x1, y1, x2, y2); the corners are inclusive."""
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    for label, x1, y1, x2, y2 in rectangles:
        pixels[y1 : y2 + 1, x1 : x2 + 1, label - 1] = 255
    return pixels


def random_rectangles(size, count, largest, rng):
    """Draw random rectangles; those of one label do not touch, not even on the downscaled image."""
    gap = 10
    taken = np.zeros((2, size[1], size[0]), dtype=bool)
    rectangles = []
    for _ in range(20 * count):
        label = int(rng.integers(1, 3))
        width, height = rng.integers(6 if largest <= 30 else 16, largest, 2).tolist()
        x, y = int(rng.integers(0, size[0] - width)), int(rng.integers(0, size[1] - height))
        if taken[label - 1, max(y - gap, 0) : y + height + gap, max(x - gap, 0) : x + width + gap].any():
            continue
        taken[label - 1, y : y + height, x : x + width] = True
        rectangles.append((label, x, y, x + width - 1, y + height - 1))
        if len(rectangles) == count:
            break
    return rectangles


@pytest.mark.parametrize("largest", [30, 300])
def test_each_object_is_detected_once(rng_seed, largest):
    rng = np.random.default_rng(rng_seed)
    size = (500, 390)
    rectangles = random_rectangles(size, 25, largest, rng)
    found = rectangle_predictor(tiles=TILE, overlap=0.25, batch_size=3)(draw(size, rectangles), channel_order="rgb")
    assert found.size == size and len(found.masks) == len(found)
    truth = np.array(rectangles)
    given = np.concatenate((found.labels[:, None], found.boxes), axis=1)
    # objects that fit into no window are detected on the downscaled image, to within some pixels
    tolerance = 0 if largest <= 30 else 6
    assert len(given) == len(truth)
    distance = np.abs(truth[:, None] - given[None]).max(axis=2) + 1000 * (truth[:, None, 0] != given[None, :, 0])
    assert distance.min(axis=1).max() <= tolerance and sorted(distance.argmin(axis=1)) == list(range(len(truth)))


def test_union_of_parts_has_the_union_of_their_masks():
    # 200 pixels wide, so cut in every window; merged without a prediction of the whole image
    predictor = rectangle_predictor(tiles=TILE, overlap=0.25)
    size, rectangle = (300, 100), (1, 40, 20, 239, 59)
    pixels = draw(size, [rectangle])
    windows = windows_of(size, TILE, 0.25)
    plain = rectangle_predictor()
    cuts = [Image.fromarray(pixels[top:bottom, left:right]) for left, top, right, bottom in windows]
    # no resizing, so that boxes are in pixels of the window
    plain.setup.transform = predictor.setup.transform = lambda image: torch.from_numpy(np.array(image) / 255).permute(
        2, 0, 1
    )
    merged = merge_windows(plain(cuts), windows, size)
    assert merged.boxes.tolist() == [[40, 20, 239, 59]]
    (mask,) = merged.mask_arrays()
    assert mask[22:58, 42:238].all() and mask.sum() == pytest.approx(200 * 40, rel=0.05)


def test_image_within_one_window_equals_the_plain_prediction():
    torch.manual_seed(0)
    cfg = tiny_cfg("mask", "INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 96)
    model = tiny_model(cfg)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 90, 3), dtype=np.uint8))
    whole, tiled = (Predictor(cfg, model=model, tiles=tiles)(image) for tiles in (0, 96))
    assert whole.boxes.tolist() == tiled.boxes.tolist() and whole.masks == tiled.masks
    assert tiled.image().shape == (64, 90, 3)


@pytest.mark.parametrize(
    ("tiles", "side"),
    [
        (60, 80),  # enlarged, like any small image
        (100, 80),
        (160, 80),
        (400, 200),  # would be shrunk to 80, that is by 0.2; the training images are shrunk by 0.5
    ],
)
def test_windows_shrink_objects_no_more_than_training_does(tiles, side):
    cfg = tiny_cfg("faster", "INPUT.MIN_SIZE_TEST", 80, "INPUT.MAX_SIZE_TEST", 120)
    transform = window_transform(cfg, tiles, image_size=[200, 160])
    assert transform(Image.new("RGB", (tiles, tiles))).shape == (3, side, side)


def test_windows_of_large_training_images_may_shrink_as_much():
    cfg = tiny_cfg("faster", "INPUT.MIN_SIZE_TEST", 80, "INPUT.MAX_SIZE_TEST", 120)
    transform = window_transform(cfg, 400, image_size=[1600, 800])  # shrunk by 0.075, for the sake of the long side
    assert transform(Image.new("RGB", (400, 400))).shape == (3, 80, 80)


def test_weights_without_a_size_shrink_windows_with_a_warning(caplog):
    cfg = tiny_cfg("faster", "INPUT.MIN_SIZE_TEST", 80, "INPUT.MAX_SIZE_TEST", 120)
    transform = window_transform(cfg, 400, image_size=None)
    assert transform(Image.new("RGB", (400, 400))).shape == (3, 80, 80)
    assert "Windows of 400 pixels are shrunk to 80" in caplog.text
    caplog.clear()
    window_transform(cfg, 80, image_size=None)
    assert not caplog.text


def test_predictor_reads_the_size_of_training_images_from_the_checkpoint(tmp_path):
    cfg = tiny_cfg("faster", "INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 64)
    entries = {"class_names": ["red", "green"], "config": cfg.dump(), "image_size": [96, 128]}
    torch.save({"model": tiny_model(cfg).state_dict(), **entries}, tmp_path / "model.pth")
    predictor = Predictor.from_checkpoint(tmp_path / "model.pth", tiles=192)
    assert predictor.setup.window_transform(Image.new("RGB", (192, 192))).shape == (3, 96, 96)
    seen, run = [], predictor.setup.run
    predictor.setup.run = lambda inputs, sizes: [seen.append(tuple(each.shape[1:])) for each in inputs] and run(
        inputs, sizes
    )
    predictor(Image.new("RGB", (384, 192)))
    assert sorted(seen) == [(32, 64), (96, 96), (96, 96), (96, 96)]  # the whole image keeps its transform


def test_windows_cover_the_image_and_overlap():
    windows = windows_of((1000, 300), 256, 0.2)
    assert {(right - left, bottom - top) for left, top, right, bottom in windows} == {(256, 256)}
    covered = np.zeros((300, 1000), dtype=int)
    for left, top, right, bottom in windows:
        covered[top:bottom, left:right] += 1
    assert covered.min() >= 1
    lefts = sorted({window[0] for window in windows})
    assert all(256 - (b - a) >= 0.2 * 256 - 1 for a, b in zip(lefts, lefts[1:], strict=False))
    assert windows_of((100, 80), 256, 0.2) == [(0, 0, 100, 80)]


def test_invalid_tiles_are_errors():
    with pytest.raises(ValueError, match="at least 32 pixels"):
        rectangle_predictor(tiles=8)
    with pytest.raises(ValueError, match="overlap must be in \\[0, 1\\); got 128 and 1.0"):
        rectangle_predictor(tiles=128, overlap=1.0)
    cfg = tiny_cfg("panoptic")
    with pytest.raises(ValueError, match="segments of windows cannot be merged"):
        Predictor(cfg, model=tiny_model(cfg), tiles=128)
