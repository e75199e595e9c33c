import sys

import pytest
from PIL import Image

from maskrcnn_benchmark.visual.figure_file import check_figure_file, new_figure, save_figure


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "new/folder/a.png"])
def test_the_ending_says_what_is_written(tmp_path, name):
    pytest.importorskip("matplotlib")
    save_figure(new_figure(figsize=(2, 1), dpi=50), tmp_path / name)
    with Image.open(tmp_path / name) as picture:
        assert (picture.format, picture.size) == ("PNG", (100, 50))


@pytest.mark.parametrize("name", ["a.word", "a"])
def test_unknown_endings_are_named_and_nothing_is_written(tmp_path, name):
    pytest.importorskip("matplotlib")
    for attempt in (check_figure_file, lambda path: save_figure(new_figure(), path)):
        with pytest.raises(ValueError, match=r"can't draw to .* is unknown; use one of .*png"):
            attempt(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install .*\[plot\]"):
        check_figure_file("a.png")
