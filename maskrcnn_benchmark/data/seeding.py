"""Derive random streams from a seed and a position in training, independent of any other state."""

from __future__ import annotations

import random
from contextlib import contextmanager

import numpy as np
import torch

# First word of a stream's key. Streams of different purposes are independent.
ORDER, SAMPLE, LOADER = range(1, 4)


def stream_seeds(purpose: int, *numbers: int) -> list[int]:
    """Derive three 64-bit seeds from a purpose and non-negative numbers (NumPy keeps SeedSequence stable)."""
    return np.random.SeedSequence([purpose, *numbers]).generate_state(3, np.uint64).tolist()


def stream_generator(purpose: int, *numbers: int) -> np.random.Generator:
    """Return a NumPy generator for a stream."""
    return np.random.Generator(np.random.PCG64(stream_seeds(purpose, *numbers)[0]))


@contextmanager
def seeded(purpose: int, *numbers: int):
    """Seed the global generators of Python, NumPy and torch (CPU) in the context, and restore their states after it.

    CUDA generators are not touched: transforms run on the CPU, and a training in the same process uses the GPU's.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state = torch.default_generator.get_state()
    first, second, third = stream_seeds(purpose, *numbers)
    random.seed(first)
    np.random.seed(second & 0xFFFFFFFF)
    torch.default_generator.manual_seed(third & 0x7FFFFFFFFFFFFFFF)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.default_generator.set_state(torch_state)
