"""Names and blocks in DATASETS.TRAIN and DATASETS.TEST."""

import pytest

from maskrcnn_benchmark.config import cfg

BLOCK = {"NAME": "bees", "FORMAT": "coco", "IMAGES": "bees/images", "ANNOTATIONS": "bees/train.json"}
YAML_BLOCK = "{NAME: bees, FORMAT: coco, IMAGES: bees/images, ANNOTATIONS: bees/train.json}"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("coco_2014_train", ("coco_2014_train",)),
        ("('coco_2014_train', 'coco_2014_val')", ("coco_2014_train", "coco_2014_val")),
        ("('coco_2014_train')", ("coco_2014_train",)),
        ("[coco_2014_train]", ("coco_2014_train",)),
        (YAML_BLOCK, (BLOCK,)),
        (f"[{YAML_BLOCK}, coco_2014_train]", (BLOCK, "coco_2014_train")),
        ("[]", ()),
        ("()", ()),
    ],
)
def test_datasets_in_a_file(tree, write, text, expected):
    tree.merge_from_file(write(f"DATASETS:\n  TRAIN: {text}"))
    assert tree.DATASETS.TRAIN == expected
    again = cfg.clone()
    again.merge_from_file(write(tree.dump(), "dump.yaml"))
    assert again == tree


@pytest.mark.parametrize(
    "value", [repr(BLOCK), repr([BLOCK]), f"({BLOCK!r},)", BLOCK, [BLOCK], YAML_BLOCK, f"[{YAML_BLOCK}]"]
)
def test_blocks_on_the_command_line(tree, value):
    tree.merge_from_list(["DATASETS.TEST", value])
    assert tree.DATASETS.TEST == (BLOCK,)


@pytest.mark.parametrize(
    "value, problem",
    [
        ({"IMAGES": "a", "ANNOTATIONS": "b"}, "no FORMAT"),
        ({**BLOCK, "FORMAT": "vco"}, "known: coco"),
        ({**BLOCK, "IMAGE": "a"}, "unknown key 'IMAGE'.*allowed: FORMAT, IMAGES, ANNOTATIONS, NAME. Nearest: IMAGES"),
        ({**BLOCK, "images": "a"}, "Nearest: IMAGES"),
        ({**BLOCK, "NAME": 5}, "NAME of a block should be text"),
        ({**BLOCK, "FORMAT": ["coco"]}, "known: coco"),
        ({"FORMAT": "coco", "IMAGES": "a"}, "lacks ANNOTATIONS"),
        ([["coco_2014_train"]], "should hold names"),
        (5, "should hold names"),
        (None, "should hold names"),
        ("(coco_a, coco_b)", "should hold names"),
        ("coco_a,coco_b", "should hold names"),
        ("[coco_a, {FORMAT: coco]", "should hold names"),
        ("[" * 20_000, "should hold names"),
        ("", "should hold names"),
    ],
)
def test_malformed_datasets(tree, value, problem):
    with pytest.raises((ValueError, KeyError), match=problem) as raised:
        tree.merge_from_list(["DATASETS.TRAIN", value])
    assert "DATASETS.TRAIN" in str(raised.value)
