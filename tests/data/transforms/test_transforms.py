import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.data import transforms as T
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.segmentation_mask import SegmentationMask


def noise_image(width=30, height=20) -> Image.Image:
    return Image.fromarray(np.random.randint(0, 256, (height, width, 3), dtype=np.uint8))


def pixels_of(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def boxes(size=(30, 20)) -> BoxList:
    target = BoxList([[2, 3, 11, 9], [0, 0, 29, 19]], size)
    target.add_field("labels", torch.tensor([1, 2]))
    return target


def test_resize_follows_the_forks_rule(units):
    for case in units["get_size"]:
        assert T.Resize(case["min"], case["max"]).get_size(tuple(case["wh"])) == tuple(case["hw"]), case


def test_resize_scales_image_and_boxes(rng_seed):
    image, target = T.Resize(40, 100)(noise_image(), boxes())
    assert image.shape == (3, 40, 60) and target.size == (60, 40)
    assert target.bbox[0].tolist() == [4, 6, 22, 18]


@pytest.mark.parametrize("size", [13, 20, 33])
def test_resize_equals_pils_bilinear(size, rng_seed):
    pil_image = noise_image(120, 80)
    resized = T.Resize(size, 200)(pil_image)
    pils = pixels_of(pil_image.resize((resized.shape[2], size), Image.Resampling.BILINEAR))
    difference = (resized.int() - pils.int()).abs()
    # both round twice, and store their weights as integers of different widths
    assert difference.max() <= 2 and (difference > 0).float().mean() < 0.01


def test_resize_of_photographs_equals_pils_bilinear(shared_data):
    total = differing = 0
    for file in sorted(shared_data("coco_tiny").glob("val2017/*.jpg"))[:6]:
        pil_image = Image.open(file).convert("RGB")
        resized = T.Resize(600, 1000)(pil_image)
        pils = pixels_of(pil_image.resize((resized.shape[2], resized.shape[1]), Image.Resampling.BILINEAR))
        difference = (resized.int() - pils.int()).abs()
        assert difference.max() <= 2
        differing, total = differing + int((difference > 0).sum()), total + difference.numel()
    assert differing < 0.002 * total


def test_an_image_of_the_right_size_keeps_its_pixels(rng_seed):
    pil_image = noise_image()
    assert torch.equal(T.Resize(20, 100)(pil_image), pixels_of(pil_image))


def test_pixels_in_any_layout_resize_alike(rng_seed):
    pil_image = noise_image()
    assert torch.equal(T.Resize(33, 100)(pixels_of(pil_image).contiguous()), T.Resize(33, 100)(pil_image))


def test_resize_draws_from_the_given_sizes(rng_seed):
    resize = T.Resize((10, 20, 40), 100)
    assert {resize.get_size((30, 20))[0] for _ in range(100)} == {10, 20, 40}


def test_a_very_long_image_keeps_a_pixel():
    assert T.Resize(800, 1333).get_size((20000, 3)) == (1, 6666)


def test_transforms_accept_an_image_alone(rng_seed):
    steps = [
        T.ColorJitter(0.1, 0.1, 0.1, 0.1),
        T.Resize(10, 40),
        T.RandomHorizontalFlip(1.0),
        T.RandomVerticalFlip(1.0),
        T.ToTensor(),
        T.Normalize([0.0] * 3, [1.0] * 3),
    ]
    assert T.Compose(steps)(noise_image()).shape == (3, 10, 15)


def test_flips_mirror_image_and_boxes(rng_seed):
    pil_image = noise_image()
    image, target = T.RandomHorizontalFlip(1.0)(pil_image, boxes())
    assert torch.equal(image, pixels_of(pil_image).flip(2))
    assert target.bbox[0].tolist() == [30 - 11 - 1, 3, 30 - 2 - 1, 9]
    image, target = T.RandomVerticalFlip(1.0)(pil_image, boxes())
    assert torch.equal(image, pixels_of(pil_image).flip(1))
    assert target.bbox[0].tolist() == [2, 20 - 9, 11, 20 - 3]  # without - 1, as in the forks


def test_flip_happens_with_its_probability(rng_seed):
    pil_image, target = noise_image(2, 2), boxes((2, 2))
    flip = T.RandomHorizontalFlip(0.5)
    flips = sum(flip(pil_image, target)[1] is not target for _ in range(1000))
    assert 400 < flips < 600  # six sigmas


def test_to_tensor_is_channels_first_in_0_to_1(rng_seed):
    pil_image = noise_image()
    tensor = T.ToTensor()(pil_image)
    assert tensor.dtype == torch.float32 and tensor.is_contiguous()
    assert torch.equal(tensor, torch.from_numpy(np.array(pil_image)).permute(2, 0, 1).float() / 255)


def test_normalize_to_bgr255_and_rgb(rng_seed):
    tensor = T.ToTensor()(noise_image())
    before = tensor.clone()
    caffe = T.Normalize([102.9801, 115.9465, 122.7717], [1.0, 2.0, 4.0])(tensor)
    expected = (before[[2, 1, 0]] * 255 - torch.tensor([102.9801, 115.9465, 122.7717])[:, None, None]) / torch.tensor(
        [1.0, 2.0, 4.0]
    ).view(3, 1, 1)
    assert torch.allclose(caffe, expected, atol=1e-5)
    rgb = T.Normalize([0.5, 0.4, 0.3], [0.2, 0.2, 0.1], to_bgr255=False)(tensor)
    assert torch.allclose(rgb[2], (before[2] - 0.3) / 0.1)
    assert torch.equal(tensor, before)  # the input is not modified


@pytest.mark.parametrize("to_bgr255", [True, False])
def test_uint8_and_float_inputs_normalize_to_equal_bits(to_bgr255):
    every_value = Image.fromarray(np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3))
    mean, std = ([102.9801, 115.9465, 122.7717], [1.0, 57.12, 58.395]) if to_bgr255 else ([0.485] * 3, [0.229] * 3)
    normalize = T.Normalize(mean, std, to_bgr255)
    fractions = T.ToTensor()(every_value)
    original = fractions[[2, 1, 0]] * 255 if to_bgr255 else fractions
    original = (original - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert torch.equal(normalize(every_value), original)
    assert torch.equal(normalize(fractions), original)


def test_masks_are_kept_only_if_the_model_has_a_mask_head(rng_seed):
    target = boxes()
    target.add_field("masks", SegmentationMask([[[2, 3, 12, 3, 12, 10]], [[0, 0, 30, 0, 30, 20]]], (30, 20)))
    for mask_on in (True, False):
        cfg = defaults.clone()
        cfg.MODEL.MASK_ON = mask_on
        for is_train in (True, False):
            _, after = T.build_transforms(cfg, is_train)(noise_image(), target)
            assert after.has_field("masks") == mask_on and after.has_field("labels")
    assert target.has_field("masks")


def test_color_jitter_changes_each_property_within_its_range(rng_seed):
    grey = Image.new("RGB", (4, 4), (100, 100, 100))
    values = [np.asarray(T.ColorJitter(brightness=0.3)(grey)).mean() for _ in range(200)]
    assert 69 <= min(values) < 80 and 120 < max(values) <= 130
    assert np.array_equal(np.asarray(T.ColorJitter(saturation=0.5, hue=0.3)(grey)), np.asarray(grey))
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    assert len({T.ColorJitter(hue=0.5)(red).getpixel((0, 0)) for _ in range(20)}) > 5


def test_hue_shifts_equal_torchvisions(rng_seed):
    functional = pytest.importorskip("torchvision.transforms.functional")
    from maskrcnn_benchmark.data.transforms.transforms import _shift_hue

    pil_image = noise_image()
    for turns in (-0.5, -0.1, 0.0, 0.2, 0.5):
        ours, theirs = _shift_hue(pil_image, turns), functional.adjust_hue(pil_image, turns)
        # torchvision returns the image itself for 0, ours converts it to HSV and back
        assert np.abs(np.asarray(ours).astype(int) - np.asarray(theirs)).max() <= (8 if turns == 0 else 0)


def test_color_jitter_refuses_invalid_numbers():
    with pytest.raises(ValueError, match="hue must be 0 to 0.5, got 0.7"):
        T.ColorJitter(hue=0.7)
    with pytest.raises(ValueError, match="contrast must be 0 or more, got -1"):
        T.ColorJitter(contrast=-1)


def test_all_randomness_comes_from_pythons_random(rng_seed):
    pil_image, target = noise_image(), boxes()
    steps = T.Compose(
        [T.ColorJitter(0.3, 0.3, 0.3, 0.1), T.Resize(range(10, 30), 60), T.RandomHorizontalFlip(), T.ToTensor()]
    )
    outcomes = []
    for _ in range(2):
        random.seed(rng_seed)
        outcomes.append(steps(pil_image, target))
    assert torch.equal(outcomes[0][0], outcomes[1][0]) and torch.equal(outcomes[0][1].bbox, outcomes[1][1].bbox)


def names(transforms) -> list[str]:
    return [type(step).__name__ for step in transforms.transforms]


def test_build_transforms_by_default():
    cfg = defaults.clone()
    assert names(T.build_transforms(cfg, True)) == ["LeaveOut", "Resize", "RandomHorizontalFlip", "Normalize"]
    assert names(T.build_transforms(cfg, False)) == ["LeaveOut", "Resize", "Normalize"]
    assert T.build_transforms(cfg, True).transforms[1].min_size == (800,)


def test_build_transforms_with_everything_on():
    cfg = defaults.clone()
    cfg.merge_from_list(
        ["INPUT.BRIGHTNESS", 0.1, "INPUT.VERTICAL_FLIP_PROB_TRAIN", 0.5, "INPUT.HORIZONTAL_FLIP_PROB_TRAIN", 0.0]
        + ["MODEL.MASK_ON", True]
        + ["INPUT.MIN_SIZE_RANGE_TRAIN", (640, 800)]
    )
    built = T.build_transforms(cfg, True)
    assert names(built) == ["ColorJitter", "Resize", "RandomVerticalFlip", "Normalize"]
    assert built.transforms[1].min_size == tuple(range(640, 801))


def test_a_descending_range_is_an_error():
    cfg = defaults.clone()
    cfg.INPUT.MIN_SIZE_RANGE_TRAIN = (800, 640)
    with pytest.raises(ValueError, match="MIN_SIZE_RANGE_TRAIN"):
        T.build_transforms(cfg, True)


# ---- detectron2's convention


def test_resize_to_nearest_follows_detectron2s_rule():
    units = json.loads((Path(__file__).parents[2] / "golden" / "d2" / "units.json").read_text())
    for name, wanted in units["resize_shortest_edge"].items():
        height, width = map(int, name.split("x"))
        assert T.Resize(800, 1333, to_nearest=True).get_size((width, height)) == tuple(wanted), name


def test_transforms_of_the_detectron2_convention(rng_seed):
    cfg = defaults.clone()
    cfg.merge_from_list(["MODEL.CONVENTION", "detectron2", "INPUT.HORIZONTAL_FLIP_PROB_TRAIN", 1.0])
    cfg.merge_from_list(["INPUT.MIN_SIZE_TRAIN", (40,), "MODEL.MASK_ON", True])
    target = boxes()
    target.add_field("masks", SegmentationMask([[[2, 3, 12, 3, 12, 10]], [[0, 0, 30, 0, 30, 20]]], (30, 20)))
    image, target = T.build_transforms(cfg, True)(noise_image(), target)
    assert image.shape == (3, 40, 60) and target.box_offset == 0
    assert target.bbox.tolist() == [[36, 6, 56, 20], [0, 0, 60, 40]]
    polygon = target.get_field("masks").instances.polygons[0].polygons[0]
    assert polygon.tolist() == [56, 6, 36, 6, 36, 20]
    assert all(t.to_nearest for t in T.build_transforms(cfg, False).transforms if isinstance(t, T.Resize))
