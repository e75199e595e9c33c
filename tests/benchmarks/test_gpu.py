"""The parts of the GPU benchmark that run without a GPU."""

import re
import subprocess
from pathlib import Path

import pytest
import torch
from helpers.ops_helpers import needs_kernels

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CPU = torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch):
    pytest.importorskip("torchvision")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    return gpu


def columns(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_help_names_the_parts(gpu, capsys):
    with pytest.raises(SystemExit) as end:
        gpu.main(["--help"])
    assert end.value.code == 0
    assert "checks" in capsys.readouterr().out


def test_description_contains_the_torch_version(gpu):
    assert f"torch {torch.__version__}" in gpu.describe(CPU)


def test_missing_gpu_is_an_error(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU"):
        gpu.main([])


@needs_kernels
def test_checks_pass_on_the_cpu_and_fail_for_a_wrong_op(gpu, capsys, monkeypatch):
    import gpu_checks

    monkeypatch.setattr(gpu_checks, "MANY", 3000)
    gpu.main(["--device", "cpu", "--only", "checks"])
    printed = capsys.readouterr().out
    assert "roi_align float64, channels_last" in printed and "nms" in printed and "WRONG" not in printed
    twin = gpu_checks.sigmoid_focal_loss_twin
    monkeypatch.setattr(gpu_checks, "sigmoid_focal_loss", lambda x, *rest: 2 * twin(x, *rest))
    with pytest.raises(SystemExit):
        gpu.main(["--device", "cpu", "--only", "checks"])
    assert capsys.readouterr().out.count("WRONG") == 16


@needs_kernels
def test_checks_cover_every_op_dtype_and_layout(gpu):
    from gpu_checks import checks

    names = [name for name, _, _ in checks(CPU)]
    for kind in ("float64", "float32", "float16", "bfloat16"):
        for layout in ("contiguous", "channels_last"):
            found = [name for name in names if name.startswith(f"roi_align {kind}, {layout}")]
            assert len([name for name in found if name.endswith("deterministic")]) == len(found) / 2 == 2
        assert len([name for name in names if name.startswith(f"focal loss {kind}")]) == 4
    assert {name.split()[1] for name in names if name.startswith("nms")} == {"float64,", "float32,", "float16,"}


def test_row_compares_medians_with_the_target(gpu, monkeypatch):
    calls = []
    times = {"ours": 2.0, "theirs": 3.2}
    monkeypatch.setattr(gpu, "seconds", lambda side, device: (side(), times[calls[-1]])[1])
    ours, theirs = lambda: calls.append("ours"), lambda: calls.append("theirs")
    line, met = gpu.time_row(gpu.Case("both", ours, theirs, ratio=1.5), 3, CPU)
    assert calls == ["ours", "theirs"] * 4
    assert (columns(line), met) == (["both", "2000.000", "3200.000", "1.60", ">= 1.5x", "yes"], True)
    line, met = gpu.time_row(gpu.Case("slow", ours, theirs, ratio=1.7), 1, CPU)
    assert columns(line)[4:] == [">= 1.7x", "NO"] and not met
    line, met = gpu.time_row(gpu.Case("late", ours, theirs, most=1999), 1, CPU)
    assert columns(line)[4:] == ["< 1999 ms", "NO"] and not met
    assert columns(gpu.time_row(gpu.Case("alone", ours), 1, CPU)[0]) == ["alone", "2000.000", "", "", "", ""]


def test_failure_is_a_row_and_the_rest_continues(gpu, capsys, monkeypatch):
    def broken():
        raise RuntimeError("an illegal | address")

    cases = [gpu.Case("ours fails", broken), gpu.Case("theirs fails", int, broken, ratio=1.5), gpu.Case("fine", int)]
    monkeypatch.setattr(gpu, "op_cases", lambda part, device: iter(cases))
    assert not gpu.run_part("nms", CPU, (64, 64), 1)
    first, second, third = map(columns, capsys.readouterr().out.strip().splitlines())
    assert first[:2] == ["nms: FAILED", "RuntimeError: an illegal / address"] and first[-1] == "NO"
    assert second[0] == "theirs fails" and second[2:] == ["failed", "", ">= 1.5x", "NO"]
    assert third[0] == "fine"


def test_parts_run_in_subprocesses_within_the_time_limit(gpu, capsys, monkeypatch):
    asked = []

    def run(command, timeout):
        asked.append(command[-1])
        if command[-1] == "nms":
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, -6 if command[-1] == "pooler" else 0)

    monkeypatch.setattr(gpu.subprocess, "run", run)
    assert not gpu.run_all(["--device", "cpu"], 1)
    printed = capsys.readouterr().out
    assert asked == list(gpu.PARTS)
    assert "| nms: stopped: no time left" in printed and "| pooler: ended with -6" in printed
    assert printed.count("\n") == 2
    assert not gpu.run_all([], 0) and capsys.readouterr().out.count("no time left") == len(gpu.PARTS)


@needs_kernels
def test_recorded_dense_part_reads_every_new_image(gpu, rng_seed):
    from helpers.tiny_models import tiny_cfg, tiny_model

    for name in ("fcos", "faster"):
        model = tiny_model(tiny_cfg(name))
        images = torch.rand(2, 3, 64, 96)
        with torch.inference_mode():
            wanted = [model(image)[0].bbox for image in images]
            gpu.record_dense_part(model, torch.zeros(1, 3, 64, 96))
            found = [model(image)[0].bbox for image in images]
        assert not wanted[0].equal(wanted[1])
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs)


@needs_kernels
@pytest.mark.slow
def test_all_parts_run_on_the_cpu(gpu, capfd, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS.parent))
    gpu.main(["--device", "cpu", "--repeats", "1", "--size", "64", "96", "--minutes", "30"])  # raises if a part fails
    printed = capfd.readouterr().out
    assert "failed" not in printed
    for title in ("FCOS V-39, bfloat16 channels_last, dense part", "Faster V-39, float32", "training step of Faster"):
        assert re.search(rf"\| {title}", printed), printed
