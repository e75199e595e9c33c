"""Dataset and model small enough to train with tools/train_net.py within seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.warm_start import Script, run_ranks
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
SIZE = 64


def write_split(folder: Path, name: str, count: int, classes=("bright", "dark")) -> None:
    """Write images of equal size with one or two flat squares on noise; every fourth image has none."""
    rng = np.random.default_rng(len(name))
    (folder / name).mkdir(parents=True)
    images, annotations = [], []
    for image_id in range(1, count + 1):
        pixels = rng.integers(100, 150, (SIZE, SIZE, 3), dtype=np.uint8)
        for _ in range(0 if image_id % 4 == 0 else 1 + image_id % 2):
            side = int(rng.integers(16, 32))
            x, y = (int(value) for value in rng.integers(0, SIZE - side, 2))
            category = int(rng.integers(1, 3))
            pixels[y : y + side, x : x + side] = 250 if category == 1 else 5
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": [x, y, side, side],
                    "area": side * side,
                    "iscrowd": 0,
                }
            )
        images.append({"id": image_id, "file_name": f"{image_id}.png", "width": SIZE, "height": SIZE})
        Image.fromarray(pixels).save(folder / name / f"{image_id}.png")
    categories = [{"id": k, "name": class_name} for k, class_name in enumerate(classes, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / f"{name}.json").write_text(json.dumps(content))


def block(folder: Path, name: str) -> dict:
    return {"NAME": name, "FORMAT": "coco", "IMAGES": str(folder / name), "ANNOTATIONS": str(folder / f"{name}.json")}


def tiny_config(folder: Path) -> dict:
    """Return a config of FCOS on a small VoVNet with GroupNorm, so that the number of processes does not matter."""
    return {
        "MODEL": {
            "META_ARCHITECTURE": "GeneralizedRCNN",
            "DEVICE": "cpu",
            "WEIGHT": "",
            "RPN_ONLY": True,
            "FCOS_ON": True,
            "BACKBONE": {"CONV_BODY": "V-27-FPN-RETINANET", "NORM": "GN", "FREEZE_CONV_BODY_AT": 0},
            "VOVNET": {
                "STEM_CHANNELS": [32, 32, 32],
                "STAGE_CONV_CHANNELS": [32, 32, 32, 32],
                "STAGE_OUT_CHANNELS": [32, 32, 32, 32],
                "BLOCKS_PER_STAGE": [1, 1, 1, 1],
                "LAYERS_PER_BLOCK": 2,
                "BACKBONE_OUT_CHANNELS": 64,
            },
            "RESNETS": {"BACKBONE_OUT_CHANNELS": 64},
            "RETINANET": {"USE_C5": False},
            "FCOS": {"NUM_CLASSES": -1, "NUM_CONVS": 1},
        },
        "DATASETS": {"TRAIN": [block(folder, "train")], "TEST": [block(folder, "test")]},
        "DATALOADER": {"NUM_WORKERS": 0, "SIZE_DIVISIBILITY": 32},
        "INPUT": {"MIN_SIZE_TRAIN": [SIZE], "MAX_SIZE_TRAIN": SIZE, "MIN_SIZE_TEST": SIZE, "MAX_SIZE_TEST": SIZE},
        "SOLVER": {
            "BASE_LR": 0.01,
            "WARMUP_ITERS": 2,
            "STEPS": [100],
            "MAX_ITER": 6,
            "CHECKPOINT_PERIOD": 2,
            "IMS_PER_BATCH": 4,
        },
        "TEST": {"IMS_PER_BATCH": 2},
    }


@pytest.fixture
def project(tmp_path):
    """Project in a temporary folder: data, config.yaml, and `run`, which runs tools there."""
    write_split(tmp_path, "train", 16)
    write_split(tmp_path, "test", 5)
    return Project(tmp_path)


class Project:
    def __init__(self, folder: Path):
        self.folder = folder
        self.config = tiny_config(folder)

    def words(self, tool: str, *arguments) -> list[str]:
        """Write config.yaml, and return `tools/TOOL --config-file ... arguments`."""
        config_file = self.folder / "config.yaml"
        config_file.write_text(yaml.safe_dump(self.config))
        return [str(word) for word in (ROOT / "tools" / tool, "--config-file", config_file, *arguments)]

    def start(self, tool: str, *arguments) -> Script:
        """Start a tool in a process that has imported torch already."""
        return Script(self.words(tool, *arguments), self.folder)

    def run(self, tool: str, *arguments, ranks: int = 1) -> subprocess.CompletedProcess:
        """Run a tool in `ranks` such processes, and return the outcome of the first."""
        if ranks > 1:
            return run_ranks(ranks, self.words(tool, *arguments), self.folder)
        return self.start(tool, *arguments).wait()

    def popen(self, tool: str, *arguments, launcher=(), variables=None, **options) -> subprocess.Popen:
        """Start `python [launcher] tools/TOOL ...` exactly as a user does."""
        return subprocess.Popen(
            [sys.executable, *launcher, *self.words(tool, *arguments)],
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(variables or {})},
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def launch(self, launcher, tool: str, *arguments, **variables) -> subprocess.CompletedProcess:
        """Run `python launcher tools/TOOL ...` to its end, with more environment variables."""
        process = self.popen(tool, *arguments, launcher=launcher, variables=variables)
        stdout, stderr = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@pytest.fixture(scope="session")
def make_project():
    """The class Project, for fixtures with a wider scope."""
    return Project
