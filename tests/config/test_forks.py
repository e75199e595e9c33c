"""All defaults and YAML files of the five yacs repositories that this project succeeds."""

import copy
import gzip
import json
from pathlib import Path

import pytest
import yaml

from maskrcnn_benchmark.config import CfgNode, cfg
from maskrcnn_benchmark.config.changes import changes

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
FILES = json.loads(gzip.decompress((GOLDEN / "configs.json.gz").read_bytes()))["configs"]


def lists(value):
    return [lists(v) for v in value] if isinstance(value, (tuple, list)) else value


def value_at(tree, key):
    for part in key.split("."):
        tree = tree[part]
    return tree


def nested(overrides):
    tree = {}
    for key, value in overrides.items():
        *parents, leaf = key.split(".")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[leaf] = value
    return tree


def as_literals(value):
    """Write sequences as the forks do: (1, 2), which YAML reads as a string."""
    return repr(tuple(value)) if isinstance(value, list) else value


def leaves(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


@pytest.mark.parametrize("name", ["defaults_mb", "defaults_fcos"])
def test_defaults_equal_the_forks(name):
    fork = json.loads((GOLDEN / f"{name}.json").read_text())
    ours = dict(leaves(cfg))
    expected = dict(fork["defaults"])
    for other in fork["compared_with"].values():
        expected.update(other["only_in_other"])
    assert expected.keys() <= ours.keys()
    differing = {key for key, value in expected.items() if lists(ours[key]) != value}
    assert differing == {"PATHS_CATALOG", "MODEL.FCOS_ON"} & expected.keys()
    types = {key: type(ours[key]).__name__ for key in fork["types"]}
    assert types == fork["types"]


def test_fcos_is_off_and_the_catalog_is_the_packages():
    assert cfg.MODEL.FCOS_ON is False
    assert Path(cfg.PATHS_CATALOG) == ROOT / "maskrcnn_benchmark" / "config" / "paths_catalog.py"


@pytest.mark.parametrize("style", ["yaml", "literal"])
def test_every_file_of_the_forks_merges_to_its_recorded_values(tmp_path, style):
    assert len(FILES) == 111 and sum(len(entry["sources"]) for entry in FILES) == 361
    path = tmp_path / "config.yaml"
    defaults = {key: lists(value) for key, value in leaves(cfg)}
    types = {key: type(value) for key, value in leaves(cfg)}
    for entry in FILES:
        overrides = entry["overrides"]
        written = overrides if style == "yaml" else {k: as_literals(v) for k, v in overrides.items()}
        path.write_text(yaml.safe_dump(nested(written)))
        merged = copy.deepcopy(cfg)
        merged.merge_from_file(str(path))
        assert {key: lists(value) for key, value in leaves(merged)} == defaults | overrides, entry["sources"]
        assert {key: type(value) for key, value in leaves(merged)} == types, entry["sources"]


# Our file -> the fork's file.
PUBLISHED = {source["path"] for entry in FILES for source in entry["sources"]}
SHIPPED = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.relative_to(ROOT).as_posix() in PUBLISHED)
# If the forks differ, the first of these that has the file is used.
FORKS = (
    "vov-net/VoVNet-Detectron",
    "facebookresearch/maskrcnn-benchmark",
    "stigma0617/maskrcnn-benchmark-vovnet@vovnet",
    "vov-net/VoVNet-FCOS",
    "tianzhi0549/FCOS",
)
# Our changes, by the start of the file name.
STATED = {"fcos_imprv_": {"MODEL.FCOS.LOSS_NORMALIZER": "positives"}}


def forks_file(path):
    found = {}
    for entry in FILES:
        for source in entry["sources"]:
            if source["path"] == path:
                found[source["repo"]] = entry["overrides"]
    return next(found[fork] for fork in FORKS if fork in found)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_config_is_equivalent_to_the_forks(path):
    merged = copy.deepcopy(cfg)
    merged.merge_from_file(path)
    expected = {key: lists(value) for key, value in leaves(cfg)}
    expected |= forks_file(path.relative_to(ROOT).as_posix())
    for prefix, stated in STATED.items():
        if path.name.startswith(prefix):
            expected |= stated
    assert {key: lists(value) for key, value in leaves(merged)} == expected


def test_every_config_of_the_forks_except_fbnet_is_shipped():
    missing = PUBLISHED - {path.relative_to(ROOT).as_posix() for path in SHIPPED}
    assert len(missing) == 7 and all("fbnet" in path for path in missing)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_yaml_below_configs_merges_and_round_trips(path, tmp_path):
    merged = copy.deepcopy(cfg)
    merged.merge_from_file(path)
    # Only what differs from the defaults: these round-trip in test_loading.py, and take most of the time.
    (tmp_path / "dump.yaml").write_text(CfgNode(changes(merged, cfg)).dump())
    again = cfg.clone()
    again.merge_from_file(tmp_path / "dump.yaml")
    assert again == merged
