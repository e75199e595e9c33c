"""Train, test and draw semantic segmentation with the tools."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from helpers.semantic_folder import SemanticFolder
from PIL import Image

CLASSES = ["ground", "bright", "dark"]


def write_scenes(root, count):
    """Write images with squares on noise and their index maps, larger than the crop."""
    folder = SemanticFolder(root)
    for k in range(count):
        labels = np.zeros((48, 56), dtype=np.uint8)
        for label in (1, 2):
            x, y = folder.rng.integers(0, 30, 2)
            labels[y : y + 18, x : x + 18] = label
        folder.add(str(k), labels)
        pixels = np.array([128, 250, 5], dtype=np.uint8)[labels]
        Image.fromarray(np.stack([pixels] * 3, axis=2)).save(folder.images / f"{k}.jpg")
    return folder


def as_segmentor(project):
    """Change a project to semantic segmentation: a small model with GroupNorm, and 12 images."""
    folder = project.folder
    scenes = {name: write_scenes(folder / f"scenes_{name}", count) for name, count in (("a", 12), ("b", 5))}
    body = project.config["MODEL"]
    project.config["MODEL"] = {
        "META_ARCHITECTURE": "SemanticSegmentor",
        "DEVICE": "cpu",
        "BACKBONE": {**body["BACKBONE"], "CONV_BODY": "V-27", "OUTPUT_STRIDE": 16},
        "VOVNET": {**body["VOVNET"], "OUT_CHANNELS": 32},
        "DEEPLAB": {"CHANNELS": 32, "NORM": "GN", "RATES": [1, 2, 3], "DECODER": True},
        "GROUP_NORM": {"NUM_GROUPS": 16},
        "SEM_SEG_HEAD": {"NUM_CLASSES": -1},
    }
    project.config["DATASETS"] = {
        "TRAIN": [scenes["a"].block(NAME="train", CLASSES=CLASSES)],
        "TEST": [scenes["b"].block(NAME="test", CLASSES=CLASSES)],
    }
    project.config["INPUT"] = {"SEMANTIC": {"CROP_SIZE_TRAIN": [32, 32], "CROP_MAX_CLASS_SHARE": 0.9}}
    project.config["SOLVER"] |= {"LR_SCHEDULER": "poly", "HEAD_LR_FACTOR": 2.0, "MAX_ITER": 4}
    project.config["TEST"]["SEMANTIC"] = {"BOUNDARY_IOU": True, "H_FLIP": True, "MODE": "slide", "WINDOW": [32, 32]}
    return project


def run(project, *arguments, ranks=1):
    outcome = project.run(*arguments, ranks=ranks)
    assert outcome.returncode == 0, outcome.stdout[-3000:] + outcome.stderr[-12000:]
    return outcome.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory, make_project):
    """A trained project with checkpoints of iterations 2 and 4 in out/, and the output of the training."""
    project = as_segmentor(make_project(tmp_path_factory.mktemp("segmentor")))
    return project, run(project, "train_net.py", "OUTPUT_DIR", "out")


def semantic_results(project, folder):
    return json.loads((project.folder / folder / "inference/test/semantic_results.json").read_text())


def test_training_ends_with_a_test_that_two_processes_reproduce(trained):
    project, printed = trained
    assert "with the classes (ground, bright, dark)" in printed
    assert "train: 12 images, 3 semantic classes" in printed
    folder = project.folder / "out/inference/test"
    results = semantic_results(project, "out")
    assert set(results["results"]["semantic"]) >= {"mIoU", "pACC", "fwIoU", "boundary_mIoU"}
    assert sorted(path.name for path in (folder / "maps").iterdir()) == [f"{k}.png" for k in range(5)]
    assert (folder / "confusion.png").is_file() and (folder / "predictions.pth").is_file()
    checkpoint = torch.load(project.folder / "out/model_final.pth", weights_only=True)
    assert checkpoint["semantic_names"] == CLASSES
    run(project, "test_net.py", "--ckpt", "out/model_final.pth", "OUTPUT_DIR", "other", ranks=2)
    assert semantic_results(project, "other") == results


def test_predictions_are_drawn(trained):
    project, _ = trained
    run(project, "draw_predictions.py", "--count", "3", "OUTPUT_DIR", "out")
    with Image.open(project.folder / "out/inference/test/predictions.png") as image:
        assert image.width > 600


def test_resumed_training_is_bit_identical(trained):
    project, _ = trained
    (project.folder / "parts").mkdir()
    shutil.copy(project.folder / "out/model_0000002.pth", project.folder / "parts")
    (project.folder / "parts/last_checkpoint").write_text("model_0000002.pth")
    assert "at iteration 2 of 4" in run(project, "train_net.py", "--skip-test", "OUTPUT_DIR", "parts")
    one, other = (
        torch.load(project.folder / name / "model_final.pth", weights_only=True)["model"] for name in ("out", "parts")
    )
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_two_processes_have_the_same_loss_as_one(trained):
    project, printed = trained
    both = printed, run(project, "train_net.py", "--skip-test", "OUTPUT_DIR", "two", ranks=2)
    losses = [float(re.findall(r"iter: 4  loss: [\d.]+ \(([\d.]+)\)", text)[0]) for text in both]
    # the crops differ in the number of labelled pixels, so the mean of the processes' means would differ
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
