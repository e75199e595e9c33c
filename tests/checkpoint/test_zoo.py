import dataclasses
import logging
import os

import pytest
import torch
from helpers.web_site import serve

from maskrcnn_benchmark.checkpoint import download, zoo
from maskrcnn_benchmark.checkpoint.checkpointer import DetectronCheckpointer
from maskrcnn_benchmark.config import cfg

NAME = "VoVNet-FCOS/FCOS-V-39-FPN-1x"


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Serve a file as NAME, and return (site, function that changes the entry)."""
    monkeypatch.setenv("TORCH_MODEL_ZOO", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE", 0)
    with serve(tmp_path / "site") as site:
        torch.save({"weight": torch.ones(3)}, site.folder / "FCOS-V-39-FPN-1x.pth")

        def change(**fields):
            entry = dataclasses.replace(zoo.find_weights(NAME), **fields)
            monkeypatch.setitem(zoo.weights_table(), NAME, entry)
            return entry

        change(addresses=(f"{site.address}/FCOS-V-39-FPN-1x.pth",))
        yield site, change


def test_a_name_is_fetched_once_into_the_loaders_cache(published, tmp_path):
    site, _ = published
    assert zoo.local_file(zoo.find_weights(NAME)) is None
    path = zoo.fetch(NAME)
    assert path == str(tmp_path / "cache" / "FCOS-V-39-FPN-1x.pth") == zoo.fetch(zoo.find_weights(NAME))
    assert zoo.local_file(zoo.find_weights(NAME)) == path and len(site.requests) == 1


def test_the_loader_accepts_names_and_addresses_of_the_table(published, caplog):
    site, change = published
    change(addresses=(f"{site.address}/gone/FCOS-V-39-FPN-1x.pth", f"{site.address}/FCOS-V-39-FPN-1x.pth"))
    with caplog.at_level(logging.INFO):
        by_name = DetectronCheckpointer(cfg, None).read(f"catalog://{NAME}")
    assert by_name["model"]["weight"].tolist() == [1, 1, 1]
    assert f"catalog://{NAME} points to {site.address}/gone/" in caplog.text
    os.remove(zoo.local_file(zoo.find_weights(NAME)))
    # the address in a config no longer works, and the table has another
    again = DetectronCheckpointer(cfg, None).read(f"{site.address}/gone/FCOS-V-39-FPN-1x.pth?dl=1")
    assert again["model"]["weight"].tolist() == [1, 1, 1]


def test_the_error_for_a_vanished_address_names_the_file(published):
    site, change = published
    change(addresses=(f"{site.address}/gone/FCOS-V-39-FPN-1x.pth",))
    with pytest.raises(ConnectionError) as error:
        zoo.fetch(NAME)
    for words in ("404", "could not download FCOS-V-39-FPN-1x.pth", "Any local copy works", "MODEL.WEIGHT"):
        assert words in str(error.value)


def test_files_are_compared_with_the_known_size_and_hash(published):
    _, change = published
    path = zoo.fetch(NAME)
    size, sha256 = zoo.check_file(path, zoo.find_weights(NAME))
    assert zoo.check_file(path, change(size=size, sha256=sha256)) == (size, sha256)
    with pytest.raises(ValueError, match=f"has {size} bytes, but {NAME} has {size + 1}"):
        zoo.check_file(path, change(size=size + 1, sha256=""))
    with pytest.raises(ValueError, match=f"sha256 {sha256}, but {NAME} has {'0' * 64}"):
        zoo.check_file(path, change(size=None, sha256="0" * 64))
