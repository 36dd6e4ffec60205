"""Valid JSON with a few mistakes in it, for files that somebody has edited, cut or made up."""

import copy
import json
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import strategies as st

ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    10**30,
    1e308,
    "",
    "x",
    "after_source",
    "\ud800",
    [],
    [[]],
    {},
    {"_target_": "os.getcwd"},
]
values = st.one_of(
    st.sampled_from(ODD),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=5,
    ),
)


Read = TypeVar("Read")


def read_or_refused(read: Callable[[], Read], kind: type[ValueError]) -> Read | None:
    """What ``read`` gives; None where it raises ``kind``, which must be one line; other errors pass."""
    try:
        return read()
    except kind as error:
        message = str(error)
    assert "\n" not in message
    return None


def places(content: Any, so_far: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [place for key, value in items for place in ((*so_far, key), *places(value, (*so_far, key)))]


@st.composite
def mutated(draw: st.DrawFn, content: Any) -> bytes:
    """``content`` as JSON, with one to three mistakes: a value that is gone, another one, or deep inside lists; or
    bytes that are other ones."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        if not (ways := places(content)):
            break
        *way, last = draw(st.sampled_from(ways))
        parent = content
        for key in way:
            parent = parent[key]
        match draw(st.sampled_from(["drop", "replace", "add"])):
            case "drop":
                del parent[last]
            case "replace":
                parent[last] = copy.deepcopy(draw(values))
            case _ if isinstance(parent, dict):
                parent[draw(st.text(max_size=4))] = copy.deepcopy(draw(values))
            case _:
                parent.append(copy.deepcopy(draw(values)))
    text = json.dumps(content).encode()
    match draw(st.sampled_from(["whole", "whole", "whole", "cut", "deep", "bytes"])):
        case "cut":
            return text[: draw(st.integers(0, len(text)))]
        case "deep":
            return text.replace(b'"', b"[" * 100_000 + b'"', 1)
        case "bytes":
            at = draw(st.integers(0, len(text)))
            return (text[:at] + draw(st.binary(min_size=1, max_size=3)) + text[at + 1 :]).replace(b"\n", b" ")
    return text
