"""python -m maskrcnn_benchmark.check."""

import os
import subprocess
import sys

import numpy as np
from conftest import ROOT
from PIL import Image

from maskrcnn_benchmark import check
from maskrcnn_benchmark.checkpoint.shipped import shipped_models
from maskrcnn_benchmark.data.sample import sample_objects


def test_command_finds_the_digits_outside_of_a_checkout(tmp_path):
    command = [sys.executable, "-m", "maskrcnn_benchmark.check", "--output", "found.png"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The installation works." in done.stdout and "compiled ops: " in done.stdout
    for name in shipped_models():
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(name)]
        assert all(f"{each} (" in line for each, _ in sample_objects())
    assert np.asarray(Image.open(tmp_path / "found.png")).std() > 10


def test_a_model_that_does_not_find_them_is_an_error(monkeypatch, capsys):
    objects = sample_objects()
    for changed in (objects[1:], [*objects[1:], ("9", objects[0][1])], [*objects, ("9", (0, 0, 40, 40))]):
        assert sorted(changed) != sorted(objects)
        monkeypatch.setattr(check, "sample_objects", lambda changed=changed: changed)
        monkeypatch.setattr(sys, "argv", ["check"])
        assert check.main() == 1
        printed = capsys.readouterr().out
        assert printed.count("WRONG: the image has ") == 2 and "does NOT work" in printed
