"""Load a saved optimizer state under a changed config: the config's settings are used and logged."""

import copy
import logging

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.config import cfg as default_cfg
from maskrcnn_benchmark.solver import make_lr_scheduler, make_optimizer


def config(**solver):
    cfg = default_cfg.clone()
    cfg.SOLVER.update(WARMUP_ITERS=0, **solver)
    return cfg


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def step(model, optimizer):
    torch.manual_seed(1)
    optimizer.zero_grad()
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()


def saved_state(model, **solver):
    cfg = config(**solver)
    optimizer = make_optimizer(cfg, model)
    scheduler = make_lr_scheduler(cfg, optimizer)
    step(model, optimizer)
    scheduler.step()
    return copy.deepcopy(optimizer.state_dict()), scheduler.state_dict()


def resumed(model, states, **solver):
    cfg = config(**solver)
    optimizer = make_optimizer(cfg, model)
    scheduler = make_lr_scheduler(cfg, optimizer)
    optimizer.load_state_dict(states[0])
    scheduler.load_state_dict(states[1])
    return optimizer


def buffers(model, optimizer, key="momentum_buffer"):
    states = {name: optimizer.state.get(parameter, {}) for name, parameter in model.named_parameters()}
    return {name: state[key] for name, state in states.items() if key in state}


def test_changed_sgd_settings_are_used_and_logged(caplog):
    model = network()
    states = saved_state(model, WEIGHT_DECAY=0.0001, MOMENTUM=0.9, BASE_LR=0.01)
    with caplog.at_level(logging.INFO):
        optimizer = resumed(model, states, WEIGHT_DECAY=0.01, MOMENTUM=0.5, BASE_LR=0.02)
    assert [(g["weight_decay"], g["momentum"], g["lr"]) for g in optimizer.param_groups] == [
        (0.01, 0.5, 0.02),
        (0, 0.5, 0.04),
    ]
    for part in ("weight decay 0.0001 -> 0.01", "momentum 0.9 -> 0.5", "base learning rate 0.01 -> 0.02"):
        assert part in caplog.text
    # The next step uses these settings.
    twin = copy.deepcopy(model)
    plain = torch.optim.SGD(
        [{"params": [p], "lr": 0.04 if "bias" in n else 0.02, "weight_decay": 0 if "bias" in n else 0.01}
         for n, p in twin.named_parameters()],
        momentum=0.5,
    )  # fmt: skip
    for name, parameter in twin.named_parameters():
        plain.state[parameter]["momentum_buffer"] = buffers(model, optimizer)[name].clone()
    step(twin, plain)
    step(model, optimizer)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_changed_betas_are_used_and_logged(caplog):
    model = network()
    states = saved_state(model, OPTIMIZER="AdamW")
    with caplog.at_level(logging.INFO):
        optimizer = resumed(model, states, OPTIMIZER="AdamW", BETAS=(0.8, 0.99))
    assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.99)}
    assert "betas (0.9, 0.999) -> (0.8, 0.99) (4 parameters)" in caplog.text
    assert buffers(model, optimizer, "exp_avg").keys() == dict(model.named_parameters()).keys()


def test_an_unchanged_config_logs_nothing_and_keeps_the_state(caplog):
    model = network()
    states = saved_state(model)
    with caplog.at_level(logging.INFO):
        optimizer = resumed(model, states)
    assert not caplog.records
    again = optimizer.state_dict()
    assert again["param_groups"] == states[0]["param_groups"]
    for index, state in states[0]["state"].items():
        assert again["state"][index]["momentum_buffer"].equal(state["momentum_buffer"])


@pytest.mark.parametrize("first, second", [((2, 0.0), (1, 0.0005)), ((1, 0.0005), (2, 0.0))])
def test_merged_or_split_groups_keep_every_momentum(first, second):
    model = network()
    states = saved_state(model, BIAS_LR_FACTOR=first[0], WEIGHT_DECAY_BIAS=first[1], WEIGHT_DECAY=0.0005)
    optimizer = resumed(model, states, BIAS_LR_FACTOR=second[0], WEIGHT_DECAY_BIAS=second[1], WEIGHT_DECAY=0.0005)
    saved = {
        name: states[0]["state"][index]["momentum_buffer"]
        for group in states[0]["param_groups"]
        for name, index in zip(group["param_names"], group["params"], strict=True)
    }
    assert saved.keys() == buffers(model, optimizer).keys()
    for name, buffer in buffers(model, optimizer).items():
        assert buffer.equal(saved[name])
    assert len(optimizer.param_groups) != len(states[0]["param_groups"])


def test_newly_trained_and_frozen_parameters_are_logged(caplog):
    model = network()
    states = saved_state(model)
    model[0].requires_grad_(False)
    optimizer = resumed(model, states)
    assert buffers(model, optimizer).keys() == {"1.weight", "1.bias"}
    assert "0.bias, 0.weight are no longer trained" in caplog.text
    states = copy.deepcopy(optimizer.state_dict()), states[1]
    model.requires_grad_(True)
    optimizer = resumed(model, states)
    assert "0.bias, 0.weight start without momentum" in caplog.text
    step(model, optimizer)
    assert buffers(model, optimizer).keys() == dict(model.named_parameters()).keys()


@pytest.mark.parametrize("saved, asked", [("AdamW", "SGD"), ("SGD", "AdamW")])
def test_state_of_another_optimizer_is_refused(saved, asked):
    model = network()
    states = saved_state(model, OPTIMIZER=saved)
    with pytest.raises(
        ValueError, match=f"written by {saved}, but SOLVER.OPTIMIZER is '{asked}': set SOLVER.OPTIMIZER"
    ):
        resumed(model, states, OPTIMIZER=asked)


def test_fork_state_with_another_number_of_parameters_is_refused():
    model = network()
    plain = torch.optim.SGD([{"params": [p]} for p in list(model.parameters())[:3]], lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        make_optimizer(config(), model).load_state_dict(plain.state_dict())
