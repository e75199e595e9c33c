"""Which weights tools/test_net.py tests."""

from types import SimpleNamespace

import pytest
import torch

from maskrcnn_benchmark.checkpoint.checkpointer import Checkpointer
from maskrcnn_benchmark.engine.testing import choose_weights


@pytest.fixture
def choose(tmp_path):
    """Function choose(weight, ckpt, opts, trained); with `trained`, OUTPUT_DIR has a checkpoint."""

    def call(weight="", ckpt=None, opts=(), trained=False):
        checkpointer = Checkpointer(torch.nn.Linear(1, 1), save_dir=str(tmp_path), save_to_disk=True)
        if trained:
            checkpointer.save("model_final")
        cfg = SimpleNamespace(MODEL=SimpleNamespace(WEIGHT=weight), OUTPUT_DIR=str(tmp_path))
        chosen = choose_weights(cfg, checkpointer, ckpt, list(opts))
        return chosen.replace(str(tmp_path), "out")

    return call


def test_ckpt_overrides_everything(choose):
    assert choose("w.pth", "c.pth", ["MODEL.WEIGHT", "w.pth"], trained=True) == "c.pth"


def test_weight_on_the_command_line_overrides_the_last_checkpoint(choose):
    assert choose("w.pth", opts=["DTYPE", "float32", "MODEL.WEIGHT", "w.pth"], trained=True) == "w.pth"
    assert choose("", opts=["MODEL.WEIGHT", ""], trained=True) == ""


def test_last_checkpoint_overrides_the_weight_of_the_config_file(choose):
    assert choose("imagenet.pth") == "imagenet.pth"
    assert choose("imagenet.pth", trained=True) == "out/model_final.pth"


def test_no_weights_are_an_error(choose):
    with pytest.raises(ValueError, match="no weights to test"):
        choose("")
