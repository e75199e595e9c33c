"""Convert values to the type of a key's default."""

from __future__ import annotations

import ast
import numbers

from . import yaml_files


class Mismatch(ValueError):
    """Value that cannot be converted to the default's type; the message describes valid values."""


def literal(text: str):
    """Parse a value of the command line.

    Returns:
        The value of a Python literal (number, string, tuple, list, dict, True, None), or of a YAML list or mapping in
        brackets, such as [{NAME: bees, FORMAT: coco}]; other text is returned unchanged.
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return yaml_files.parse_brackets(text)


def convert(value, default, *, any_number: bool = False):
    """Convert a value to the type of its default.

    Strings are evaluated as literals, as on a command line. Integers convert to floats, 9e4 to an integer, lists to
    tuples and vice versa, and "true" to True. Elements of a sequence must have the type of the default's first element,
    if there is one. Nested sequences get the type of the outer one.

    Args:
        value: value to convert.
        default: default of the key.
        any_number: accept any number although the default is an integer.

    Raises:
        Mismatch: the value cannot be converted; the message describes valid values.
    """
    if isinstance(default, str):
        return _string(value)
    if isinstance(value, str):
        value = literal(value.strip())
    if default is None:
        return value
    if isinstance(default, bool):
        return _boolean(value)
    if isinstance(default, (int, float)):
        return _number(value, default, any_number)
    if isinstance(default, (tuple, list)):
        return _sequence(value, default)
    raise Mismatch(f"a {type(default).__name__}")


def _string(value) -> str:
    text = literal(value) if isinstance(value, str) else value
    if text is None:
        raise Mismatch('text (write "" for none)')
    if not isinstance(value, str):
        raise Mismatch("text (put it in quotes)")
    return text if isinstance(text, str) else value


def _boolean(value) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise Mismatch("True or False")
    return value


def _number(value, default, any_number):
    whole = isinstance(default, int)
    wanted = "a number" if any_number or not whole else "a whole number"
    if isinstance(value, str) and not whole:
        try:
            value = float(value)  # inf
        except ValueError:
            pass
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise Mismatch(wanted)
    try:
        as_float = float(value)
    except OverflowError:
        raise Mismatch(f"{wanted} of fewer digits") from None
    if not whole:
        return as_float
    if value == value and abs(value) != float("inf") and int(value) == value:
        return int(value)
    if any_number:
        return float(value)
    raise Mismatch(wanted)


def _sequence(value, default):
    kind = type(default)
    if not isinstance(value, (tuple, list)):
        alone = "" if isinstance(value, (str, dict, type(None))) else f", even of one: [{value}]"
        raise Mismatch("a list" + alone)
    if not default or _is_record(default[0]):
        return _same_kind(value, kind)
    try:
        # Defaults of sizes and strides are integers, but any number is valid.
        return kind(convert(v, default[0], any_number=True) for v in value)
    except Mismatch as error:
        raise Mismatch(f"a list, each entry {error}") from None


def _is_record(entry) -> bool:
    """Return whether a sequence mixes strings and other types, as in TEST.EXPECTED_RESULTS."""
    return isinstance(entry, (tuple, list)) and len({isinstance(element, str) for element in entry}) > 1


def _same_kind(value, kind):
    return kind(_same_kind(v, kind) if isinstance(v, (tuple, list)) else v for v in value)
