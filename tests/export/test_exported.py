"""Exported models give what the models do, on images and batches of sizes they were not traced with."""

import importlib.util
import shutil
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.tiny_detector import tiny_detector
from helpers.tiny_models import tiny_cfg, tiny_model
from PIL import Image

from maskrcnn_benchmark.engine.predictor_setup import setup_of
from maskrcnn_benchmark.export import exporting, formats
from maskrcnn_benchmark.export.model import make_exportable
from maskrcnn_benchmark.export.parity import compare
from maskrcnn_benchmark.structures.label_names import LabelNames

LABELS = LabelNames(["a", "b"])


def noise(*sizes):
    """Return images of smooth noise, (height, width) each, the same at every call."""
    generator = np.random.default_rng(0)
    images = []
    for height, width in sizes:
        coarse = generator.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
        images.append(np.ascontiguousarray(coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]))
    return images


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install -e '.[export]'")
    path = str(tmp_path_factory.mktemp("exported") / "model.onnx")
    exporting.export_model(*tiny_detector(), path)
    return path


def test_onnx_detections_equal_the_models(onnx_file):
    parity = compare(
        setup_of(*tiny_detector()), exporting.open_exported(onnx_file), noise((96, 96), (70, 121), (200, 90))
    )
    assert parity.detections > 20 and parity.images == 3
    assert not parity.failures(), parity.lines()


def test_onnx_file_takes_batches_and_pads_outputs(onnx_file):
    model = exporting.open_exported(onnx_file)
    images = np.zeros((3, 96, 128, 3), dtype=np.uint8)
    sizes = [(96, 128), (80, 100), (50, 50)]
    for image, pixels, (height, width) in zip(images, noise(*sizes), sizes, strict=True):
        image[:height, :width] = pixels
    together = model.run(images, sizes)
    assert together["boxes"].shape == (3, 20, 4) and together["labels"].dtype == np.int64
    for k, count in enumerate(together["count"]):
        assert not together["boxes"][k, count:].any() and not together["scores"][k, count:].any()
        assert set(together["labels"][k, :count]) <= {1, 2}
        alone = model.run(images[k : k + 1], sizes[k : k + 1])
        assert alone["count"][0] == count
        np.testing.assert_allclose(alone["boxes"][0], together["boxes"][k], atol=1e-3)


def test_onnx_file_describes_itself_and_has_standard_operators_alone(onnx_file):
    import onnx

    file = onnx.load(onnx_file)
    assert [each.domain for each in file.opset_import] == [""] and not file.functions
    metadata = exporting.open_exported(onnx_file).metadata
    assert metadata["class_names"] == ["cell", "plate"] and metadata["category_ids"] == [4, 9]
    assert metadata["thresholds"] == {"score": 0.3, "nms": 0.6, "detections": 20}
    assert metadata["size_divisible"] == 32 and metadata["min_size"] == 96


def test_runtime_predicts_original_images(onnx_file):
    model = exporting.open_exported(onnx_file)
    (image,) = noise((150, 200))
    found = model(image)
    assert found.size == (200, 150) and len(found) and set(found.names) <= {"cell", "plate"}
    assert found.boxes.max() > 128  # in pixels of the original, not of the network's 96 x 128


def test_difference_beyond_a_limit_fails(onnx_file):
    cfg, model, labels = tiny_detector()
    model.rpn.head.bbox_pred.bias.data += 0.001
    parity = compare(setup_of(cfg, model, labels), exporting.open_exported(onnx_file), noise((96, 96)))
    assert any("boxes differ" in failure for failure in parity.failures())


def run_tool(monkeypatch, parts, onnx_file, tmp_path, *arguments) -> int:
    """Run tools/export.py with a model in memory, and a file that was already exported."""
    spec = importlib.util.spec_from_file_location("export_tool", ROOT / "tools" / "export.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    paths = []
    for number, pixels in enumerate(noise((96, 96), (70, 121))):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(pixels).save(paths[-1])

    def export_model(cfg, model, label_names, path, *options):
        shutil.copy(onnx_file, path)
        return make_exportable(cfg, model)

    monkeypatch.setattr(tool, "load_model", lambda *args, **options: parts)
    monkeypatch.setattr(tool.exporting, "export_model", export_model)
    output = str(tmp_path / "model")
    monkeypatch.setattr(
        sys, "argv", ["export.py", "--weights", "x.pth", "A.B", "1", "--output", output, "--images", *paths, *arguments]
    )
    return tool.main()


def test_tool_reports_parity_and_copies_the_runtime(onnx_file, tmp_path, monkeypatch, capsys):
    assert run_tool(monkeypatch, tiny_detector(), onnx_file, tmp_path, "--with-runtime") == 0
    printed = capsys.readouterr().out
    assert "largest difference    boxes" in printed and "opset 20, torch" in printed and "eager" in printed
    assert (tmp_path / "model.onnx").is_file() and (tmp_path / "runtime.py").is_file()


def test_tool_fails_where_the_exported_model_differs(onnx_file, tmp_path, monkeypatch, capsys):
    parts = tiny_detector()
    parts[1].rpn.head.bbox_pred.bias.data += 0.001
    assert run_tool(monkeypatch, parts, onnx_file, tmp_path) == 1
    assert "FAIL: boxes differ" in capsys.readouterr().err


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"onnxscript: pip install 'maskrcnn-benchmark\[export\]'"):
        formats.need("onnxscript")


FAMILIES = [
    *[(name, "maskrcnn_benchmark") for name in ("fcos", "retinanet", "rpn", "faster", "mask and keypoint")],
    *[(name, "detectron2") for name in ("retinanet", "mask", "panoptic", "cascade mask")],
    *[(name, "mmdetection") for name in ("mask", "cascade mask")],
    *[(name, "centermask2") for name in ("centermask", "panoptic centermask")],
]


def family(name: str, convention: str):
    torch.manual_seed(3)
    sizes = ["INPUT.MIN_SIZE_TEST", 128, "INPUT.MAX_SIZE_TEST", 192, "DATALOADER.SIZE_DIVISIBILITY", 32]
    cfg = tiny_cfg(name, "MODEL.CONVENTION", convention, *sizes)
    return cfg, tiny_model(cfg), LABELS


@pytest.mark.slow
@pytest.mark.parametrize(("name", "convention"), FAMILIES)
def test_onnx_of_every_family_equals_the_model(name, convention, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path = str(tmp_path / "model.onnx")
    parts = family(name, convention)
    exporting.export_model(*parts, path)
    parity = compare(setup_of(*parts), exporting.open_exported(path), noise((128, 128), (140, 171), (90, 200)))
    assert (parity.detections or parity.pixels) and not parity.failures(), parity.lines()
