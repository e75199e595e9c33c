"""Read YAML configs: nothing is executed, repeated keys are errors, and `_BASE_` chains are followed."""

from __future__ import annotations

import os
import re

import yaml

from .errors import nearest, shorten

BASE_KEY = "_BASE_"

# Limits far above any config. Without them a small file can keep the reader busy for hours.
MAX_BYTES = 2**20
MAX_NODES = 20_000  # keys, values and lists, including those repeated by aliases; takes about three seconds
MAX_DEPTH = 50
MAX_DIGITS = 100  # characters of a number

# YAML 1.1 reads 1e-3 and 1.5e3 as strings, because it requires a dot and a signed exponent. No two parts of the pattern
# match the same digits, so that the time is linear.
_EXPONENT = re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")
_FLOAT_TAG = "tag:yaml.org,2002:float"


class _Loader(yaml.SafeLoader):
    """SafeLoader with the limits above, which raises for repeated keys; in YAML the last one wins silently."""

    def __init__(self, stream):
        super().__init__(stream)
        self._nodes = self._depth = 0
        self._sizes: dict[yaml.Node, int | None] = {}  # sizes of complete nodes

    def compose_node(self, parent, index):
        mark = self.peek_event().start_mark
        if self._depth >= MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"more than {MAX_DEPTH} levels of lists and keys", mark)
        alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        before = self._nodes
        node = super().compose_node(parent, index)
        self._depth -= 1
        if alias and node not in self._sizes:
            raise yaml.composer.ComposerError(None, None, "an alias is inside the node that it repeats", mark)
        self._nodes += self._sizes[node] if alias else 1
        if self._nodes > MAX_NODES:
            problem = f"more than {MAX_NODES} keys and values, including those repeated by aliases (*name)"
            raise yaml.composer.ComposerError(None, None, problem, mark)
        self._sizes.setdefault(node, self._nodes - before)
        return node

    def construct_mapping(self, node, deep=False):
        if isinstance(node, yaml.MappingNode):
            seen = {}
            for key, _ in node.value:
                first = seen.setdefault(key.value, key) if isinstance(key, yaml.ScalarNode) else key
                if first is not key:
                    problem = f"key {key.value!r} is already in line {first.start_mark.line + 1}; keep one"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep)

    def construct_number(self, node):
        if len(node.value) > MAX_DIGITS:
            problem = f"a number of {len(node.value)} characters; the maximum is {MAX_DIGITS}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        is_float = node.tag == _FLOAT_TAG
        try:
            return self.construct_yaml_float(node) if is_float else self.construct_yaml_int(node)
        except (ValueError, IndexError):
            problem = f"{node.value!r} is not a number"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


for _tag in (_FLOAT_TAG, "tag:yaml.org,2002:int"):
    _Loader.add_constructor(_tag, _Loader.construct_number)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes strings which _Loader would read as numbers, and writes no &anchors."""

    def ignore_aliases(self, data):
        return True


class _InlineDumper(_Dumper):
    """_Dumper that writes every list on one line."""

    def represent_sequence(self, tag, sequence, flow_style=None):
        return super().represent_sequence(tag, sequence, flow_style=True)


_Loader.add_implicit_resolver(_FLOAT_TAG, _EXPONENT, list("-+.0123456789"))
_Dumper.add_implicit_resolver(_FLOAT_TAG, _EXPONENT, list("-+.0123456789"))


def dump(tree: dict, *, inline_lists: bool = False, **kwargs) -> str:
    """Return YAML text that `parse` reads back to the same values (tuples as lists)."""
    return yaml.dump(tree, Dumper=_InlineDumper if inline_lists else _Dumper, **kwargs)


def parse_brackets(text: str):
    """Parse a YAML list or mapping in brackets, as in "[a, b]" or "{FORMAT: coco}".

    Returns:
        The list or dict, or `text` itself if it is anything else.
    """
    if text[:1] not in ("[", "{") or len(text) > MAX_BYTES:
        return text
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        return text


def parse(text: str, source: str) -> dict:
    """Parse YAML text to a mapping.

    Args:
        text: YAML.
        source: name of the file in errors.

    Raises:
        ValueError: the text is malformed, empty or not a mapping, repeats a key, or has a tag for a Python object.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"{source} has {len(text)} characters; a config has at most {MAX_BYTES}. Is it another file?")
    try:
        tree = yaml.load(text, Loader=_Loader)
    except (yaml.constructor.ConstructorError, yaml.composer.ComposerError) as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        hint = ". Nothing in a config is executed: write plain values" if "tag" in str(error.problem) else ""
        raise ValueError(shorten(f"{source}{where}: {error.problem}{hint}.")) from None
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        tab = _line_with_tab(text, error)
        if tab is not None:
            raise ValueError(
                f"{source}, line {tab + 1}: a tab; YAML allows only spaces for indentation and after the colon of a "
                "key. Replace it by spaces."
            ) from None
        raise ValueError(shorten(f"{source} is not well-formed YAML: {error}")) from None
    if tree is None:
        raise ValueError(f"{source} holds no keys (it is empty, or all of it is commented out).")
    if not isinstance(tree, dict):
        raise ValueError(f"{source} should hold KEY: VALUE lines, but is a {type(tree).__name__}: {str(tree)[:60]!r}.")
    return tree


def _line_with_tab(text: str, error) -> int | None:
    """Return the number, from 0, of the line with the tab that caused a parse error, or None."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return None
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    indentation = line[: len(line) - len(line.lstrip())]
    return mark.line if "'\\t'" in str(getattr(error, "problem", "")) or "\t" in indentation else None


def read_chain(path: str | os.PathLike) -> list[tuple[str, dict]]:
    """Read a file and its chain of `_BASE_` files.

    `_BASE_: FILE` names the base, relative to the file that has the key. `~` is the home folder.

    Returns:
        [(path, mapping without _BASE_), ...], the lowest base first; later files override earlier ones.

    Raises:
        FileNotFoundError: a file is missing; the message names the file that refers to it.
        ValueError: see `parse`; or a file is a Python file, or the `_BASE_` chain is circular.
    """
    chain: list[tuple[str, dict]] = []
    named_by = ""
    path = os.path.expanduser(os.fspath(path))
    while True:
        visited = [os.path.realpath(p) for p, _ in chain]
        if os.path.realpath(path) in visited:
            raise ValueError("the _BASE_ chain is circular: " + " -> ".join([*(p for p, _ in chain), path]))
        tree = parse(_read(path, named_by), path)
        base = tree.pop(BASE_KEY, None)
        chain.append((path, tree))
        if base is None:
            return chain[::-1]
        if not isinstance(base, str) or not base:
            raise ValueError(f"{path}: {BASE_KEY} should be one file name, but is {base!r} ({type(base).__name__}).")
        named_by, path = path, os.path.normpath(os.path.join(os.path.dirname(path), os.path.expanduser(base)))


def refuse_python(path: str) -> None:
    """Raise ValueError for a Python file, which yacs would run."""
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
            return file.read(MAX_BYTES + 1)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8: {error}.") from None
