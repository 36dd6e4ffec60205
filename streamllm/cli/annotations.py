"""Whether a value of a configuration fits an annotation, and that annotation in words.

Invariant: what cannot be told from plain values (classes of one's own, what is not annotated) fits."""

import math
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from inspect import Parameter
from typing import Any, Literal, Union

Part = typing.NewType("Part", Mapping[str, Any])
"""A part of a configuration that names its class by ``_target_``."""

WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    None: "null",
    types.NoneType: "null",
    Part: "a group of keys with a line _target_: MODULE.CLASS",
}
SEVERAL = {"a whole number": "whole numbers", "a number": "numbers", "a text": "texts"}
LISTS = (list, tuple, set, frozenset)


def fits(value: Any, kind: Any) -> bool:
    """Whether a plain value (of YAML) may be given where ``kind`` is the annotation. An int is a float, a bool is no
    int, a text is no list, and a list is a tuple. What names a class is made before it is given, and fits."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Part or names_a_class(value):
        return names_a_class(value)
    if kind in (None, types.NoneType):
        return value is None
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    if kind is str:
        return isinstance(value, str)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner if not _is_function(one))
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if origin is typing.Annotated:
        return fits(value, inner[0])
    return _fits_a_class(value, origin or kind, inner)


def _fits_a_class(value: Any, kind: Any, inner: tuple[Any, ...]) -> bool:
    shape = _shape(kind)
    if shape == "path":
        return isinstance(value, str)
    if shape == "keys":
        of_key, of_item = inner if len(inner) == 2 else (Any, Any)
        return isinstance(value, Mapping) and all(
            fits(key, of_key) and fits(item, of_item) for key, item in value.items()
        )
    if shape == "list":
        if not isinstance(value, list):
            return False
        if kind is tuple and inner and inner[-1] is not ...:
            return len(value) == len(inner) and all(map(fits, value, inner))
        return all(fits(item, inner[0]) for item in value) if inner else True
    return True


def _is_function(kind: Any) -> bool:
    return (typing.get_origin(kind) or kind) is Callable


@cache
def _shape(kind: Any) -> Literal["path", "keys", "list"] | None:
    """What a value of YAML has to be for a class; None where that is for its constructor to say."""
    if not isinstance(kind, type) or typing.is_typeddict(kind):
        return None
    if issubclass(kind, os.PathLike):
        return "path"
    if kind is dict or (kind.__module__ == "collections.abc" and issubclass(kind, Mapping)):
        return "keys"
    if kind in LISTS or (kind.__module__ == "collections.abc" and issubclass(kind, Iterable)):
        return "list"
    return None


def in_words(kind: Any) -> str:
    """What an annotation accepts: "a whole number or null"."""
    *first, last = list(dict.fromkeys(_alternatives(kind))) or ["another value"]
    return f"{', '.join(first)} or {last}" if first else last


def _alternatives(kind: Any) -> list[str]:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _alternatives(inner[0])
    if kind in WORDS:
        return [WORDS[kind]]
    if origin in (Union, types.UnionType):
        return [word for one in sorted(inner, key=lambda one: one is types.NoneType) for word in _alternatives(one)]
    if origin is Literal:
        return [shown(one) for one in inner]
    shape = _shape(origin or kind)
    if shape == "path":
        return [WORDS[str]]
    if shape == "keys":
        return [f"keys, each with {in_words(inner[1])}" if len(inner) == 2 else "keys with values"]
    if shape == "list":
        return [f"a list of {_several(inner[0])}" if inner else "a list"]
    return []


def _several(kind: Any) -> str:
    words = list(dict.fromkeys(_alternatives(kind))) or ["other values"]
    return " or ".join(SEVERAL.get(word, word.replace("a list of ", "lists of ", 1)) for word in words)


def names_a_class(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("_target_"), str)


def shown(value: Any) -> str:
    """A value as it is typed, cut where it is long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def allows(parameter: Parameter, value: Any) -> bool:
    """Whether a value fits a parameter; the default always does, whatever is annotated."""
    kind = parameter.annotation
    if kind is Parameter.empty or (value is None and parameter.default is None):
        return True
    return fits(value, kind)
