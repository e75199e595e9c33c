import json
import os

import pytest
from conftest import ROOT

from maskrcnn_benchmark.checkpoint.download import file_name
from maskrcnn_benchmark.config.errors import UnknownNameError
from maskrcnn_benchmark.config.paths_catalog import ModelCatalog
from maskrcnn_benchmark.config.weights_table import BACKBONE, TABLE, find_weights, weights_at, weights_table
from maskrcnn_benchmark.profiling.published import TABLES

ENTRIES = list(weights_table().values())


def test_every_address_that_the_five_systems_published_is_in_the_table():
    path = ROOT.parent / "shared" / "reference" / "published_weights.json"
    if not path.exists():
        pytest.skip(f"no reference beside the checkout (looked for {path})")
    known = {address for entry in ENTRIES for address in (*entry.addresses, entry.metrics)}
    published = {each["address"] for each in json.loads(path.read_text())["weights"]}
    assert len(published) > 60 and not published - known


def test_names_are_unique_and_select_their_entries():
    with open(TABLE, encoding="utf-8") as file:
        names = [row["name"] for row in json.load(file)["weights"]]
    assert len(names) == len(set(names)) == len(ENTRIES)
    for name in names:
        assert find_weights(f"catalog://{name}").name == name


def test_file_names_equal_the_loaders_cache_names():
    for entry in ENTRIES:
        assert all(file_name(address) == entry.file for address in entry.addresses), entry.name
        assert entry.addresses or entry.package or entry.note


def test_configurations_exist_and_detectors_have_results():
    for entry in ENTRIES:
        assert not entry.config or (ROOT / entry.config).is_file(), entry.name
        assert entry.systems and entry.architecture and entry.backbone
        assert not entry.sha256 or len(entry.sha256) == 64
        if entry.architecture != BACKBONE and entry.systems != ("Detectron",):
            assert "box AP" in entry.results or "mIoU" in entry.results


def test_results_equal_the_published_tables():
    rows = {row.config: row.accuracy for table in TABLES for row in table.rows if row.config}
    compared = 0
    for entry in ENTRIES:
        config = os.path.basename(entry.config).removesuffix(".yaml")
        if entry.results and config in rows:
            assert entry.results.get("mIoU", entry.results.get("box AP")) == rows[config], entry.name
            compared += 1
    assert compared >= 30


@pytest.mark.parametrize(
    "given, name",
    [
        ("FCOS-V-39-FPN-1x.pth", "VoVNet-FCOS/FCOS-V-39-FPN-1x"),
        ("fcos_V_39_FPN_1x", "VoVNet-FCOS/FCOS-V-39-FPN-1x"),
        ("configs/vovnet/fcos_V_39_FPN_1x.yaml", "VoVNet-FCOS/FCOS-V-39-FPN-1x"),
        ("vovnet39_ese_detectron2", "ImageNetPretrained/V2-39"),
        ("vovnet75_statedict_norm.pth.tar", "ImageNetPretrained/V-75"),
        ("V-39", "ImageNetPretrained/V-39"),
    ],
)
def test_names_of_files_and_configurations_select_entries(given, name):
    assert find_weights(given).name == name


def test_a_name_of_several_entries_lists_them():
    with pytest.raises(UnknownNameError, match="matches several models .*FCOS/X-101-64x4d.*FAIR/20171220/X-101-64x4d"):
        find_weights("X-101-64x4d.pkl")


def test_addresses_are_recognised_without_query_and_fragment():
    for address in (
        "https://dl.dropbox.com/s/s7f4vyfybyc9qpr/vovnet39_statedict_norm.pth?dl=1",
        "https://www.dropbox.com/s/s7f4vyfybyc9qpr/vovnet39_statedict_norm.pth",
    ):
        assert weights_at(address).name == "ImageNetPretrained/V-39"
    assert weights_at("https://example.org/vovnet39_statedict_norm.pth") is None


def test_weights_without_an_address_have_a_note():
    with pytest.raises(FileNotFoundError, match="no address of .*MRCN-V-57-FPN-2x is known: .*by mistake"):
        ModelCatalog.get("maskrcnn-benchmark-vovnet/MRCN-V-57-FPN-2x")


def test_every_address_in_our_configurations_is_in_the_table():
    """If an address vanishes, the table provides another one, or the file's name for the error."""
    unknown = []
    for path in (ROOT / "configs").rglob("*.yaml"):
        for line in path.read_text().splitlines():
            key, _, value = line.strip().partition(": ")
            if key == "WEIGHT" and value.startswith("http") and weights_at(value) is None:
                unknown.append(f"{path.name}: {value}")
            elif key == "WEIGHT" and value.startswith("catalog://"):
                assert value.removeprefix("catalog://") in weights_table(), path
    assert not unknown
