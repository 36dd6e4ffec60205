"""JSON of files, read and checked against a shape by msgspec. Invariant: whatever a file holds, what comes out has the
shape, or one ValueError says where it has not. What is written is written by `json`: msgspec writes 1e-5 otherwise."""

import json
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from streamllm.files import RunError, open_to_read, read_bytes

Shape = TypeVar("Shape")

DEEPEST = 100  # lists and objects inside each other; nothing of ours comes near, and Python's own limit is a crash


def parse(text: bytes) -> Any:
    """JSON in UTF-8, as values of Python.

    Raises:
        ValueError: it is none, holds NaN, Infinity or half a character, or is nested too deep.
    """
    decoded = text.decode("utf-8")
    try:
        content = _DECODER.decode(decoded)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if "\\u" in decoded:
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except RecursionError as error:
            raise ValueError("it is nested too deep") from error
        except UnicodeEncodeError as error:
            raise ValueError(f"{error.object[error.start]!a} is half a character") from error
    if decoded.count("[") + decoded.count("{") > DEEPEST:
        plain(content)
    return content


def parse_yaml(text: bytes | str, most: int = 10_000_000) -> Any:
    """YAML, as values of Python; ``most`` as for `plain`.

    Raises: ValueError: it is none, is nested too deep, or repeats too much.
    """
    import yaml

    try:
        content = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # the C one is ten times faster
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    plain(content, most)
    return content


def plain(content: Any, most: int = 10_000_000) -> None:
    """Check that values are nested no deeper than `DEEPEST` and, what a file repeats by reference counted each time, no
    more than ``most``.

    Raises: ValueError: they are.
    """
    level: list[Any] = [content]
    for _ in range(DEEPEST):
        inside = (child for one in level if isinstance(one, dict | list) for child in _children(one))
        level = list(islice(inside, most + 1))
        most -= len(level)
        if most < 0:
            raise ValueError("it holds too many values")
        if not level:
            return
    raise ValueError("it is nested too deep")


def fit(content: Any, shape: type[Shape]) -> Shape:
    """``content`` as a ``shape``: a dataclass, or a type such as dict[str, int]. Keys that a dataclass does not have
    are left out.

    Raises: ValueError: it has not that shape, or the constructor of a dataclass refuses it; the message says where.
    """
    import msgspec

    try:
        return msgspec.convert(content, shape)
    except msgspec.ValidationError as error:
        raise ValueError(_said(str(error), content)) from error


def read_json(path: Path, shape: type[Shape], otherwise: str, kind: type[ValueError] = RunError) -> Shape:
    """A JSON file as a ``shape``.

    Args:
        otherwise: what to do where it is damaged.

    Raises: FileNotFoundError: it is not there. ``kind``: it is damaged.
    """
    try:
        return fit(parse(read_bytes(path)), shape)
    except ValueError as error:
        raise kind(f"{path} is damaged ({error}): {otherwise}") from error


def read_json_lines(
    path: Path,
    shape: type[Shape],
    damaged: Callable[[int, ValueError], None],
    quick: Callable[[bytes], Shape | None] = lambda line: None,
) -> Iterator[tuple[int, int, Shape]]:
    """The lines of a file of JSON, with their numbers from 1 and the bytes where they begin; none where it is not
    there. What follows the last line end is left out.

    Args:
        damaged: told of a line that has not the ``shape``, and why; unless it raises, the line is left out.
        quick: reads a line faster; None of it means that the line is read here.
    """
    if not path.exists():
        return
    begin = 0
    with open_to_read(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                found = read_line(line, shape, quick)
            except ValueError as error:
                damaged(number, error)
            else:
                yield number, begin, found
            begin += len(line)


def read_line(line: bytes, shape: type[Shape], quick: Callable[[bytes], Shape | None]) -> Shape:
    """One line. Raises: ValueError: it has not the ``shape``."""
    found = quick(line)
    return fit(parse(line.removesuffix(b"\n")), shape) if found is None else found


def shown(value: object) -> str:
    """A value for an error: short, however large it is."""
    return reprlib.repr(value)


def _children(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


# --- what msgspec says, in our words

KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def _said(what: str, content: Any) -> str:
    what, _, at = what.partition(" - at `$")
    steps = re.findall(r"\.(\w+)|\[(\d+)\]|(\[\.\.\.\])", at)
    for key, index, unknown in steps:
        if unknown:  # a value of an object, under a key that is not said
            return f"a value of {_place(at)} is not {_accepted(what)}"
        content = content[key] if key else content[int(index)]
    place = _place(at)
    if missing := re.match(r"Object missing required field `(.*)`", what):
        return f"{place or 'it'} has no {missing[1]}"
    if not what.startswith("Expected"):
        return f"{place}: {what}" if place else what
    return f"{place or 'it'} is {shown(content)}; it should be {_accepted(what)}"


def _place(at: str) -> str:
    return at.rstrip("`").replace("[...]", "").lstrip(".")


def _accepted(what: str) -> str:
    found = re.match(r"Expected `(.*?)`", what)
    names = found[1].split(" | ") if found else ["what it should be"]
    if {"int", "float"} <= set(names):
        names.remove("int")
    return " or ".join(KINDS.get(name, name) for name in names)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
