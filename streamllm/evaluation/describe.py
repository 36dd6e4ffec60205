"""What an object is, in plain values, so that a run can be named by it. Invariant: two objects that may behave
differently never have one description."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from streamllm.records import Example
from streamllm.runs.made_from import of_sentences


def describe(value: Any, name: str) -> Any:
    """``value`` as a configuration would have it: plain values as they are, an object that is a frozen dataclass as its
    class (``_target_``) and its fields.

    An object of another kind may have a method ``describe()`` that returns plain values.

    Args:
        name: of what it is, for the error.

    Raises:
        ValueError: the object cannot say what it is.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Example):
        sentences = [[one.start, one.units, one.source, one.reference] for one in value.segments]
        return [value.id, value.source, value.reference, *([sentences] if sentences else [])]
    if isinstance(value, Mapping):
        return {str(key): describe(item, f"{name}.{key}") for key, item in value.items()}
    if _is_examples(value):
        return {"_target_": "examples", "number": len(value), **of_sentences(value)["sentences"]}
    if isinstance(value, list | tuple):
        return [describe(item, f"{name}[{number}]") for number, item in enumerate(value)]
    target = f"{type(value).__module__}.{type(value).__qualname__}"
    if callable(method := getattr(value, "describe", None)) and not isinstance(value, type):
        return {"_target_": target, **describe(dict(method()), name)}
    if is_dataclass(value) and not isinstance(value, type) and value.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        own = {field.name: describe(getattr(value, field.name), f"{name}.{field.name}") for field in fields(value)}
        return {"_target_": target, **own}
    raise ValueError(
        f"{name} is a {type(value).__name__}, which cannot say what it is, so that no run can be named by it: make its "
        "class a frozen dataclass, or give it a method describe() that returns all that tells it from its like"
    )


def _is_examples(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, Example) for item in value)
