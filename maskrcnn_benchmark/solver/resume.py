"""Fit a saved optimizer state to the optimizer of the current config."""

from __future__ import annotations

import logging
from collections import Counter

import torch

# A setting that only this optimizer's groups have, and its name in SOLVER.OPTIMIZER.
_SIGNS = {"momentum": "SGD", "betas": "AdamW"}
_OF_THE_SCHEDULE = ("lr", "initial_lr")


def adopt_state(optimizer: torch.optim.Optimizer, state: dict, names: list[str]) -> dict:
    """Regroup a saved state by parameter name to match `optimizer`, and keep the settings of `optimizer`.

    Weight decay, momentum, betas and all other settings are those of `optimizer`; the ones that differ from the saved
    state are logged. The learning rate comes from the state, until the schedule sets it. A parameter without a saved
    state starts without momentum.

    Args:
        optimizer: its groups have "param_names".
        state: a state of `make_optimizer`, whose groups have "param_names"; or one of the forks, with one group per
            parameter in the order of `names`.
        names: the trainable parameters of the model in the order of `named_parameters()`.

    Returns:
        The state in the groups of `optimizer`; `state` itself if its parameters cannot be identified.

    Raises:
        ValueError: the state is that of another optimizer.
    """
    _check_kind(optimizer, state)
    saved = _groups_by_name(state, names)
    if saved is None:
        return state  # torch raises an error if it does not match
    new_groups, new_state, changes = [], {}, Counter()
    indices = {}
    for group in optimizer.param_groups:
        settings = {key: value for key, value in group.items() if key != "params"}
        for name in group["param_names"]:
            index = indices[name] = len(indices)
            if name not in saved:
                continue
            old_group, old_index = saved[name]
            if old_index in state["state"]:
                new_state[index] = state["state"][old_index]
            changes.update(_changes(old_group, group))
        first = next((saved[name][0] for name in group["param_names"] if name in saved), {})
        settings |= {key: first[key] for key in _OF_THE_SCHEDULE if key in first}
        new_groups.append({**settings, "params": [indices[name] for name in group["param_names"]]})
    _log(changes, started=sorted(indices.keys() - saved.keys()), stopped=sorted(saved.keys() - indices.keys()))
    return {"state": new_state, "param_groups": new_groups}


def _check_kind(optimizer, state: dict) -> None:
    given = {name for key, name in _SIGNS.items() if any(key in group for group in state["param_groups"])}
    current = type(optimizer).__name__
    if len(given) == 1 and current in _SIGNS.values() and given != {current}:
        (name,) = given
        raise ValueError(
            f"the state was written by {name}, but SOLVER.OPTIMIZER is {current!r}: set SOLVER.OPTIMIZER to {name!r}, "
            "or start a new training in another OUTPUT_DIR with this file as MODEL.WEIGHT"
        )


def _groups_by_name(state: dict, names: list[str]) -> dict[str, tuple[dict, int]] | None:
    """Return {parameter name: (its saved group, its index in the saved state)}."""
    groups = state["param_groups"]
    if all("param_names" in group for group in groups):
        return {
            name: (group, index)
            for group in groups
            for name, index in zip(group["param_names"], group["params"], strict=True)
        }
    if len(groups) == len(names) and all(len(group["params"]) == 1 for group in groups):
        return {name: (group, group["params"][0]) for name, group in zip(names, groups, strict=True)}
    return None


def _changes(old: dict, new: dict) -> list[tuple[str, object, object]]:
    """Return (setting, saved value, config's value) of the settings that affect a step and differ."""
    pairs = []
    for key, title in (
        ("initial_lr", "base learning rate"),
        ("weight_decay", "weight decay"),
        ("momentum", "momentum"),
        ("betas", "betas"),
    ):
        before, now = (tuple(v) if isinstance(v, list) else v for v in (old.get(key), new.get(key)))
        if before is not None and now is not None and before != now:
            pairs.append((title, before, now))
    return pairs


def _log(changes: Counter, started: list[str], stopped: list[str]) -> None:
    logger = logging.getLogger(__name__)
    if changes:
        listed = "; ".join(
            f"{title} {old} -> {new} ({count} parameters)" for (title, old, new), count in changes.items()
        )
        logger.warning("The optimizer takes these settings from the config, not from the checkpoint: %s", listed)
    for parameters, problem in (
        (started, "start without momentum: the checkpoint did not train them"),
        (stopped, "are no longer trained: their momentum is dropped"),
    ):
        if parameters:
            more = f", ... ({len(parameters)} in all)" if len(parameters) > 3 else ""
            logger.warning("Parameters %s%s %s", ", ".join(parameters[:3]), more, problem)
