"""Checks of the fields that an answers file gives to an answer: their types, as the class declares them, and ranges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from gpt2lab.errors import UsageError

Answer = TypeVar("Answer")


def made(kind: type[Answer], given: Mapping[str, Any]) -> Answer:
    """Return an instance of a dataclass. Raises UsageError if a field is missing, unknown or of another type."""
    hints = get_type_hints(kind)
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    for name, value in given.items():
        if name not in known:
            raise UsageError(f"{name!r} is not a field; there are {', '.join(sorted(known))}")
        if not _fits(value, hints[name]):
            raise UsageError(f"{name!r} must be {_words(hints[name])}, got {value!r:.60}")
    try:
        return kind(**given)
    except TypeError as error:  # missing fields, which Python names
        raise UsageError(str(error).partition("() ")[2] or str(error)) from None


def require(condition: bool, what: str) -> None:
    """Raise :class:`~gpt2lab.errors.UsageError` unless the condition holds."""
    if not condition:
        raise UsageError(what)


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31
    if get_origin(hint) is Sequence:
        return isinstance(value, list) and all(_fits(each, get_args(hint)[0]) for each in value)
    if get_origin(hint) is Mapping:
        return isinstance(value, dict) and all(_fits(each, get_args(hint)[1]) for each in value.values())
    return isinstance(value, hint)


def _words(hint: Any) -> str:
    """Return the type's name for readers."""
    names = {float: "a number", int: "a whole number", str: "a text", bool: "true or false", type(None): "null"}
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_words, get_args(hint)))
    if get_origin(hint) is Sequence:
        return f"a list, each entry {_words(get_args(hint)[0])}"
    if get_origin(hint) is Mapping:
        return f"an object, each value {_words(get_args(hint)[1])}"
    return names[hint]
