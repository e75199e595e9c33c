"""Files with _BASE_, malformed files, and files that would run code."""

from pathlib import Path

import pytest

from maskrcnn_benchmark.config import CfgNode


def test_bases_are_relative_to_the_file_and_later_files_override(tree, write):
    write("SOLVER: {BASE_LR: 0.1, MAX_ITER: 10}\nMODEL: {DEVICE: cpu}", "low/base.yaml")
    write("_BASE_: low/base.yaml\nSOLVER: {BASE_LR: 0.2, GAMMA: 0.5}", "middle.yaml")
    top = write("_BASE_: ../middle.yaml\nSOLVER: {GAMMA: 0.25}", "high/top.yaml")
    tree.merge_from_file(top)
    solver = tree.SOLVER
    assert (solver.BASE_LR, solver.MAX_ITER, solver.GAMMA, tree.MODEL.DEVICE) == (0.2, 10, 0.25, "cpu")


def test_circular_bases_are_an_error(tree, write):
    write("_BASE_: b.yaml", "a.yaml")
    b = write("_BASE_: ./a.yaml", "b.yaml")
    with pytest.raises(ValueError, match=r"circular: .*b\.yaml -> .*a\.yaml -> .*b\.yaml"):
        tree.merge_from_file(b)


def test_a_missing_base_names_both_files(tree, write):
    write("SEED: 1", "base.yaml")
    path = write("_BASE_: bsae.yaml", "top.yaml")
    with pytest.raises(FileNotFoundError) as raised:
        tree.merge_from_file(path)
    assert "bsae.yaml" in str(raised.value) and str(path) in str(raised.value) and "base.yaml" in str(raised.value)


def test_an_error_in_a_base_names_the_base(tree, write):
    base = write("SEEED: 1", "base.yaml")
    with pytest.raises(KeyError) as raised:
        tree.merge_from_file(write("_BASE_: base.yaml", "top.yaml"))
    assert str(base) in str(raised.value)


@pytest.mark.parametrize("base", ["3", "[a.yaml, b.yaml]", "''"])
def test_a_base_that_is_not_a_file_name_is_an_error(tree, write, base):
    with pytest.raises(ValueError, match="_BASE_ should be one file name"):
        tree.merge_from_file(write(f"_BASE_: {base}"))


@pytest.mark.parametrize(
    "text, problem",
    [
        ("", "holds no keys"),
        ("# MODEL:\n", "holds no keys"),
        ("MODEL: {DEVICE: cpu", "not well-formed"),
        ("MODEL:\n\tDEVICE: cpu", "line 2: a tab; YAML allows only spaces"),
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
    assert str(path) in str(raised.value) and problem in str(raised.value)


def test_bytes_that_are_not_text_name_the_file(tree, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        tree.merge_from_file(path)


def test_a_missing_file_names_the_nearest(tree, write):
    write("SEED: 1", "fcos_V_39.yaml")
    missing = write("SEED: 1", "x.yaml").with_name("fcos_V_93.yaml")
    with pytest.raises(FileNotFoundError) as raised:
        tree.merge_from_file(missing)
    assert str(missing) in str(raised.value) and "fcos_V_39.yaml" in str(raised.value)
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
