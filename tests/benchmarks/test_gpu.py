"""What of the GPU benchmark runs without a GPU."""

from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    pytest.importorskip("torchvision")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    return gpu


def test_help_names_the_parts(gpu, capsys):
    with pytest.raises(SystemExit) as end:
        gpu.main(["--help"])
    assert end.value.code == 0
    assert "checks" in capsys.readouterr().out


def test_checks_hold_on_the_cpu_and_a_wrong_op_fails_them(gpu, capsys, monkeypatch):
    gpu.main(["--device", "cpu", "--only", "checks"])
    printed = capsys.readouterr().out
    assert "roi_align torch.float64 torch.channels_last" in printed and "WRONG" not in printed
    monkeypatch.setattr(gpu, "sigmoid_focal_loss", lambda x, *rest: 2 * gpu.sigmoid_focal_loss_twin(x, *rest))
    with pytest.raises(SystemExit, match="4 checks failed"):
        gpu.main(["--device", "cpu", "--only", "checks"])


def test_a_row_compares_medians(gpu):
    calls = []
    case = ("both", lambda: calls.append("ours"), lambda: calls.append("theirs"))
    line = gpu.row(case, 3, torch.device("cpu"))
    assert calls == ["ours", "theirs"] * 4
    assert line.startswith("| both | ") and line.count("|") == 5
    assert gpu.row(("alone", case[1], None), 1, torch.device("cpu")).endswith(" |  |  |")
