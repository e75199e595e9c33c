"""Build models without drawing the initial weights that a test overwrites at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import nn

# Functions of torch.nn.init that draw random numbers: a second for 60 million weights.
RANDOM = ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_", "xavier_normal_", "xavier_uniform_")


@contextmanager
def zeros_instead_of_random_weights() -> Iterator[None]:
    """Initialize the modules built inside with zeros where they would draw random weights."""

    def zeros(tensor: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        return nn.init.zeros_(tensor)

    with mock.patch.multiple(nn.init, **dict.fromkeys(RANDOM, zeros)):
        yield
