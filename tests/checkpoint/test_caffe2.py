import pickle

import numpy as np
import pytest
import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.body_check import check_body
from maskrcnn_benchmark.checkpoint.caffe2 import load_c2_format, rename_c2
from maskrcnn_benchmark.checkpoint.checkpointer import DetectronCheckpointer
from maskrcnn_benchmark.checkpoint.matching import match_state_dicts

GOLDEN_FILE = "c2_R-50 names -> mask_R_50_FPN"


def make_cfg(body="R-50-FPN"):
    return CfgNode({"MODEL": {"BACKBONE": {"CONV_BODY": body}}})


def write_c2(path, blobs):
    path.write_bytes(pickle.dumps({"blobs": blobs, "cfg": "yaml text"}, protocol=2))


def test_names_equal_the_forks(matching):
    table = matching["c2_rename_R-50"]
    assert {name: rename_c2(name) for name in table} == table


@pytest.mark.parametrize(
    "name, ours",
    [
        ("res4_22_branch2b_w", "layer3.22.conv2.weight"),
        ("fpn_inner_res4_22_sum_lateral_w", "fpn_inner3.weight"),
        ("fpn_res4_35_sum_b", "fpn_layer3.bias"),
        ("fpn_inner_res3_7_sum_lateral_b", "fpn_inner2.bias"),
        ("weight_order", None),
    ],
)
def test_deeper_resnets(name, ours):
    assert rename_c2(name) == ours


def test_a_detector_file_loads_the_same_tensors_as_in_the_forks(matching):
    model = {key: torch.empty(shape, device="meta") for key, shape in matching["models"]["mask_R_50_FPN"]}
    names = {ours for ours in matching["c2_rename_R-50"].values() if ours}
    by_end = {name: next((v for k, v in model.items() if k.endswith(name)), torch.empty(1)) for name in names}
    report = match_state_dicts(model, by_end)
    expected = matching[GOLDEN_FILE]
    found = {**report.matched, **{mismatch.model_key: mismatch.file_key for mismatch in report.mismatched}}
    assert sorted([*report.missing, *report.from_config]) == expected["unmatched"]
    assert {key: file_key for key, file_key in found.items() if key in expected["heads"]} == expected["heads"]
    check_body(report)


def test_file_loads_into_a_detector_and_keeps_the_statistics(tmp_path, rng_seed, build_module):
    rng = np.random.default_rng(rng_seed)
    blobs = {
        "conv1_w": rng.random((4, 3, 7, 7), np.float32),
        "conv1_w_momentum": rng.random((4, 3, 7, 7), np.float32),
        "res_conv1_bn_s": rng.random(4, np.float32),
        "res_conv1_bn_b": rng.random(4).astype(">f4"),
        "pred_w": rng.random((1000, 4), np.float32),
        "lr": np.float32(0.01),
        "weight_order": "text",
    }
    write_c2(tmp_path / "R-50.pkl", blobs)
    stem = "backbone.body.stem."
    entries = [("conv1.weight", (4, 3, 7, 7))] + [(f"bn1.{n}", (4,)) for n in ("weight", "bias", "running_mean")]
    model = build_module([(stem + name, shape) for name, shape in entries])
    DetectronCheckpointer(make_cfg(), model).load(str(tmp_path / "R-50.pkl"))
    loaded = model.state_dict()
    for ours, theirs in (("conv1.weight", "conv1_w"), ("bn1.weight", "res_conv1_bn_s"), ("bn1.bias", "res_conv1_bn_b")):
        assert np.array_equal(loaded[stem + ours].numpy(), blobs[theirs])
    assert not loaded[stem + "bn1.running_mean"].any()


def test_deformable_stages_get_the_plain_convolutions(tmp_path, matching, build_module, caplog):
    caplog.set_level("INFO")
    blobs = {f"res{r}_{b}_branch2{c}_w": np.full(1, r, np.float32) for r in (2, 3) for b in range(4) for c in "ab"}
    write_c2(tmp_path / "R-50.pkl", blobs)
    deformable = [f"layer2.{b}.conv2" for b in range(4)]
    names = [f"layer2.{b}.conv1" for b in range(4)] + [f"{name}.conv" for name in deformable]
    names += [f"layer1.{b}.conv{c}" for b in range(4) for c in (1, 2)]
    entries = [(f"backbone.body.{name}.weight", (1,)) for name in names]
    offsets = [(f"backbone.body.{name}.offset.weight", (18,)) for name in deformable]
    model = build_module([*entries, *offsets])
    checkpointer = DetectronCheckpointer(make_cfg(), model)
    checkpointer.load(str(tmp_path / "R-50.pkl"))
    assert checkpointer.report.missing == [key for key, _ in offsets] and not checkpointer.report.unused
    loaded = {key.removeprefix("backbone.body."): value for key, value in model.state_dict().items()}
    assert sorted(key for key in loaded if ".conv.weight" in key) == matching["c2_dcn_examples"]
    assert all(loaded[f"{name}.weight"] == int(name[5]) + 1 for name in names)
    assert "Remapping conv weights for deformable conv weights" in caplog.text


def test_other_bodies_are_refused(tmp_path):
    write_c2(tmp_path / "R-50.pkl", {"conv1_w": np.ones(1)})
    with pytest.raises(ValueError, match="holds a ResNet.*V-39-FPN"):
        load_c2_format(make_cfg("V-39-FPN"), tmp_path / "R-50.pkl")


def test_hostile_file_is_refused(tmp_path):
    (tmp_path / "R-50.pkl").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(ValueError, match="os.system"):
        load_c2_format(make_cfg(), tmp_path / "R-50.pkl")
