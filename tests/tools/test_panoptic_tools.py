"""Train, test and draw Panoptic FPN with the tools."""

import json

import numpy as np
import torch
import yaml
from helpers.panoptic_folder import CAT, CATEGORIES, DOG, GRASS, SKY, PanopticFolder
from helpers.tiny_models import MODELS
from PIL import Image


def panoptic_config(folder, data):
    words = MODELS["panoptic"].split()
    config: dict = {}
    for key, value in zip(words[::2], words[1::2], strict=True):
        *nodes, leaf = key.split(".")
        node = config
        for name in nodes:
            node = node.setdefault(name, {})
        node[leaf] = yaml.safe_load(value)
    config["MODEL"]["ROI_BOX_HEAD"]["NUM_CLASSES"] = config["MODEL"]["SEM_SEG_HEAD"]["NUM_CLASSES"] = -1
    block = {"NAME": "farm", "FORMAT": "coco_panoptic", "IMAGES": str(data.root / "images")}
    block |= {"ANNOTATIONS": str(data.root / "segments.json"), "SEGMENTS": str(data.root / "segments")}
    size = {"MIN_SIZE_TRAIN": [48], "MAX_SIZE_TRAIN": 64, "MIN_SIZE_TEST": 48, "MAX_SIZE_TEST": 64}
    config |= {
        "DATASETS": {"TRAIN": [block], "TEST": [block]},
        "INPUT": size,
        "SOLVER": {"IMS_PER_BATCH": 2, "MAX_ITER": 2, "BASE_LR": 0.001},
        "OUTPUT_DIR": str(folder / "out"),
    }
    config["DATALOADER"] |= {"SIZE_DIVISIBILITY": 32}
    return config


def test_trained_segments_are_evaluated_and_drawn(project, tmp_path, rng_seed):
    data = PanopticFolder(tmp_path / "farm")
    segments = [(4, GRASS, (0, 20, 60, 20)), (5, SKY, (0, 0, 60, 20)), (6, CAT, (5, 9, 20, 15))]
    for number in range(1, 4):
        data.add(number, [*segments, (7, DOG, (30, 15, 9, 20))], size=(60, 40))
    data.write()
    project.config = panoptic_config(tmp_path, data)

    trained = project.run("train_net.py")
    assert trained.returncode == 0, trained.stdout[-3000:] + trained.stderr[-3000:]
    assert "loss_sem_seg" in trained.stdout and "PQ, SQ, RQ, PQ_th" in trained.stdout
    checkpoint = torch.load(tmp_path / "out" / "model_final.pth", weights_only=True)
    assert checkpoint["class_names"] == ["cat", "dog"]
    assert checkpoint["semantic_names"] == ["things", "grass", "sky"]
    results = tmp_path / "out" / "inference" / "farm"
    figures = json.loads((results / "panoptic_results.json").read_text())["results"]
    assert 0 <= figures["panoptic"]["PQ"] <= 1 and 0 <= figures["semantic"]["mIoU"] <= 1
    assert len(list((results / "panoptic").glob("*.png"))) == 3

    drawn = project.run("draw_predictions.py")
    assert drawn.returncode == 0, drawn.stderr[-3000:]
    sheet = np.asarray(Image.open(results / "predictions.png"))
    # a title, and two columns of pairs of 60 x 40 images, enlarged four times
    assert sheet.shape == (12 + 24 + 2 * (21 + 160) + 12 + 12, 12 + 2 * (2 * 240 + 4) + 12 + 12, 3)

    data.write(categories=[dict(each, name=each["name"].replace("sky", "sea")) for each in CATEGORIES])
    renamed = project.run("test_net.py")
    assert renamed.returncode != 0 and "Only in the former: (sky); only in the latter: (sea)" in renamed.stderr
