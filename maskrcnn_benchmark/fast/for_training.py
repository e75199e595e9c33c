"""Convert a model for training: fold frozen batch norms into the convolutions' weights in every step.

This saves a pass over each map, forward and backward. Keys of the state_dict, parameters and buffers stay the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.fast.hooks import has_hooks
from maskrcnn_benchmark.fast.norms import norm_pairs
from maskrcnn_benchmark.layers.conv import Conv2d
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d


class NormedConv2d(Conv2d):
    """A convolution without bias that applies the frozen norm after it.

    `norm_behind` holds the norm in a tuple, so that the norm does not become a child module and keys stay the same.
    """

    norm_behind: tuple[AppliedNorm]

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.norm_behind[0].scale_and_shift()
        if not torch.is_grad_enabled():
            x = super().forward(x)
            shape = (1, -1, 1, 1)
            return torch.addcmul(shift.to(x.dtype).view(shape), x, scale.to(x.dtype).view(shape))
        dtype = self.weight.dtype  # scale and shift are float32 or wider
        return self.convolve(x, (self.weight * scale.view(-1, 1, 1, 1)).to(dtype), shift.to(dtype))


class AppliedNorm(FrozenBatchNorm2d):
    """A frozen norm that the convolution before it applies. It keeps the buffers, and its forward returns x."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def for_training(model: nn.Module) -> nn.Module:
    """Fold each frozen norm after a convolution into its weights, in place.

    Layers with hooks stay unchanged, and so does a model that was converted before.

    Returns:
        The model; its parameters, buffers and state_dict keys are the same.
    """
    for module in list(model.modules()):
        for conv_name, norm_name in norm_pairs(module):
            conv, norm = getattr(module, conv_name), getattr(module, norm_name)
            if type(conv) is not Conv2d or conv.bias is not None or type(norm) is not FrozenBatchNorm2d:
                continue
            if not has_hooks(conv) and not has_hooks(norm):
                norm, conv = _as(AppliedNorm, norm), _as(NormedConv2d, conv)
                conv.norm_behind = (norm,)
                setattr(module, conv_name, conv)
                setattr(module, norm_name, norm)
    return model


def plain_layers(model: nn.Module) -> nn.Module:
    """Undo `for_training`, in place. Returns the model."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is NormedConv2d:
                setattr(module, name, _as(Conv2d, child))
            elif type(child) is AppliedNorm:
                setattr(module, name, _as(FrozenBatchNorm2d, child))
    return model


def _as(kind: type[nn.Module], module: nn.Module) -> nn.Module:
    """Return a module of another class that shares the parameters, buffers and attributes."""
    made = kind.__new__(kind)
    made.__dict__.update(module.__dict__)
    return made
