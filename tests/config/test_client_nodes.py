"""Custom sections and keys, and yacs's functions to allow, deprecate and rename keys."""

import logging

import pytest
import yacs.config

from maskrcnn_benchmark.config import CfgNode, cfg


@pytest.fixture
def tree():
    return cfg.clone()


@pytest.fixture
def merge_file(tmp_path):
    def merge(tree, text):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        tree.merge_from_file(path)

    return merge


NECK = {"CHANNELS": 64, "STRIDES": (8, 16), "NAME": "pan", "INNER": {"RATIO": 0.5, "ON": False}}


@pytest.mark.parametrize("kind", [yacs.config.CfgNode, CfgNode])
def test_custom_sections_merge_from_files_lists_and_trees(tree, merge_file, kind):
    tree.MODEL.NECK = kind(NECK)
    merge_file(tree, "MODEL: {NECK: {CHANNELS: 128, INNER: {RATIO: 1}}, DEVICE: cpu}")
    tree.merge_from_list(["MODEL.NECK.STRIDES", "[4, 8]", "MODEL.NECK.INNER.ON", "True"])
    tree.merge_from_other_cfg({"MODEL": {"NECK": {"NAME": "fpn"}}})
    assert tree.MODEL.NECK == {
        "CHANNELS": 128,
        "STRIDES": (4, 8),
        "NAME": "fpn",
        "INNER": {"RATIO": 1.0, "ON": True},
    }
    assert type(tree.MODEL.NECK.INNER.RATIO) is float and tree.MODEL.DEVICE == "cpu"
    again = cfg.clone()
    again.MODEL.NECK = kind(NECK)
    merge_file(again, str(tree))
    assert again == tree and tree.clone() == tree
    tree.freeze()
    with pytest.raises(AttributeError):
        tree.MODEL.NECK.CHANNELS = 1


@pytest.mark.parametrize("kind", [yacs.config.CfgNode, CfgNode])
def test_custom_sections_are_strict(tree, kind):
    tree.MODEL.NECK = kind(NECK)
    with pytest.raises(KeyError, match="unknown key MODEL.NECK.CHANELS.*Nearest known: MODEL.NECK.CHANNELS"):
        tree.merge_from_list(["MODEL.NECK.CHANELS", 3])
    with pytest.raises(ValueError, match="MODEL.NECK.CHANNELS should be a whole number"):
        tree.merge_from_list(["MODEL.NECK.CHANNELS", "many"])
    with pytest.raises(ValueError, match="MODEL.NECK is a section with keys"):
        tree.merge_from_list(["MODEL.NECK", 3])
    tree.MODEL.EMPTY = kind()
    with pytest.raises(KeyError, match="unknown key MODEL.EMPTY.A"):
        tree.merge_from_list(["MODEL.EMPTY.A", 3])
    with pytest.raises(ValueError, match="MODEL.EMPTY is a section without keys"):
        tree.merge_from_list(["MODEL.EMPTY", 3])


def test_new_keys_merge_if_allowed(tree, merge_file):
    tree.set_new_allowed(True)
    merge_file(tree, "MODEL: {NECK: {CHANNELS: 128, INNER: {A: [1, 2]}}}\nOWN: text\nEMPTY: {}")
    tree.merge_from_list(["MODEL.NECK.RATIO", "0.5", "MODEL.HEAD.LAYERS", "3"])
    merge_file(tree, "MODEL: {NECK: {INNER: {B: null}}}")
    assert tree.MODEL.NECK == {"CHANNELS": 128, "INNER": {"A": [1, 2], "B": None}, "RATIO": 0.5}
    assert (tree.MODEL.HEAD.LAYERS, tree.OWN, tree.EMPTY) == (3, "text", {})
    assert isinstance(tree.MODEL.NECK.INNER, yacs.config.CfgNode)
    with pytest.raises(ValueError, match="SOLVER.MAX_ITER should be a whole number"):  # known keys keep their types
        tree.merge_from_list(["SOLVER.MAX_ITER", "many"])
    tree.set_new_allowed(False)
    with pytest.raises(KeyError, match="unknown key MODEL.NECK.MORE"):
        tree.merge_from_list(["MODEL.NECK.MORE", 1])


def test_new_keys_are_allowed_in_one_section_only(tree, merge_file):
    tree.MODEL.OWN = yacs.config.CfgNode(new_allowed=True)
    merge_file(tree, "MODEL: {OWN: {A: 1, B: {C: x}}}")
    assert tree.MODEL.OWN == {"A": 1, "B": {"C": "x"}}
    with pytest.raises(KeyError, match="unknown key MODEL.OTHER"):
        merge_file(tree, "MODEL: {OTHER: {A: 1}}")


def test_a_base_and_its_file_share_a_new_section(tree, tmp_path):
    tree.set_new_allowed(True)
    (tmp_path / "base.yaml").write_text("OWN: {A: 1, B: 2}")
    (tmp_path / "top.yaml").write_text("_BASE_: base.yaml\nOWN: {B: 3}")
    tree.merge_from_file(tmp_path / "top.yaml")
    assert tree.OWN == {"A": 1, "B": 3}


def test_a_new_key_accepts_only_plain_values(tree, merge_file):
    tree.set_new_allowed(True)
    with pytest.raises(ValueError, match="new key OWN is datetime.date.*it should be text"):
        merge_file(tree, "OWN: 2020-01-01")


@pytest.mark.parametrize("text", ["OLD: {KEY: 3}\nSEED: 5", "MODEL: {GONE: 3}\nSEED: 5"])
def test_a_deprecated_key_is_ignored_with_a_warning(tree, merge_file, text, caplog):
    tree.register_deprecated_key("OLD.KEY")
    tree.register_deprecated_key("MODEL.GONE")
    with caplog.at_level(logging.WARNING):
        merge_file(tree, text)
    assert tree.SEED == 5 and "OLD" not in tree and "GONE" not in tree.MODEL
    assert "Deprecated config key" in caplog.text
    tree.merge_from_list(["OLD.KEY", 3, "MODEL.GONE", 4, "SEED", 6])
    assert tree.SEED == 6
    with pytest.raises(KeyError, match="unknown key OLD"):
        merge_file(tree, "OLD: {OTHER: 3}")


def test_a_renamed_key_gives_an_error_with_the_new_name(tree, merge_file):
    tree.register_renamed_key("MODEL.OLD_NAME", "MODEL.DEVICE", message="Write cpu or cuda.")
    tree.register_renamed_key("GONE.KEY", "SEED")
    for attempt in (
        lambda: merge_file(tree, "MODEL: {OLD_NAME: cpu}"),
        lambda: tree.merge_from_list(["MODEL.OLD_NAME", "cpu"]),
    ):
        with pytest.raises(KeyError, match="MODEL.OLD_NAME was renamed to MODEL.DEVICE; .*Write cpu or cuda"):
            attempt()
    with pytest.raises(KeyError, match="GONE.KEY was renamed to SEED"):
        merge_file(tree, "GONE: {KEY: 3}")
    with pytest.raises(KeyError, match="GONE.KEY was renamed to SEED"):
        tree.clone().merge_from_list(["GONE.KEY", 3])
