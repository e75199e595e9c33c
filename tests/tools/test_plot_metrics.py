"""tools/plot_metrics.py: plot curves of training folders."""

import json

import pytest
from helpers.warm_start import ROOT, Script


def draw(*arguments):
    return Script([ROOT / "tools" / "plot_metrics.py", *arguments], ROOT).wait()


@pytest.fixture
def folder(tmp_path):
    lines = [{"iteration": 20, "loss": 2.0}, {"iteration": 40, "loss": 1.0, "set/bbox/AP50": 0.5, "set/segm/AP50": 0.4}]
    (tmp_path / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_curves_are_drawn(folder):
    pytest.importorskip("matplotlib")
    done = draw(folder, folder, "--metric", "set/segm/AP50", "--labels", "a", "b", "--output", folder / "curves.png")
    assert done.returncode == 0, done.stderr
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_ambiguous_metric_error_lists_the_names(folder):
    pytest.importorskip("matplotlib")
    done = draw(folder, "--metric", "AP50")
    assert done.returncode == 1 and "found set/bbox/AP50, set/segm/AP50" in done.stderr


def test_folder_without_a_training_is_an_error(tmp_path):
    pytest.importorskip("matplotlib")
    done = draw(tmp_path)
    assert done.returncode == 1 and "metrics.json" in done.stderr
