import sys

import pytest
from PIL import Image

from maskrcnn_benchmark.visual.figure_file import check_figure_file, new_figure, save_figure


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "new/folder/a.png"])
def test_extension_selects_the_format(tmp_path, name):
    pytest.importorskip("matplotlib")
    save_figure(new_figure(figsize=(2, 1), dpi=50), tmp_path / name)
    with Image.open(tmp_path / name) as image:
        assert (image.format, image.size) == ("PNG", (100, 50))


@pytest.mark.parametrize("name", ["a.word", "a"])
def test_unknown_extensions_are_refused(tmp_path, name):
    pytest.importorskip("matplotlib")
    for attempt in (check_figure_file, lambda path: save_figure(new_figure(), path)):
        with pytest.raises(ValueError, match=r"can't draw to .* is unknown; use one of .*png"):
            attempt(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_missing_matplotlib_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install .*\[plot\]"):
        check_figure_file("a.png")
