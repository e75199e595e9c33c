import json

import numpy as np
import pytest
import torch
from helpers.warm_start import ROOT, Script
from PIL import Image

from maskrcnn_benchmark.evaluation import save_predictions
from maskrcnn_benchmark.structures.bounding_box import BoxList


@pytest.fixture
def run(tmp_path):
    """Function run(*arguments): run the script on three images with predictions; return the finished process."""
    categories = [{"id": 4, "name": "cell"}]
    images = [{"id": 10 + k, "file_name": f"{k}.png", "width": 200, "height": 100} for k in range(3)]
    annotations = [
        {"id": k + 1, "image_id": image["id"], "category_id": 4, "bbox": [20, 20, 40, 40]}
        for k, image in enumerate(images)
    ]
    for image in images:
        Image.new("RGB", (200, 100), (90, 90, 90)).save(tmp_path / image["file_name"])
    annotation_file = tmp_path / "cells.json"
    annotation_file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    config = tmp_path / "config.yaml"
    config.write_text(
        f"OUTPUT_DIR: {tmp_path}\n"
        "DATASETS:\n"
        f"  TEST: [{{NAME: cells, FORMAT: coco, IMAGES: {tmp_path}, ANNOTATIONS: {annotation_file}}}]\n"
    )
    found = BoxList([[40, 40, 118, 118]], (400, 200))
    found.add_field("labels", torch.tensor([1]))
    found.add_field("scores", torch.tensor([0.9]))
    folder = tmp_path / "inference" / "cells"
    folder.mkdir(parents=True)
    save_predictions([found, None, found[[]]], folder / "predictions.pth")

    def call(*arguments):
        words = [ROOT / "tools" / "draw_predictions.py", "--config-file", config, *arguments]
        return Script(words, ROOT).wait(120)

    return call


def test_sheet_is_written_to_the_folder_of_the_predictions(run, tmp_path):
    process = run()
    assert process.returncode == 0, process.stderr
    output = tmp_path / "inference" / "cells" / "predictions.png"
    assert str(output) in process.stdout
    sheet = np.asarray(Image.open(output))
    # two lines of title, two columns of pairs
    assert sheet.shape == (12 + 2 * 24 + 2 * (21 + 100) + 12 + 12, 12 + 2 * (2 * 200 + 4) + 12 + 12, 3)
    # the only prediction matches one of three objects
    assert "score of at least 0.899 (balances precision 1.00 and recall 0.33 on these 3 images" in process.stdout


def test_missing_predictions_error_says_what_to_run(run, tmp_path):
    process = run("OUTPUT_DIR", str(tmp_path / "elsewhere"))
    assert process.returncode != 0
    assert "tools/test_net.py" in process.stderr and "Traceback" not in process.stderr


def test_predictions_of_another_dataset_are_an_error(run, tmp_path):
    save_predictions([], tmp_path / "other.pth")
    process = run("--predictions", str(tmp_path / "other.pth"))
    assert process.returncode != 0 and "predictions of 0 images, but the dataset has 3" in process.stderr
