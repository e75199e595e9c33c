"""Fixtures shared by all tests."""

from __future__ import annotations

import json
import os
import random
import secrets
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch: processes that use all threads slow each other down
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"

# Files that take longest. They run first: `make test` gives whole files to two workers, and one that started last would
# leave the other worker idle.
LONGEST = (
    "tools/test_train_and_test.py",
    "modeling/detector/test_mmdetection_goldens.py",
    "modeling/detector/test_rcnn_goldens.py",
    "modeling/detector/test_detectron2_goldens.py",
    "fast/test_compiled.py",
    "tools/test_semantic.py",
    "csrc/test_emulated_cuda.py",
    "native/test_build_ops.py",
)


def pytest_collection_modifyitems(items):
    ranks = {ROOT / "tests" / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))  # stable: all others keep their order


@pytest.fixture
def rng_seed(request):
    """Return a new seed, set everywhere; `pytest --seed N` repeats a run. pytest prints it when a test fails."""
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
    """Return shared_data(name): the folder of a real dataset beside the checkout, or a skip with the reason."""

    def folder(name: str) -> Path:
        path = ROOT.parent / "shared" / "data" / name
        if not path.is_dir():
            pytest.skip(f"no real dataset {name!r} beside the checkout (looked for {path})")
        return path

    return folder


@pytest.fixture(scope="session")
def units():
    """Return small exact cases computed by the original programs."""
    return json.loads((GOLDEN / "units.json").read_text())
