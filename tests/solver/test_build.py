import copy

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.config import cfg as default_cfg
from maskrcnn_benchmark.solver import WarmupCosineLR, WarmupMultiStepLR, WarmupPolyLR, make_lr_scheduler, make_optimizer


def config(**solver):
    cfg = default_cfg.clone()
    cfg.SOLVER.update(solver)
    return cfg


def settings_by_name(optimizer):
    return {
        name: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for name in group["param_names"]
    }


class WithOffsets(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.GroupNorm(1, 4)
        self.conv = nn.Module()
        self.conv.offset = nn.Conv2d(4, 27, 3)
        self.frozen = nn.Linear(2, 2)
        self.frozen.requires_grad_(False)


def test_every_parameter_has_the_settings_of_the_forks(units):
    expected = units["optimizer_groups"]
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = make_optimizer(config(BASE_LR=0.02, WEIGHT_DECAY=0.0001), model)
    assert settings_by_name(optimizer) == {e["name"]: (e["lr"], e["weight_decay"]) for e in expected}
    assert {group["momentum"] for group in optimizer.param_groups} == {0.9}
    assert len(optimizer.param_groups) == 2
    assert optimizer.param_groups[0]["lr"] == 0.02


def test_head_lr_factor_applies_outside_of_the_backbone():
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "aspp": nn.Linear(2, 2)})
    recipe = {"BASE_LR": 0.007, "WEIGHT_DECAY": 1e-4, "WEIGHT_DECAY_BIAS": 1e-4, "BIAS_LR_FACTOR": 1}
    optimizer = make_optimizer(config(HEAD_LR_FACTOR=10.0, **recipe), model)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.007, 1e-4), (0.07, 1e-4)]
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 2]


def test_dconv_offsets_factor_and_frozen_parameters():
    optimizer = make_optimizer(config(BASE_LR=0.1, DCONV_OFFSETS_LR_FACTOR=0.1), WithOffsets())
    found = settings_by_name(optimizer)
    assert found["norm.weight"] == (0.1, 0.0005)
    assert found["norm.bias"] == (0.2, 0)
    assert found["conv.offset.weight"] == (pytest.approx(0.01), 0.0005)
    assert found["conv.offset.bias"] == (pytest.approx(0.02), 0)
    assert not any(name.startswith("frozen") for name in found)


def test_weight_decay_norm_applies_to_norms():
    numbers = {"BASE_LR": 0.1, "BIAS_LR_FACTOR": 1, "WEIGHT_DECAY": 0.01, "WEIGHT_DECAY_BIAS": 0.01}
    found = settings_by_name(make_optimizer(config(**numbers, WEIGHT_DECAY_NORM=0.0), WithOffsets()))
    assert found == {
        "norm.weight": (0.1, 0),
        "norm.bias": (0.1, 0),
        "conv.offset.weight": (0.1, 0.01),
        "conv.offset.bias": (0.1, 0.01),
    }


def test_adamw_decays_only_tensors_of_more_than_one_dimension():
    found = settings_by_name(make_optimizer(config(OPTIMIZER="AdamW", BASE_LR=0.1), WithOffsets()))
    assert found == {
        "norm.weight": (0.1, 0),
        "norm.bias": (0.1, 0),
        "conv.offset.weight": (0.1, 0.0005),
        "conv.offset.bias": (0.1, 0),
    }


def test_model_without_trainable_parameters_is_refused():
    with pytest.raises(ValueError, match="nothing to train"):
        make_optimizer(config(), nn.Linear(2, 2).requires_grad_(False))


def step(optimizer, model, data):
    optimizer.zero_grad()
    model(data).square().sum().backward()
    optimizer.step()


def test_groups_equal_one_group_per_parameter_and_load_its_state(rng_seed):
    """A fork's training continues here as it would have there."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    twin = copy.deepcopy(model)
    cfg = config(BASE_LR=0.02, WEIGHT_DECAY=0.01)
    ours = make_optimizer(cfg, model)
    per_parameter = torch.optim.SGD(
        [
            {"params": [p], "lr": 0.04 if "bias" in n else 0.02, "weight_decay": 0 if "bias" in n else 0.01}
            for n, p in twin.named_parameters()
        ],
        momentum=0.9,
        lr=0.02,
    )
    for _ in range(3):
        data = torch.randn(5, 3)
        step(ours, model, data)
        step(per_parameter, twin, data)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q)

    resumed = copy.deepcopy(twin)
    continued = make_optimizer(cfg, resumed)
    continued.load_state_dict(copy.deepcopy(per_parameter.state_dict()))
    step(per_parameter, twin, data)
    step(continued, resumed, data)
    for p, q in zip(resumed.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_first_step_skipped_by_the_scaler_keeps_zero_momentum():
    model = nn.Linear(64, 64)
    optimizer = make_optimizer(config(), model)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale((model(torch.ones(1, 64)) * 1e38).sum()).backward()
    scaler.step(optimizer)
    for parameter in model.parameters():
        assert not optimizer.state[parameter]["momentum_buffer"].any()


def test_own_state_loads(rng_seed):
    model = nn.Linear(3, 2)
    optimizer = make_optimizer(config(), model)
    step(optimizer, model, torch.randn(4, 3))
    again = make_optimizer(config(), model)
    again.load_state_dict(optimizer.state_dict())
    for parameter in model.parameters():
        assert torch.equal(again.state[parameter]["momentum_buffer"], optimizer.state[parameter]["momentum_buffer"])


@pytest.mark.parametrize(
    "name, kind", [("multistep", WarmupMultiStepLR), ("cosine", WarmupCosineLR), ("poly", WarmupPolyLR)]
)
def test_scheduler_is_selected_by_name(name, kind):
    cfg = config(LR_SCHEDULER=name)
    assert type(make_lr_scheduler(cfg, make_optimizer(cfg, nn.Linear(1, 1)))) is kind


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="OPTIMIZER"):
        make_optimizer(config(OPTIMIZER="Adam"), nn.Linear(1, 1))
    cfg = config()
    optimizer = make_optimizer(cfg, nn.Linear(1, 1))
    with pytest.raises(ValueError, match="LR_SCHEDULER"):
        make_lr_scheduler(config(LR_SCHEDULER="step"), optimizer)
