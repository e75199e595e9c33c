import copy
import gzip
import json

import pytest
import torch
from helpers.centermask_models import GOLDEN as CENTERMASK

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.layers import ROIAlign
from maskrcnn_benchmark.modeling.poolers import AdaptiveLevelMapper, LevelMapper, Pooler, make_pooler
from maskrcnn_benchmark.structures.bounding_box import BoxList

SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)


def squares(sides):
    return BoxList([[0, 0, side - 1, side - 1] for side in sides], (4000, 4000))


def test_levels_equal_the_originals(units):
    case = units["level_mapper_2_5"]
    assert LevelMapper(2, 5)([squares(case["sqrt_area"])]).tolist() == case["level_index"]


@pytest.mark.parametrize("mapper", [LevelMapper(2, 5), AdaptiveLevelMapper(2, 5)])
def test_a_nan_box_has_a_level(mapper):
    boxes = BoxList([[0.0, 0, float("nan"), 5], [0, 0, float("inf"), 5], [5, 5, 0, 0]], (10, 10))
    assert set(mapper([boxes]).tolist()) <= {0, 1, 2, 3}


def test_levels_by_share_equal_centermasks():
    units = json.loads(gzip.decompress((CENTERMASK / "units.json.gz").read_bytes()))

    def levels(case, key="by_ratio", k_min=3, offset=0.0):
        height, width = case["image_hw"]
        mapper = AdaptiveLevelMapper(k_min, 5, 1e-6 if offset else 1e-8, offset)
        found = mapper([BoxList(case["boxes"], (width, height))]).tolist()
        # a box of negative area has no level there, and the finest here
        return found, [level if level < 10 else 0 for level in case[key]]

    large, small, first = units["level_assignment"], units["level_assignment_256x384"], units["v1"]
    for found, expected in (
        levels(large),
        levels(small),
        levels(small, "by_ratio_p2_to_p5", k_min=2),
        levels({**large, **first["level_assignment"]}, offset=1.0),
        levels({**small, **first["level_assignment_256x384"]}, offset=1.0),
    ):
        assert found == expected
    two = units["level_assignment_two_images"]
    lists = [BoxList([two["box_each"]], (width, height)) for height, width in two["image_hw"]]
    assert AdaptiveLevelMapper(3, 5, box_offset=0.0)(lists).tolist() == two["by_ratio"]


@pytest.mark.parametrize("convention, level", [("centermask2", 2), ("centermask", 1)])
def test_the_level_of_a_region_just_above_half_of_the_image(convention, level):
    """CenterMask adds 1e-6 to the ratio of the areas, CenterMask2 2e-16."""
    cfg = copy.deepcopy(defaults)
    cfg.merge_from_list(["MODEL.CONVENTION", convention, "MODEL.ROI_MASK_HEAD.POOLER_SCALES", (0.125, 0.0625, 0.03125)])
    cfg.MODEL.ROI_MASK_HEAD.LEVEL_MAP_FUNCTION = "CenterMaskLevelMapFunc"
    mapper = make_pooler(cfg, "ROI_MASK_HEAD").map_levels
    width, height = 1000.00025 - mapper.box_offset, 1000 - mapper.box_offset
    assert mapper.of_boxes(torch.tensor([[0.0, 0, width, height]]), 2000 * 1000).tolist() == [level]


def test_levels_by_area_clamped_to_three_maps_equal_centermasks():
    case = json.loads(gzip.decompress((CENTERMASK / "units.json.gz").read_bytes()))["level_assignment"]
    found = LevelMapper(3, 5, eps=1e-8, box_offset=0.0)([BoxList(case["boxes"], (1333, 800))]).tolist()
    assert found == [level if level < 10 else 0 for level in case["by_area_224"]]


def random_boxes(count, size=(256, 192)):
    corner = torch.rand(count, 2) * torch.tensor(size) * 0.7
    sides = torch.tensor(size) * torch.rand(count, 2) ** 3
    return BoxList(torch.cat((corner, corner + sides), dim=1), size)


def maps(channels=5, images=2, **options):
    return [torch.randn(images, channels, int(192 * s), int(256 * s), **options) for s in SCALES]


def test_each_region_is_pooled_from_its_level_in_box_order(rng_seed):
    features, boxlists = maps(), [random_boxes(17), random_boxes(0), random_boxes(9)]
    boxlists[0].bbox[3] = torch.tensor([10.0, 5, 240, 180])  # among small boxes, one of a coarser level
    features = [torch.cat((level, level[:1])) for level in features]
    boxlists[0].bbox[3] = torch.tensor([5.0, 5, 250, 180])
    pooled = Pooler((7, 7), SCALES, 2)(features, boxlists)
    assert pooled.shape == (26, 5, 7, 7)
    levels = LevelMapper(2, 5)(boxlists)
    assert len(levels.unique()) > 1
    row = 0
    for image, boxlist in enumerate(boxlists):
        for box in boxlist.bbox:
            level = levels[row]
            roi = torch.cat((torch.tensor([float(image)]), box))[None]
            expected = ROIAlign((7, 7), SCALES[level], 2)(features[level], roi)
            torch.testing.assert_close(pooled[row : row + 1], expected)
            row += 1


def test_one_scale_needs_no_level_mapping(rng_seed):
    features, boxlists = maps()[2:3], [random_boxes(4), random_boxes(3)]
    pooled = Pooler((3, 3), SCALES[2:3], 0)(features, boxlists)
    assert pooled.shape == (7, 5, 3, 3)


@pytest.mark.parametrize("count", [0, 1])
def test_levels_without_regions_stay_in_the_graph(count, rng_seed):
    features = maps(requires_grad=True)
    pooled = Pooler((7, 7), SCALES, 2)(features, [random_boxes(count), random_boxes(0)])
    assert pooled.shape == (count, 5, 7, 7)
    pooled.sum().backward()
    for level in features:
        assert level.grad is not None and level.grad.isfinite().all()


def test_gradient_reaches_the_pooled_pixels(rng_seed):
    features = maps(requires_grad=True)
    boxes = squares([10])
    Pooler((7, 7), SCALES, 2)(features, [boxes, boxes[:0]]).sum().backward()
    gradients = [level.grad for level in features]
    assert gradients[0][0].abs().sum() > 0 and gradients[0][1].abs().sum() == 0
    assert all(gradient.abs().sum() == 0 for gradient in gradients[1:])


def test_extra_maps_are_ignored_and_missing_maps_are_refused(rng_seed):
    features, boxlists = maps(), [random_boxes(3), random_boxes(3)]
    pooler = Pooler((7, 7), SCALES, 2)
    torch.testing.assert_close(
        pooler([*features, torch.randn(2, 5, 1, 1)], boxlists), pooler(features, boxlists), rtol=0, atol=0
    )
    with pytest.raises(ValueError, match="at least 4 feature maps.* got 2"):
        pooler(features[:2], boxlists)
