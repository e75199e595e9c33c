"""torch.compile for the part of a model that computes maps from maps.

What it gains and costs: benchmarks/compiled_cpu.py.
"""

from __future__ import annotations

from types import MethodType

import torch
from torch import nn

from maskrcnn_benchmark.layers.opaque_group_norm import make_group_norms_opaque

# The parts of a detector that it calls with maps alone; one that a model has not is passed over.
DENSE_PARTS = ("backbone", "rpn.head", "sem_seg_head")

# Programs of one part. torch makes another one for a batch of one picture, and for pictures so small that a map has
# 80 points or fewer (of 256 channels: it prepares for a convolution by another library). Its own limit is 8, and an
# error beyond.
PROGRAMS = 64


def compile_dense_part(model: nn.Module) -> nn.Module:
    """Has torch.compile translate backbone, head of the first stage and semantic head, in place.

    Args:
        model: a detector that `for_inference` returned. Its weights count as constants from the first picture on:
            what is changed in them later is not noticed.

    The translation takes place at the first picture, and again for another number of them or under another autocast;
    all sizes of pictures share it, see PROGRAMS. On the CPU it needs a C++ compiler, on a GPU Triton.

    Returns the model. Hooks on modules inside the parts are translated as well, where that is possible.
    """
    parts = dict(model.named_modules())
    for part in (parts[path] for path in DENSE_PARTS if path in parts):
        if not is_compiled(part):
            if all(parameter.device.type == "cpu" for parameter in part.parameters()):
                make_group_norms_opaque(part)
            part.forward = _CompiledForward(part)
    return model


def is_compiled(module: nn.Module) -> bool:
    return isinstance(module.__dict__.get("forward"), _CompiledForward)


def forget_programs() -> None:
    """Frees all that torch.compile has made in this process; what is called again is translated again.

    Programs outlive their models: they hang on the code of `forward`, of which all models have the same.
    """
    import torch._dynamo

    torch._dynamo.reset()


class _CompiledForward:
    """In place of a module's `forward`; a copy of the module gets one of its own, not yet translated."""

    def __init__(self, module: nn.Module):
        self.module = module
        self.compiled = torch.compile(MethodType(type(module).forward, module), dynamic=True, fullgraph=True)

    def __call__(self, *inputs, **named):
        import torch._dynamo.config
        import torch._inductor.config

        # Weights are frozen where this flag is set while a program is made; among the options of torch.compile it is
        # taken without effect (torch 2.15).
        frozen = torch._inductor.config.patch(freezing=True)
        with torch.no_grad(), frozen, torch._dynamo.config.patch(recompile_limit=PROGRAMS):
            return self.compiled(*inputs, **named)

    def __reduce__(self):
        return _CompiledForward, (self.module,)
