"""Fixtures that every room uses."""

from __future__ import annotations

import json
import os
import random
import secrets
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch: several processes with all threads each wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"


@pytest.fixture
def rng_seed(request):
    """A fresh seed, set everywhere; `pytest --seed N` repeats a run. pytest prints it when a test fails."""
    given = request.config.getoption("--seed")
    seed = secrets.randbelow(2**31) if given is None else given
    print(f"rng_seed = {seed} (repeat with --seed {seed})")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return seed


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=None, help="seed of the random inputs (default: a fresh one)")


@pytest.fixture
def shared_data():
    """shared_data(name): folder of a real data set beside the checkout, or a skip that says what is missing."""

    def folder(name: str) -> Path:
        path = ROOT.parent / "shared" / "data" / name
        if not path.is_dir():
            pytest.skip(f"no real data set {name!r} beside the checkout (looked for {path})")
        return path

    return folder


@pytest.fixture(scope="session")
def units():
    """Small exact cases computed by the original programs."""
    return json.loads((GOLDEN / "units.json").read_text())
