import pytest

from maskrcnn_benchmark.data.datasets.image_settings import ImageSettings, upright_unless_stored


@pytest.mark.parametrize("given, result", [("auto", "upright"), ("upright", "upright"), ("stored", "stored")])
def test_auto_becomes_upright_and_other_settings_stay(given, result):
    images = ImageSettings(given, "scale", (0, 9))
    assert upright_unless_stored(images) == ImageSettings(result, "scale", (0, 9))
    assert images.exif_rotation == given
    assert upright_unless_stored(None) == ImageSettings("upright")
