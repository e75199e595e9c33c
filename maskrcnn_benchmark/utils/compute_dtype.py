"""Choose the dtype of a model's computation: the config's DTYPE, or the fastest one of the machine."""

from __future__ import annotations

import contextlib
import logging

import torch

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def compute_dtype(name: str, device: str | torch.device) -> torch.dtype:
    """Return the dtype for torch.autocast; float32 means no autocast.

    Args:
        name: one of DTYPES, or "auto": bfloat16 if `device` multiplies it in hardware, otherwise float32; logged.
        device: the model's device.

    Raises:
        ValueError: the name is unknown.
    """
    if name == "auto":
        dtype = torch.bfloat16 if multiplies_bfloat16(torch.device(device)) else torch.float32
        logger.info("DTYPE auto: computing in %s on %s", str(dtype).removeprefix("torch."), device)
        return dtype
    if name not in DTYPES:
        raise ValueError(f"DTYPE is {name!r}; expected one of {', '.join(DTYPES)}, or auto")
    return DTYPES[name]


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Return torch.autocast to a dtype of `compute_dtype`, or a context without effect for float32."""
    return contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Check for instructions that multiply bfloat16: AMX or AVX512_BF16 of a CPU, compute capability 8 of a GPU.

    A CPU without them computes in float32 anyway, and converts before and after.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
