"""What a model computes in: the config's DTYPE, or what the machine does fastest."""

from __future__ import annotations

import logging

import torch

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def compute_dtype(name: str, device: str | torch.device) -> torch.dtype:
    """The dtype that torch.autocast shall compute in; float32 stands for no autocast.

    Args:
        name: of DTYPES, or "auto": bfloat16 where `device` multiplies it in hardware, else float32; logged.
        device: that the model is on.

    Raises:
        ValueError: any other name.
    """
    if name == "auto":
        dtype = torch.bfloat16 if multiplies_bfloat16(torch.device(device)) else torch.float32
        logger.info("DTYPE auto: computing in %s on %s", str(dtype).removeprefix("torch."), device)
        return dtype
    if name not in DTYPES:
        raise ValueError(f"DTYPE {name!r} is not known; give one of {', '.join(DTYPES)}, or auto")
    return DTYPES[name]


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bfloat16: AMX or AVX512_BF16 of a CPU, compute capability 8.

    A CPU without them computes in float32 all the same, and converts before and after.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
