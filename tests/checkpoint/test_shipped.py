"""The models that come with the package, and what guards them."""

import dataclasses
import shutil

import pytest
import torch

from maskrcnn_benchmark.checkpoint.safetensors_file import read_safetensors
from maskrcnn_benchmark.checkpoint.shipped import (
    FOLDER,
    ShippedModel,
    sha256_of,
    shipped_model,
    shipped_models,
    write_description,
    write_weights,
)
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.config import check_values

NAMES = ["digits_fcos", "digits_mask_rcnn"]
# Figures that a model has to have to be shipped.
LEAST = {
    "digits_fcos": {"box AP50": 0.90},
    "digits_mask_rcnn": {"box AP50": 0.88, "mask AP50": 0.85},
}


def test_all_models_together_are_small():
    models = shipped_models()
    assert list(models) == NAMES
    assert sum(model.path.stat().st_size for model in models.values()) <= 4_000_000
    assert sum(model.parameters for model in models.values()) <= 2_100_000
    assert {path.name for path in FOLDER.iterdir()} == {
        f"{name}{end}" for name in NAMES for end in (".safetensors", ".json")
    }


@pytest.mark.parametrize("name", NAMES)
def test_file_is_the_one_described_in_half_precision(name):
    model = shipped_model(name)
    tensors = read_safetensors(model.path)
    assert {tensor.dtype for tensor in tensors.values()} <= {torch.float16, torch.int64}
    trained = [key for key in tensors if not key.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert 0 <= sum(tensors[key].numel() for key in trained) - model.parameters < 100, "anchors are no parameters"
    assert all(model.figures[metric] >= least for metric, least in LEAST[name].items())
    assert model.class_names == tuple("0123456789") and model.category_ids == tuple(range(1, 11))
    assert 0.2 < model.score_threshold < 0.9
    assert model.licence.startswith("MIT") and "scikit-learn" in model.licence
    assert model.command == "make tiny-models" and len(model.date) == 10


@pytest.mark.parametrize("name", NAMES)
def test_configuration_holds_with_todays_defaults(name):
    cfg = defaults.clone()
    cfg.merge_from_other_cfg(shipped_model(name).config)
    check_values(cfg)
    assert cfg.INPUT.MIN_SIZE_TEST == 160 and cfg.DTYPE == "float32"


def test_unknown_name_gets_the_names_there_are():
    with pytest.raises(
        ValueError, match="no model 'digit_fcos'.*nearest is 'digits_fcos'.*digits_fcos, digits_mask_rcnn"
    ):
        shipped_model("digit_fcos")


def test_changed_weights_are_refused(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "weights")
    path = tmp_path / "weights" / "digits_fcos.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"its sha256 is {sha256_of(path)}.*Install the package again"):
        shipped_model("digits_fcos", tmp_path / "weights")
    shipped_model("digits_mask_rcnn", tmp_path / "weights")


@pytest.mark.parametrize("damage", [None, "{", '{"summary": "x"}', "[]"])
def test_weights_without_a_description_are_refused(tmp_path, damage):
    shutil.copytree(FOLDER, tmp_path / "weights")
    path = tmp_path / "weights" / "digits_fcos.json"
    path.unlink() if damage is None else path.write_text(damage)
    with pytest.raises(ValueError, match="does not describe digits_fcos.safetensors.*Install the package again"):
        shipped_models(tmp_path / "weights")


def test_written_models_are_read_again(tmp_path):
    state = {"a": torch.tensor([[0.5, -3.0]]), "count": torch.tensor(7)}
    path = write_weights("mine", state, tmp_path)
    model = ShippedModel(
        name="mine",
        path=path,
        summary='a "model" of ours: [it, finds]',
        parameters=2,
        sha256=sha256_of(path),
        class_names=("bée", "two words"),
        category_ids=(3, 5),
        score_threshold=0.5,
        figures={"box AP50": 0.9},
        data="data",
        command="command",
        date="2026-01-01",
        made_with="torch",
        licence="MIT",
        config={"SOLVER": {"STEPS": [1, 2], "BASE_LR": 0.1}, "DATASETS": {"TEST": [{"NAME": "x"}]}},
    )
    write_description(model)
    assert dataclasses.asdict(shipped_model("mine", tmp_path)) == dataclasses.asdict(model)
    tensors = read_safetensors(path)
    assert tensors["a"].dtype == torch.float16 and tensors["a"].tolist() == [[0.5, -3.0]]
    assert tensors["count"].dtype == torch.int64


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 70000.0])
def test_numbers_beyond_half_precision_are_refused_before_a_file_is_written(tmp_path, number):
    with pytest.raises(ValueError, match="head.weight has numbers that half precision cannot hold"):
        write_weights("mine", {"head.weight": torch.tensor([1.0, number])}, tmp_path)
    assert not list(tmp_path.iterdir())
