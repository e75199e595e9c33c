"""Files that would keep a YAML reader busy for hours, or fill the screen, give short errors that name them."""

import time

import pytest

from maskrcnn_benchmark.config import cfg

LETTERS = "abcdefghijklm"


def laughs(start, item):
    """Return lines that each repeat the line before nine times."""
    lines = [f"a: &a {start}"]
    for before, name in zip(LETTERS, LETTERS[1:], strict=False):
        lines.append(f"{name}: &{name} {item.format(','.join([f'*{before}'] * 9))}")
    return "\n".join(lines)


FILES = {
    "digits": ("SOLVER: {BASE_LR: " + "1" * 40_000 + "}", "line 1: a number of 40000 characters"),
    "almost an exponent": ("SOLVER: {BASE_LR: " + "1" * 40_000 + "ex}", "BASE_LR should be a number"),
    "digits and a dot": ("SOLVER: {BASE_LR: 1." + "1" * 400_000 + "e}", "BASE_LR should be a number"),
    "hexadecimal": ("SEED: 0x" + "f" * 500_000, "a number of 500002 characters"),
    "sexagesimal": ("SEED: 1" + ":59" * 200_000, "a number of 600001 characters"),
    "sexagesimal float": ("SOLVER: {BASE_LR: 1" + ":59" * 200_000 + ".5}", "a number of 600003 characters"),
    "aliases": (laughs("[1]", "[{}]"), "line 6: more than 20000 keys and values, including those repeated by aliases"),
    "merged aliases": (laughs("{x: 1}", "{{<<: [{}]}}"), "more than 20000 keys and values"),
    "an alias in itself": ("SEED: &a [1, *a]", "line 1: an alias is inside the node that it repeats"),
    "unknown keys": ("".join(f"K{i}: 1\n" for i in range(60_000)), "more than 20000 keys and values"),
    "many unknown keys": ("".join(f"K{i}: 1\n" for i in range(800_000)), "a config has at most 1048576"),
    "brackets": ("SEED: " + "[" * 100_000, "line 1: more than 50 levels"),
    "braces": ("SEED: " + "{a: " * 100_000, "line 1: more than 50 levels"),
    "dashes": ("SEED:\n" + "- " * 100_000, "line 2: more than 50 levels"),
    "steps": ("".join(" " * i + "a:\n" for i in range(1000)), "line 50: more than 50 levels"),
    "a long key": ("K" * 1_000_000 + ": 1", "not well-formed"),
    "a long quoted key": ("? '" + "K" * 1_000_000 + "'\n: 1", "unknown key KKK"),
    "a long value": ("SEED: " + "x y " * 200_000, "SEED should be a whole number"),
    "a long tag": ("SEED: !!" + "x" * 500_000 + " 1", "Nothing in a config is executed"),
    "no digits": ("SEED: !!int ''", "line 1: '' is not a number"),
    "no date": ("SEED: 2001-99-99", "month must be in 1..12"),
}


@pytest.mark.parametrize("name", FILES)
def test_the_error_is_quick_and_short_and_names_the_file(name, tmp_path):
    text, problem = FILES[name]
    path = tmp_path / "config.yaml"
    path.write_text(text)
    tree = cfg.clone()
    start = time.process_time()
    with pytest.raises((ValueError, KeyError)) as raised:
        tree.merge_from_file(path)
    assert time.process_time() - start < 5
    assert str(path) in str(raised.value) and problem in str(raised.value)
    assert len(str(raised.value)) <= 2100
    assert tree == cfg


@pytest.mark.parametrize(
    "arguments",
    [
        ["SOLVER.STEPS", "[" * 10_000],
        ["x" * 1_000_000, 1],
        ["x=" * 1_000_000],
        ["SEED", "-" * 100_000 + "1"],
        ["SOLVER.BASE_LR", 10**400],
        ["SEED", 10**400],
        ["MODEL.FCOS", list(range(100_000))],
    ],
)
def test_a_hostile_command_line_gets_a_short_error(arguments):
    with pytest.raises((ValueError, KeyError)) as raised:
        cfg.clone().merge_from_list(arguments)
    assert len(str(raised.value)) <= 2500


def test_ordinary_aliases_and_merge_keys_work(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "INPUT: {MIN_SIZE_TRAIN: &sizes [640, 800], MIN_SIZE_RANGE_TRAIN: *sizes}\n"
        "MODEL: {ROI_MASK_HEAD: &pool {POOLER_RESOLUTION: 9, DILATION: 2}, "
        "ROI_BOX_HEAD: {<<: *pool, POOLER_RESOLUTION: 7}}\n"
    )
    tree = cfg.clone()
    tree.merge_from_file(tmp_path / "config.yaml")
    assert tree.INPUT.MIN_SIZE_RANGE_TRAIN == (640, 800)
    assert (tree.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION, tree.MODEL.ROI_BOX_HEAD.DILATION) == (7, 2)
