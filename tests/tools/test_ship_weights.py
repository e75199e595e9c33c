"""tools/ship_weights.py: weights and description of a model that comes with the package."""

import json

import pytest

pytest.importorskip("sklearn")

from conftest import ROOT  # noqa: E402

from maskrcnn_benchmark.checkpoint.checkpointer import write_checkpoint  # noqa: E402
from maskrcnn_benchmark.checkpoint.safetensors_file import read_safetensors  # noqa: E402
from maskrcnn_benchmark.checkpoint.shipped import shipped_model  # noqa: E402
from maskrcnn_benchmark.data.digits import make_digits  # noqa: E402
from maskrcnn_benchmark.engine.predictor_setup import config_with  # noqa: E402
from tools import ship_weights  # noqa: E402


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """Return a function that writes a training's last checkpoint of a shipped model, in float32."""
    make_digits(tmp_path / "digits", train=1, test=12, seed=5)
    monkeypatch.setenv("MB_DATASETS", str(tmp_path))

    def write(name, change=lambda tensor: tensor):
        model = shipped_model(name)
        state = {
            key: change(tensor.float()) if tensor.is_floating_point() else tensor
            for key, tensor in read_safetensors(model.path).items()
        }
        cfg = config_with(model.config)
        cfg.DTYPE, cfg.OUTPUT_DIR = "bfloat16", "output/x"
        entries = {"config": cfg.dump(), "class_names": list(model.class_names), "category_ids": [*range(1, 11)]}
        path = tmp_path / "model_final.pth"
        write_checkpoint(path, {"model": state, **entries})
        return path

    return write


@pytest.mark.parametrize("name", ["digits_fcos", "digits_mask_rcnn"])
def test_shipping_a_shipped_model_again_gives_the_same_file(name, checkpoint, tmp_path):
    made = ship_weights.ship(str(checkpoint(name)), name, tmp_path / "weights", "summary", "command")
    known = shipped_model(name)
    assert shipped_model(name, tmp_path / "weights") == made
    assert made.sha256 == known.sha256 and made.parameters == known.parameters
    assert made.config == known.config and made.class_names == known.class_names
    assert set(made.figures) == set(known.figures), "box, and mask where there are masks"
    assert all(0.5 < made.figures[each] <= 1 for each in made.figures if each.endswith("AP50"))
    written = (tmp_path / "weights" / f"{name}.json").read_text()
    assert '"class_names": ["0", "1", ' in written and json.loads(written)["date"] == made.date


def test_a_model_that_finds_nothing_leaves_the_files_as_they_were(checkpoint, tmp_path):
    path = checkpoint("digits_fcos", lambda tensor: tensor * 0)
    with pytest.raises(ValueError, match="nothing to ship"):
        ship_weights.ship(str(path), "digits_fcos", tmp_path / "weights", "summary", "command")
    assert not (tmp_path / "weights").exists()


def test_every_shipped_model_can_be_made_again():
    makefile = (ROOT / "Makefile").read_text()
    for name in ship_weights.SUMMARIES:
        assert (ROOT / "configs" / "quick" / f"{name.replace('digits_', '')}_digits_tiny.yaml").is_file()
    assert "tools/ship_weights.py" in makefile and "--name digits_$$model" in makefile
