"""Lazy faces of rooms (PEP 562): `from streamllm.runs import load_runs` works, and nothing is imported before it is
asked for. An eager face would load mlx-lm, or Matplotlib, for whoever wants a small file beside it."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def face(room: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of the module ``room``.

    Args:
        names: of what the room offers, each with the module that has it.
    """

    def getattribute(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        return getattr(import_module(names[name]), name)

    return getattribute, lambda: sorted(names), sorted(names)
