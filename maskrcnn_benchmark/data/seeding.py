"""Random streams that depend on where in a training one is, and on nothing else."""

from __future__ import annotations

import random
from contextlib import contextmanager

import numpy as np
import torch

# The first word of a stream's key: streams of different purpose have nothing in common.
ORDER, SAMPLE, LOADER = range(1, 4)


def stream_seeds(purpose: int, *numbers: int) -> list[int]:
    """Three 64-bit seeds, mixed from the purpose and non-negative numbers (NumPy keeps SeedSequence stable)."""
    return np.random.SeedSequence([purpose, *numbers]).generate_state(3, np.uint64).tolist()


def stream_generator(purpose: int, *numbers: int) -> np.random.Generator:
    """A NumPy generator of that stream."""
    return np.random.Generator(np.random.PCG64(stream_seeds(purpose, *numbers)[0]))


@contextmanager
def seeded(purpose: int, *numbers: int):
    """Inside, Python's, NumPy's and torch's (CPU) global generators are in that stream; afterwards as before.

    CUDA generators are left alone: transforms run on the CPU, and a training in the same process uses the others.
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
