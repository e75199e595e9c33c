"""Conversion of values to the type of a default, and errors for wrong types."""

import pytest


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
def test_wrong_type_names_key_value_and_valid_values(tree, key, value, wanted):
    with pytest.raises(ValueError) as raised:
        tree.merge_from_list([key, value])
    assert key in str(raised.value) and wanted in str(raised.value)
    assert repr(value) in str(raised.value) or repr(value).strip("'") in str(raised.value)
    assert type(value).__name__ in str(raised.value) or value == "None"


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
def test_equivalent_values_are_converted_to_the_type(tree, key, value, expected):
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


def test_expected_results_of_a_file_can_be_replaced(tree, tmp_path):
    (tmp_path / "base.yaml").write_text("TEST: {EXPECTED_RESULTS: [[bbox, AP, [0.1, 0.01]]]}")
    (tmp_path / "top.yaml").write_text("_BASE_: base.yaml\nTEST: {EXPECTED_RESULTS: [[segm, AP50, [0.2, 0]]]}")
    tree.merge_from_file(str(tmp_path / "top.yaml"))
    assert tree.TEST.EXPECTED_RESULTS == [["segm", "AP50", [0.2, 0]]]
    tree.merge_from_list(["TEST.EXPECTED_RESULTS", "[['bbox', 'AP', [0.3, 0.1]], ['segm', 'AP', [0.2, 0]]]"])
    assert tree.TEST.EXPECTED_RESULTS == [["bbox", "AP", [0.3, 0.1]], ["segm", "AP", [0.2, 0]]]
    tree.merge_from_list(["TEST.EXPECTED_RESULTS", []])
    assert tree.TEST.EXPECTED_RESULTS == []


@pytest.mark.parametrize("text", ["[1.0, 0.5]", "(1.0, 0.5)", "[1e0, 5e-1]", "[ 1, .5 ]"])
def test_lists_in_brackets_of_python_and_of_yaml(tree, text):
    tree.merge_from_list(["INPUT.PIXEL_STD", text, "MODEL.WEIGHT", "[odd name].pth"])
    assert list(tree.INPUT.PIXEL_STD) == [1.0, 0.5]
    assert tree.MODEL.WEIGHT == "[odd name].pth"
