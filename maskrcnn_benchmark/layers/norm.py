"""Normalization layers of backbones and heads.

Shapes: N images, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.Module):
    """Batch normalization with fixed statistics and a fixed affine part; all four are buffers.

    Args:
        n: channels C.
        eps: added to the variance. maskrcnn-benchmark and FCOS add 0, detectron2 adds 1e-5.

    Forward takes (N, C, H, W) and returns the same shape, dtype and memory format. The buffers keep their own dtype.
    The state dict of a BatchNorm2d also loads; its `num_batches_tracked` is ignored.
    """

    def __init__(self, n: int, eps: float = 0.0):
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(n))
        self.register_buffer("bias", torch.zeros(n))
        self.register_buffer("running_mean", torch.zeros(n))
        self.register_buffer("running_var", torch.ones(n))

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return scale and shift, (C,) each in float32 or wider: the norm is x * scale + shift."""
        # For small variances 1/sqrt(var) exceeds the range of float16.
        wide = torch.promote_types(self.running_var.dtype, torch.float32)
        scale = self.weight.to(wide) * (self.running_var.to(wide) + self.eps).rsqrt()
        return scale, self.bias.to(wide) - self.running_mean.to(wide) * scale

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.scale_and_shift()
        shape = (1, -1, 1, 1)
        # This is one pass over the map. Only x needs a gradient, so autograd keeps no copy of x (F.batch_norm would).
        return torch.addcmul(shift.to(x.dtype).view(shape), x, scale.to(x.dtype).view(shape))

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        state_dict.pop(prefix + "num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"


class GroupNorm(nn.GroupNorm):
    """torch's GroupNorm, as exact on channels_last maps as on contiguous ones.

    On the CPU torch computes channels_last variances as E[x^2] - E[x]^2 in float32. After VoVNet-39 the maps were off
    by 1.1e-4 of their largest value, against 2e-7 when each norm got contiguous maps.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dim() != 4 or x.is_contiguous():
            return super().forward(x)
        return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)


def group_norm(
    out_channels: int,
    affine: bool = True,
    divisor: int = 1,
    *,
    num_groups: int = 32,
    eps: float = 1e-5,
    dim_per_gp: int = -1,
) -> GroupNorm:
    """Make a group norm (Wu & He, ECCV 2018), with the number of groups as in MODEL.GROUP_NORM.

    Args:
        out_channels: channels C.
        divisor: divides C, num_groups and dim_per_gp before anything else.
        num_groups: number of groups, or -1 to set dim_per_gp, the channels per group, instead.

    Raises:
        ValueError: both or none of num_groups and dim_per_gp are given, or C is not divisible.
    """
    channels, dim_per_gp, num_groups = out_channels // divisor, dim_per_gp // divisor, num_groups // divisor
    if (dim_per_gp > 0) == (num_groups > 0):
        raise ValueError(
            f"GroupNorm requires either num_groups or dim_per_gp, the other being -1; got {num_groups} and "
            f"{dim_per_gp} (MODEL.GROUP_NORM.NUM_GROUPS, DIM_PER_GP)"
        )
    if channels % (dim_per_gp if dim_per_gp > 0 else num_groups):
        kind = f"groups of {dim_per_gp} channels" if dim_per_gp > 0 else f"{num_groups} groups"
        raise ValueError(
            f"GroupNorm cannot divide {channels} channels into {kind}; change MODEL.GROUP_NORM.NUM_GROUPS "
            "(or set it to -1 and use DIM_PER_GP), or the number of channels"
        )
    return GroupNorm(channels // dim_per_gp if dim_per_gp > 0 else num_groups, channels, eps, affine)


def get_norm(
    name: str,
    channels: int,
    *,
    eps: float | None = None,
    momentum: float | None = None,
    num_groups: int = 32,
    dim_per_gp: int = -1,
) -> nn.Module:
    """Make a normalization layer by its name in a config.

    Args:
        name: "FrozenBN", "BN", "SyncBN" or "GN". "SyncBN" makes a BatchNorm2d, because torch's SyncBatchNorm refuses
            CPU tensors. The training engine converts batch norms (`nn.SyncBatchNorm.convert_sync_batchnorm`) if several
            GPUs train together. The state_dict keys are the same.
        eps: None for the layer's default: 0 for FrozenBN, 1e-5 for the others.
        momentum: weight of a batch's statistics in the running statistics, of "BN" and "SyncBN" only; None for 0.1.
        num_groups, dim_per_gp: of "GN" only, see `group_norm`.

    Raises:
        ValueError: the norm is unknown.
    """
    given = {} if eps is None else {"eps": eps}
    if name == "FrozenBN":
        return FrozenBatchNorm2d(channels, **given)
    if name in ("BN", "SyncBN"):
        return nn.BatchNorm2d(channels, **given, **({} if momentum is None else {"momentum": momentum}))
    if name == "GN":
        return group_norm(channels, num_groups=num_groups, dim_per_gp=dim_per_gp, **given)
    raise ValueError(f"there is no norm {name!r}; known are 'FrozenBN', 'BN', 'SyncBN' and 'GN'")
