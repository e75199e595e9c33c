import os
import runpy
import sys
from pathlib import Path

import pytest
import torch

TOOL = Path(__file__).resolve().parents[2] / "tools" / "remove_solver_states.py"


@pytest.fixture
def run(monkeypatch):
    """Function run(*arguments): run the script in this process."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
        runpy.run_path(str(TOOL), run_name="__main__")

    return run


def test_solver_states_are_removed_and_weights_kept(tmp_path, run, capsys):
    path = tmp_path / "model_final.pth"
    model = {"weight": torch.ones(2)}
    solver = {"optimizer": {"state": {}}, "scheduler": {"last_epoch": 3}, "iteration": 3, "rng_state": [torch.zeros(1)]}
    torch.save({"model": model, "class_names": ["bee"], **solver}, path)
    run(path)
    written = tmp_path / "model_final_wo_solver_states.pth"
    assert f"Done. The model without solver states is saved to {written}" in capsys.readouterr().out
    stripped = torch.load(written, weights_only=True)
    assert stripped.keys() == {"model", "class_names"} and torch.equal(stripped["model"]["weight"], model["weight"])
    assert sorted(os.listdir(tmp_path)) == ["model_final.pth", written.name]

    with pytest.raises(SystemExit, match="contains no solver states"):
        run(written)


def test_other_files_print_errors_without_a_traceback(tmp_path, run):
    torch.save({"weight": torch.ones(2)}, tmp_path / "bare.pth")
    (tmp_path / "page.pth").write_text("<html></html>")
    for name, words in (("bare.pth", 'no "model" entry'), ("page.pth", "web page"), ("none.pth", "there is no file")):
        with pytest.raises(SystemExit, match=words):
            run(tmp_path / name)
