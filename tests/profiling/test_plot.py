"""Plot of speed against accuracy, and the table of published results."""

import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from maskrcnn_benchmark.profiling.measure import Measurement, Spread
from maskrcnn_benchmark.profiling.plot import save_plot
from maskrcnn_benchmark.profiling.published import TABLES, config_name, published_accuracy


def measurement(name, milliseconds):
    return Measurement(
        name=name,
        device="cpu",
        dtype="float32",
        weights="random",
        parameters=1,
        multiply_adds={"total": 1},
        network_input=(1, 1),
        detections=1.0,
        stage_ms={},
        detect_ms=Spread(milliseconds, milliseconds * 0.9, milliseconds * 1.2),
        images_per_second=1e3 / milliseconds,
        operations_per_second=1.0,
        test_memory=None,
    )


def test_plot_depends_on_the_measured_networks(tmp_path):
    pytest.importorskip("matplotlib")
    drawn = {}
    for name in ("e2e_faster_rcnn_V_39_FPN_2x", "of_my_own"):
        save_plot([measurement(name, 300.0)], tmp_path / f"{name}.png")
        drawn[name] = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"))
        assert drawn[name].shape[0] > 500
    assert (drawn["of_my_own"] != drawn["e2e_faster_rcnn_V_39_FPN_2x"]).any()


def test_missing_matplotlib_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install .*\[plot\]"):
        save_plot([measurement("fcos", 1.0)], tmp_path / "plot.png")


def test_published_results_refer_to_existing_config_files():
    files = {config_name(path) for path in (ROOT / "configs").rglob("*.yaml")}
    named = [row.config for table in TABLES for row in table.rows if row.config]
    assert set(named) <= files
    assert len(set(named)) == len(named)


def test_accuracy_of_a_config():
    assert published_accuracy("e2e_faster_rcnn_V_39_FPN_2x") == ("box AP", 39.8)
    assert published_accuracy("v1/centermask_V_39_eSE_FPN_ms_3x") == ("box AP", 43.5)
    assert published_accuracy("v2/centermask_V_39_eSE_FPN_ms_3x") == ("box AP", 44.2)
    assert published_accuracy("fcos_digits") is None
    assert published_accuracy("") is None
