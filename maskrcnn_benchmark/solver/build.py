"""Build the optimizer and the schedule from the SOLVER block of a config."""

from __future__ import annotations

from functools import partial

import torch

from .lr_scheduler import WarmupCosineLR, WarmupMultiStepLR, WarmupPolyLR
from .resume import adopt_state


def make_optimizer(cfg, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Build SGD or AdamW for the trainable parameters of `model`, with one group per distinct (lr, weight decay).

    SGD has the forks' settings. A parameter whose name contains "bias" has the learning rate BASE_LR * BIAS_LR_FACTOR
    and the weight decay WEIGHT_DECAY_BIAS. All others, norm weights included, have BASE_LR and WEIGHT_DECAY. If
    WEIGHT_DECAY_NORM is 0 or more, it is the weight decay of the weights and biases of norms.

    AdamW has the learning rate BASE_LR everywhere: its step does not scale with the gradient, so there is no reason to
    double the rate of biases. It applies weight decay only to tensors of more than one dimension: not to biases, norm
    weights and scales.

    For both, DCONV_OFFSETS_LR_FACTOR multiplies the learning rate of the offsets of deformable convolutions, and
    HEAD_LR_FACTOR that of everything outside of `backbone`.

    Groups are in the order of their first parameter. The learning rate of group 0 is logged. Loading a state keeps
    these settings, see `adopt_state`. A state with one group per parameter, as written by the forks, also loads.
    """
    solver = cfg.SOLVER
    if solver.OPTIMIZER not in ("SGD", "AdamW"):
        raise ValueError(f"SOLVER.OPTIMIZER is {solver.OPTIMIZER!r}; expected 'SGD' or 'AdamW'")
    of_norms = _norm_parameters(model) if solver.WEIGHT_DECAY_NORM >= 0 else set()
    groups: dict[tuple[float, float], list] = {}
    names = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        lr, weight_decay = solver.BASE_LR, solver.WEIGHT_DECAY
        if solver.OPTIMIZER == "AdamW":
            weight_decay = weight_decay if parameter.dim() > 1 else 0.0
        elif "bias" in name:
            lr, weight_decay = lr * solver.BIAS_LR_FACTOR, solver.WEIGHT_DECAY_BIAS
        if parameter in of_norms and solver.OPTIMIZER == "SGD":
            weight_decay = solver.WEIGHT_DECAY_NORM
        if name.endswith((".offset.weight", ".offset.bias")):
            lr *= solver.DCONV_OFFSETS_LR_FACTOR
        if not name.startswith("backbone."):
            lr *= solver.HEAD_LR_FACTOR
        groups.setdefault((lr, weight_decay), []).append((name, parameter))
        names.append(name)
    if not groups:
        raise ValueError("nothing to train: no parameter of the model requires a gradient")

    named_groups = [
        {"params": members, "lr": lr, "weight_decay": weight_decay, "name": f"lr {lr:g}, weight decay {weight_decay:g}"}
        for (lr, weight_decay), members in groups.items()
    ]
    # Fused: one kernel over all tensors of a group, where torch supports it. Otherwise torch uses its default.
    devices = {parameter.device.type for members in groups.values() for _, parameter in members}
    fused = True if devices <= {"cpu", "cuda"} else None
    if solver.OPTIMIZER == "SGD":
        optimizer = torch.optim.SGD(named_groups, solver.BASE_LR, momentum=solver.MOMENTUM, fused=fused)
        _start_with_zero_momentum(optimizer)
    else:
        optimizer = torch.optim.AdamW(named_groups, solver.BASE_LR, betas=tuple(solver.BETAS), fused=fused)

    optimizer.register_load_state_dict_pre_hook(partial(adopt_state, names=names))
    return optimizer


def _norm_parameters(model: torch.nn.Module) -> set[torch.nn.Parameter]:
    norms = (torch.nn.modules.batchnorm._NormBase, torch.nn.GroupNorm, torch.nn.LayerNorm)
    return {
        parameter
        for module in model.modules()
        if isinstance(module, norms)
        for parameter in module.parameters(recurse=False)
    }


def _start_with_zero_momentum(optimizer: torch.optim.SGD) -> None:
    """Initialize the momentum of every parameter to zeros before the first step, which is equivalent to no momentum.

    torch's fused SGD allocates the buffer in the first step without filling it. If a gradient scaler then skips that
    step, as usual with float16, uninitialized memory is used as momentum from then on.
    """

    def fill(optimizer, args, kwargs):
        for group in optimizer.param_groups:
            for parameter in group["params"] if group["momentum"] else ():
                state = optimizer.state[parameter]
                if state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        hook.remove()

    hook = optimizer.register_step_pre_hook(fill)


def make_lr_scheduler(cfg, optimizer: torch.optim.Optimizer):
    """Build the schedule that SOLVER.LR_SCHEDULER names; step it once after every optimizer step."""
    solver = cfg.SOLVER
    warmup = (solver.WARMUP_FACTOR, solver.WARMUP_ITERS, solver.WARMUP_METHOD)
    if solver.LR_SCHEDULER == "multistep":
        return WarmupMultiStepLR(optimizer, solver.STEPS, solver.GAMMA, *warmup)
    if solver.LR_SCHEDULER == "cosine":
        return WarmupCosineLR(optimizer, solver.MAX_ITER, *warmup)
    if solver.LR_SCHEDULER == "poly":
        return WarmupPolyLR(optimizer, solver.MAX_ITER, solver.POLY_POWER, *warmup)
    raise ValueError(f"SOLVER.LR_SCHEDULER is {solver.LR_SCHEDULER!r}; expected 'multistep', 'cosine' or 'poly'")
