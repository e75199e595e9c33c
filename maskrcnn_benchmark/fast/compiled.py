"""Compile the dense part of a model, from maps to maps, with torch.compile.

For its gain and cost see benchmarks/compiled_cpu.py.
"""

from __future__ import annotations

from types import MethodType

import torch
from torch import nn

from maskrcnn_benchmark.layers.opaque_group_norm import make_group_norms_opaque

# The modules that a detector calls with maps only. Missing ones are skipped.
DENSE_PARTS = ("backbone", "rpn.head", "sem_seg_head")

# Limit on compiled programs per module. torch compiles another one for a batch of one image, and for images so small
# that a map has 80 points or fewer (at 256 channels: the convolution then uses another library). torch's default limit
# is 8, beyond which it raises an error.
PROGRAMS = 64


def compile_dense_part(model: nn.Module) -> nn.Module:
    """Compile backbone, first-stage head and semantic head with torch.compile, in place.

    Args:
        model: a detector returned by `for_inference`. Its weights become constants at the first image; later changes of
            them have no effect.

    Compilation takes place at the first batch, and again for another number of images or another autocast. All image
    sizes share the programs, see PROGRAMS. On the CPU it requires a C++ compiler, on a GPU Triton.

    Returns:
        The model. Hooks on modules inside these parts are compiled as well, if possible.
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
    """Free everything that torch.compile has made in this process. What is called again is compiled again.

    Programs outlive their models: they are cached on the code of `forward`, which all models share.
    """
    import torch._dynamo

    torch._dynamo.reset()


class _CompiledForward:
    """Replaces a module's `forward`. A copy of the module gets its own replacement, not yet compiled."""

    def __init__(self, module: nn.Module):
        self.module = module
        self.compiled = torch.compile(MethodType(type(module).forward, module), dynamic=True, fullgraph=True)

    def __call__(self, *inputs, **named):
        import torch._dynamo.config
        import torch._inductor.config

        # Weights are frozen if this flag is set during compilation. As an option of torch.compile it has no effect
        # (torch 2.15).
        frozen = torch._inductor.config.patch(freezing=True)
        with torch.no_grad(), frozen, torch._dynamo.config.patch(recompile_limit=PROGRAMS):
            return self.compiled(*inputs, **named)

    def __reduce__(self):
        return _CompiledForward, (self.module,)
