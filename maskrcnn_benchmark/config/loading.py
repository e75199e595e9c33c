"""The node type of the config tree: yacs's, with `_BASE_`, clear errors, and nothing that can run code.

A merge is checked as a whole before anything is changed, so that a refused file leaves the tree as it was.
"""

from __future__ import annotations

import os
from pathlib import PurePath

import yacs.config

from . import yaml_files
from .errors import UnknownNameError, nearest, shorten
from .foreign_catalog import inline_equivalent
from .paths_catalog import check_entries
from .values import Mismatch, convert, literal

# Whole numbers by default in the forks, though any number makes sense.
_ANY_NUMBER = {"SOLVER.BIAS_LR_FACTOR", "SOLVER.WEIGHT_DECAY_BIAS", "TEST.EXPECTED_RESULTS_SIGMA_TOL"}
_DATASETS = ("DATASETS.TRAIN", "DATASETS.TEST")
_CATALOG = "PATHS_CATALOG"
_OWN_CATALOGS = {(package, "config", "paths_catalog.py") for package in ("maskrcnn_benchmark", "fcos_core")}


# What a key that is new in the tree may hold.
_NEW_VALUES = (str, int, float, bool, list, tuple, type(None))


class CfgNode(yacs.config.CfgNode):
    """A section of the tree. Keys are attributes; `clone`, `freeze` and `defrost` are yacs's.

    Sections of a client's own are yacs's or these nodes, assigned to an attribute. `set_new_allowed(True)` lets files
    and lists add keys, which have no type yet. `register_deprecated_key` names keys that are ignored, with a warning;
    `register_renamed_key`, keys whose error says the new name. Both are called on the node that is merged into.

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
            hint = f" Write a space instead of '=' in {shorten(joined[0], 200)!r}." if joined else ""
            given = shorten(" ".join(map(str, cfg_list)))
            raise ValueError(
                f"{source}: keys and values come in pairs, KEY VALUE KEY VALUE ..., but these are "
                f"{len(cfg_list)}: {given}.{hint}"
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

    def __str__(self) -> str:
        """The tree as YAML, one key a line; merging it back gives the same tree."""
        return yaml_files.dump(_plain(self), inline_lists=True, width=10**6, allow_unicode=True).rstrip("\n")

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
                return self._checked_missing(node, path, i + 1, value, source)
            node = node[part]
        key = ".".join(path)
        if isinstance(node, yacs.config.CfgNode):
            if isinstance(value, str):
                value = literal(value)
            if not isinstance(value, dict):
                keys = f"with keys ({', '.join(list(node)[:4])}, ...)" if node else "without keys"
                raise ValueError(f"{source}: {key} is a section {keys}, not {_shown(value)}.")
            return self._checked(value, source, tuple(path))
        if key in _DATASETS:
            value = check_entries(literal(value) if isinstance(value, str) else value, f"{source}: {key}")
        else:
            try:
                value = convert(value, node, any_number=key in _ANY_NUMBER)
            except Mismatch as error:
                raise ValueError(
                    f"{source}: {key} should be {error}, but is {_shown(value)}. Its default is {_shown(node)}."
                ) from None
        return {tuple(path): value}

    def _checked_missing(self, node, path: list[str], found: int, value, source: str):
        """The changes for a key that the tree lacks: none for a deprecated one, itself where new keys are allowed.

        Args:
            node: the deepest section (or value) of the path that there is.
            found: the length of the path up to the first missing name.
        """
        for length in range(found, len(path) + 1):
            key = ".".join(path[:length])
            if self.key_is_deprecated(key):  # yacs logs it
                return {}
            if self.key_is_renamed(key):
                raise UnknownNameError(shorten(f"{source}: {self._renamed(key)}"))
        if isinstance(value, dict) and (self._old_names_below(path) or _is_open(node)):
            changes = self._checked(value, source, tuple(path))
            return changes or ({tuple(path): CfgNode(new_allowed=True)} if _is_open(node) else {})
        if not _is_open(node):
            raise UnknownNameError(shorten(self._unknown(path[:found], path, value, source)))
        value = literal(value) if isinstance(value, str) else value
        if not isinstance(value, _NEW_VALUES):
            raise ValueError(
                f"{source}: the new key {'.'.join(path)} is {_shown(value)}; it should be text, a number, True, False, "
                "a list or nothing."
            )
        return {tuple(path): value}

    def _old_names_below(self, path: list[str]) -> bool:
        """Whether deprecated or renamed keys are registered in a section that the tree lacks."""
        section = ".".join(path) + "."
        names = self.__dict__[self.DEPRECATED_KEYS] | self.__dict__[self.RENAMED_KEYS].keys()
        return any(name.startswith(section) for name in names)

    def _renamed(self, key: str) -> str:
        new = self.__dict__[self.RENAMED_KEYS][key]
        new, note = new if isinstance(new, tuple) else (new, "")
        return f"{key} was renamed to {new}; write that instead." + (f" {note}" if note else "")

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
                if not isinstance(node.get(part), yacs.config.CfgNode):
                    node[part] = CfgNode(new_allowed=True)
                node = node[part]
            node[path[-1]] = value


def _is_open(node) -> bool:
    return isinstance(node, yacs.config.CfgNode) and node.is_new_allowed()


def _shown(value) -> str:
    text = repr(value)
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({type(value).__name__})"


def _names(node: dict, prefix: str = ""):
    for key, value in node.items():
        yield prefix + key
        if isinstance(value, yacs.config.CfgNode):
            yield from _names(value, f"{prefix}{key}.")


def _plain(value):
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value
