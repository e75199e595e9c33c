import pickle
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.checkpoint.checkpointer import read_checkpoint

TOOL = str(Path(__file__).resolve().parents[2] / "tools" / "convert_checkpoint.py")

ANCHORS = "rpn.anchor_generator.cell_anchors.0"
OURS = {
    "backbone.body.stem.stem_1/conv.weight": (4, 3, 3, 3),
    "backbone.body.stage2.OSA2_1.layers.0.OSA2_1_0/conv.weight": (4, 4, 3, 3),
    "backbone.body.stage2.OSA2_1.layers.0.OSA2_1_0/norm.weight": (4,),
    "backbone.fpn.fpn_inner1.weight": (8, 4, 1, 1),
    "rpn.head.cls_logits.bias": (3,),
    "roi_heads.box.predictor.cls_score.weight": (5, 8),
    "roi_heads.box.predictor.bbox_pred.weight": (20, 8),
}


@pytest.fixture
def run(monkeypatch):
    """Function run(*arguments): run the script in this process."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [TOOL, *map(str, arguments)])
        runpy.run_path(TOOL, run_name="__main__")

    return run


@pytest.fixture
def trained(tmp_path, rng_seed):
    """Write a checkpoint; return its path and tensors. The unused box rows of the background class are 0."""
    model = {key: torch.randn(shape) for key, shape in OURS.items()}
    model["roi_heads.box.predictor.bbox_pred.weight"][:4] = 0
    solver = {"iteration": 7, "optimizer": {}}
    torch.save({"model": {**model, ANCHORS: torch.ones(3, 4)}, **solver}, tmp_path / "model_final.pth")
    return tmp_path / "model_final.pth", model


@pytest.mark.parametrize("dialect", ["detectron2", "mmdetection", "maskrcnn_benchmark"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_trained_model_survives_a_round_trip(trained, tmp_path, dialect, suffix, run, capsys):
    source, model = trained
    there, back = tmp_path / f"there{suffix}", tmp_path / f"back{suffix}"
    run(source, there, "--to", dialect)
    run(there, back, "--to", "maskrcnn_benchmark")
    printed = capsys.readouterr().out
    again = read_checkpoint(back)
    assert again.keys() == {"model"}
    assert again["model"].keys() - {ANCHORS} == model.keys()
    assert all(torch.equal(again["model"][key], value) for key, value in model.items())
    if dialect == "detectron2":
        assert f"7 tensors of {source} (maskrcnn_benchmark) written to {there} (detectron2)" in printed
        assert f"left out: {ANCHORS}" in printed
        assert read_checkpoint(there)["model"]["roi_heads.box_predictor.bbox_pred.weight"].shape == (16, 8)


def test_timm_gets_only_the_body_without_a_top_level_entry(trained, tmp_path, run, capsys):
    source, model = trained
    run(source, tmp_path / "timm.pth", "--to", "timm")
    bare = torch.load(tmp_path / "timm.pth", weights_only=True)
    step = "stages.0.blocks.0.conv_mid.0"
    assert list(bare) == ["stem.0.conv.weight", f"{step}.conv.weight", f"{step}.bn.weight"]
    assert torch.equal(bare["stem.0.conv.weight"], model["backbone.body.stem.stem_1/conv.weight"])
    assert capsys.readouterr().out.count("left out: ") == 5


def test_model_zoo_files_of_detectron2_are_read(tmp_path, run, rng_seed, capsys):
    weight = np.random.default_rng(rng_seed).random((4, 3, 7, 7), np.float32)
    zoo = {"model": {"stem.conv1.weight": weight, "res2.0.conv1.norm.bias": weight[0, 0, 0]}, "__author__": "x"}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({**zoo, "matching_heuristics": True}))
    run(tmp_path / "R-50.pkl", tmp_path / "ours.pth", "--to", "maskrcnn_benchmark")
    assert "(detectron2 ResNet)" in capsys.readouterr().out
    ours = read_checkpoint(tmp_path / "ours.pth")["model"]
    assert list(ours) == ["stem.conv1.weight", "layer1.0.bn1.bias"]
    assert np.array_equal(ours["stem.conv1.weight"].numpy(), weight)


def test_caffe2_files_are_read(tmp_path, run):
    blobs = {"conv1_w": np.ones((4, 3, 7, 7), np.float32), "res2_0_branch2a_bn_s": np.ones(4, np.float32)}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    run(tmp_path / "R-50.pkl", tmp_path / "ours.pth", "--to", "maskrcnn_benchmark")
    assert list(read_checkpoint(tmp_path / "ours.pth")["model"]) == ["conv1.weight", "layer1.0.bn1.weight"]


def test_user_errors_print_no_traceback(trained, tmp_path, run):
    source, _ = trained
    with pytest.raises(SystemExit, match="is the file to convert"):
        run(source, source, "--to", "detectron2")
    torch.save({"x.weight": torch.ones(1)}, tmp_path / "odd.pth")
    with pytest.raises(SystemExit, match=r"odd\.pth: timm has no names for x\.weight"):
        run(tmp_path / "odd.pth", tmp_path / "o.pth", "--to", "timm")
    assert not (tmp_path / "o.pth").exists()
