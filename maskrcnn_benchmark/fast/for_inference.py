"""Copy a model for inference: the same detections in fewer steps."""

from __future__ import annotations

import copy
import logging
from itertools import chain

import torch
from torch import nn

from maskrcnn_benchmark.fast.for_training import plain_layers
from maskrcnn_benchmark.fast.fused import has_fused_ops
from maskrcnn_benchmark.fast.hooks import has_hooks
from maskrcnn_benchmark.fast.norms import NORMS, fold, norm_pairs
from maskrcnn_benchmark.fast.substitutes import Substitution

logger = logging.getLogger(__name__)


def for_inference(model: nn.Module, dtype: torch.dtype = torch.float32, winograd: bool = True) -> nn.Module:
    """Copy `model` in evaluation mode, with batch norms folded and, on a CPU, with fused modules.

    Modules with hooks, and modules that contain one with hooks, stay unchanged. Hooks registered on the copy later get
    the outputs of fused modules. These may be overwritten afterwards, so clone them. Non-finite weights are named in a
    warning.

    Args:
        dtype: the dtype of torch.autocast. If it is not float32, weights of convolutions and linear layers are stored
            in it, so that autocast does not convert them for every image. The copy then runs under autocast only.
        winograd: on a CPU, compute 3x3 convolutions by the Winograd algorithm where that is faster. Results change by
            float32 rounding. The weights of these convolutions take 4 times the memory.

    Returns:
        The copy. It cannot be trained, and its state_dict has other keys.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    plain_layers(model)
    _warn_of_nonfinite_weights(model)
    fold_norms(model)
    if _is_on_cpu(model) and has_fused_ops():
        model = Substitution(dtype, winograd)(model)
    if dtype != torch.float32:
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                for parameter in module.parameters(recurse=False):  # not those of a norm inside
                    parameter.data = parameter.data.to(dtype)
    return model


def _warn_of_nonfinite_weights(model: nn.Module) -> None:
    # oneDNN's ReLU turns NaN into 0: a diverged model would just return no detections.
    named = chain(model.named_parameters(), model.named_buffers())
    found = [name for name, weight in named if weight.device.type != "meta" and not weight.isfinite().all()]
    if found:
        some = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        logger.warning(f"{len(found)} weights are not finite ({some}): detections will be meaningless")


def fold_norms(model: nn.Module) -> None:
    """Fold batch norms into the convolutions before them, in place; modules with hooks stay as they are."""
    for module in model.modules():
        for conv, norm in norm_pairs(module):
            pair = getattr(module, conv), getattr(module, norm)
            if isinstance(pair[0], nn.Conv2d) and isinstance(pair[1], NORMS) and not any(map(has_hooks, pair)):
                fold(*pair)
                setattr(module, norm, nn.Identity())


def _is_on_cpu(model: nn.Module) -> bool:
    return all(tensor.device.type == "cpu" for tensor in chain(model.parameters(), model.buffers()))
