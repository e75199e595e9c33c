"""Fixtures of the config's tests."""

import copy

import pytest

from maskrcnn_benchmark.config import cfg


@pytest.fixture
def tree():
    """Return a copy of the defaults."""
    return copy.deepcopy(cfg)


@pytest.fixture
def write(tmp_path):
    """Return write(text, name="config.yaml"), which writes a file and returns its path."""

    def writer(text, name="config.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return writer
