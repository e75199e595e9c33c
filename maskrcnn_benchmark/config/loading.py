"""The node type of the config tree: yacs's, with `_BASE_`, clear errors, and nothing that can run code.

A merge is checked as a whole before anything is changed, so that a refused file leaves the tree as it was.
"""

from __future__ import annotations

import os
from pathlib import PurePath

import yacs.config

from . import yaml_files
from .errors import UnknownNameError, nearest
from .foreign_catalog import inline_equivalent
from .paths_catalog import check_entries
from .values import Mismatch, convert, literal

# Whole numbers by default in the forks, though any number makes sense.
_ANY_NUMBER = {"SOLVER.BIAS_LR_FACTOR", "SOLVER.WEIGHT_DECAY_BIAS", "TEST.EXPECTED_RESULTS_SIGMA_TOL"}
_DATASETS = ("DATASETS.TRAIN", "DATASETS.TEST")
_CATALOG = "PATHS_CATALOG"
_OWN_CATALOGS = {(package, "config", "paths_catalog.py") for package in ("maskrcnn_benchmark", "fcos_core")}


class CfgNode(yacs.config.CfgNode):
    """A section of the tree. Keys are attributes; `clone`, `freeze`, `defrost` and `str` are yacs's.

    Merging raises:
        UnknownNameError (a KeyError): a key that the tree does not have.
        ValueError: a value of the wrong type, a malformed file or list, a catalog in Python.
        FileNotFoundError: a missing file.
        AttributeError: the tree is frozen.
    """

    def merge_from_file(self, cfg_filename: str | os.PathLike) -> None:
        """Merge a YAML file, after the file that its `_BASE_` names (relative to it), and so on down."""
        changes = {}
        for path, tree in yaml_files.read_chain(cfg_filename):
            changes.update(self._checked(tree, path))
        self._change(changes, os.fspath(cfg_filename))

    def merge_from_list(self, cfg_list: list) -> None:
        """Merge [KEY, VALUE, KEY, VALUE, ...], as a command line gives it: "MODEL.DEVICE", "cpu", ..."""
        source = "command line"
        cfg_list = list(cfg_list)
        if len(cfg_list) % 2:
            joined = [str(item) for item in cfg_list if "=" in str(item)]
            hint = f" Write a space instead of '=' in {joined[0]!r}." if joined else ""
            raise ValueError(
                f"{source}: keys and values come in pairs, KEY VALUE KEY VALUE ..., but these are "
                f"{len(cfg_list)}: {' '.join(map(str, cfg_list))}.{hint}"
            )
        changes = {}
        for key, value in zip(cfg_list[0::2], cfg_list[1::2], strict=True):
            changes.update(self._checked_at(str(key).split("."), value, source))
        self._change(changes, source)

    def merge_from_other_cfg(self, cfg_other: dict) -> None:
        """Merge another tree, or part of one."""
        self._change(self._checked(cfg_other, "merged config"), "merged config")

    def dump(self, **kwargs) -> str:
        """The tree as YAML; merging it back gives the same tree. Keyword arguments are those of yaml.dump."""
        return yaml_files.dump(_plain(self), **kwargs)

    @classmethod
    def _load_cfg_from_yaml_str(cls, str_obj):
        return cls(yaml_files.parse(str_obj, "config"))

    @classmethod
    def _load_cfg_py_source(cls, filename):
        yaml_files.refuse_python(filename)

    def _checked(self, tree: dict, source: str, parents: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
        """{path of a leaf: its new value} for all of `tree`."""
        changes = {}
        for key, value in tree.items():
            changes.update(self._checked_at([*parents, str(key)], value, source))
        return changes

    def _checked_at(self, path: list[str], value, source: str) -> dict[tuple[str, ...], object]:
        node = self
        for i, part in enumerate(path):
            if not isinstance(node, dict) or part not in node:
                raise UnknownNameError(self._unknown(path[: i + 1], path, value, source))
            node = node[part]
        key = ".".join(path)
        if isinstance(node, CfgNode):
            if isinstance(value, str):
                value = literal(value)
            if not isinstance(value, dict):
                keys = ", ".join(list(node)[:4])
                raise ValueError(f"{source}: {key} is a section with keys ({keys}, ...), not {_shown(value)}.")
            return self._checked(value, source, tuple(path))
        if key in _DATASETS:
            value = check_entries(literal(value) if isinstance(value, str) else value, f"{source}: {key}")
        else:
            try:
                value = convert(value, node, any_number=key in _ANY_NUMBER)
            except Mismatch as error:
                raise ValueError(
                    f"{source}: {key} should be {error}, but is {_shown(value)}. Its default is {node!r}."
                ) from None
        return {tuple(path): value}

    def _unknown(self, missing: list[str], path: list[str], value, source: str) -> str:
        known = list(_names(self))
        given = ".".join(path)
        at = ".".join(missing)
        if path == missing and at in known:  # a dotted key in a file
            return f"{source}: write {at} as nested sections, {': {'.join(at.split('.'))}: ...{'}' * at.count('.')}."
        near = nearest(given, known)
        where = "" if given == at else f" in {given}"
        what = "a section" if isinstance(value, dict) else _shown(value)
        return f"{source}: unknown key {at}{where}, given as {what}. Nearest known: {' or '.join(near)}."

    def _change(self, changes: dict[tuple[str, ...], object], source: str) -> None:
        if self.is_frozen():
            raise AttributeError(f"{source}: the config is frozen; merge before freeze(), or after defrost().")
        catalog = changes.pop((_CATALOG,), None)
        if catalog not in (None, self.get(_CATALOG)) and PurePath(catalog).parts[-3:] not in _OWN_CATALOGS:
            entries = {key: changes.get(tuple(key.split(".")), self.DATASETS[key[9:]]) for key in _DATASETS}
            raise ValueError(
                f"{source}: {_CATALOG} {catalog} is a Python file and is not executed. Leave {_CATALOG} out and name "
                f"the data in the config itself:\n\n{inline_equivalent(catalog, entries)}"
            )
        for path, value in changes.items():
            node = self
            for part in path[:-1]:
                node = node[part]
            node[path[-1]] = value


def _shown(value) -> str:
    text = repr(value)
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({type(value).__name__})"


def _names(node: dict, prefix: str = ""):
    for key, value in node.items():
        yield prefix + key
        if isinstance(value, CfgNode):
            yield from _names(value, f"{prefix}{key}.")


def _plain(value):
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value
