import math
import random

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.data.transforms import build_transforms
from maskrcnn_benchmark.data.transforms.semantic import PadTo, RandomCrop, RandomScale
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL, SemanticMap


def sample(height=40, width=60, classes=3):
    """Return an image and its map; the red channel is the map times 20."""
    labels = torch.randint(0, classes, (height, width), dtype=torch.uint8)
    target = BoxList(torch.zeros((0, 4)), (width, height))
    target.add_field("semantic", SemanticMap(labels))
    return Image.fromarray(np.stack([labels.numpy() * 20] * 3, axis=2)), target


def labels_of(target):
    return target.get_field("semantic").labels


def test_scales_are_log_uniform():
    scale = RandomScale(0.5, 2.0)
    factors = []
    for _ in range(400):
        image, target = scale(*sample(100, 200))
        assert tuple(image.shape[1:]) == labels_of(target).shape == target.size[::-1]
        factors.append(math.log2(image.shape[2] / 200))
    assert min(factors) >= -1 and max(factors) <= 1
    assert sum(f < 0 for f in factors) == pytest.approx(200, abs=60)  # six standard deviations


def test_image_is_resized_by_lanczos_and_map_by_nearest_neighbour():
    image, target = sample()
    scaled, new_target = RandomScale(1.5, 1.5)(image, target)
    assert (scaled.permute(1, 2, 0).numpy() == np.asarray(image.resize((90, 60), Image.Resampling.LANCZOS))).all()
    nearest = np.asarray(Image.fromarray(labels_of(target).numpy()).resize((90, 60), Image.Resampling.NEAREST))
    assert (labels_of(new_target).numpy() == nearest).all()


def test_crops_cut_image_and_map_at_the_same_place():
    image, target = sample()
    corners = set()
    for _ in range(30):
        pixels, cut = RandomCrop((16, 20))(image, target)
        assert pixels.shape == (3, 16, 20) and cut.size == (20, 16)
        assert (pixels[0] == labels_of(cut) * 20).all()
        corners.add(tuple(pixels[0, 0, :8].tolist()))
    assert len(corners) > 10


def test_small_images_are_padded_with_the_mean_and_without_labels():
    config = defaults.clone()
    config.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    config.INPUT.SEMANTIC.CROP_SIZE_TRAIN = (80, 50)
    config.INPUT.SEMANTIC.SCALE_RANGE_TRAIN = (1.0, 1.0)
    config.INPUT.HORIZONTAL_FLIP_PROB_TRAIN = 0.0
    image, target = build_transforms(config, is_train=True)(*sample(40, 60))
    labels = labels_of(target)
    assert image.shape == (3, 80, 50) and labels.shape == (80, 50) and target.size == (50, 80)
    assert (image[:, 40:] == 0).all() and (labels[40:] == IGNORE_LABEL).all() and (labels[:40] < 3).all()
    assert (image[2, :40] + config.INPUT.PIXEL_MEAN[2] == labels[:40] * 20).all()


def test_crops_of_one_class_are_drawn_again():
    image, target = sample(40, 400)
    labels_of(target)[:, :380] = 0
    labels_of(target)[:, 380:] = 1
    random.seed(0)

    def mixed(share):
        crops = [labels_of(RandomCrop((40, 40), share)(image, target)[1]) for _ in range(100)]
        return sum(0.75 * crop.numel() >= (crop == 0).sum() for crop in crops)

    assert mixed(0.75) > 2 * mixed(1.0)


def test_semantic_transforms_follow_the_config():
    config = defaults.clone()
    config.merge_from_list(["MODEL.META_ARCHITECTURE", "SemanticSegmentor"])
    text = repr(build_transforms(config, is_train=True))
    order = ["RandomHorizontalFlip(prob=0.5)", "RandomScale(smallest=0.5, largest=2.0)", "RandomCrop(size=(513, 513)"]
    order += ["Normalize", "PadTo(size=(513, 513))"]
    assert [text.index(step) for step in order] == sorted(text.index(step) for step in order)
    image, _ = sample()
    assert build_transforms(config, is_train=False)(image).shape == (3, 40, 60)  # tested at its own size


def test_padding_does_not_change_larger_images():
    image = torch.ones(3, 20, 30)
    assert PadTo((10, 30))(image) is image and PadTo((40, 10))(image).shape == (3, 40, 30)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("INPUT.SEMANTIC.CROP_SIZE_TRAIN", "(513,)"),
        ("INPUT.SEMANTIC.SCALE_RANGE_TRAIN", "(2.0, 0.5)"),
        ("INPUT.SEMANTIC.CROP_MAX_CLASS_SHARE", "0.0"),
        ("TEST.SEMANTIC.WINDOW", "()"),
        ("TEST.SEMANTIC.SCALES", "()"),
        ("TEST.SEMANTIC.OVERLAP", "1.0"),
        ("TEST.SEMANTIC.MODE", "windows"),
        ("SOLVER.HEAD_LR_FACTOR", "-1.0"),
    ],
)
def test_invalid_values_are_refused(key, value):
    from maskrcnn_benchmark.config.checks import check_values

    config = defaults.clone()
    check_values(config)
    config.merge_from_list([key, value])
    with pytest.raises(ValueError, match=key):
        check_values(config)
