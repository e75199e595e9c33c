import hashlib
import os
import textwrap

import pytest
import torch
from helpers.warm_start import Script
from helpers.web_site import serve

from maskrcnn_benchmark.checkpoint import download as module
from maskrcnn_benchmark.checkpoint.download import _direct, cache_url, download


@pytest.fixture
def site(tmp_path):
    """Start a local web server, and return (its folder, its address)."""
    with serve(tmp_path / "site") as site:
        yield site.folder, site.address


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("TORCH_MODEL_ZOO", str(folder))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "PAUSE", 0)
    return folder


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"weight": torch.ones(3)}, path)
    return path.read_bytes()


def test_a_file_is_downloaded_once(site, cache, capsys):
    folder, address = site
    content = save(folder / "V39.pth")
    path = cache_url(f"{address}/V39.pth?dl=1")
    assert path == str(cache / "V39.pth") and (cache / "V39.pth").read_bytes() == content
    assert f'Downloading: "{address}/V39.pth?dl=1" to {path}' in capsys.readouterr().err
    (folder / "V39.pth").unlink()
    assert cache_url(f"{address}/V39.pth?dl=1") == path
    assert os.listdir(cache) == ["V39.pth"]


@pytest.mark.parametrize(
    "url, name",
    [
        ("https://host/vovnet93_statedict_norm.pth.tar?dl=1", "vovnet93_statedict_norm.pth.tar"),
        ("https://host/download?x=1#FCOS_R_50.pth", "FCOS_R_50.pth"),
        ("https://host/a#../../etc/FCOS.pth", "FCOS.pth"),
        ("https://host/detectron/12/e2e_faster.yaml/model_final.pkl", "_detectron_12_e2e_faster.yaml_model_final.pkl"),
    ],
)
@pytest.mark.parametrize(
    "variables, folder",
    [
        ({"TORCH_MODEL_ZOO": "zoo", "TORCH_HOME": "home"}, "zoo"),
        ({"TORCH_HOME": "home"}, "home/models"),
        ({"HOME": "user"}, "user/.torch/models"),
    ],
)
def test_names_and_folders_equal_the_forks(tmp_path, monkeypatch, url, name, variables, folder):
    monkeypatch.delenv("TORCH_MODEL_ZOO", raising=False)
    monkeypatch.delenv("TORCH_HOME", raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, str(tmp_path / value))
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / name).write_bytes(b"there")
    assert cache_url(url) == str(tmp_path / folder / name)


def test_a_hash_in_the_name_is_verified(site, cache):
    folder, address = site
    digest = hashlib.sha256(save(folder / "x.pth")).hexdigest()
    good, bad = f"m-{digest[:8]}.pth", "m-01234567.pth"
    for name in (good, bad):
        (folder / name).write_bytes((folder / "x.pth").read_bytes())
    cache_url(f"{address}/{good}")
    with pytest.raises(ValueError, match=f"sha256 {digest}.*01234567"):
        cache_url(f"{address}/{bad}")
    assert os.listdir(cache) == [good]


@pytest.mark.parametrize(
    "name, error, words",
    [
        ("page.pth", ValueError, "web page"),
        ("broken/x.pth", ConnectionError, "after 4 of"),
        ("missing.pth", ConnectionError, "404"),
    ],
)
def test_a_bad_download_leaves_nothing(site, cache, name, error, words):
    folder, address = site
    (folder / "page.pth").write_bytes(b"<!DOCTYPE html><html>Quota exceeded</html>")
    with pytest.raises(error, match=words):
        cache_url(f"{address}/{name}")
    assert os.listdir(cache) == []


@pytest.mark.parametrize("way", ["half", "silent"])
def test_a_broken_transfer_continues_where_it_stopped(tmp_path, cache, monkeypatch, way):
    monkeypatch.setattr(module, "TIMEOUT", 0.5)
    with serve(tmp_path / "site") as site:
        content = save(site.folder / "V39.pth")
        path = cache_url(f"{site.address}/{way}/V39.pth")
        assert [wanted for _, wanted in site.requests] == [None, f"bytes={len(content) // 2}-"]
    with open(path, "rb") as file:
        assert file.read() == content


@pytest.mark.parametrize("way, copies", [("restart", 1), ("changed", 2)])
def test_a_broken_transfer_restarts_if_the_host_cannot_continue_or_has_a_new_file(site, cache, way, copies):
    folder, address = site
    content = save(folder / "V39.pth")
    with open(cache_url(f"{address}/{way}/V39.pth"), "rb") as file:
        assert file.read() == content * copies


def test_a_host_that_sends_nothing_times_out(site, cache, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    with pytest.raises(ConnectionError, match="after 0 of unknown bytes .*timed out"):
        cache_url(f"{site[1]}/stuck/V39.pth")
    assert os.listdir(cache) == []


def test_the_next_address_is_tried_and_the_error_lists_all(site, cache):
    folder, address = site
    content = save(folder / "V39.pth")
    path = download([f"{address}/gone/V39.pth", f"{address}/V39.pth"], "V39.pth", size=len(content))
    assert os.path.getsize(path) == len(content)
    with pytest.raises(ConnectionError) as error:
        download([f"{address}/gone/a.pth", f"{address}/lost/a.pth"], "a.pth")
    assert str(error.value).count("404") == 2 and "/gone/a.pth" in str(error.value)


def test_a_known_size_and_hash_are_verified(site, cache):
    folder, address = site
    content = save(folder / "V39.pth")
    digest = hashlib.sha256(content).hexdigest()
    with pytest.raises(ValueError, match=f"{len(content)} bytes, expected 7"):
        download([f"{address}/V39.pth"], "V39.pth", size=7)
    with pytest.raises(ValueError, match=f"sha256 {digest}, expected {'0' * 64}"):
        download([f"{address}/V39.pth"], "V39.pth", sha256="0" * 64)
    assert os.listdir(cache) == []
    assert download([f"{address}/V39.pth"], "V39.pth", len(content), digest) == str(cache / "V39.pth")


def test_addresses_of_dropbox_pages_are_replaced_by_direct_ones():
    assert _direct("https://www.dropbox.com/s/ab/x.pth") == "https://www.dropbox.com/s/ab/x.pth?dl=1"
    for kept in ("https://www.dropbox.com/s/ab/x.pth?dl=1", "https://dl.dropbox.com/s/ab/x.pth", "https://host/x.pth"):
        assert _direct(kept) == kept


def test_without_a_network_the_error_says_where_to_put_the_file(cache):
    url = "http://127.0.0.1:1/weights/FCOS_V39.pth?dl=1"
    with pytest.raises(ConnectionError) as error:
        cache_url(url)
    for words in (url, "look elsewhere for a file of this name", "name it FCOS_V39.pth", str(cache), "MODEL.WEIGHT"):
        assert words in str(error.value)


def test_one_process_downloads_and_the_others_wait(site, cache, tmp_path):
    folder, address = site
    save(folder / "V39.pth")
    code = """
        import os, sys
        import torch.distributed as dist
        from maskrcnn_benchmark.checkpoint.download import cache_url
        rank = int(os.environ["LOCAL_RANK"])
        dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=rank, world_size=2)
        print(os.path.getsize(cache_url(sys.argv[2])))
        try:
            cache_url("http://127.0.0.1:1/none.pth")
        except ConnectionError as error:
            print("failed")
        dist.destroy_process_group()
    """
    (tmp_path / "fetch.py").write_text(textwrap.dedent(code))
    words = [tmp_path / "fetch.py", tmp_path / "store", f"{address}/V39.pth"]
    scripts = [Script(words, tmp_path, {"LOCAL_RANK": rank}) for rank in "01"]
    outcomes = [script.wait(100) for script in scripts]
    size = str((folder / "V39.pth").stat().st_size)
    assert [outcome.stdout.split() for outcome in outcomes] == [[size, "failed"]] * 2, outcomes
    assert ["Downloading" in outcome.stderr for outcome in outcomes] == [True, False]
