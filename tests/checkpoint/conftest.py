"""Modules and key lists for the checkpoint tests."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch


class _Part(torch.nn.Module):
    """Node of a module tree that only holds tensors."""


def _build(entries) -> torch.nn.Module:
    root = _Part()
    for key, shape in entries:
        *path, name = key.split(".")
        part = root
        for step in path:
            if step not in part._modules:
                part.add_module(step, _Part())
            part = part._modules[step]
        if name.startswith(("running_", "num_batches")) or "anchors" in key:
            dtype = torch.int64 if name == "num_batches_tracked" else torch.float32
            part.register_buffer(name, torch.zeros(tuple(shape), dtype=dtype))
        else:
            part.register_parameter(name, torch.nn.Parameter(torch.zeros(tuple(shape))))
    return root


@pytest.fixture
def build_module():
    """Return build([(key, shape), ...]), which builds a module with exactly these state_dict keys, all zeros."""
    return _build


@pytest.fixture(scope="session")
def matching():
    """Key lists and expected matches, computed by the original loaders and read from torchvision's files."""
    path = Path(__file__).parent.parent / "golden" / "checkpoint_matching.json.gz"
    return json.loads(gzip.decompress(path.read_bytes()))


@pytest.fixture
def random_state():
    """Return draw([(key, shape), ...]), which returns tensors with these names without zeros."""

    def draw(entries):
        return {
            key: torch.tensor(7) if key.endswith("num_batches_tracked") else torch.rand(tuple(shape)) + 0.5
            for key, shape in entries
        }

    return draw
