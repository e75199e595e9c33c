import os

import numpy as np
import pytest
from PIL import Image

from maskrcnn_benchmark.data.datasets import COCODataset
from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings
from maskrcnn_benchmark.data.datasets.images import read_header, read_headers, read_image


def values(path, **options):
    return np.asarray(read_image(str(path), **options))[0, :, 0].tolist()


def test_sixteen_bits_are_reduced_to_the_upper_eight_or_mapped_by_a_range(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 2048, 4095, 65535]], dtype=np.uint16)).save(path)
    assert values(path) == [0, 8, 15, 255]
    assert values(path, value_range=(0, 4095)) == [0, 128, 255, 255]


@pytest.mark.parametrize(
    "pixels, expected",
    [([0, 0.5, 1], [0, 128, 255]), ([0, 128, 255], [0, 128, 255]), ([np.nan, 0.2, np.inf], [0, 0, 255])],
)
def test_floats_are_unit_range_if_none_exceeds_one(tmp_path, pixels, expected):
    path = tmp_path / "a.tif"
    Image.fromarray(np.array([pixels], dtype=np.float32)).save(path)
    assert values(path) == expected


def test_negative_and_large_whole_numbers_are_clipped_or_mapped(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.array([[-1000, 0, 70000]], dtype=np.int32)).save(path)
    assert values(path) == [0, 0, 255]
    assert values(path, value_range=(-1000, 1000)) == [0, 128, 255]


def test_sixteen_bit_colours_are_mapped_too(tmp_path):
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.array([[[0, 2048, 4095]]], dtype=np.uint16))  # blue, green, red
    assert read_header(str(path)).deep and read_header(str(path)).mode == "RGB"
    assert np.asarray(read_image(str(path)))[0, 0].tolist() == [15, 8, 0]
    assert np.asarray(read_image(str(path), value_range=(0, 4095)))[0, 0].tolist() == [255, 128, 0]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_eight_bit_modes_are_converted_to_rgb(tmp_path, mode):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[[0] * 3, [255] * 3]], dtype=np.uint8)).convert(mode).save(path)
    assert values(path) == [0, 255]


def test_first_frame_of_an_animation_is_used(tmp_path):
    path = tmp_path / "a.gif"
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert read_header(str(path)).animated and set(values(path)) == {10}


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_truncated_file_is_reported_while_reading(tmp_path, name):
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    found = []
    read_image(str(path), on_truncated=lambda: found.append(1))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert found == []
    assert read_image(str(path), on_truncated=lambda: found.append(1)).size == (64, 64) and found == [1]


def test_image_truncated_after_the_start_is_counted_and_logged_once(coco_folder, caplog):
    path = coco_folder.add_image(3, size=(400, 300))
    dataset = COCODataset(**coco_folder.write(), remove_images_without_annotations=False)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    dataset[0], dataset[0]
    messages = [r.getMessage() for r in caplog.records if "truncated now" in r.getMessage()]
    assert len(messages) == 1 and "image id 3" in messages[0] and "1 such images so far" in messages[0]


def test_named_pipe_as_an_image_is_refused_at_the_start(coco_folder):
    path = coco_folder.add_image(1)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="1 of 1 images .* cannot be decoded: 1.jpg: .* is a named pipe"):
        COCODataset(**coco_folder.write(), remove_images_without_annotations=False)


@pytest.mark.parametrize("highest, settings, warned", [(4095, (), True), (65000, (), False), (4095, (0, 4095), False)])
def test_values_that_use_little_of_the_range_give_a_warning(coco_folder, caplog, highest, settings, warned):
    path = coco_folder.add_image(1, size=(4, 1), file_name="1.png")
    Image.fromarray(np.array([[0, 1, 2, highest]], dtype=np.uint16)).save(path)
    dataset = COCODataset(
        **coco_folder.write(),
        remove_images_without_annotations=False,
        images=ImageSettings(value_range=settings),
    )
    assert ("INPUT.VALUE_RANGE: (0, 4095) maps them" in caplog.text) == warned
    assert "mapped to 0..255 (INPUT.VALUE_RANGE)" in str(dataset.report)


def test_named_pipe_as_annotations_is_refused_at_once_by_its_key(tmp_path):
    os.mkfifo(tmp_path / "boxes.json")
    with pytest.raises(OSError, match=r"annotation file \(ANNOTATIONS\) .*boxes.json is a named pipe"):
        COCODataset(str(tmp_path / "boxes.json"), str(tmp_path), False)


def test_errors_name_the_file_and_not_an_open_reader(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"no image")
    (error,) = read_headers([str(path)])
    assert str(error) == "not an image in a format that PIL reads"
    with pytest.raises(OSError, match=f"^{path} is not an image in a format that PIL reads$"):
        read_image(str(path))
