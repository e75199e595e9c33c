import importlib
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.tiny_models import tiny_cfg, tiny_model
from PIL import Image

from maskrcnn_benchmark.checkpoint.checkpointer import write_checkpoint
from maskrcnn_benchmark.data.datasets import COCODataset
from maskrcnn_benchmark.engine import process

SMALL = ("INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 96)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Function weights(name): return the path of a checkpoint of a tiny model."""
    folder = tmp_path_factory.mktemp("weights")

    def write(name: str) -> str:
        path = folder / f"{name}.pth"
        if not path.exists():
            torch.manual_seed(0)
            cfg = tiny_cfg(name, *SMALL)
            entries = {"class_names": ["cat", "dog"], "category_ids": [17, 18], "config": cfg.dump()}
            write_checkpoint(path, {"model": tiny_model(cfg).state_dict(), **entries})
        return str(path)

    return write


@pytest.fixture
def images(tmp_path):
    """Folder with three images, one image in a subfolder, and a broken file."""
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    for number in range(1, 5):
        noise = np.random.default_rng(number).integers(0, 256, (64, 90, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / ("below" if number == 4 else "") / f"{number}.png")
    (folder / "broken.jpg").write_text("not an image")
    return folder


@pytest.fixture
def predict(monkeypatch, tmp_path):
    """Function predict(*arguments): run the tool in this process; return its status and the output folder."""
    monkeypatch.setattr(process, "prepare", lambda *args, **kwargs: None)  # would change pytest's process
    tool = importlib.import_module("tools.predict")

    def run(*arguments, output="out"):
        monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, arguments), "--output", str(tmp_path / output)])
        return tool.main(), tmp_path / output

    return run


def lines_of(output):
    return [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()[1:]]


def test_folder_gives_results_jsonl_and_a_list_of_unreadable_files(predict, images, weights, capsys):
    status, output = predict(images, "--weights", weights("mask"))
    assert status == 0
    lines = lines_of(output)
    assert [line["file_name"] for line in lines] == ["1.png", "2.png", "3.png", "broken.jpg", "below/4.png"]
    results = json.loads((output / "results.json").read_text())
    assert {each["image_id"] for each in results} == {1, 2, 3, 4}
    assert {each["category_id"] for each in results} <= {17, 18}
    assert set(results[0]) == {"image_id", "category_id", "score", "bbox", "segmentation"}
    assert "broken.jpg is not an image in a format that PIL reads" in (output / "unreadable.txt").read_text()
    printed = capsys.readouterr().out
    assert "4 images in " in printed and "1 of 5 files could not be read" in printed
    assert not (output / "parts").exists()


def test_annotations_drawn_images_crops_and_sheet(predict, images, weights):
    options = ("--draw", "--crops", "--sheet", "--as-coco", "--score", "0.3", "--score", "dog=0.9")
    _, output = predict(images, "--weights", weights("mask"), *options)
    annotations = json.loads((output / "annotations.json").read_text())
    assert annotations["categories"] == [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}]
    assert {each["category_id"] for each in annotations["annotations"]} == {17}
    assert min(each["score"] for each in annotations["annotations"]) >= 0.3
    dataset = COCODataset(output / "annotations.json", images, remove_images_without_annotations=True)
    _, target, _ = dataset[0]
    assert len(target) > 0 and dataset.has_masks
    assert Image.open(output / "drawn" / "below" / "4.png").size == (90, 64)
    assert len(list((output / "crops" / "cat").iterdir())) == len(annotations["annotations"])
    assert Image.open(output / "sheet.jpg").width > 400


def test_centermask_writes_scores_of_masks_beside_those_of_boxes(predict, images, weights):
    _, output = predict(images, "--weights", weights("centermask"), "--draw", "--score", "0")
    results = json.loads((output / "results.json").read_text())
    assert set(results[0]) == {"image_id", "category_id", "score", "bbox", "segmentation", "mask_score"}
    assert any(each["score"] != each["mask_score"] for each in results)
    assert (np.asarray(Image.open(output / "drawn" / "1.png")) != np.asarray(Image.open(images / "1.png"))).any()


def test_interrupted_run_resumes(predict, images, weights):
    _, whole = predict(images, "--weights", weights("fcos"), output="whole")
    options = ("--weights", weights("fcos"))
    _, output = predict(images / "1.png", images / "3.png", *options)
    (output / "parts").mkdir()
    # a second process was killed in the middle of a line
    joined = (output / "predictions.jsonl").read_text().splitlines(keepends=True)
    (output / "parts" / "0.jsonl").write_text(joined[0] + joined[2] + '{"file_name": "2.p')
    (output / "predictions.jsonl").write_text("".join(joined[:2]))
    with pytest.raises(ValueError, match="results of 2 images of an earlier run: --resume continues"):
        predict(images, *options)
    before = {line["file_name"] for line in lines_of(output)}
    assert before == {"1.png"}
    predict(images, *options, "--resume")
    assert (output / "results.json").read_text() == (whole / "results.json").read_text()
    assert lines_of(output) == lines_of(whole)
    with pytest.raises(ValueError, match="was written with min_score None, but this run has 0.5"):
        predict(images, *options, "--resume", "--min-score", "0.5")
    predict(images, *options, "--overwrite", "--min-score", "0.5")
    assert all(each["score"] >= 0.5 for line in lines_of(output) for each in line.get("objects", ()))


def test_lists_patterns_and_stdin_give_the_same_images(predict, images, weights, monkeypatch, tmp_path):
    options = ("--weights", weights("fcos"))
    (tmp_path / "list.txt").write_text("images/1.png\n\nimages/2.png\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{images}/1.png\n{images}/2.png\n"))
    expected = None
    for k, given in enumerate((tmp_path / "list.txt", "-", images / "[12].png")):
        _, output = predict(given, *options, output=f"out{k}")
        expected = expected or lines_of(output)
        assert lines_of(output) == expected and len(expected) == 2
    with pytest.raises(ValueError, match="no such file or folder"):
        predict(images / "5.png", *options)
    with pytest.raises(ValueError, match="no images found"):
        predict(images / "*.gif", *options)


def test_frames_of_a_video_are_predicted(predict, weights, tmp_path):
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (96, 64))
    for number in range(5):
        writer.write(np.full((64, 96, 3), number * 40, dtype=np.uint8))
    writer.release()
    _, output = predict(tmp_path / "clip.avi", "--weights", weights("fcos"), "--every", 2, "--draw")
    assert [line["file_name"] for line in lines_of(output)] == [f"clip.avi/{k:06d}.jpg" for k in (0, 2, 4)]
    assert Image.open(output / "drawn" / "clip.avi" / "000004.jpg").size == (96, 64)
    (tmp_path / "torn.avi").write_bytes(b"RIFF")
    status, output = predict(tmp_path / "torn.avi", "--weights", weights("fcos"), output="torn")
    assert status == 1 and "not a video" in (output / "unreadable.txt").read_text()


def test_objects_are_tracked_in_videos_but_not_in_images(predict, weights, tmp_path):
    cv2 = pytest.importorskip("cv2")
    scene = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    for name in ("one.avi", "two.avi"):
        writer = cv2.VideoWriter(str(tmp_path / name), cv2.VideoWriter_fourcc(*"MJPG"), 5, (96, 64))
        for _ in range(3):
            writer.write(scene)
        writer.release()
    Image.fromarray(scene).save(tmp_path / "still.png")
    inputs = [tmp_path / name for name in ("one.avi", "still.png", "two.avi")]
    options = ("--weights", weights("fcos"), "--track", "--score", "0.2")
    _, output = predict(*inputs, *options)
    lines = lines_of(output)
    numbers = {line["file_name"]: [each.get("track_id") for each in line["objects"]] for line in lines}
    first = numbers["one.avi/000000.jpg"]
    assert sorted(number for number in first if number) == list(range(1, len([n for n in first if n]) + 1))
    assert 1 in first and all(numbers[f"{name}.avi/{k:06d}.jpg"] == first for name in ("one", "two") for k in range(3))
    assert set(numbers["still.png"]) == {None} and "track_id" not in json.dumps(
        next(line for line in lines if line["file_name"] == "still.png")
    )
    with pytest.raises(ValueError, match="--track requires whole videos in one process"):
        predict(*inputs, *options, "--resume")


def test_results_use_the_image_ids_of_an_annotation_file(predict, images, weights, tmp_path):
    rows = [{"id": 100 + number, "file_name": f"{number}.png"} for number in range(1, 5)]
    (tmp_path / "ids.json").write_text(json.dumps({"images": rows}))
    _, output = predict(images, "--weights", weights("fcos"), "--image-ids", tmp_path / "ids.json")
    assert {each["image_id"] for each in json.loads((output / "results.json").read_text())} == {101, 102, 103, 104}


def test_invalid_options_are_errors(predict, images, weights):
    with pytest.raises(ValueError, match="--weights FILE is required"):
        predict(images)
    with pytest.raises(ValueError, match="--score bird=0.5: the model has no class 'bird'"):
        predict(images, "--weights", weights("fcos"), "--score", "bird=0.5")
    with pytest.raises(ValueError, match="--score must be a number or CLASS=NUMBER, got 'high'"):
        predict(images, "--weights", weights("fcos"), "--score", "high")


@pytest.mark.slow
def test_torchrun_results_equal_those_of_one_process(predict, images, weights, tmp_path):
    _, alone = predict(images, "--weights", weights("mask"), output="alone")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "tools/predict.py", str(images)]
    options = ["--weights", weights("mask"), "--output", str(tmp_path / "both"), "--draw"]
    done = subprocess.run(
        [*command, *options], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "[process 1] 1 image in" in done.stdout
    assert (tmp_path / "both" / "results.json").read_text() == (alone / "results.json").read_text()
    assert (tmp_path / "both" / "drawn" / "below" / "4.png").exists()
