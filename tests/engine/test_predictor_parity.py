"""The metrics of Predictor equal those of tools/test_net.py with one image per batch, for every family and convention.

Ground truth is made of what the model finds, moved by a pixel or two: figures of untrained models are 0 otherwise.
"""

import json

import numpy as np
import pytest
import torch
from helpers.semantic_folder import SemanticFolder
from helpers.tiny_models import tiny_cfg, tiny_model
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskrcnn_benchmark.data import label_names, resolve_num_classes
from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.engine.testing import make_test_loaders, run_test
from maskrcnn_benchmark.evaluation.panoptic_quality import PanopticQuality
from maskrcnn_benchmark.evaluation.semantic import SemanticConfusion
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.structures.panoptic_map import colors_from_ids

NAMES, IDS = ["a", "b"], [4, 7]
STUFF, STUFF_IDS = ["grass", "sky", "sea"], [21, 22, 23]
SMALL = ("INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 96, "TEST.IMS_PER_BATCH", 1)
# The first and the third share a batch, and so do the second and the fourth; their sizes are no multiples of 32.
SIZES = ((90, 64), (60, 87), (90, 64), (60, 87))
FAMILIES = ("fcos", "retinanet", "faster", "mask", "keypoint", "cascade mask", "panoptic", "deeplab")
CONVENTIONS = ("maskrcnn_benchmark", "detectron2", "mmdetection")
# Every family and every convention; the other pairs are slow tests.
FAST = {
    ("fcos", "maskrcnn_benchmark"),
    ("retinanet", "mmdetection"),
    ("faster", "mmdetection"),
    ("mask", "detectron2"),
    ("keypoint", "maskrcnn_benchmark"),
    ("cascade mask", "mmdetection"),
    ("panoptic", "detectron2"),
    ("deeplab", "maskrcnn_benchmark"),
}
PAIRS = [
    pytest.param(family, convention, marks=[] if (family, convention) in FAST else pytest.mark.slow)
    for family in FAMILIES
    for convention in CONVENTIONS
]


def make(family, convention, tmp_path, **options):
    """Build a predictor with fixed random weights; return it with its config and model."""
    torch.manual_seed(1)
    opts = (*SMALL, "MODEL.CONVENTION", convention, "OUTPUT_DIR", str(tmp_path / "out"))
    if family == "deeplab":
        cfg = tiny_cfg("fcos", *opts, "MODEL.META_ARCHITECTURE", "SemanticSegmentor", "MODEL.FCOS_ON", False)
        cfg.MODEL.BACKBONE.CONV_BODY, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = "V-27", len(STUFF)
        model = build_detection_model(cfg).eval()
        for parameter in model.parameters():
            if len(parameter) == len(STUFF):  # the classifier: every class occurs somewhere
                torch.nn.init.normal_(parameter, std=5.0 if parameter.dim() > 1 else 0.0)
    else:
        cfg = tiny_cfg(family, *opts, "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT", 8)
        model = tiny_model(cfg)
    names = {} if family == "deeplab" else {"class_names": NAMES, "category_ids": IDS}
    return Predictor(cfg, model=model, **names, **options), cfg, model


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "images").mkdir()
    paths = []
    for number, (width, height) in enumerate(SIZES, start=1):
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        paths.append(tmp_path / "images" / f"{number}.png")
        Image.fromarray(noise).save(paths[-1])
    return paths


def as_coco(predictions) -> dict:
    """Make a dataset of every second detection, slightly moved."""
    images, annotations = [], []
    for number, prediction in enumerate(predictions, start=1):
        width, height = prediction.size
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        # reading a dataset drops the smallest boxes
        large = [entry for entry in prediction.to_coco(number) if min(entry["bbox"][2:]) > 4]
        for k, entry in enumerate(large[:12:2]):
            x, y, w, h = entry["bbox"]
            row = {"id": len(annotations) + 1, "image_id": number, "category_id": entry["category_id"], "iscrowd": 0}
            # inside the image: reading a dataset clips the others
            row |= {"bbox": [min(x + k % 3, width - w), min(y + k % 2, height - h), w, h], "area": w * h}
            if "segmentation" in entry:
                row["segmentation"] = entry["segmentation"]
            if "keypoints" in entry:
                points = np.array(entry["keypoints"]).reshape(-1, 3) + (k % 3, k % 2, 0)
                points[:, 2] = 2  # all visible
                row |= {"keypoints": points.ravel().tolist(), "num_keypoints": len(points)}
            annotations.append(row)
    categories = [{"id": number, "name": name} for number, name in zip(IDS, NAMES, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_figures(annotations: dict, entries: list[dict], kind: str) -> list[float]:
    """Compute AP, AP50 and AP75 with pycocotools."""
    truth = COCO()
    truth.dataset = annotations
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(entries), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[:3].tolist()


def write_panoptic(predictions, folder) -> dict:
    """Write the predicted segments, moved by two pixels, as a dataset; return its block."""
    images, annotations = [], []
    (folder / "segments").mkdir()
    for number, prediction in enumerate(predictions, start=1):
        width, height = prediction.size
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        ids = np.roll(prediction.panoptic_map, 2, axis=1)
        Image.fromarray(colors_from_ids(ids.astype(np.int32))).save(folder / "segments" / f"{number}.png")
        infos = []
        for k, segment in enumerate(prediction.segments, start=1):
            rows, columns = np.nonzero(ids == k)
            if len(rows):
                box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
                number_of_class = segment["category_id"] if segment["is_thing"] else STUFF_IDS[segment["label"] - 1]
                info = {"id": k, "category_id": number_of_class, "iscrowd": 0}
                infos.append(info | {"bbox": [int(value) for value in box], "area": len(rows)})
        annotations.append({"image_id": number, "file_name": f"{number}.png", "segments_info": infos})
    things = [{"id": number, "name": name, "isthing": 1} for number, name in zip(IDS, NAMES, strict=True)]
    stuff = [{"id": number, "name": name, "isthing": 0} for number, name in zip(STUFF_IDS, STUFF, strict=True)]
    content = {"images": images, "annotations": annotations, "categories": things + stuff}
    (folder / "segments.json").write_text(json.dumps(content))
    block = {"NAME": "test", "FORMAT": "coco_panoptic", "IMAGES": str(folder / "images")}
    return block | {"ANNOTATIONS": str(folder / "segments.json"), "SEGMENTS": str(folder / "segments")}


def figures_of_a_test(cfg, model, block) -> tuple[dict, object]:
    """Test as tools/test_net.py does; return the metrics and the dataset."""
    cfg.DATASETS.TEST = (block,)
    loaders = make_test_loaders(cfg)
    return run_test(cfg, model, loaders).figures, loaders["test"].dataset


@pytest.mark.parametrize("family, convention", PAIRS)
def test_batched_predictions_equal_single_images(family, convention, paths, tmp_path):
    predictor, _, _ = make(family, convention, tmp_path, batch_size=2)
    single = [predictor(path) for path in paths]
    assert family != "deeplab" or max(len(one.semantic_classes) for one in single) == len(STUFF)
    for one, other in zip(single, predictor(paths), strict=True):
        assert one.path == other.path and one.labels.tolist() == other.labels.tolist()
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3, rtol=0)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5, rtol=0)
        if family == "deeplab":
            assert (one.semantic_map == other.semantic_map).all()
            continue
        assert len(one) > 0
        if one.masks is not None:
            assert (one.mask_arrays() != other.mask_arrays()).sum() <= 1e-4 * one.mask_arrays().size
        if one.keypoints is not None:
            np.testing.assert_allclose(one.keypoints, other.keypoints, atol=1e-3, rtol=0)
        if one.panoptic is not None:
            assert (one.panoptic_map == other.panoptic_map).all() and one.segments == other.segments


@pytest.mark.parametrize("family, convention", [p for p in PAIRS if p.values[0] not in ("panoptic", "deeplab")])
def test_average_precision_equals_that_of_run_test(family, convention, paths, tmp_path):
    predictor, cfg, model = make(family, convention, tmp_path)
    predictions = predictor(paths)
    annotations = as_coco(predictions)
    (tmp_path / "objects.json").write_text(json.dumps(annotations))
    block = {"NAME": "test", "FORMAT": "coco", "IMAGES": str(tmp_path / "images")}
    figures, _ = figures_of_a_test(cfg, model, block | {"ANNOTATIONS": str(tmp_path / "objects.json")})
    entries = [entry for number, one in enumerate(predictions, start=1) for entry in one.to_coco(number)]
    kinds = ["bbox", *(["segm"] if cfg.MODEL.MASK_ON else []), *(["keypoints"] if cfg.MODEL.KEYPOINT_ON else [])]
    for kind in kinds:
        computed = coco_figures(annotations, entries, kind)
        expected = [figures[f"test/{kind}/{name}"] for name in ("AP", "AP50", "AP75")]
        assert 0.01 < computed[0] < 1 and computed == pytest.approx(expected, abs=1e-6), kind


@pytest.mark.parametrize("family, convention", [p for p in PAIRS if p.values[0] == "panoptic"])
def test_panoptic_quality_equals_that_of_run_test(family, convention, paths, tmp_path):
    predictor, cfg, model = make(family, convention, tmp_path)
    predictions = predictor(paths)
    figures, dataset = figures_of_a_test(cfg, model, write_panoptic(predictions, tmp_path))
    resolve_num_classes(cfg, dataset.class_names, semantic_names=label_names(dataset)["semantic_names"])
    quality = PanopticQuality(len(NAMES) + len(STUFF))
    for index, prediction in enumerate(predictions):
        quality.add_maps(dataset.panoptic(index), prediction.panoptic, len(NAMES))
    computed = quality.figures(np.arange(len(NAMES) + len(STUFF)) < len(NAMES))
    assert 0.05 < computed["PQ"] < 1
    for name, value in computed.items():
        assert value == pytest.approx(figures[f"test/panoptic/{name}"], abs=1e-6), name


@pytest.mark.parametrize("family, convention", [p for p in PAIRS if p.values[0] == "deeplab"])
def test_mean_iou_equals_that_of_run_test(family, convention, paths, tmp_path):
    predictor, cfg, model = make(family, convention, tmp_path)
    predictions = predictor(paths)
    folder = SemanticFolder(tmp_path / "semantic")
    confusion = SemanticConfusion(len(STUFF))
    for number, prediction in enumerate(predictions, start=1):
        truth = np.roll(prediction.semantic_map, 2, axis=1)
        folder.write_map(f"{number}.png", truth)
        confusion.add(truth, prediction.semantic_map)
    block = folder.block(NAME="test", CLASSES=STUFF, IMAGES=str(tmp_path / "images"), IMAGE_SUFFIX=".png")
    figures, _ = figures_of_a_test(cfg, model, block)
    computed = confusion.figures()
    assert 0.05 < computed["mIoU"] < 1
    for name, value in computed.items():
        assert value == pytest.approx(figures[f"test/semantic/{name}"], abs=1e-6), name
