import json
import logging

import numpy as np
import pytest
import torch
from helpers.semantic_folder import SemanticFolder
from PIL import Image

from maskrcnn_benchmark.data.datasets import SemanticDataset
from maskrcnn_benchmark.evaluation import evaluate
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.packed_map import PackedMap
from maskrcnn_benchmark.visual.palette import voc_palette

CLASSES = ["ground", "cat", "dog", "unicorn"]


@pytest.fixture
def folder(tmp_path):
    return SemanticFolder(tmp_path / "data")


def prediction(classes):
    result = BoxList(torch.zeros((0, 4)), classes.shape[::-1])
    result.add_field("semantic", PackedMap(classes))
    return result


def random_sample(folder, images=3, classes=4, values=None):
    """Return a dataset with maps of several sizes, and predictions with three of four pixels correct."""
    truths, found = [], []
    for k in range(images):
        truth = folder.rng.integers(0, classes, (20 + k, 30))
        wrong = folder.rng.integers(0, classes, truth.shape)
        found.append(np.where(folder.rng.random(truth.shape) < 0.75, truth, wrong))
        truth = np.where(folder.rng.random(truth.shape) < 0.1, 255, truth)
        stored = truth if values is None else np.array([*values, *[255] * 300])[truth]
        folder.add(f"city/{k}", stored, mode="I;16" if values and max(values) > 255 else "L")
        truths.append(truth)
    dataset = SemanticDataset(str(folder.images), str(folder.maps), CLASSES, values=values)
    return dataset, truths, found


def figures_by_loops(truths, found, classes):
    """Compute VoVNet-DeepLabV3's figures pixel by pixel and class by class."""
    inter, pred, true = [0] * classes, [0] * classes, [0] * classes
    for truth, guess in zip(truths, found, strict=True):
        for t, g in zip(truth.reshape(-1).tolist(), guess.reshape(-1).tolist(), strict=True):
            if t == 255:
                continue
            true[t] += 1
            pred[g] += 1
            inter[t] += t == g
    union = [p + t - i for p, t, i in zip(pred, true, inter, strict=True)]
    iou = [i / (u + 1e-10) for i, u in zip(inter, union, strict=True)]
    present = [k for k in range(classes) if true[k]]
    return {
        "mIoU": sum(iou) / classes,
        "fwIoU": sum(iou[k] * true[k] for k in present) / sum(true),
        "mACC": sum(inter[k] / true[k] for k in present) / len(present),
        "pACC": sum(inter) / sum(true),
        "mIoU_present": sum(iou[k] for k in present) / len(present),
    }


def test_figures_on_random_maps_agree_with_counting_pixel_by_pixel(folder):
    dataset, truths, found = random_sample(folder, classes=3)  # no unicorn
    results = evaluate(dataset, [prediction(each) for each in found], None)
    assert results.results["semantic"] == pytest.approx(figures_by_loops(truths, found, 4))
    assert results.results["semantic"]["mIoU"] == pytest.approx(results.results["semantic"]["mIoU_present"] * 3 / 4)


def test_images_without_a_prediction_count_as_missed(folder, caplog):
    dataset, truths, found = random_sample(folder)
    predictions = {0: prediction(found[0]), 2: prediction(found[2])}
    figures = evaluate(dataset, predictions, None).results["semantic"]
    assert "1 of 3 images have no predictions" in caplog.text
    right = sum((truths[k] == found[k]).sum() for k in (0, 2))
    assert figures["pACC"] == pytest.approx(right / sum((truth != 255).sum() for truth in truths))


def test_maps_are_written_with_the_values_and_sizes_of_the_dataset(folder, tmp_path):
    dataset, truths, found = random_sample(folder, values=[7, 0, 9, 200])
    evaluate(dataset, [prediction(each) for each in found], str(tmp_path / "out"), boundary_iou=True)
    for k, classes in enumerate(found):
        with Image.open(tmp_path / "out" / "maps" / "city" / f"{k}.png") as image:
            assert image.mode == "P" and image.size == classes.shape[::-1]
            assert (np.asarray(image) == np.array([7, 0, 9, 200])[classes]).all()
            assert image.getpalette()[21:24] == voc_palette()[7].tolist()
    with Image.open(tmp_path / "out" / "confusion.png") as image:
        assert image.mode == "RGB" and min(image.size) > 160
    record = json.loads((tmp_path / "out" / "semantic_results.json").read_text())
    assert [row["class"] for row in record["per_class"]] == CLASSES and record["images"] == 3
    assert np.array(record["confusion"]).sum() == sum((truth != 255).sum() for truth in truths)


def test_values_over_255_are_written_with_sixteen_bits(folder, tmp_path):
    dataset, _, found = random_sample(folder, images=1, values=[3000, 0, 9, 200])
    evaluate(dataset, [prediction(found[0])], str(tmp_path / "out"))
    with Image.open(tmp_path / "out" / "maps" / "city" / "0.png") as image:
        assert (np.asarray(image) == np.array([3000, 0, 9, 200])[found[0]]).all()


def test_predictions_of_another_size_or_model_are_refused(folder):
    dataset, _, found = random_sample(folder, images=1)
    with pytest.raises(ValueError, match="has 20 x 30 pixels, the image 30 x 20"):
        evaluate(dataset, [prediction(found[0].T)], None)
    with pytest.raises(ValueError, match="has no field 'semantic'"):
        evaluate(dataset, [BoxList(torch.zeros((0, 4)), (30, 20))], None)


def test_expected_results_are_compared(folder, caplog):
    dataset, truths, _ = random_sample(folder, images=1)
    perfect = prediction(np.where(truths[0] == 255, 0, truths[0]))
    with caplog.at_level(logging.INFO):
        evaluate(dataset, [perfect], None, expected_results=[["semantic", "mIoU", [1.0, 0.001]]])
    assert "PASS: semantic > mIoU" in caplog.text


def test_the_palette_starts_with_vocs_colours():
    expected = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128], [0, 128, 128]]
    assert voc_palette()[:7].tolist() == expected and voc_palette()[15].tolist() == [192, 128, 128]
    assert voc_palette()[255].tolist() == [224, 224, 192]
    assert len({tuple(color) for color in voc_palette().tolist()}) == 256
