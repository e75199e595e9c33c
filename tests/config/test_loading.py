"""Merging of files, trees and the command line into the config; freezing and dumping it."""

import copy

import pytest

from maskrcnn_benchmark.config import CfgNode, cfg


def test_deep_copy_and_clone_do_not_change_the_original(write):
    path = write("MODEL: {DEVICE: cpu}")
    before = cfg.dump()
    for other in (copy.deepcopy(cfg), cfg.clone()):
        other.merge_from_file(str(path))
        other.merge_from_list(["SOLVER.MAX_ITER", 7])
        assert isinstance(other.MODEL, CfgNode)
        assert (other.MODEL.DEVICE, other.SOLVER.MAX_ITER) == ("cpu", 7)
    assert cfg.dump() == before


def test_freeze_prevents_assignments_and_merges(tree, write):
    tree.freeze()
    with pytest.raises(AttributeError):
        tree.MODEL.DEVICE = "cpu"
    with pytest.raises(AttributeError, match="frozen"):
        tree.merge_from_list(["MODEL.DEVICE", "cpu"])
    with pytest.raises(AttributeError, match="frozen"):
        tree.merge_from_file(write("MODEL: {DEVICE: cpu}"))
    tree.defrost()
    tree.merge_from_list(["MODEL.DEVICE", "cpu"])
    assert tree.MODEL.DEVICE == "cpu"


def test_merging_modifies_nodes_in_place(tree, write):
    solver = tree.SOLVER
    tree.merge_from_file(write("SOLVER: {BASE_LR: 0.5}"))
    assert solver.BASE_LR == 0.5


def test_merge_from_other_cfg(tree):
    other = CfgNode({"SOLVER": {"STEPS": [1, 2]}, "MODEL": {"MASK_ON": True}})
    tree.merge_from_other_cfg(other)
    assert tree.SOLVER.STEPS == (1, 2) and tree.MODEL.MASK_ON is True


def test_dump_reloads_to_the_same_tree(tree, write):
    tree.merge_from_list(
        [
            *("OUTPUT_DIR", "'1e5'"),  # a string that could be a number
            *("SOLVER.BASE_LR", "1e-5"),
            *("DATASETS.TRAIN", "({'FORMAT': 'coco', 'IMAGES': 'a b', 'ANNOTATIONS': 'c.json'}, 'coco_2014_train')"),
            *("TEST.EXPECTED_RESULTS", "[('bbox', 'AP', (0.5, 1e-2))]"),
        ]
    )
    again = cfg.clone()
    again.merge_from_file(write(tree.dump()))
    assert again == tree
    assert again.OUTPUT_DIR == "1e5"


@pytest.mark.parametrize("form", [str, CfgNode.dump])
def test_the_printed_config_merges_back_unchanged(tree, write, form):
    block = {"NAME": "bees", "FORMAT": "coco", "IMAGES": "bees/images", "ANNOTATIONS": "bees/train.json"}
    tree.merge_from_list(
        [
            *("OUTPUT_DIR", "some folder/äöü: #1", "MODEL.WEIGHT", "'1e5'", "SOLVER.BASE_LR", "1e-5"),
            *("DATASETS.TRAIN", [block, "coco_2014_train"], "SOLVER.STEPS", [1, 2]),
            *("TEST.EXPECTED_RESULTS", [["bbox", "AP", [0.5, 0.01]]]),
        ]
    )
    again = cfg.clone()
    again.merge_from_file(write(form(tree)))
    assert again == tree
    assert "  TRAIN: [{ANNOTATIONS: bees/train.json, FORMAT: coco, " in str(tree)  # one key per line
    assert "\n  STEPS: [1, 2]\n" in str(tree)


@pytest.mark.parametrize(
    "text, key, near",
    [
        ("MODEL: {FCOS: {NUM_CLASES: 3}}", "MODEL.FCOS.NUM_CLASES", "MODEL.FCOS.NUM_CLASSES"),
        ("SOLVER: {base_lr: 3}", "SOLVER.base_lr", "SOLVER.BASE_LR"),
        ("MODLE: {DEVICE: cpu}", "MODLE", "MODEL"),
        ("MODEL: {NMS_TH: 0.5}", "MODEL.NMS_TH", "MODEL.FCOS.NMS_TH"),
        ("MODEL.DEVICE: cpu", "MODEL.DEVICE", "MODEL: {DEVICE: ...}"),
        ("5: cpu", "5", ""),
    ],
)
def test_unknown_key_names_file_key_and_nearest(tree, write, text, key, near):
    path = write(text)
    with pytest.raises(KeyError) as raised:
        tree.merge_from_file(path)
    assert str(path) in str(raised.value) and key in str(raised.value) and near in str(raised.value)
    assert "\\n" not in str(raised.value) and not str(raised.value).startswith("'")


@pytest.mark.parametrize(
    "key, near",
    [
        ("MODEL.DEVCE", "MODEL.DEVICE"),
        ("MODEL.DEVICE.NAME", "MODEL.DEVICE"),
        ("DEVICE", "MODEL.DEVICE"),
        ("MODEL.", "MODEL"),
        ("_BASE_", ""),
    ],
)
def test_unknown_key_on_the_command_line(tree, key, near):
    with pytest.raises(KeyError) as raised:
        tree.merge_from_list([key, "cpu"])
    assert f"command line: unknown key {key}" in str(raised.value)
    assert near in str(raised.value).partition("Nearest known: ")[2]


def test_a_list_of_odd_length_gives_an_error_with_the_syntax(tree):
    with pytest.raises(ValueError, match="KEY VALUE.*are 1: MODEL.DEVICE=cpu.*space instead of '='"):
        tree.merge_from_list(["MODEL.DEVICE=cpu"])


def test_a_refused_merge_changes_nothing(tree, write):
    before = tree.dump()
    for merge in (
        lambda: tree.merge_from_file(write("SEED: 5\nSOLVER: {MAX_ITER: many}")),
        lambda: tree.merge_from_list(["SEED", 5, "SEEED", 5]),
    ):
        with pytest.raises((KeyError, ValueError)):
            merge()
        assert tree.dump() == before
