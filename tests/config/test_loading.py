import copy
from pathlib import Path

import pytest

from maskrcnn_benchmark.config import CfgNode, cfg


@pytest.fixture
def tree():
    return copy.deepcopy(cfg)


@pytest.fixture
def write(tmp_path):
    def writer(text, name="config.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return writer


def message(raised):
    return str(raised.value)


# What the forks' own tests and scripts do with cfg


def test_deep_copy_and_clone_leave_the_original_alone(write):
    path = write("MODEL: {DEVICE: cpu}")
    before = cfg.dump()
    for other in (copy.deepcopy(cfg), cfg.clone()):
        other.merge_from_file(str(path))
        other.merge_from_list(["SOLVER.MAX_ITER", 7])
        assert isinstance(other.MODEL, CfgNode)
        assert (other.MODEL.DEVICE, other.SOLVER.MAX_ITER) == ("cpu", 7)
    assert cfg.dump() == before


def test_freeze_stops_assignments_and_merges(tree, write):
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


def test_merging_keeps_the_nodes_that_others_hold(tree, write):
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
            *("OUTPUT_DIR", "'1e5'"),  # a string that looks like a number
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
def test_the_printed_config_merges_back_as_it_stands(tree, write, form):
    tree.merge_from_list(
        [
            *("OUTPUT_DIR", "some folder/äöü: #1", "MODEL.WEIGHT", "'1e5'", "SOLVER.BASE_LR", "1e-5"),
            *("DATASETS.TRAIN", [BLOCK, "coco_2014_train"], "SOLVER.STEPS", [1, 2]),
            *("TEST.EXPECTED_RESULTS", [["bbox", "AP", [0.5, 0.01]]]),
        ]
    )
    again = cfg.clone()
    again.merge_from_file(write(form(tree)))
    assert again == tree
    assert "  TRAIN: [{ANNOTATIONS: bees/train.json, FORMAT: coco, " in str(tree)  # one key a line
    assert "\n  STEPS: [1, 2]\n" in str(tree)


# _BASE_


def test_bases_are_relative_to_the_file_and_the_last_word_counts(tree, write):
    write("SOLVER: {BASE_LR: 0.1, MAX_ITER: 10}\nMODEL: {DEVICE: cpu}", "low/base.yaml")
    write("_BASE_: low/base.yaml\nSOLVER: {BASE_LR: 0.2, GAMMA: 0.5}", "middle.yaml")
    top = write("_BASE_: ../middle.yaml\nSOLVER: {GAMMA: 0.25}", "high/top.yaml")
    tree.merge_from_file(top)
    solver = tree.SOLVER
    assert (solver.BASE_LR, solver.MAX_ITER, solver.GAMMA, tree.MODEL.DEVICE) == (0.2, 10, 0.25, "cpu")


def test_a_circle_of_bases_is_an_error(tree, write):
    write("_BASE_: b.yaml", "a.yaml")
    b = write("_BASE_: ./a.yaml", "b.yaml")
    with pytest.raises(ValueError, match=r"circle: .*b\.yaml -> .*a\.yaml -> .*b\.yaml"):
        tree.merge_from_file(b)


def test_a_missing_base_names_both_files(tree, write):
    write("SEED: 1", "base.yaml")
    path = write("_BASE_: bsae.yaml", "top.yaml")
    with pytest.raises(FileNotFoundError) as raised:
        tree.merge_from_file(path)
    assert "bsae.yaml" in message(raised) and str(path) in message(raised) and "base.yaml" in message(raised)


def test_an_error_in_a_base_names_the_base(tree, write):
    base = write("SEEED: 1", "base.yaml")
    with pytest.raises(KeyError) as raised:
        tree.merge_from_file(write("_BASE_: base.yaml", "top.yaml"))
    assert str(base) in message(raised)


@pytest.mark.parametrize("base", ["3", "[a.yaml, b.yaml]", "''"])
def test_a_base_that_is_no_file_name_is_an_error(tree, write, base):
    with pytest.raises(ValueError, match="_BASE_ should be one file name"):
        tree.merge_from_file(write(f"_BASE_: {base}"))


# Unknown keys and wrong types


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
    assert str(path) in message(raised) and key in message(raised) and near in message(raised)
    assert "\\n" not in message(raised) and not message(raised).startswith("'")


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
    assert f"command line: unknown key {key}" in message(raised)
    assert near in message(raised).partition("Nearest known: ")[2]


@pytest.mark.parametrize(
    "key, value, wanted",
    [
        ("SOLVER.MAX_ITER", "many", "a whole number"),
        ("SOLVER.MAX_ITER", 1.5, "a whole number"),
        ("SOLVER.MAX_ITER", True, "a whole number"),
        ("SOLVER.MAX_ITER", [1], "a whole number"),
        ("SOLVER.MAX_ITER", float("inf"), "a whole number"),
        ("SOLVER.BASE_LR", "fast", "a number"),
        ("SOLVER.BASE_LR", None, "a number"),
        ("SOLVER.BIAS_LR_FACTOR", "two", "a number"),
        ("MODEL.DEVICE", 0, "text"),
        ("MODEL.WEIGHT", None, 'write ""'),
        ("MODEL.WEIGHT", "None", 'write ""'),
        ("MODEL.MASK_ON", 1, "True or False"),
        ("MODEL.MASK_ON", "yess", "True or False"),
        ("SOLVER.STEPS", 30000, "[30000]"),
        ("SOLVER.STEPS", ["a"], "a list, each entry a number"),
        ("SOLVER.STEPS", {"a": 1}, "a list"),
        ("MODEL.FCOS", 3, "a section"),
        ("MODEL.FCOS", None, "a section"),
    ],
)
def test_wrong_type_names_key_value_type_and_what_is_wanted(tree, key, value, wanted):
    with pytest.raises(ValueError) as raised:
        tree.merge_from_list([key, value])
    assert key in message(raised) and wanted in message(raised)
    assert repr(value) in message(raised) or repr(value).strip("'") in message(raised)
    assert type(value).__name__ in message(raised) or value == "None"


@pytest.mark.parametrize(
    "key, value, expected",
    [
        ("SOLVER.BASE_LR", "1e-3", 0.001),
        ("SOLVER.BASE_LR", 1, 1.0),
        ("SOLVER.BASE_LR", "inf", float("inf")),
        ("SOLVER.MAX_ITER", "9e4", 90000),
        ("SOLVER.MAX_ITER", "12", 12),
        ("SOLVER.BIAS_LR_FACTOR", 1.5, 1.5),
        ("SOLVER.WEIGHT_DECAY_BIAS", "1e-4", 0.0001),
        ("SOLVER.STEPS", "[10, '2e1']", (10, 20)),
        ("SOLVER.STEPS", "10, 20", (10, 20)),
        ("INPUT.PIXEL_STD", (1, 2, 3), [1.0, 2.0, 3.0]),
        ("MODEL.RESNETS.STAGE_WITH_DCN", "(False, True, True, True)", (False, True, True, True)),
        ("MODEL.MASK_ON", "true", True),
        ("MODEL.MASK_ON", "False", False),
        ("OUTPUT_DIR", "2024", "2024"),
        ("OUTPUT_DIR", "'quoted'", "quoted"),
        ("MODEL.WEIGHT", "", ""),
        ("MODEL.VOVNET.STEM_CHANNELS", "(16, 16, 32)", [16, 16, 32]),
    ],
)
def test_what_plainly_means_the_type_is_taken(tree, key, value, expected):
    tree.merge_from_list([key, value])
    section, _, leaf = key.rpartition(".")
    node = tree
    for part in section.split(".") if section else []:
        node = node[part]
    assert node[leaf] == expected and type(node[leaf]) is type(expected)


def test_numbers_with_an_exponent_are_numbers_in_a_file(tree, write):
    text = "SOLVER: {BASE_LR: 1e-3, WEIGHT_DECAY: 1.5e2}\nTEST: {EXPECTED_RESULTS: [[bbox, AP, [1e-1, 0]]]}"
    tree.merge_from_file(write(text))
    assert (tree.SOLVER.BASE_LR, tree.SOLVER.WEIGHT_DECAY) == (0.001, 150.0)
    assert tree.TEST.EXPECTED_RESULTS == [["bbox", "AP", [0.1, 0]]]


def test_a_list_of_odd_length_says_how_pairs_look(tree):
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


# Files that are no config, and files that would run code


@pytest.mark.parametrize(
    "text, problem",
    [
        ("", "holds no keys"),
        ("# MODEL:\n", "holds no keys"),
        ("MODEL: {DEVICE: cpu", "not well-formed"),
        ("MODEL:\n\tDEVICE: cpu", "line 2: a tab; YAML allows spaces only"),
        ("MODEL:\n  DEVICE: cpu\n\tMASK_ON: True", "line 3: a tab"),
        ("MODEL:\n  DEVICE:\tcpu", "line 2: a tab"),
        ("- MODEL", "KEY: VALUE"),
        ("just words", "KEY: VALUE"),
        ("SEED: 1\nMODEL: {}\nSEED: 2", "line 3: key 'SEED' is already in line 1"),
        ("MODEL:\n  DEVICE: cpu\n  DEVICE: cuda", "line 3: key 'DEVICE' is already in line 2"),
        ("OUTPUT_DIR: !!python/object/apply:os.getcwd []", "Nothing in a config is executed"),
        ("OUTPUT_DIR: !!python/name:os.getcwd", "Nothing in a config is executed"),
        ("OUTPUT_DIR: !mine x", "line 1"),
    ],
)
def test_unusable_yaml_names_the_file_and_the_problem(tree, write, text, problem):
    path = write(text)
    with pytest.raises(ValueError) as raised:
        tree.merge_from_file(path)
    assert str(path) in message(raised) and problem in message(raised)


def test_bytes_that_are_no_text_name_the_file(tree, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        tree.merge_from_file(path)


def test_a_missing_file_names_the_nearest(tree, write):
    write("SEED: 1", "fcos_V_39.yaml")
    missing = write("SEED: 1", "x.yaml").with_name("fcos_V_93.yaml")
    with pytest.raises(FileNotFoundError) as raised:
        tree.merge_from_file(missing)
    assert str(missing) in message(raised) and "fcos_V_39.yaml" in message(raised)
    with pytest.raises(FileNotFoundError, match="no folder"):
        tree.merge_from_file(Path("nowhere") / "x.yaml")


def test_a_python_config_is_refused_and_not_run(tree, write, tmp_path):
    flag = tmp_path / "ran"
    path = write(f"open({str(flag)!r}, 'w')\ncfg = {{}}", "config.py")
    with pytest.raises(ValueError, match="not executed"):
        tree.merge_from_file(path)
    with pytest.raises(ValueError, match="not executed"), open(path) as file:
        CfgNode.load_cfg(file)
    assert not flag.exists()


def test_a_foreign_catalog_is_refused_with_the_blocks_to_write(tree, write, tmp_path):
    flag = tmp_path / "ran"
    catalog = write(
        f"""
open({str(flag)!r}, 'w')
class DatasetCatalog:
    DATA_DIR = "/data"
    DATASETS = {{
        "coco_bees_train": {{"img_dir": "bees/train", "ann_file": "bees/train.json"}},
        "voc_bees": {{"data_dir": "bees", "split": "val"}},
        "coco_" + "made": {{}},
    }}
""",
        "my_catalog.py",
    )
    sets = "TRAIN: [coco_bees_train, coco_2014_val], TEST: [voc_bees, what]"
    path = write(f"PATHS_CATALOG: {catalog}\nDATASETS: {{{sets}}}")
    with pytest.raises(ValueError) as raised:
        tree.merge_from_file(path)
    text = message(raised)
    assert "not executed" in text and str(catalog) in text
    assert "{NAME: coco_bees_train, FORMAT: coco, IMAGES: /data/bees/train, ANNOTATIONS: /data/bees/train.json}" in text
    assert "- coco_2014_val\n" in text and "not in COCO format" in text and "# what" in text
    assert not flag.exists()
    block = write(text[text.index("DATASETS:") : text.index("  TEST:")], "block.yaml")
    tree.merge_from_file(block)
    assert [entry if isinstance(entry, str) else entry["NAME"] for entry in tree.DATASETS.TRAIN] == [
        "coco_bees_train",
        "coco_2014_val",
    ]


@pytest.mark.parametrize("catalog", ["missing.py", "/etc/hostname"])
def test_a_foreign_catalog_that_cannot_be_read_gets_an_example(tree, catalog):
    with pytest.raises(ValueError, match="FORMAT: coco, IMAGES: folder"):
        tree.merge_from_list(["PATHS_CATALOG", catalog])


@pytest.mark.parametrize("package", ["maskrcnn_benchmark", "fcos_core"])
def test_the_default_catalog_of_another_checkout_is_the_default(tree, package):
    tree.merge_from_list(["PATHS_CATALOG", f"/elsewhere/{package}/config/paths_catalog.py"])
    assert tree.PATHS_CATALOG == cfg.PATHS_CATALOG


# Data sets


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
def test_data_sets_in_a_file(tree, write, text, expected):
    tree.merge_from_file(write(f"DATASETS:\n  TRAIN: {text}"))
    assert tree.DATASETS.TRAIN == expected
    again = cfg.clone()
    again.merge_from_file(write(tree.dump(), "dump.yaml"))
    assert again == tree


@pytest.mark.parametrize("value", [repr(BLOCK), repr([BLOCK]), f"({BLOCK!r},)", BLOCK, [BLOCK]])
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
        ("", "should hold names"),
    ],
)
def test_malformed_data_sets(tree, value, problem):
    with pytest.raises((ValueError, KeyError), match=problem) as raised:
        tree.merge_from_list(["DATASETS.TRAIN", value])
    assert "DATASETS.TRAIN" in message(raised)
