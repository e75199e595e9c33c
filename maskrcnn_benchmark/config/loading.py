"""Node type of the config tree: yacs's CfgNode with `_BASE_` and clear errors, which never runs code.

A merge is checked completely before anything is changed, so that an invalid file does not modify the tree.
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

# The forks' defaults are integers, but any number is valid.
_ANY_NUMBER = {"SOLVER.BIAS_LR_FACTOR", "SOLVER.WEIGHT_DECAY_BIAS", "TEST.EXPECTED_RESULTS_SIGMA_TOL"}
_DATASETS = ("DATASETS.TRAIN", "DATASETS.TEST")
_CATALOG = "PATHS_CATALOG"
_OWN_CATALOGS = {(package, "config", "paths_catalog.py") for package in ("maskrcnn_benchmark", "fcos_core")}


# Types of values that a new key may have.
_NEW_VALUES = (str, int, float, bool, list, tuple, type(None))


class CfgNode(yacs.config.CfgNode):
    """Section of the tree. Keys are attributes; `clone`, `freeze` and `defrost` are yacs's.

    To add a custom section, assign a node of this or of yacs's type to an attribute. `set_new_allowed(True)` allows
    files and lists to add keys of any type. `register_deprecated_key` ignores a key with a warning, and
    `register_renamed_key` raises an error with the new name; call both on the node that is merged into.

    Merging raises:
        UnknownNameError (a KeyError): a key is not in the tree.
        ValueError: a value has the wrong type, a file or list is malformed, or a catalog is in Python.
        FileNotFoundError: a file is missing.
        AttributeError: the tree is frozen.
    """

    def merge_from_file(self, cfg_filename: str | os.PathLike) -> None:
        """Merge a YAML file after its `_BASE_` files (paths relative to the file that names them)."""
        changes = {}
        for path, tree in yaml_files.read_chain(cfg_filename):
            changes.update(self._checked(tree, path))
        self._change(changes, os.fspath(cfg_filename))

    def merge_from_list(self, cfg_list: list) -> None:
        """Merge [KEY, VALUE, KEY, VALUE, ...] from a command line: "MODEL.DEVICE", "cpu", ..."""
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
        """Merge another tree or a part of one."""
        self._change(self._checked(cfg_other, "merged config"), "merged config")

    def dump(self, **kwargs) -> str:
        """Return the tree as YAML that merges back to the same tree. Keyword arguments are those of yaml.dump."""
        return yaml_files.dump(_plain(self), **kwargs)

    def __str__(self) -> str:
        """Return the tree as YAML with one key per line, which merges back to the same tree."""
        return yaml_files.dump(_plain(self), inline_lists=True, width=10**6, allow_unicode=True).rstrip("\n")

    @classmethod
    def _load_cfg_from_yaml_str(cls, str_obj):
        return cls(yaml_files.parse(str_obj, "config"))

    @classmethod
    def _load_cfg_py_source(cls, filename):
        yaml_files.refuse_python(filename)

    def _checked(self, tree: dict, source: str, parents: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
        """Check all values of `tree`, and return {path of a leaf: new value}."""
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
        """Return the changes for a key that is not in the tree: none for a deprecated key, or the new key if allowed.

        Args:
            node: the deepest existing section or value of the path.
            path: parts of the key.
            found: length of the path up to the first missing part.
            value: value given for the key.
            source: name of the file or list in errors.
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
                "a list or None."
            )
        return {tuple(path): value}

    def _old_names_below(self, path: list[str]) -> bool:
        """Return whether deprecated or renamed keys are registered below a section that is not in the tree."""
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
            entries = {
                key: changes.get(tuple(key.split(".")), self.DATASETS[key.removeprefix("DATASETS.")])
                for key in _DATASETS
            }
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
