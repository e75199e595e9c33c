"""Trainings stopped by a signal, and timed checkpoints."""

import logging
import re
import signal
from types import SimpleNamespace

import pytest
import torch
from helpers import distributed_cases, processes
from helpers.toy_training import ToyLoader, signal_self_at, train

from maskrcnn_benchmark.engine import training_checkpoints
from maskrcnn_benchmark.engine.inference import compute_on_dataset
from maskrcnn_benchmark.engine.stopping import Stopped
from maskrcnn_benchmark.engine.training_log import validation_line


def assert_same_end(one, other):
    one, other = (torch.load(folder / "model_final.pth", weights_only=True) for folder in (one, other))
    assert all(torch.equal(value, other["model"][name]) for name, value in one["model"].items())
    assert torch.equal(one["rng_state"][0]["torch"], other["rng_state"][0]["torch"])


def checkpoints(folder) -> list[str]:
    return sorted(path.name for path in folder.glob("*.pth"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_training_stopped_by_a_signal_resumes_bit_identical(tmp_path, caplog, number):
    caplog.set_level(logging.INFO)
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    with pytest.raises(Stopped) as error:
        train(stopped, 12, noisy=True, after_forward=signal_self_at(5, number))
    assert error.value.code == 128 + number
    path = stopped / "model_0000005.pth"
    assert checkpoints(stopped) == [path.name]
    name = "SIGTERM" if number == signal.SIGTERM else "Ctrl-C"
    assert caplog.records[-1].message == (
        f"Stopped by {name} at iteration 5 of 12; the checkpoint to continue from is {path}"
    )
    train(stopped, 12, noisy=True)
    train(whole, 12, noisy=True)
    assert_same_end(stopped, whole)
    assert checkpoints(stopped) == [path.name, "model_final.pth"]


def test_stop_at_the_last_iteration_leaves_the_final_checkpoint(tmp_path):
    with pytest.raises(Stopped):
        train(tmp_path, 4, after_forward=signal_self_at(4, signal.SIGTERM))
    assert checkpoints(tmp_path) == ["model_final.pth"]


def test_stop_during_a_test_repeats_the_test(tmp_path):
    tested = []

    def interrupted(iteration):
        tested.append(iteration)
        compute_on_dataset(Interrupting() if len(tested) == 1 else Quiet(), ToyLoader(3), "cpu")
        return {"AP": 0.5}

    with pytest.raises(Stopped):
        train(tmp_path, 8, evaluate=interrupted, test_period=4)
    assert checkpoints(tmp_path) == ["model_0000004.pth"]
    train(tmp_path, 8, evaluate=interrupted, test_period=4)
    assert tested == [4, 4, 8]
    assert "model_best.pth" in checkpoints(tmp_path)


class Quiet(torch.nn.Module):
    def forward(self, images):
        return [torch.zeros(1) for _ in images.image_sizes]


class Interrupting(Quiet):
    def forward(self, images):
        signal.raise_signal(signal.SIGINT)
        return super().forward(images)


def set_clock(monkeypatch, monotonic):
    """Replace the clock of timed checkpoints alone; with a stopped clock everywhere, waits would never end."""
    monkeypatch.setattr(training_checkpoints, "time", SimpleNamespace(monotonic=monotonic))


def test_training_resumes_from_timed_checkpoints_of_which_the_newest_stay(tmp_path, monkeypatch):
    now = [0.0]
    set_clock(monkeypatch, lambda: now[0])

    def half_a_minute(_module, _inputs, _output):
        now[0] += 30

    options = {"period": 5, "noisy": True, "checkpoint_minutes": 1.0, "after_forward": half_a_minute}
    train(tmp_path / "whole", 12, **options)
    assert checkpoints(tmp_path / "whole") == [
        "model_0000005.pth",
        "model_0000007.pth",  # by the clock, as 2 and 4 were
        "model_0000009.pth",
        "model_0000010.pth",
        "model_final.pth",
    ]
    stopped = tmp_path / "stopped"
    with pytest.raises(Stopped):
        train(
            stopped, 12, period=5, noisy=True, after_forward=signal_self_at(7, signal.SIGTERM), checkpoint_minutes=1.0
        )
    train(stopped, 12, **options)
    assert "model_0000007.pth" in checkpoints(stopped)
    assert_same_end(stopped, tmp_path / "whole")


def test_zero_minutes_write_no_timed_checkpoints(tmp_path, monkeypatch):
    set_clock(monkeypatch, iter(range(0, 10**9, 10**5)).__next__)
    train(tmp_path, 4)
    assert checkpoints(tmp_path) == ["model_final.pth"]


def test_signal_to_one_process_stops_all_at_the_same_iteration(tmp_path):
    options = {"max_iter": 8}
    codes = processes.run(2, distributed_cases.train_toy_until_stopped, tmp_path, 1, 3, options)
    assert codes == [143, 143]
    (path,) = tmp_path.glob("*.pth")
    assert re.fullmatch(r"model_000000[345]\.pth", path.name)
    assert len(torch.load(path, weights_only=True)["rng_state"]) == 2


def test_signal_to_one_process_stops_the_test_of_all():
    assert processes.run(2, distributed_cases.predict_toy_until_stopped, 1) == [130, 130]


def test_validation_line():
    assert validation_line(20, {"d/bbox/AP": 0.25}) == "[Validation]: iter: 20  d/bbox/AP: 0.2500"
