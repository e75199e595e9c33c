import importlib.util
import json

from maskrcnn_benchmark.engine.metrics_file import MetricsFile, read_metrics


def test_later_and_incomplete_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 20, "loss": 1.5}\n{"iteration": 40, "loss": 1.0}\n[1]\n{"iteration": 60, "lo')
    metrics = MetricsFile(str(tmp_path), 20)
    metrics.write(40, {"loss": 0.5, "lr": 0.1})
    metrics.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"iteration": 20, "loss": 1.5}, {"iteration": 40, "loss": 0.5, "lr": 0.1}]


def test_lines_are_written_at_once(tmp_path):
    metrics = MetricsFile(str(tmp_path), 0)
    metrics.write(1, {"loss": 0.5})
    assert read_metrics(tmp_path / "metrics.json") == [{"iteration": 1, "loss": 0.5}]
    metrics.close()


def test_missing_tensorboard_is_logged(tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    metrics = MetricsFile(str(tmp_path), 0)
    metrics.write(1, {"loss": 0.5})
    metrics.close()
    assert "pip install tensorboard" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
