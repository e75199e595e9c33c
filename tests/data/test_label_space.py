import pytest

from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.data import (
    check_annotations,
    check_label_names,
    check_label_spaces,
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
        (["MODEL.FCOS_ON", True, "MODEL.FCOS.NUM_CLASSES", -1], "FCOS"),
        (["MODEL.RETINANET_ON", True, "MODEL.RETINANET.NUM_CLASSES", -1], "RETINANET"),
        (["MODEL.ROI_BOX_HEAD.NUM_CLASSES", -1], "ROI_BOX_HEAD"),
    ],
)
def test_minus_one_is_filled_from_the_data(overrides, node):
    cfg = config(*overrides)
    resolve_num_classes(cfg, BEES)
    assert cfg.MODEL[node].NUM_CLASSES == 5
    resolve_num_classes(cfg, BEES)  # and fits from then on


def test_keys_of_other_models_do_not_matter():
    cfg = config("MODEL.FCOS_ON", True, "MODEL.FCOS.NUM_CLASSES", 5)
    resolve_num_classes(cfg, BEES)
    assert cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES == 81 and cfg.MODEL.RETINANET.NUM_CLASSES == 81


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


def test_classes_that_are_missing_or_new_are_named():
    with pytest.raises(ValueError, match=r"'bees_test' \(drone, hornet\).*former: \(queen, .*latter: \(hornet\)"):
        check_label_spaces(BEES, {"bees_test": ["drone", "hornet"]})


def test_another_order_is_an_error_that_names_the_first_difference():
    with pytest.raises(ValueError, match="label 2 is 'queen' in training and 'worker' in the test set"):
        check_label_spaces(BEES, {"bees_test": ["drone", "worker", "queen", "wasp"]})


def test_proposals_without_a_second_stage_have_no_classes():
    cfg = config("MODEL.RPN_ONLY", True)
    resolve_num_classes(cfg, BEES)
    assert cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES == 81


def loader_with(loader_cfg, make_coco_folder, sets, *overrides):
    """(cfg, a training loader over these sets of a picture each); a set is the further keys of its one annotation."""
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
        ([POINTS], ["MODEL.KEYPOINT_ON", True], "bees0 has 15 keypoints an object, .*NUM_CLASSES is 5. Set it to 15"),
    ],
)
def test_annotations_that_a_head_lacks_stop_before_training(loader_cfg, make_coco_folder, sets, overrides, message):
    cfg, loader = loader_with(loader_cfg, make_coco_folder, sets, *overrides)
    with pytest.raises(ValueError, match=message):
        check_annotations(cfg, loader.dataset)


@pytest.mark.parametrize(
    "sets, overrides",
    [
        ([{}], []),
        ([{}], ["MODEL.MASK_ON", True, "MODEL.RPN_ONLY", True]),
        ([OUTLINE, OUTLINE], ["MODEL.MASK_ON", True]),
        ([OUTLINE | POINTS], [*BOTH, "MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES", 15]),
    ],
)
def test_annotations_that_fit_pass(loader_cfg, make_coco_folder, sets, overrides):
    cfg, loader = loader_with(loader_cfg, make_coco_folder, sets, *overrides)
    check_annotations(cfg, loader.dataset)


STUFF = ["things", "comb", "sky"]


def test_a_panoptic_model_takes_both_numbers_from_the_data():
    keys = ["MODEL.META_ARCHITECTURE", "PanopticFPN", "MODEL.ROI_BOX_HEAD.NUM_CLASSES", -1]
    cfg = config(*keys, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", -1)
    resolve_num_classes(cfg, BEES, semantic_names=STUFF)
    assert cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES == 5 and cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3
    with pytest.raises(ValueError, match=r"3 semantic classes \(things, comb, sky\) but MODEL.SEM_SEG_HEAD.* is 54"):
        resolve_num_classes(config(*keys), BEES, semantic_names=STUFF)
    with pytest.raises(ValueError, match="'bees_train' has no semantic maps, but a PanopticFPN learns from them"):
        resolve_num_classes(config(*keys), BEES)


def test_other_models_do_not_ask_for_semantic_maps():
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
