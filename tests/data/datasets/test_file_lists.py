import pytest

from maskrcnn_benchmark.data.datasets.file_lists import IMAGE_ENDINGS, image_names, list_images


@pytest.mark.parametrize("ending", [*IMAGE_ENDINGS, ".ppm", ".JPG"])
def test_images_are_found_by_their_ending(tmp_path, ending):
    (tmp_path / "a").mkdir()
    for name in (f"a/x{ending}", f".x{ending}", "x.txt"):
        (tmp_path / name).touch()
    assert list_images(str(tmp_path)) == [str(tmp_path / "a" / f"x{ending}")]
    assert image_names(str(tmp_path)) == [f"a/x{ending}"]
