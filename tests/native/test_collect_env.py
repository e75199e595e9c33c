"""Test the environment report."""

import shlex

from maskrcnn_benchmark.native import build_ops, library
from maskrcnn_benchmark.native.collect_env import collect_env_info


def lines_of(report):
    return dict(line.split(": ", 1) for line in report.splitlines())


def test_report_lists_versions_cpu_threads_and_kernels():
    import torch

    lines = lines_of(collect_env_info())
    assert lines["torch"].startswith(torch.__version__)
    assert f"{torch.get_num_threads()} in an op" in lines["threads"]
    assert {"Python", "CPU", "CPU flags", "C++ compiler", "nvcc", "CPU kernels", "CUDA kernels"} <= set(lines)


def write_program(path, script):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return shlex.quote(str(path))


def test_compiler_path_may_contain_spaces(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", write_program(tmp_path / "my programs" / "c++", "echo compiler 1.2"))
    assert lines_of(collect_env_info())["C++ compiler"] == "compiler 1.2"


def test_compiler_behind_a_launcher_is_reported(monkeypatch, tmp_path):
    launcher = write_program(tmp_path / "ccache", '[ "$1" = --version ] && echo launcher 3.4 || "$@"')
    monkeypatch.setenv("CXX", f"{launcher} {write_program(tmp_path / 'c++', 'echo compiler 1.2')}")
    assert lines_of(collect_env_info())["C++ compiler"] == "compiler 1.2"


def test_nvcc_path_may_contain_spaces(monkeypatch, tmp_path):
    write_program(tmp_path / "my programs" / "nvcc", "echo Copyright; echo Build 13")
    monkeypatch.setenv("PATH", str(tmp_path / "my programs"), prepend=":")
    assert lines_of(collect_env_info())["nvcc"] == "Build 13"


def test_report_lists_loaded_libraries_and_reasons(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "LOADED", {"cpu": tmp_path / "_C.so"})
    monkeypatch.setattr(library, "REASONS", {"cuda": "no nvcc anywhere"})
    lines = lines_of(collect_env_info())
    assert lines["CPU kernels"] == f"from {tmp_path / '_C.so'}"
    assert lines["CUDA kernels"] == "not loaded: no nvcc anywhere"
    assert lines["to build the kernels"] == build_ops.COMMAND


def test_report_contains_the_path_of_the_log(monkeypatch, tmp_path):
    (tmp_path / build_ops.LOG).write_text("the compiler failed")
    monkeypatch.setattr(library, "folders", lambda: [tmp_path])
    monkeypatch.setattr(library, "LOADED", {})
    monkeypatch.setattr(library, "REASONS", {"cpu": "the compiler failed", "cuda": "no CPU library"})
    assert lines_of(collect_env_info())["log of the last build"] == str(tmp_path / build_ops.LOG)
