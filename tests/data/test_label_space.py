import logging
import types

import pytest

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.data import (
    check_annotations,
    check_evaluation,
    check_label_names,
    check_label_spaces,
    label_ids,
    label_names,
    make_data_loader,
    resolve_num_classes,
)

BEES = ["drone", "queen", "worker", "wasp"]


def config(*overrides):
    cfg = defaults.clone()
    cfg.DATASETS.TRAIN = ("bees_train",)
    cfg.merge_from_list(list(overrides))
    return cfg


@pytest.mark.parametrize(
    "overrides, node",
    [
        (["MODEL.FCOS_ON", True, "MODEL.RPN_ONLY", True, "MODEL.FCOS.NUM_CLASSES", -1], "FCOS"),
        (["MODEL.FCOS_ON", True, "MODEL.FCOS_MASK", True, "MODEL.FCOS.NUM_CLASSES", -1], "FCOS"),
        (["MODEL.RETINANET_ON", True, "MODEL.RETINANET.NUM_CLASSES", -1], "RETINANET"),
        (["MODEL.ROI_BOX_HEAD.NUM_CLASSES", -1], "ROI_BOX_HEAD"),
    ],
)
def test_minus_one_is_filled_from_the_data(overrides, node):
    cfg = config(*overrides)
    resolve_num_classes(cfg, BEES)
    assert cfg.MODEL[node].NUM_CLASSES == 5
    resolve_num_classes(cfg, BEES)  # and passes the check afterwards


def test_keys_of_other_models_do_not_matter():
    cfg = config("MODEL.FCOS_ON", True, "MODEL.RPN_ONLY", True, "MODEL.FCOS.NUM_CLASSES", 5)
    resolve_num_classes(cfg, BEES)
    assert cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES == 81 and cfg.MODEL.RETINANET.NUM_CLASSES == 81


def test_fcos_before_a_box_head_has_the_classes_of_both():
    both = ("MODEL.FCOS.NUM_CLASSES", -1, "MODEL.ROI_BOX_HEAD.NUM_CLASSES", -1)
    cfg = config("MODEL.FCOS_ON", True, "MODEL.RPN_ONLY", False, *both)
    resolve_num_classes(cfg, BEES)
    assert cfg.MODEL.FCOS.NUM_CLASSES == cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES == 5


def test_a_wrong_number_names_the_right_one_and_the_classes():
    with pytest.raises(ValueError) as error:
        resolve_num_classes(config(), BEES)
    assert str(error.value) == (
        "DATASETS.TRAIN 'bees_train' has 4 classes (drone, queen, worker, wasp) but MODEL.ROI_BOX_HEAD.NUM_CLASSES is "
        "81. Set it to 5 (classes + background), or to -1 to take it from the data."
    )


def test_long_class_lists_are_shortened():
    names = [f"class{k}" for k in range(100)]
    with pytest.raises(ValueError, match=r"class18, \.\.\., class99\)"):
        resolve_num_classes(config(), names)


def test_equal_label_spaces_pass():
    check_label_spaces(BEES, {"bees_val": list(BEES), "bees_test": tuple(BEES)})


def test_missing_and_new_classes_are_named():
    with pytest.raises(ValueError, match=r"'bees_test' \(drone, hornet\).*former: \(queen, .*latter: \(hornet\)"):
        check_label_spaces(BEES, {"bees_test": ["drone", "hornet"]})


def test_a_different_order_is_an_error_that_names_the_first_difference():
    with pytest.raises(ValueError, match="label 2 is 'queen' in training and 'worker' in the test set"):
        check_label_spaces(BEES, {"bees_test": ["drone", "worker", "queen", "wasp"]})


def test_rpn_only_models_have_no_classes():
    cfg = config("MODEL.RPN_ONLY", True)
    resolve_num_classes(cfg, BEES)
    assert cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES == 81


def loader_with(loader_cfg, make_coco_folder, sets, *overrides):
    """Return (cfg, training loader) for datasets of one image; `sets` are the further keys of their one annotation."""
    arguments = []
    for number, keys in enumerate(sets):
        folder = make_coco_folder(f"set{number}")
        folder.add_image(1)
        folder.add_box(1, [5, 6, 20, 20], **keys)
        arguments.append(folder.write(f"bees{number}.json"))
    cfg = loader_cfg(arguments, (), "MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES", 5, *overrides)
    return cfg, make_data_loader(cfg)


OUTLINE = {"segmentation": [[5, 6, 25, 6, 25, 26]]}
POINTS = {"keypoints": [10, 10, 2] * 5 + [12, 12, 2] * 5 + [14, 14, 1] * 5}
BOTH = ["MODEL.MASK_ON", True, "MODEL.KEYPOINT_ON", True]


@pytest.mark.parametrize(
    "sets, overrides, message",
    [
        ([{}], ["MODEL.MASK_ON", True], "MASK_ON is True, .* bees0 have no masks"),
        ([OUTLINE, {}], ["MODEL.MASK_ON", True], "MASK_ON is True, .* bees1 have no masks"),
        ([OUTLINE], ["MODEL.KEYPOINT_ON", True], "KEYPOINT_ON is True, .* bees0 have no keypoints"),
        (
            [POINTS],
            ["MODEL.KEYPOINT_ON", True, "MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES", 15],
            "bees0 has 15 keypoints per object, without names, .*INPUT.KEYPOINT_FLIP_PAIRS",
        ),
        (
            [POINTS],
            ["MODEL.KEYPOINT_ON", True, "MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES", 15, "INPUT.KEYPOINT_FLIP_PAIRS", []]
            + ["INPUT.VERTICAL_FLIP_PROB_TRAIN", 0.5],
            "INPUT.VERTICAL_FLIP_PROB_TRAIN is 0.5",
        ),
        ([POINTS], ["MODEL.KEYPOINT_ON", True], "bees0 has 15 keypoints per object, .*NUM_CLASSES is 5. Set it to 15"),
    ],
)
def test_missing_annotations_are_an_error_before_training(loader_cfg, make_coco_folder, sets, overrides, message):
    cfg, loader = loader_with(loader_cfg, make_coco_folder, sets, *overrides)
    with pytest.raises(ValueError, match=message):
        check_annotations(cfg, loader.dataset)


@pytest.mark.parametrize(
    "sets, overrides",
    [
        ([{}], []),
        ([{}], ["MODEL.MASK_ON", True, "MODEL.RPN_ONLY", True]),
        ([OUTLINE, OUTLINE], ["MODEL.MASK_ON", True]),
        ([OUTLINE | POINTS], [*BOTH, "MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES", 15, "INPUT.KEYPOINT_FLIP_PAIRS", []]),
        (
            [POINTS],
            ["MODEL.KEYPOINT_ON", True, "MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES", 15]
            + ["INPUT.HORIZONTAL_FLIP_PROB_TRAIN", 0.0],
        ),
    ],
)
def test_sufficient_annotations_pass(loader_cfg, make_coco_folder, sets, overrides):
    cfg, loader = loader_with(loader_cfg, make_coco_folder, sets, *overrides)
    check_annotations(cfg, loader.dataset)


CUSTOM = {"keypoints": [10, 10, 2] * 4}
POSE = ["MODEL.KEYPOINT_ON", True, "MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES", 4]
MIRRORED = ["TEST.BBOX_AUG.ENABLED", True, "TEST.BBOX_AUG.H_FLIP", True]


@pytest.fixture
def pose_set(loader_cfg, make_coco_folder):
    """Return make(keys, names, *overrides), which returns cfg and a test set.

    `keys` are the further keys of the set's one annotation, `names` those of its keypoints.
    """

    def make(keys, names, *overrides):
        folder = make_coco_folder("test")
        folder.add_image(1)
        if keys is not None:
            folder.add_box(1, [5, 6, 20, 20], **keys)
        if names:
            folder.categories[0]["keypoints"] = names
        cfg = loader_cfg((), [folder.write()], *POSE, *overrides)
        (loader,) = make_data_loader(cfg, is_train=False)
        return cfg, loader.dataset

    return make


@pytest.mark.parametrize(
    "keys, names, overrides, message",
    [
        (CUSTOM, None, [], "the test set zoo cannot be evaluated: .*DATASETS.KEYPOINT_SIGMAS to 4 .*--skip-test"),
        (CUSTOM, None, ["DATASETS.KEYPOINT_SIGMAS", [0.1, 0.1]], "KEYPOINT_SIGMAS 2 numbers. Give 4, or one"),
        ({}, None, [], "the annotations of the test set zoo have no keypoints"),
        ({"keypoints": [1, 1, 2] * 5}, None, [], "has 5 keypoints per object, but .*NUM_CLASSES is 4"),
        (
            CUSTOM,
            list("LRNT"),
            [*MIRRORED, "DATASETS.KEYPOINT_SIGMAS", [0.1]],
            "called L, R, N, T.*KEYPOINT_FLIP_PAIRS",
        ),
    ],
)
def test_keypoints_that_cannot_be_evaluated_are_an_error_before_training(pose_set, keys, names, overrides, message):
    cfg, dataset = pose_set(keys, names, *overrides)
    with pytest.raises(ValueError, match=message):
        check_evaluation(cfg, "zoo", dataset)


@pytest.mark.parametrize(
    "keys, names, overrides",
    [
        (CUSTOM, None, ["DATASETS.KEYPOINT_SIGMAS", [0.1]]),
        (CUSTOM, ["left", "right", "a", "b"], ["DATASETS.KEYPOINT_SIGMAS", [0.1], *MIRRORED]),
        (
            CUSTOM,
            list("LRNT"),
            ["DATASETS.KEYPOINT_SIGMAS", [0.1], *MIRRORED, "INPUT.KEYPOINT_FLIP_PAIRS", [["L", "R"]]],
        ),
        (CUSTOM, None, ["MODEL.KEYPOINT_ON", False]),
        (None, None, []),
    ],
)
def test_keypoints_that_can_be_evaluated_pass(pose_set, keys, names, overrides):
    cfg, dataset = pose_set(keys, names, *overrides)
    check_evaluation(cfg, "zoo", dataset)


def test_a_model_without_keypoint_head_flips_images_with_any_keypoints(loader_cfg, make_coco_folder):
    cfg, loader = loader_with(loader_cfg, make_coco_folder, [CUSTOM], "INPUT.HORIZONTAL_FLIP_PROB_TRAIN", 1.0)
    check_annotations(cfg, loader.dataset)
    _, targets, _ = next(iter(loader))
    assert not targets[0].has_field("keypoints")


def test_images_are_not_flipped_if_no_keypoint_name_has_a_side(loader_cfg, make_coco_folder, caplog):
    folder = make_coco_folder("poses")
    folder.add_image(1)
    folder.add_box(1, [5, 6, 20, 20], keypoints=[6, 10, 2, 7, 10, 2, 8, 10, 2, 20, 10, 2])
    folder.categories[0]["keypoints"] = ["k0", "k1", "k2", "k3"]
    cfg = loader_cfg([folder.write()], (), *POSE, "INPUT.HORIZONTAL_FLIP_PROB_TRAIN", 1.0)
    with caplog.at_level(logging.WARNING):
        loader = make_data_loader(cfg)
    assert "k0, k1, k2, k3 swap in a mirrored image" in caplog.text and "INPUT.KEYPOINT_FLIP_PAIRS" in caplog.text
    check_annotations(cfg, loader.dataset)
    _, targets, _ = next(iter(loader))
    x = targets[0].get_field("keypoints").keypoints[0, :, 0]
    assert x[0] < x[1] < x[2] < x[3] and x[3] < targets[0].size[0] / 2


def test_configured_flip_pairs_swap_keypoints_and_invalid_pairs_name_the_key(loader_cfg, make_coco_folder):
    pairs = ["INPUT.KEYPOINT_FLIP_PAIRS", [[0, 3]], "INPUT.HORIZONTAL_FLIP_PROB_TRAIN", 1.0]
    keys = {"keypoints": [6, 10, 2, 7, 10, 2, 8, 10, 2, 20, 10, 2]}
    cfg, loader = loader_with(loader_cfg, make_coco_folder, [keys], *POSE, *pairs)
    check_annotations(cfg, loader.dataset)
    _, targets, _ = next(iter(loader))
    x = targets[0].get_field("keypoints").keypoints[0, :, 0]
    assert x[0] < x[2] < x[1] < x[3]
    with pytest.raises(ValueError, match="INPUT.KEYPOINT_FLIP_PAIRS does not fit dataset .*keypoint 9 is unknown"):
        (part,) = loader.dataset.parts
        files = {"root": part.root, "ann_file": part.ann_file}
        make_data_loader(loader_cfg([files], (), *POSE, "INPUT.KEYPOINT_FLIP_PAIRS", [[0, 9]]))


STUFF = ["things", "comb", "sky"]


def test_a_panoptic_model_gets_both_class_numbers_from_the_data():
    keys = ["MODEL.META_ARCHITECTURE", "PanopticFPN", "MODEL.ROI_BOX_HEAD.NUM_CLASSES", -1]
    cfg = config(*keys, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", -1)
    resolve_num_classes(cfg, BEES, semantic_names=STUFF)
    assert cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES == 5 and cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3
    with pytest.raises(ValueError, match=r"3 semantic classes \(things, comb, sky\) but MODEL.SEM_SEG_HEAD.* is 54"):
        resolve_num_classes(config(*keys), BEES, semantic_names=STUFF)
    with pytest.raises(ValueError, match="'bees_train' has no semantic maps, but a PanopticFPN requires them"):
        resolve_num_classes(config(*keys), BEES)


def test_other_models_do_not_require_semantic_maps():
    cfg = config("MODEL.ROI_BOX_HEAD.NUM_CLASSES", 5)
    resolve_num_classes(cfg, BEES, semantic_names=STUFF)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 54


def test_every_kind_of_label_is_compared():
    class Bees:
        class_names, semantic_names = BEES, STUFF

    class Boxes:
        class_names, semantic_names = BEES, None

    assert label_names(Bees()) == {"class_names": BEES, "semantic_names": STUFF}
    assert label_names(Boxes()) == {"class_names": BEES}
    check_label_names(label_names(Bees()), {"hive": label_names(Boxes()), "field": label_names(Bees())})
    other = {"class_names": BEES, "semantic_names": ["things", "sky", "comb"]}
    with pytest.raises(ValueError, match="label 2 is 'comb' in training and 'sky' in the test set"):
        check_label_names(label_names(Bees()), {"hive": other})


def test_label_ids_are_those_of_the_annotation_files():
    def dataset(**attributes):
        return types.SimpleNamespace(**attributes)

    things = dataset(class_names=["a", "b"], categories={17: "a", 18: "b"})
    assert label_ids(things) == {"category_ids": [17, 18]}
    with_background = dataset(class_names=["a", "b"], categories={0: "__background__", 1: "a", 2: "b"})
    assert label_ids(with_background) == {"category_ids": [1, 2]}
    part = dataset(stuff_category_ids={1: 92, 2: 187})
    panoptic = dataset(
        class_names=["a", "b"], categories=things.categories, semantic_names=["things", "x", "y"], parts=[part]
    )
    assert label_ids(panoptic) == {"category_ids": [17, 18], "semantic_ids": [0, 92, 187]}
    semantic = dataset(class_names=[], categories={7: "road", 9: "sky"}, semantic_names=["road", "sky"])
    assert label_ids(semantic) == {"semantic_ids": [7, 9]}
    joined_of_other_ids = dataset(class_names=["a", "b"], categories=None)
    assert label_ids(joined_of_other_ids) == {}


def test_many_classes_that_differ_are_named_without_comparing_all_pairs(counted):
    count = 100
    train, test = ([counted(f"class {k}") for k in range(first, first + count)] for first in (0, 1))
    with pytest.raises(ValueError, match=rf"former: \(class 0\); only in the latter: \(class {count}\)"):
        check_label_spaces(train, {"test": test})
    assert counted.comparisons < 10 * count
