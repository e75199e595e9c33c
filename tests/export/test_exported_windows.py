"""Windows of large images have the same size with an exported model as with the eager one."""

import json
import logging
import types

import pytest
import torch
from helpers.export_cases import case
from helpers.tiny_detector import tiny_detector
from helpers.tiny_models import tiny_cfg, tiny_model
from PIL import Image

from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.engine.predictor_setup import load_model
from maskrcnn_benchmark.export import exporting, formats
from maskrcnn_benchmark.export.exported import exported_setup


@pytest.fixture
def exported_in_memory(monkeypatch):
    """Return a function that takes the arguments of export_model and makes exported_setup open the result."""

    def export(*parts, **options):
        texts = []
        monkeypatch.setattr(formats, "trace", lambda *args: None)
        monkeypatch.setattr(formats, "write_torch_export", lambda *args: texts.append(json.dumps(args[-1])))
        exporting.export_model(*parts, "model.pt2", "torch_export", **options)
        opened = types.SimpleNamespace(path="model.pt2", metadata=json.loads(texts[0]))
        monkeypatch.setattr("maskrcnn_benchmark.export.exported.open_exported", lambda path, threads: opened)
        return opened.metadata

    return export


def size_of(transform, height: int, width: int) -> tuple[int, int]:
    return tuple(transform(torch.zeros(3, height, width, dtype=torch.uint8)).shape[1:])


# In training, 200 x 160 pixels are resized to 120 x 96.
@pytest.mark.parametrize(
    ("tiles", "image_size", "side"),
    [(60, [200, 160], 96), (160, [200, 160], 96), (400, [200, 160], 240), (400, None, 96)],
)
def test_windows_of_exported_model_have_the_size_of_the_models(tiles, image_size, side, exported_in_memory, tmp_path):
    cfg = tiny_cfg("fcos", "INPUT.MIN_SIZE_TEST", 96, "INPUT.MAX_SIZE_TEST", 160)
    weights = tmp_path / "model.pth"
    entries = {"class_names": ["red", "green"], "config": cfg.dump(), "image_size": image_size}
    torch.save({"model": tiny_model(cfg).state_dict(), **entries}, weights)
    *parts, found_size = load_model(None, weights, device="cpu", dtype="float32")
    exported_in_memory(*parts, image_size=found_size)
    eager, setup = Predictor.from_checkpoint(weights, tiles=tiles).setup, exported_setup("model.pt2", tiles=tiles)
    for size in ((tiles, tiles), (tiles, tiles // 2), (tiles // 3, tiles)):
        assert size_of(setup.window_transform, *size) == size_of(eager.window_transform, *size)
        assert size_of(setup.transform, *size) == size_of(eager.transform, *size)
    assert size_of(setup.window_transform, tiles, tiles) == (side, side)
    assert setup.window_transform(Image.new("RGB", (tiles, tiles))).dtype == torch.uint8


def test_file_without_the_size_of_training_images_resizes_windows_as_images_with_a_warning(exported_in_memory, caplog):
    metadata = exported_in_memory(*tiny_detector(), image_size=[200, 160])
    del metadata["image_size"]  # as older versions wrote it
    with caplog.at_level(logging.WARNING):
        assert exported_setup("model.pt2").window_transform is None and not caplog.text
        setup = exported_setup("model.pt2", tiles=400)
    assert setup.window_transform is None and size_of(setup.transform, 400, 400) == (96, 96)
    (record,) = caplog.records
    assert "model.pt2 was exported without the size of the training images" in record.getMessage()


def test_windows_of_exported_semantic_model_are_left_to_the_model(exported_in_memory):
    exported_in_memory(*case("deeplab"), image_size=[200, 160])
    setup = exported_setup("model.pt2", tiles=400)
    assert setup.tiles_itself and setup.window_transform is None
