"""What is wrong between datasets, and between a dataset and a config."""

import numpy as np
import pytest
from helpers.clinic import block, named

from maskrcnn_benchmark.config import cfg as default_cfg
from maskrcnn_benchmark.data.build import build_dataset
from maskrcnn_benchmark.doctor.examine import examine, read_splits
from maskrcnn_benchmark.doctor.network import build_anchors, build_levels, build_network_input
from maskrcnn_benchmark.doctor.sizes import best_ious, propose_anchors
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.boxlist_ops import boxlist_iou

FCOS = ("MODEL.FCOS_ON", True, "MODEL.RPN_ONLY", True, "MODEL.FCOS.NUM_CLASSES", -1)
SMALL = ("INPUT.MIN_SIZE_TRAIN", (40,), "INPUT.MAX_SIZE_TRAIN", 60, "INPUT.MIN_SIZE_TEST", 40)


def fill(folder, boxes=4, side=20, category=1):
    folder.add_image(len(folder.images) + 1)
    for _ in range(boxes):
        shift = len(folder.annotations) % 7
        folder.add_box(len(folder.images), [shift, 2 * shift, side, side], category)


def test_classes_that_occur_once_never_or_only_in_the_test(two_splits):
    train, test, run = two_splits
    for folder in (train, test):
        folder.categories = [{"id": k, "name": name} for k, name in enumerate("abcd", start=1)]
    fill(train)
    fill(train, boxes=1, category=2)
    fill(test)
    fill(test, category=3)
    diagnosis = run(*FCOS, *SMALL)
    (once,) = named(diagnosis, "class-once")
    assert [(each.image_id, each.note) for each in once.examples] == [(2, "b")]
    (untrained,) = named(diagnosis, "class-not-trained")
    assert [each.note for each in untrained.examples] == ["c: 4 in the test data"]
    (unused,) = named(diagnosis, "class-unused")
    assert [each.note for each in unused.examples] == ["d"]


def test_splits_with_other_class_names_are_the_error_of_training(two_splits):
    train, test, run = two_splits
    test.categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    for folder in (train, test):
        fill(folder)
    diagnosis = run(*FCOS, *SMALL)
    (finding,) = named(diagnosis, "labels")
    assert "different order" in finding.title and finding.splits == ("bees_train", "bees_val")
    assert diagnosis.status() == 1


def test_num_classes_and_missing_masks_are_errors(two_splits):
    train, test, run = two_splits
    for folder in (train, test):
        fill(folder)
    titles = [each.title for each in named(run("MODEL.MASK_ON", True, *SMALL), "labels")]
    assert any("NUM_CLASSES is 81" in title for title in titles) and any("have no masks" in title for title in titles)


def test_a_dataset_that_cannot_be_read_does_not_hide_the_other(two_splits):
    train, test, run = two_splits
    fill(test)
    train.annotations = []
    train.add_image(1)
    diagnosis = run(*FCOS, *SMALL)
    (finding,) = named(diagnosis, "training-error")
    assert finding.splits == ("bees_train",) and "nothing is left to train on" in finding.title
    assert [split.boxes for split in diagnosis.splits] == [0, 4]


def test_small_boxes_are_measured_after_the_resize(two_splits):
    train, test, run = two_splits
    for folder in (train, test):
        fill(folder, side=10)
    (finding,) = (each for each in named(run(*FCOS, *SMALL), "small-boxes") if each.splits == ("bees_train",))
    assert "100% of all" in finding.title and "INPUT.MIN_SIZE_TRAIN" in finding.remedy and finding.count == 4
    doubled = ("INPUT.MIN_SIZE_TRAIN", (80,), "INPUT.MAX_SIZE_TRAIN", 120, "INPUT.MIN_SIZE_TEST", 80)
    diagnosis = run(*FCOS, *doubled)
    assert not named(diagnosis, "small-boxes") and diagnosis.splits[0].sizes["16-32"] == 4


def test_boxes_below_the_finest_stride_of_fcos(two_splits):
    train, test, run = two_splits
    fill(train, side=6)
    fill(test)
    (finding,) = named(run(*FCOS, *SMALL), "below-stride")
    assert finding.splits == ("bees_train",) and finding.count == 4 and "6 x 6 px" in finding.examples[0].note


def test_the_resize_is_that_of_the_transforms():
    cfg = default_cfg.clone()
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (300, 500, 800), 900
    network_input = build_network_input(cfg, is_train=True)
    sizes = np.array([[1000, 500], [500, 1000], [1000, 500], [500, 500]])
    for size, factors in zip(sizes, network_input.factors(sizes), strict=True):
        height, width = network_input.resize.get_size(tuple(size))
        assert factors == pytest.approx([width / size[0], height / size[1]])
    assert network_input.resize.min_size == (500,)


@pytest.mark.parametrize("options", [FCOS, ("MODEL.ROI_BOX_HEAD.POOLER_SCALES", (0.25, 0.125, 0.0625, 0.03125))])
def test_larger_boxes_are_on_coarser_levels(options):
    cfg = default_cfg.clone()
    cfg.merge_from_list(list(options))
    levels = build_levels(cfg)
    found = levels.assign(np.array([[8.0, 8], [100, 100], [230, 230], [900, 900], [2000, 2000]])).tolist()
    assert found == ([0, 0, 1, 3, 4] if options is FCOS else [0, 0, 2, 3, 3]) and max(found) < len(levels.names)


def test_shape_ious_equal_those_of_boxes_with_one_center(rng):
    sides, anchors = rng.integers(2, 200, (20, 2)) * 2.0, rng.integers(2, 200, (5, 2)) * 2.0

    def centered(each):
        corners = np.concatenate([-each / 2, each / 2 - 1], axis=1)
        return BoxList(corners.tolist(), (1, 1))

    expected = boxlist_iou(centered(sides), centered(anchors)).max(dim=1).values
    assert best_ious(sides, anchors) == pytest.approx(expected.numpy(), abs=1e-6)


def test_better_anchors_are_proposed_and_cover_more(two_splits):
    train, test, run = two_splits
    for folder in (train, test):
        fill(folder, side=9)
    diagnosis = run("MODEL.ROI_BOX_HEAD.NUM_CLASSES", 3, *SMALL)
    (finding,) = named(diagnosis, "anchors")
    assert finding.severity == "warning" and "MODEL.RPN.ANCHOR_SIZES (" in finding.remedy
    sizes = finding.remedy.split("ANCHOR_SIZES ")[1].split(")")[0].strip("(").split(", ")
    ratios = finding.remedy.split("ASPECT_RATIOS ")[1].split(")")[0].strip("(").split(", ")
    tuples = ("MODEL.RPN.ANCHOR_SIZES", tuple(map(int, sizes)), "MODEL.RPN.ASPECT_RATIOS", tuple(map(float, ratios)))
    again = run("MODEL.ROI_BOX_HEAD.NUM_CLASSES", 3, *SMALL, *tuples)
    assert all(each.severity == "note" for each in named(again, "anchors"))


def test_proposals_are_as_many_and_never_worse(rng):
    cfg = default_cfg.clone()
    cfg.MODEL.RETINANET_ON = True
    anchors = build_anchors(cfg)
    sides = np.exp(rng.normal(3, 1, (500, 2))).clip(1, 1000)
    sizes, ratios, share = propose_anchors(sides, anchors)
    assert (len(sizes), len(ratios)) == (len(anchors.sizes), len(anchors.ratios))
    assert share <= (best_ious(sides, anchors.sides) < 0.5).mean()
    assert share == pytest.approx((best_ious(sides, anchors.remake(sizes, ratios)) < 0.5).mean())


def test_test_data_without_images_or_boxes(two_splits):
    train, test, run = two_splits
    for number in (1, 2):
        train.add_image(number)
        train.add_box(number, [5, 6, 20, 20], number)
    (test.root / "images").mkdir(parents=True)
    (error,) = named(run("MODEL.ROI_BOX_HEAD.NUM_CLASSES", 3), "labels")
    assert error.title == "dataset 'bees_val' of DATASETS.TEST has no images"
    test.add_image(1)
    diagnosis = run("MODEL.ROI_BOX_HEAD.NUM_CLASSES", 3)
    (warning,) = named(diagnosis, "test-without-boxes")
    assert warning.severity == "warning" and not named(diagnosis, "labels")


def test_training_sets_that_differ_are_named_as_training_names_them(two_splits):
    train, other, _ = two_splits
    other.categories.append({"id": 3, "name": "third"})
    for folder in (train, other):
        folder.add_image(1)
        folder.add_box(1, [5, 6, 20, 20])
    cfg = default_cfg.clone()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (block(train, "a"), block(other, "b")), ()
    cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES = -1
    (error,) = named(examine(cfg, read_splits(cfg), "bees.yaml"), "labels")
    with pytest.raises(ValueError) as raised:
        build_dataset(cfg.DATASETS.TRAIN, None)
    assert error.title == str(raised.value) and "different classes: a (cat, dog), b (cat, dog, third)" in error.title
