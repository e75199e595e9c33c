"""Reading YAML: nothing is executed, keys stand once, `_BASE_` chains are followed."""

from __future__ import annotations

import os
import re

import yaml

from .errors import nearest

BASE_KEY = "_BASE_"

# YAML 1.1 takes 1e-3 and 1.5e3 for strings: it wants a dot and a signed exponent.
_EXPONENT = re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")
_FLOAT_TAG = "tag:yaml.org,2002:float"


class _Loader(yaml.SafeLoader):
    """The safe loader, refusing a key that a mapping holds twice (YAML would let the last one win)."""

    def construct_mapping(self, node, deep=False):
        if isinstance(node, yaml.MappingNode):
            seen = {}
            for key, _ in node.value:
                first = seen.setdefault(key.value, key) if isinstance(key, yaml.ScalarNode) else key
                if first is not key:
                    problem = f"key {key.value!r} is already in line {first.start_mark.line + 1}; keep one"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """The safe dumper, quoting a string that the loader above would read as a number, and without &anchors."""

    def ignore_aliases(self, data):
        return True


_Loader.add_implicit_resolver(_FLOAT_TAG, _EXPONENT, list("-+.0123456789"))
_Dumper.add_implicit_resolver(_FLOAT_TAG, _EXPONENT, list("-+.0123456789"))


def dump(tree: dict, **kwargs) -> str:
    """`tree` as YAML text that `parse` reads back to the same values (tuples come back as lists)."""
    return yaml.dump(tree, Dumper=_Dumper, **kwargs)


def parse(text: str, source: str) -> dict:
    """The mapping that YAML `text` holds.

    Raises:
        ValueError: malformed, empty, not a mapping, a key twice, or a tag that would build a Python object.
            `source` names the file in the message.
    """
    try:
        tree = yaml.load(text, Loader=_Loader)
    except yaml.constructor.ConstructorError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        hint = ". Nothing in a config is executed: write plain values" if "tag" in str(error.problem) else ""
        raise ValueError(f"{source}{where}: {error.problem}{hint}.") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{source} is not well-formed YAML: {error}") from None
    if tree is None:
        raise ValueError(f"{source} holds no keys (it is empty, or all of it is commented out).")
    if not isinstance(tree, dict):
        raise ValueError(f"{source} should hold KEY: VALUE lines, but is a {type(tree).__name__}: {str(tree)[:60]!r}.")
    return tree


def read_chain(path: str | os.PathLike) -> list[tuple[str, dict]]:
    """The file and the files it stands on, the lowest first: what comes later overrides what came before.

    `_BASE_: FILE` names the file below, relative to the file that says so. `~` is the home folder.

    Returns: [(path, mapping without _BASE_), ...]
    Raises:
        FileNotFoundError: a file is missing; the message says which file named it.
        ValueError: see `parse`; also for Python files and for a `_BASE_` chain that meets itself.
    """
    chain: list[tuple[str, dict]] = []
    named_by = ""
    path = os.path.expanduser(os.fspath(path))
    while True:
        visited = [os.path.realpath(p) for p, _ in chain]
        if os.path.realpath(path) in visited:
            raise ValueError("_BASE_ goes in a circle: " + " -> ".join([*(p for p, _ in chain), path]))
        tree = parse(_read(path, named_by), path)
        base = tree.pop(BASE_KEY, None)
        chain.append((path, tree))
        if base is None:
            return chain[::-1]
        if not isinstance(base, str) or not base:
            raise ValueError(f"{path}: {BASE_KEY} should be one file name, but is {base!r} ({type(base).__name__}).")
        named_by, path = path, os.path.normpath(os.path.join(os.path.dirname(path), os.path.expanduser(base)))


def refuse_python(path: str) -> None:
    """Raises ValueError for a Python file: yacs would run it."""
    if os.path.splitext(path)[1].lower() in (".py", ".pyc"):
        raise ValueError(f"{path}: a config in Python is not executed. Write its keys as YAML (KEY: VALUE lines).")


def _read(path: str, named_by: str) -> str:
    refuse_python(path)
    because = f" ({BASE_KEY} of {named_by})" if named_by else f" (working directory {os.getcwd()})"
    if not os.path.exists(path):
        folder = os.path.dirname(path) or "."
        if not os.path.isdir(folder):
            hint = f" There is no folder {folder}."
        else:
            near = nearest(os.path.basename(path), os.listdir(folder), 1)
            hint = f" Nearest in its folder: {os.path.join(folder, near[0])}." if near else f" {folder} is empty."
        raise FileNotFoundError(f"config file {path} does not exist{because}.{hint}")
    if not os.path.isfile(path):
        raise ValueError(f"config file {path} is not a file{because}.")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8: {error}.") from None
