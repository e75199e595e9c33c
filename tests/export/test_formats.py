"""Every kind of model in every format gives what the model does, on sizes it was not traced with."""

import numpy as np
import pytest
from helpers.export_cases import CASES, case, noise
from helpers.onnx_session import require

from maskrcnn_benchmark.engine.predictor_setup import setup_of
from maskrcnn_benchmark.export import exporting, formats
from maskrcnn_benchmark.export.errors import NotExportable
from maskrcnn_benchmark.export.parity import compare, compare_maps

IMAGES = noise((128, 128), (140, 171), (90, 200), (3, 300))
DENSE = ("mask, mmdetection", "centermask2", "panoptic centermask", "deeplab")
FIXED = ("retinanet, detectron2", "mask and keypoint", "centermask2", "cascade mask, mmdetection")
PROGRAMS = (
    "mask, mmdetection",
    "deformable VoVNet",
    "deeplab",
    "mask scoring on fcos",
    "mask and keypoint",
    "keypoint, detectron2",
)


def images_for(name):
    """Leave out the flat image for keypoints: heatmaps are equal in both lines, so rounding decides."""
    return IMAGES[:3] if "keypoint" in name else IMAGES


def assert_equal(parts, path, images):
    exported = exporting.open_exported(str(path))
    parity = compare(setup_of(*parts), exported, images)
    assert (parity.detections or parity.pixels) and not parity.failures(), (path, parity.lines())
    # a pixel has one color, on which GroupNorm divides rounding by almost 0, so only the shape is compared
    for image in [*images, *noise((1, 1))]:
        assert exported(image).size == image.shape[1::-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_onnx_and_openvino_equal_the_model(name, tmp_path):
    require("onnx", "onnxscript", "onnxruntime")
    onnx, openvino = str(tmp_path / "model.onnx"), str(tmp_path / "model.xml")
    parts = case(name)
    exporting.export_model(*parts, onnx)
    assert_equal(parts, onnx, images_for(name))
    require("openvino")
    metadata = exporting.open_exported(onnx).metadata
    if "deformable" in name:
        with pytest.raises(NotExportable, match="DeformConv"):
            formats.write_openvino(onnx, openvino, metadata)
        exporting.export_model(*parts, openvino, "openvino")  # with GridSample instead
    else:
        formats.write_openvino(onnx, openvino, metadata)
    assert_equal(parts, openvino, images_for(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_torch_export_equals_the_model(name, tmp_path):
    parts = case(name)
    path = str(tmp_path / "model.pt2")
    exporting.export_model(*parts, path, "torch_export")
    assert_equal(parts, path, images_for(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", FIXED)
def test_fixed_sizes_equal_the_model_on_padded_images(name, tmp_path):
    require("onnx", "onnxscript", "onnxruntime")
    parts = case(name)
    path = str(tmp_path / "model.onnx")
    exporting.export_model(*parts, path, fixed_size=(160, 192), batch=2)
    assert_equal(parts, path, IMAGES[:2])


@pytest.mark.slow
@pytest.mark.parametrize("name", DENSE)
def test_dense_parts_equal_the_model(name, tmp_path):
    require("onnx", "onnxscript", "onnxruntime")
    parts = case(name)
    path = str(tmp_path / "model.onnx")
    part = exporting.export_model(*parts, path, dense_only=True)
    parity = compare_maps(setup_of(*parts), exporting.open_exported(path), IMAGES, part)
    assert parity.images == len(IMAGES) and not parity.failures(), parity.lines()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["faster", "panoptic centermask"])
@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_batches_equal_images_one_by_one(name, suffix, tmp_path):
    require(*formats.PACKAGES["onnx" if suffix == ".onnx" else "openvino"])
    path = str(tmp_path / "model") + suffix
    exporting.export_model(*case(name), path, "onnx" if suffix == ".onnx" else "openvino")
    model = exporting.open_exported(path)
    sizes = [(128, 160), (96, 100), (128, 60)]
    images = np.zeros((3, 128, 160, 3), dtype=np.uint8)
    for image, pixels, (height, width) in zip(images, noise(*sizes), sizes, strict=True):
        image[:height, :width] = pixels
    images[2] = 0  # nothing to see
    together = model.run(images, sizes)
    for k, size in enumerate(sizes):
        alone = model.run(images[k : k + 1], [size])
        assert alone["count"][0] == together["count"][k]
        np.testing.assert_allclose(alone["boxes"][0], together["boxes"][k], atol=1e-2)
        np.testing.assert_allclose(alone["scores"][0], together["scores"][k], atol=1e-4)
