"""Exported models give what the models do, on images and batches of sizes they were not traced with."""

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.export_cases import noise
from helpers.onnx_session import require
from helpers.tiny_data import write_images
from helpers.tiny_detector import tiny_detector
from PIL import Image

from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.engine.predictor_setup import setup_of
from maskrcnn_benchmark.engine.testing import make_test_loaders, run_test
from maskrcnn_benchmark.export import exporting, formats
from maskrcnn_benchmark.export.errors import NotExportable
from maskrcnn_benchmark.export.exported import (
    AsPixels,
    ExportedModel,
    config_of,
    exported_setup,
    open_whole,
    pixel_transforms,
)
from maskrcnn_benchmark.export.model import make_exportable
from maskrcnn_benchmark.export.parity import compare, compare_maps
from maskrcnn_benchmark.export.quantize import quantize


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    require("onnx", "onnxscript", "onnxruntime")
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


def test_predictor_of_exported_model_equals_that_of_the_model(onnx_file):
    parts = tiny_detector()
    ours, theirs = Predictor(setup=setup_of(*parts)), Predictor(setup=exported_setup(onnx_file))
    for image in noise((150, 200), (64, 40)):
        expected, found = (predictor(image, channel_order="rgb") for predictor in (ours, theirs))
        assert len(found) == len(expected) > 0 and found.names == expected.names
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
        alone = exporting.open_exported(onnx_file)(image)
        assert abs(len(alone) - len(found)) <= 2  # the runtime resizes for itself, up to 1 of 255 apart


def dataset_cfg(cfg, tmp_path):
    cfg.merge_from_list(["DATASETS.TEST", [write_images(tmp_path)], "OUTPUT_DIR", ""])
    return cfg


def test_figures_of_exported_model_equal_the_models(onnx_file, tmp_path):
    cfg, model, _ = tiny_detector()
    cfg = dataset_cfg(cfg, tmp_path)
    expected = run_test(cfg, model, make_test_loaders(cfg)).figures
    loaders = make_test_loaders(cfg)
    for loader in loaders.values():
        loader.dataset.set_transforms(pixel_transforms(cfg))
    found = run_test(cfg, ExportedModel(open_whole(onnx_file)), loaders).figures
    assert found == pytest.approx(expected, abs=1e-6) and found["test/bbox/AP"] >= 0


def test_config_of_exported_model_is_that_of_the_model(onnx_file):
    cfg, *_ = tiny_detector()
    assert config_of(open_whole(onnx_file)).dump() == cfg.dump()


def test_int8_keeps_the_detections_and_the_last_layers(onnx_file, tmp_path):
    import onnx

    output = str(tmp_path / "model_int8.onnx")
    images = noise((96, 96), (70, 121), (200, 90))
    assert quantize(onnx_file, images, output) == 6  # two levels of logits, boxes and centerness
    before, after = exporting.open_exported(onnx_file), exporting.open_exported(output)
    assert after.metadata == before.metadata
    inputs = {name for node in onnx.load(output).graph.node if node.op_type == "Conv" for name in node.input}
    assert any(name.endswith("cls_logits.weight") for name in inputs)
    assert not any(name.endswith("cls_tower.0.weight") for name in inputs)
    for image in images:
        expected, found = before(image), after(image)
        assert abs(len(found) - len(expected)) <= 3
        assert np.abs(found.scores[:3] - expected.scores[:3]).max() < 0.05


def test_int8_of_torch_export_is_refused(tmp_path):
    with pytest.raises(NotExportable, match="--int8 takes --format onnx or openvino"):
        quantize(str(tmp_path / "model.pt2"), [], str(tmp_path / "out.pt2"))


@pytest.mark.slow
def test_torch_export_equals_the_model_and_needs_torchvision_alone(tmp_path):
    path = str(tmp_path / "model.pt2")
    exporting.export_model(*tiny_detector(), path, "torch_export")
    images = noise((96, 96), (70, 121), (200, 90))
    parity = compare(setup_of(*tiny_detector()), exporting.open_exported(path), images)
    assert parity.detections > 20 and not parity.failures(), parity.lines()
    code = (
        "import sys, torch, torchvision; torch.export.load(sys.argv[1]); assert 'maskrcnn_benchmark' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True, cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"fixed_size": (96, 160), "batch": 2}, {"dense_only": True, "fixed_size": (160, 160)}]
)
def test_fixed_size_equals_the_model_on_padded_images(options, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path = str(tmp_path / "model.onnx")
    part = exporting.export_model(*tiny_detector(), path, **options)
    exported, setup = exporting.open_exported(path), setup_of(*tiny_detector())
    images = noise((96, 96), (70, 100))
    parity = (
        compare_maps(setup, exported, images, part) if "dense_only" in options else compare(setup, exported, images)
    )
    assert parity.images == 2 and not parity.failures(), parity.lines()


@pytest.mark.slow
def test_tools_take_exported_models(onnx_file, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    block = write_images(tmp_path)
    run = functools.partial(subprocess.run, env=environment, capture_output=True, text=True)
    predict = [sys.executable, str(ROOT / "tools/predict.py"), str(tmp_path / "1.png"), "--model", onnx_file]
    done = run([*predict, "--output", str(tmp_path / "found")])
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "found" / "results.json").read_text())
    config = tmp_path / "data.yaml"
    config.write_text(json.dumps({"DATASETS": {"TEST": [block | {"NAME": "other"}]}, "OUTPUT_DIR": str(tmp_path)}))
    done = run([sys.executable, str(ROOT / "tools/test_net.py"), "--config-file", str(config), "--model", onnx_file])
    assert "classes" in done.stderr  # those of the model are cell and plate, those of the data a and b
    annotations = json.loads((tmp_path / "objects.json").read_text())
    for category, name in zip(annotations["categories"], ("cell", "plate"), strict=True):
        category["name"] = name
    (tmp_path / "objects.json").write_text(json.dumps(annotations))
    done = run([sys.executable, str(ROOT / "tools/test_net.py"), "--config-file", str(config), "--model", onnx_file])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "inference" / "other").is_dir()


def test_padding_of_marked_pixels_is_no_part_of_the_image():
    class Recorded:
        metadata = {"box_offset": 1.0, "mask_pasting": {"padding": 1, "aligned": False}, "merge": None}
        metadata |= {"fixed_size": None, "pad_to": [32, 32]}

        def run(self, images, sizes, original_sizes):
            self.given = images, sizes
            return {"semantic": np.zeros((len(images), 3, *images.shape[1:3]), dtype=np.float32)}

    recorded = Recorded()
    black = AsPixels(marked=True)(torch.zeros(3, 20, 30, dtype=torch.uint8))
    padded = torch.nn.functional.pad(black, (0, 10, 0, 5))
    assert ExportedModel(recorded).logits([padded]).shape == (1, 3, 25, 40)
    assert recorded.given[1] == [(20, 30)] and not recorded.given[0].any()
    assert recorded.given[0].shape == (1, 32, 40, 3)


def test_difference_beyond_a_limit_fails(onnx_file):
    cfg, model, labels = tiny_detector()
    model.rpn.head.bbox_pred.bias.data += 0.001
    parity = compare(setup_of(cfg, model, labels), exporting.open_exported(onnx_file), noise((96, 96)))
    assert any("boxes differ" in failure for failure in parity.failures())


def load_tool():
    spec = importlib.util.spec_from_file_location("export_tool", ROOT / "tools" / "export.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def run_tool(monkeypatch, parts, onnx_file, tmp_path, *arguments) -> int:
    """Run tools/export.py with a model in memory, and a file that was already exported."""
    tool = load_tool()
    paths = []
    for number, pixels in enumerate(noise((96, 96), (70, 121))):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(pixels).save(paths[-1])

    def export_model(cfg, model, label_names, path, *options, **more):
        shutil.copy(onnx_file, path)
        return make_exportable(cfg, model)

    monkeypatch.setattr(tool, "load_model", lambda *args, **options: (*parts, None))
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


@pytest.mark.parametrize(("losses", "status"), [((0.009, 0.0), 0), ((0.0, 0.02), 1)])
def test_tool_fails_where_8_bits_cost_more_than_the_limit(losses, status, onnx_file, tmp_path, monkeypatch, capsys):
    cfg, *rest = tiny_detector()
    (tmp_path / "data").mkdir()
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = [write_images(tmp_path / "data")]
    arguments = ["--int8", "--calibrate", "2"]
    float32 = {"test/bbox/AP": 0.5, "test/bbox/AP50": 0.8, "test/segm/AP": 0.4, "test/keypoints/AP": -1.0}
    int8 = {name: value - losses["segm" in name] for name, value in float32.items()} | {"test/bbox/AP50": 0.1}
    figures = iter((float32, int8))
    module = "maskrcnn_benchmark.engine.testing"
    monkeypatch.setattr(f"{module}.run_test", lambda *args, **options: types.SimpleNamespace(figures=next(figures)))
    assert run_tool(monkeypatch, (cfg, *rest), onnx_file, tmp_path, *arguments) == status
    printed = capsys.readouterr()
    assert "calibrated on 2 images" in printed.out and "float32 0.5000, 8 bits" in printed.out
    assert ("FAIL: 8 bits cost 0.0200 of test/segm/AP, the limit is 0.01" in printed.err) == bool(status)
    assert (tmp_path / "model_int8.onnx").is_file()


def test_tool_stores_the_size_of_the_training_images(tmp_path, monkeypatch):
    tool, given = load_tool(), []
    monkeypatch.setattr(tool, "load_model", lambda *args, **options: (*tiny_detector(), [200, 160]))

    def export_model(cfg, model, label_names, path, *options, image_size):
        open(path, "w").close()
        given.append(image_size)
        return make_exportable(cfg, model)

    monkeypatch.setattr(tool.exporting, "export_model", export_model)
    output = str(tmp_path / "model.pt2")
    monkeypatch.setattr(sys, "argv", ["export.py", "--weights", "x.pth", "--output", output, "--compare", "0"])
    assert tool.main() == 0 and given == [[200, 160]]


ARGUMENTS = [
    ([], "give --config-file FILE, or --weights FILE"),
    (["--weights", "x", "--batch", "2"], "--batch goes with --fixed-size"),
    (["--weights", "x", "--calibrate", "2"], "go with --int8"),
    (["--weights", "x", "--max-loss", "0.1"], "go with --int8"),
    (["--weights", "x", "--fixed-size", "0", "32"], "--fixed-size must be at least 1"),
    (["--weights", "x", "--int8", "--calibrate", "0"], "--calibrate must be at least 1"),
    (["--weights", "x", "--compare", "-1"], "--compare must be 0"),
    (["--weights", "x", "--images", "nowhere.png"], "there is no file nowhere.png"),
    (["--weights", "x", "--format", "onnx", "--output", "m.xml"], "--format is onnx, but m.xml has the suffix"),
    (["--weights", "x", "--output", "m.pt2", "--int8"], "--int8 needs --format onnx or openvino"),
    (["--weights", "x", "--int8", "--dense-only"], "--int8 needs --format onnx or openvino"),
]


@pytest.mark.parametrize(("arguments", "message"), ARGUMENTS)
def test_arguments_without_effect_are_refused_before_the_model_is_loaded(arguments, message, monkeypatch):
    tool = load_tool()
    monkeypatch.setattr(tool, "load_model", lambda *args, **options: pytest.fail("the model is loaded"))
    monkeypatch.setattr(sys, "argv", ["export.py", *arguments])
    with pytest.raises((ValueError, OSError), match=message):
        tool.main()


def test_missing_package_is_named_before_the_model_is_loaded(monkeypatch):
    tool = load_tool()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnx", types.ModuleType("onnx"))
    monkeypatch.setattr(sys, "argv", ["export.py", "--weights", "x.pth"])
    with pytest.raises(ImportError, match=r"onnxscript: pip install 'maskrcnn-benchmark\[export\]'"):
        tool.main()


@pytest.mark.parametrize(
    ("path", "kind", "expected"),
    [
        ("model", None, ("model.onnx", "onnx")),
        ("model", "openvino", ("model.xml", "openvino")),
        ("a.b/model.pt2", None, ("a.b/model.pt2", "torch_export")),
        ("v1.2", "onnx", ("v1.2.onnx", "onnx")),
    ],
)
def test_format_follows_the_suffix_of_the_path(path, kind, expected):
    assert formats.path_and_format(path, kind) == expected


def test_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        formats.check_writable(str(tmp_path / "file" / "model.onnx"))

    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(formats.tempfile, "TemporaryFile", refuse)
    with pytest.raises(OSError, match="cannot write to .*: Permission denied; choose another --output"):
        formats.check_writable(str(tmp_path / "model.onnx"))


def test_failed_export_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("old")
    with pytest.raises(RuntimeError), formats.in_place_of(str(path)) as written:
        with open(written, "w") as file:
            file.write("half")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["model.onnx"]
    with formats.in_place_of(str(path)) as written:
        with open(written, "w") as file:
            file.write("new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["model.onnx"]


def test_files_that_are_no_exported_model_are_named(onnx_file, tmp_path):
    import onnx

    with pytest.raises(ValueError, match="no exported model: their names end in .onnx, .xml, .pt2"):
        exporting.open_exported("model_final.pth")
    for suffix in (".onnx", ".pt2"):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            exporting.open_exported(str(tmp_path / "nowhere") + suffix)
        torn = tmp_path / f"torn{suffix}"
        with open(onnx_file, "rb") as file:
            torn.write_bytes(file.read(5000))
        with pytest.raises(ValueError, match="torn.* is damaged"):
            exporting.open_exported(str(torn))
    file = onnx.load(onnx_file)
    del file.metadata_props[:]
    onnx.save(file, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="no metadata of maskrcnn_benchmark"):
        exporting.open_exported(str(tmp_path / "other.onnx"))


def test_operator_that_openvino_lacks_is_named(monkeypatch, tmp_path):
    def convert_model(path):
        raise RuntimeError("Summary:\n-- No conversion rule found for operations: DeformConv-20\n")

    monkeypatch.setitem(sys.modules, "openvino", types.SimpleNamespace(convert_model=convert_model))
    with pytest.raises(NotExportable, match="the ONNX operators DeformConv-20; --format onnx can"):
        formats.write_openvino("model.onnx", str(tmp_path / "model.xml"), {})
