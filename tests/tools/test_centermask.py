"""The tools with CenterMask: train, test, draw, predict, and measure."""

import json

import pytest
from PIL import Image

HEADS = {
    "FCOS_MASK": True,
    "MASK_ON": True,
    "MASKIOU_ON": True,
    "CONVENTION": "centermask2",
    "ROI_MASK_HEAD": {
        "FEATURE_EXTRACTOR": "MaskRCNNFPNSpatialAttentionFeatureExtractor",
        "POOLER_SCALES": [0.125, 0.0625, 0.03125],
        "LEVEL_MAP_FUNCTION": "CenterMaskLevelMapFunc",
        "RESOLUTION": 28,
        "SHARE_BOX_FEATURE_EXTRACTOR": False,
        "CONV_LAYERS": [32],
    },
    "ROI_MASKIOU_HEAD": {"CONV_LAYERS": [32]},
}
# Two steps train nothing, so every box counts as a detection.
OPTIONS = ("OUTPUT_DIR", "out", "SOLVER.MAX_ITER", "2", "MODEL.FCOS.INFERENCE_TH", "0.0")


@pytest.fixture
def centermask(project):
    """Give the objects outlines, make all objects of the second image a crowd, and train CenterMask for two steps."""
    for split in ("train", "test"):
        file = project.folder / f"{split}.json"
        content = json.loads(file.read_text())
        for entry in content["annotations"]:
            x, y, width, height = entry["bbox"]
            entry["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
            if entry["image_id"] == 2:
                entry["iscrowd"], entry["segmentation"] = 1, {"size": [64, 64], "counts": [0, 640, 64 * 64 - 640]}
        file.write_text(json.dumps(content))
    project.config["MODEL"] |= HEADS
    done = project.run("train_net.py", *OPTIONS)
    assert done.returncode == 0, done.stderr
    return project


def results(project, folder="out"):
    found = json.loads((project.folder / folder / "inference/test/coco_results.json").read_text())
    return found.get("results", found)


def test_training_ends_with_box_and_mask_ap_and_predictions_are_drawn(centermask):
    assert {"bbox", "segm"} <= results(centermask).keys()
    drawn = centermask.run("draw_predictions.py", "--output", "sheet.png", *OPTIONS)
    assert drawn.returncode == 0, drawn.stderr
    assert Image.open(centermask.folder / "sheet.png").size > (64, 64)


@pytest.mark.slow
def test_views_predictions_and_speed(centermask):
    views = ("TEST.BBOX_AUG.ENABLED", "True", "TEST.BBOX_AUG.H_FLIP", "True", "OUTPUT_DIR", "views")
    done = centermask.run("test_net.py", "--ckpt", "out/model_final.pth", *OPTIONS, *views)
    assert done.returncode == 0, done.stderr
    assert {"bbox", "segm"} <= results(centermask, "views").keys()

    once = ("--repeats", "1", "--warm-up", "0", "--train", "1")
    done = centermask.run("benchmark.py", "--weights", "--data", *once, *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert "training step, ms" in done.stdout and "model_final.pth" in done.stdout
