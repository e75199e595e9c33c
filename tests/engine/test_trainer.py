import json
import logging
import re

import pytest
import torch
from helpers import distributed_cases, processes, toy_training
from helpers.toy_training import ToyDetector, train, without_batch_statistics
from helpers.warm_start import Script

from maskrcnn_benchmark.engine.metrics_file import read_metrics
from maskrcnn_benchmark.engine.training_log import peak_memory
from maskrcnn_benchmark.engine.training_step import TrainingStep

LINE = re.compile(
    r"eta: (\d+ days?, )?\d+:\d\d:\d\d  iter: (?P<iter>\d+)  loss: \d+\.\d{4} \(\d+\.\d{4}\)"
    r"  loss_b: \d+\.\d{4} \(\d+\.\d{4}\)  loss_a: \d+\.\d{4} \(\d+\.\d{4}\)"
    r"  time: \d+\.\d{4} \(\d+\.\d{4}\)  data: \d+\.\d{4} \(\d+\.\d{4}\)  lr: \d\.\d{6}  max mem: \d+"
    r"  done: (?P=iter)/45"
)


def weights(path):
    return torch.load(path, weights_only=True)["model"]


def assert_identical(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def run_script(folder, **settings):
    return Script([toy_training.__file__, folder, json.dumps(settings)], folder.parent).wait()


def test_log_has_the_forks_lines(tmp_path, caplog):
    caplog.set_level(logging.INFO, "maskrcnn_benchmark.trainer")
    train(tmp_path, 45)
    lines = [r.message for r in caplog.records if r.name == "maskrcnn_benchmark.trainer"]
    assert lines[0] == "Start training"
    assert [LINE.fullmatch(line)["iter"] for line in lines[1:-1]] == ["1", "20", "40", "45"]
    assert re.fullmatch(r"Total training time: 0:00:\d\d\.\d{6} \(0\.\d{4} s / it\)", lines[-1])


def test_loss_falls_and_checkpoints_are_written(tmp_path):
    train(tmp_path, 60, period=25)
    assert sorted(p.name for p in tmp_path.glob("*.pth")) == [
        "model_0000025.pth",
        "model_0000050.pth",
        "model_final.pth",
    ]
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "model_final.pth")
    metrics = read_metrics(tmp_path / "metrics.json")
    assert [line["iteration"] for line in metrics] == [20, 40, 60]
    assert metrics[-1]["loss"] < 0.8 * metrics[0]["loss"]
    assert set(metrics[0]) == {"iteration", "loss", "loss_a", "loss_b", "time", "data", "lr", "max_mem"}
    assert any((tmp_path / "tensorboard").iterdir())
    checkpoint = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert checkpoint["iteration"] == 60
    assert checkpoint["scheduler"]["last_epoch"] == 60


@pytest.mark.parametrize("kill_at", [1, 4, 6, 11, 17])
def test_killed_training_resumed_ends_bit_identical(tmp_path, kill_at):
    settings = {"max_iter": 12, "period": 3, "noisy": True, "accumulation_steps": 2 if kill_at == 17 else 1}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_script(killed, kill_at=kill_at, **settings).returncode == -9
    assert not (killed / "model_final.pth").exists()
    train(killed, **settings)
    train(whole, **settings)
    one, other = (torch.load(folder / "model_final.pth", weights_only=True) for folder in (whole, killed))
    assert_identical(one["model"], other["model"])
    for index, state in one["optimizer"]["state"].items():
        assert torch.equal(state["momentum_buffer"], other["optimizer"]["state"][index]["momentum_buffer"])
    assert torch.equal(one["rng_state"][0]["torch"], other["rng_state"][0]["torch"])


def test_resume_neither_loses_nor_repeats_metrics(tmp_path):
    train(tmp_path, 50, period=30)
    (tmp_path / "model_final.pth").unlink()
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "model_0000030.pth"))
    with open(tmp_path / "metrics.json", "a") as f:
        f.write('{"iteration": 60, "lo')  # incomplete, as after a kill
    train(tmp_path, 50, period=30)
    assert [line["iteration"] for line in read_metrics(tmp_path / "metrics.json")] == [20, 40, 50]


def test_finished_training_changes_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO, "maskrcnn_benchmark.trainer")
    train(tmp_path, 4)
    written = (tmp_path / "model_final.pth").stat().st_mtime_ns
    before = weights(tmp_path / "model_final.pth")
    model = train(tmp_path, 4)
    assert caplog.records[-1].message == "Training is already finished: at iteration 4 of 4"
    assert (tmp_path / "model_final.pth").stat().st_mtime_ns == written
    assert_identical(before, model.state_dict())


def test_resume_after_the_last_iteration_writes_the_final_checkpoint(tmp_path):
    train(tmp_path, 4, period=4)
    (tmp_path / "model_final.pth").unlink()
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "model_0000004.pth"))
    train(tmp_path, 4, period=4)
    assert_identical(weights(tmp_path / "model_final.pth"), weights(tmp_path / "model_0000004.pth"))


def test_accumulation_averages_the_gradients_of_its_parts():
    model = without_batch_statistics()
    batches = list(toy_training.ToyLoader(2))
    step = TrainingStep(model, torch.optim.SGD(model.parameters(), 0.1), torch.device("cpu"), torch.float32, 0.0)
    losses = step.accumulate(batches)
    accumulated = [p.grad.clone() for p in model.parameters()]
    singles, parts = [], []
    for batch in batches:
        parts.append(step.accumulate([batch]))
        singles.append([p.grad.clone() for p in model.parameters()])
    for both, one, other in zip(accumulated, *singles, strict=True):
        torch.testing.assert_close(both, (one + other) / 2)
    assert losses["loss_a"] == pytest.approx((parts[0]["loss_a"] + parts[1]["loss_a"]) / 2)


def test_gradients_are_clipped_to_their_common_norm():
    model = ToyDetector()
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    before = [p.detach().clone() for p in model.parameters()]
    step = TrainingStep(model, optimizer, torch.device("cpu"), torch.float32, clip_gradients=1e-3)
    step.accumulate(list(toy_training.ToyLoader(1)))
    step.update()
    moved = torch.cat([(p - b).flatten() for p, b in zip(model.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-2)  # 1e-3 beside weights of 0.1: float32 rounding


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_trains_and_resumes(tmp_path, dtype, recwarn):
    train(tmp_path / "whole", 12, period=6, dtype=dtype)
    train(tmp_path / "stopped", 12, period=6, dtype=dtype)
    (tmp_path / "stopped" / "last_checkpoint").write_text(str(tmp_path / "stopped" / "model_0000006.pth"))
    train(tmp_path / "stopped", 12, period=6, dtype=dtype)
    one, other = (torch.load(tmp_path / name / "model_final.pth", weights_only=True) for name in ("whole", "stopped"))
    assert_identical(one["model"], other["model"])
    assert one["scaler"] == other["scaler"]
    assert bool(one["scaler"]) == (dtype == torch.float16)
    assert not [warning for warning in recwarn if "lr_scheduler" in str(warning.message)]
    assert all(torch.isfinite(value).all() for value in one["model"].values())


def test_nonfinite_loss_stops_before_the_step_and_names_images_and_parts(tmp_path):
    train(tmp_path / "good", 3, period=2)
    with pytest.raises(FloatingPointError) as error:
        train(tmp_path / "bad", 4, period=2, bad=(5,))
    text = str(error.value)
    assert "iteration 3" in text
    assert "image ids [1004, 1005]" in text
    assert "loss_a nan" in text
    assert "loss_b nan" in text
    saved = torch.load(tmp_path / "bad" / "nonfinite_batch_rank0.pth", weights_only=True)
    (batch,) = saved["micro_batches"]
    assert saved["iteration"] == 3
    assert batch["image_ids"] == [1004, 1005]
    assert batch["images"].isnan().any()
    assert batch["targets"][0]["labels"].tolist() == [1, 1]
    assert batch["image_sizes"] == [(8, 8), (8, 8)]
    assert not (tmp_path / "bad" / "model_final.pth").exists()


def test_evaluation_does_not_affect_training_and_keeps_the_best(tmp_path, caplog):
    caplog.set_level(logging.INFO, "maskrcnn_benchmark.trainer")
    scores = {4: 0.25, 8: 0.75, 12: 0.5}
    seen = {}
    models = []

    def build(noisy):
        models.append(ToyDetector(noisy))
        return models[0]

    def evaluate(iteration):
        (model,) = models
        assert model.training
        model.eval()
        torch.rand(7)
        seen[iteration] = {name: value.clone() for name, value in model.state_dict().items()}
        return {"toy/bbox/AP": scores[iteration], "toy/bbox/AP50": 1.0}

    train(tmp_path / "with", 12, build=build, noisy=True, evaluate=evaluate, test_period=4)
    train(tmp_path / "without", 12, noisy=True)
    assert_identical(weights(tmp_path / "with/model_final.pth"), weights(tmp_path / "without/model_final.pth"))
    best = torch.load(tmp_path / "with" / "model_best.pth", weights_only=True)
    assert_identical(best["model"], seen[8])
    assert (best["iteration"], best["best_score"]) == (8, 0.75)
    assert "optimizer" not in best
    assert "[Validation]: iter: 8  toy/bbox/AP: 0.7500  toy/bbox/AP50: 1.0000" in caplog.text
    evaluated = [line for line in read_metrics(tmp_path / "with/metrics.json") if "toy/bbox/AP" in line]
    assert [line["toy/bbox/AP"] for line in evaluated] == [0.25, 0.75, 0.5]
    assert torch.load(tmp_path / "with/model_final.pth", weights_only=True)["best_score"] == 0.75


def test_best_weights_of_a_compiled_model_have_plain_names(tmp_path):
    train(
        tmp_path,
        4,
        wrap=lambda model: torch.compile(model, backend="eager"),
        evaluate=lambda _: {"AP": 0.9},
        test_period=4,
    )
    best = torch.load(tmp_path / "model_best.pth", weights_only=True)
    assert_identical(best["model"], weights(tmp_path / "model_final.pth"))


def test_best_score_survives_a_resume(tmp_path):
    train(tmp_path, 4, evaluate=lambda iteration: {"AP": 0.9}, test_period=4)
    train(tmp_path, 8, evaluate=lambda iteration: {"AP": 0.5}, test_period=4)
    assert torch.load(tmp_path / "model_best.pth", weights_only=True)["iteration"] == 4


def test_loader_that_ends_early_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(toy_training.ToyLoader, "__len__", lambda self: len(self.batches) + 1)
    with pytest.raises(RuntimeError, match="ended at iteration 5, but its length means 5"):
        train(tmp_path, 4)


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train("", 3, period=1)
    assert list(tmp_path.iterdir()) == []


def test_peak_memory_on_the_cpu_is_resident_memory():
    assert 20 < peak_memory(torch.device("cpu")) < 100_000


def test_two_processes_take_the_same_steps_as_one(tmp_path):
    """Two micro-batches on one process and one on each of two processes have the same mean gradient up to rounding."""
    train(tmp_path / "one", 6, build=without_batch_statistics, accumulation_steps=2)
    first, second = processes.run(2, distributed_cases.train_toy, tmp_path / "two", {"max_iter": 6})
    assert_identical(first, second)
    saved = torch.load(tmp_path / "two/model_final.pth", weights_only=True)
    assert len(saved["rng_state"]) == 2
    for name, value in weights(tmp_path / "one/model_final.pth").items():
        torch.testing.assert_close(saved["model"][name], value, rtol=1e-4, atol=1e-6)
    one, two = (read_metrics(tmp_path / name / "metrics.json")[-1] for name in ("one", "two"))
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)


def test_nonfinite_loss_of_one_process_stops_all(tmp_path):
    # image 6 is the first of the second process in iteration 2
    first, second = processes.run(2, distributed_cases.train_toy, tmp_path, {"max_iter": 6, "bad": (6,)})
    assert first == second
    assert "process 1: image ids [1006, 1007]" in first
    assert "process 0" not in first
    assert [p.name for p in tmp_path.glob("nonfinite*")] == ["nonfinite_batch_rank1.pth"]
