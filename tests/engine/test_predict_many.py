import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn_benchmark.engine import predict_many as module
from maskrcnn_benchmark.engine import stopping
from maskrcnn_benchmark.engine.image_sources import find_sources
from maskrcnn_benchmark.engine.predict_many import predict_many
from maskrcnn_benchmark.engine.prediction import Prediction
from maskrcnn_benchmark.engine.prediction_journal import Journal, read_joined
from maskrcnn_benchmark.structures.label_names import LabelNames

SETTINGS = {"weights": "a.pth"}


class OneBox:
    """Predict one box, the whole image."""

    model_seconds = 0.0

    def stream(self, images, **_):
        for given in images:
            try:
                size = Image.open(given).size
            except OSError as error:
                yield error
                continue
            box = np.array([[0, 0, size[0] - 1, size[1] - 1]], dtype=np.float32)
            yield Prediction(size, box, np.ones(1, np.float32), np.ones(1, np.int64), LabelNames(["a"]), path=given)


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(7):
        Image.new("RGB", (10 + number, 10)).save(folder / f"{number}.png")
    return find_sources([str(folder)])[0]


def names_of(output):
    return [line["file_name"] for line in read_joined(output)]


@pytest.fixture
def two_processes(monkeypatch):
    """Function two_processes(function): run it in two threads with ranks 0 and 1."""
    current, barrier = threading.local(), threading.Barrier(2, timeout=20)
    monkeypatch.setattr(module, "get_rank", lambda: current.rank)
    monkeypatch.setattr(module, "is_main_process", lambda: current.rank == 0)
    monkeypatch.setattr(module, "get_world_size", lambda: 2)
    monkeypatch.setattr(module, "synchronize", barrier.wait)
    monkeypatch.setattr(module, "POLL", 0.01)

    def run(function):
        outcomes, errors = {}, []

        def work(rank):
            current.rank = rank
            try:
                outcomes[rank] = function()
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return outcomes

    return run


def test_processes_share_the_images_and_join_their_parts(two_processes, sources, tmp_path):
    output = str(tmp_path / "out")
    outcomes = two_processes(lambda: predict_many(OneBox(), sources, output, SETTINGS))
    assert (outcomes[0].images, outcomes[1].images) == (4, 3)
    assert names_of(output) == [f"{number}.png" for number in range(7)]
    assert not os.path.exists(os.path.join(output, "parts"))


def test_results_of_a_killed_process_are_reused(two_processes, sources, tmp_path, monkeypatch):
    output = str(tmp_path / "out")
    with Journal(output, 5, SETTINGS) as journal:
        journal.add({"file_name": "2.png", "width": 1, "height": 1, "objects": []})
    with open(os.path.join(output, "parts", "5.jsonl"), "a") as file:
        file.write('{"file_name": "3.pn')
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")  # as in a restart by torchrun
    outcomes = two_processes(lambda: predict_many(OneBox(), sources, output, SETTINGS))
    assert outcomes[0].images + outcomes[1].images == 6
    assert names_of(output) == [f"{number}.png" for number in range(7)]
    lines = {line["file_name"]: line for line in read_joined(output)}
    assert lines["2.png"]["objects"] == [] and len(lines["3.png"]["objects"]) == 1


def test_resume_retries_unreadable_images(sources, tmp_path):
    output = str(tmp_path / "out")
    good = Path(sources[3].path).read_bytes()
    Path(sources[3].path).write_text("not an image")
    outcome = predict_many(OneBox(), sources, output, SETTINGS)
    assert [name for name, _ in outcome.unreadable] == ["3.png"] and outcome.images == 6
    Path(sources[3].path).write_bytes(good)
    outcome = predict_many(OneBox(), sources, output, SETTINGS, resume=True)
    assert (outcome.images, outcome.done_before) == (1, 6)
    assert all("error" not in line for line in read_joined(output))
    assert names_of(output) == [f"{number}.png" for number in range(7)]


def test_resume_keeps_results_of_other_images(sources, tmp_path):
    output = str(tmp_path / "out")
    predict_many(OneBox(), sources[:3], output, SETTINGS)
    predict_many(OneBox(), sources[3:], output, SETTINGS, resume=True)
    assert sorted(names_of(output)) == [f"{number}.png" for number in range(7)]


def test_stop_keeps_finished_images(sources, tmp_path):
    output = str(tmp_path / "out")

    class Stopping(OneBox):
        def stream(self, images, **options):
            for k, result in enumerate(super().stream(images, **options)):
                if k == 2:
                    os.kill(os.getpid(), 15)
                yield result

    with pytest.raises(stopping.Stopped):
        predict_many(Stopping(), sources, output, SETTINGS)
    with open(os.path.join(output, "parts", "0.jsonl")) as file:
        assert len([json.loads(line) for line in file]) == 1 + 3
    outcome = predict_many(OneBox(), sources, output, SETTINGS, resume=True)
    assert outcome.done_before == 3 and names_of(output) == [f"{number}.png" for number in range(7)]
