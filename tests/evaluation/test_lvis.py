"""LVIS: federated annotations, against faster-coco-eval's own LVIS evaluation."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.config.paths_catalog import DatasetCatalog
from maskrcnn_benchmark.data.datasets import COCODataset, LVISDataset
from maskrcnn_benchmark.data.datasets.reading import Reading
from maskrcnn_benchmark.data.datasets.stored_tables import open_stored
from maskrcnn_benchmark.data.datasets.table_cache import TableSettings
from maskrcnn_benchmark.evaluation import evaluate
from maskrcnn_benchmark.evaluation.coco_evaluator import EVALUATORS
from maskrcnn_benchmark.evaluation.lvis import LVISProtocol, LVISResults, best_detections
from maskrcnn_benchmark.structures.bounding_box import BoxList

FREQUENCY = "rcfrcfrc"


def content(rng, images: int = 12) -> dict:
    """An LVIS file without file names: 100 x 80 images, 8 categories, a few objects each."""
    data = {
        "images": [],
        "annotations": [],
        "categories": [
            {"id": k, "name": f"class{k}", "synset": f"c.n.{k}", "frequency": letter, "image_count": 3}
            for k, letter in enumerate(FREQUENCY, start=1)
        ],
    }
    for image_id in range(1, images + 1):
        chosen = rng.permutation(8)[:6] + 1
        data["images"].append(
            {
                "id": image_id,
                "coco_url": f"http://images.cocodataset.org/val2017/{image_id:012}.jpg",
                "width": 100,
                "height": 80,
                "neg_category_ids": chosen[3:5].tolist(),
                "not_exhaustive_category_ids": chosen[2:3].tolist(),
            }
        )
        for category in chosen[:3].tolist():
            for _ in range(rng.integers(1, 4)):
                x, y, w, h = (*rng.integers(0, 40, 2).tolist(), *rng.integers(4, 40, 2).tolist())
                polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
                data["annotations"].append(
                    {
                        "id": len(data["annotations"]) + 1,
                        "image_id": image_id,
                        "category_id": category,
                        "bbox": [x, y, w, h],
                        "area": w * h,
                        "segmentation": [polygon],
                    }
                )
    return data


def random_detections(rng, data: dict) -> list[dict]:
    """Detections near the objects, and elsewhere."""
    found = []
    for annotation in data["annotations"]:
        for _ in range(2):
            x, y, w, h = (np.array(annotation["bbox"]) + rng.normal(0, 2, 4)).tolist()
            found.append((annotation["image_id"], annotation["category_id"], [x, y, max(w, 1), max(h, 1)]))
    for image in data["images"]:
        for category in range(1, 9):
            box = [*rng.uniform(0, 50, 2).tolist(), *rng.uniform(5, 30, 2).tolist()]
            found.append((image["id"], category, box))
    scores = rng.permutation(len(found)) / len(found)
    return [
        {"image_id": image_id, "category_id": category, "bbox": box, "score": float(score)}
        for (image_id, category, box), score in zip(found, scores, strict=True)
    ]


@pytest.fixture
def lvis(tmp_path, rng_seed):
    data = content(np.random.default_rng(rng_seed))
    (tmp_path / "coco" / "val2017").mkdir(parents=True)
    for image in data["images"]:
        Image.new("RGB", (100, 80)).save(tmp_path / "coco" / "val2017" / image["coco_url"].rpartition("/")[2])
    (tmp_path / "lvis.json").write_text(json.dumps(data))
    return tmp_path, data


def opened(folder, kind=LVISDataset, images="coco", **options):
    return kind(str(folder / "lvis.json"), str(folder / images), False, **options)


def predictions_of(dataset, detections: list[dict]) -> list[BoxList]:
    predictions = []
    for index in range(len(dataset)):
        mine = [d for d in detections if d["image_id"] == dataset.image_id(index)]
        boxes = torch.tensor([d["bbox"] for d in mine]).reshape(-1, 4)
        boxlist = BoxList(boxes, (100, 80), mode="xywh").convert("xyxy")
        boxlist.add_field("labels", torch.tensor([d["category_id"] for d in mine], dtype=torch.int64))
        boxlist.add_field("scores", torch.tensor([d["score"] for d in mine]))
        predictions.append(boxlist)
    return predictions


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_the_figures_are_those_of_faster_coco_eval(lvis, evaluator, monkeypatch, rng_seed):
    pytest.importorskip(evaluator)
    faster = pytest.importorskip("faster_coco_eval")
    folder, data = lvis
    monkeypatch.setattr("maskrcnn_benchmark.evaluation.coco_evaluator.EVALUATORS", (evaluator,))
    dataset = opened(folder)
    detections = random_detections(np.random.default_rng((rng_seed, 1)), data)
    results = LVISResults("bbox")
    protocol = LVISProtocol(dataset.federation())
    truth = {**data, "annotations": [{**a, "iscrowd": 0} for a in data["annotations"]]}
    protocol.update(results, protocol.run(truth, detections, "bbox"))

    theirs = faster.COCO(json.loads(json.dumps(truth)))
    oracle = faster.COCOeval_faster(
        theirs, theirs.loadRes([dict(d) for d in detections]), "bbox", lvis_style=True, print_function=lambda *_: None
    )
    oracle.params.maxDets = [300]
    oracle.evaluate()
    oracle.accumulate()
    precision = oracle.eval["precision"][..., -1]
    expected = {"AP": precision[..., 0], "AP50": precision[0, ..., 0], "AP75": precision[5, ..., 0]}
    expected |= {f"AP{letter}": precision[..., area] for area, letter in enumerate("sml", start=1)}
    for letter in "rcf":
        expected[f"AP{letter}"] = precision[:, :, [k for k in range(8) if FREQUENCY[k] == letter], 0]
    for metric, values in expected.items():
        mean = values[values > -1].mean() if (values > -1).any() else -1
        assert results.results["bbox"][metric] == pytest.approx(mean, abs=1e-9), metric
    assert 0 < results.results["bbox"]["AP"] < 1


def test_unknown_categories_and_incomplete_ones_cost_nothing(lvis):
    folder, data = lvis
    dataset = opened(folder)
    perfect = [{**a, "score": 0.9} for a in data["annotations"]]
    of_image = {}
    for a in data["annotations"]:
        of_image.setdefault(a["image_id"], set()).add(a["category_id"])
    more = {"unknown": [], "incomplete": [], "absent": []}
    for image in data["images"]:
        absent, incomplete = set(image["neg_category_ids"]), set(image["not_exhaustive_category_ids"])
        false = {"image_id": image["id"], "bbox": [85, 70, 9, 9], "score": 0.95}
        unknown = set(range(1, 9)) - absent - of_image[image["id"]]
        for kind, categories in (("unknown", unknown), ("incomplete", incomplete), ("absent", absent)):
            more[kind] += [{**false, "category_id": category} for category in categories]
    for kind, is_free in (("unknown", True), ("incomplete", True), ("absent", False)):
        results = evaluate(dataset, predictions_of(dataset, perfect + more[kind]), None).results["bbox"]
        assert (results["AP"] == 1) == is_free, kind
        assert {"APr", "APc", "APf"} <= results.keys()


def test_masks_are_evaluated_by_the_same_rules(lvis, tmp_path):
    folder, data = lvis
    dataset = opened(folder)
    predictions = []
    for index in range(len(dataset)):
        target = dataset.get_groundtruth(index)
        found = target.copy_with_fields("labels")
        found.add_field("scores", torch.full((len(found),), 0.9))
        masks = [mask.get_mask_tensor() for mask in target.get_field("masks")]
        found.add_field("mask", torch.stack(masks)[:, None])
        predictions.append(found)
    results = evaluate(dataset, predictions, str(tmp_path), iou_types=("bbox", "segm")).results
    assert results["segm"]["AP"] == results["bbox"]["AP"] == 1
    assert json.loads((tmp_path / "coco_results.json").read_text())["results"]["segm"]["APr"] == 1


def test_the_best_300_detections_of_an_image_count():
    detections = [{"image_id": k % 2, "category_id": k % 7, "score": k / 1000} for k in range(1000)]
    kept = best_detections(detections)
    assert len(kept) == 600 and min(d["score"] for d in kept) == 0.4
    assert best_detections(detections[:5]) == sorted(detections[:5], key=lambda d: d["image_id"])


@pytest.mark.parametrize("images", ["coco", "coco/val2017"])
@pytest.mark.parametrize("kind", [LVISDataset, COCODataset])
def test_file_names_come_from_coco_url(lvis, images, kind):
    dataset = opened(lvis[0], kind, images)
    assert dataset.path(0) == str(lvis[0] / "coco" / "val2017" / "000000000001.jpg") and not dataset.report.warnings


def test_a_coco_file_is_no_lvis_file(lvis):
    folder, data = lvis
    for image in data["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    (folder / "lvis.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match="expected an LVIS file. Use FORMAT: coco"):
        opened(folder).federation()


def test_a_block_and_a_stored_table(lvis):
    folder, _ = lvis
    block = {"FORMAT": "lvis", "IMAGES": str(folder / "coco"), "ANNOTATIONS": str(folder / "lvis.json")}
    assert DatasetCatalog.from_block(block)["factory"] == "LVISDataset"
    made = opened(folder, reading=Reading(tables=TableSettings("always")))
    again = open_stored(made.table_file)
    assert type(again) is LVISDataset and again.federation() == made.federation()
