"""Stand-ins for functions of MLX and of models. Invariant: a stand-in is seen by the thread alone that put it there;
when no thread has one, everything is as it was."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

_lock = threading.Lock()
_used: dict[tuple[int, str], int] = {}  # how many stand-ins are in place, for each owner and name
_inherited: set[tuple[int, str]] = set()  # names that the owner had from a base class, not from itself


class _OfThread(threading.local):
    """The stand-ins of a thread for each owner and name, the last one on top."""

    def __init__(self) -> None:
        self.stacks: defaultdict[tuple[int, str], list[Callable[..., Any]]] = defaultdict(list)


_mine = _OfThread()


@contextmanager
def replaced(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Inside, in this thread, ``make(function)`` stands for the ``function`` that ``owner`` has by that name.

    Args:
        owner: a module, or a class whose methods are meant.
        make: gets what this thread sees so far: the original, or the last stand-in.
    """
    key = (id(owner), name)
    with _lock:
        if key not in _used:
            _used[key] = 0
            if name not in vars(owner):
                _inherited.add(key)
            setattr(owner, name, _dispatcher(key, getattr(owner, name)))
        _used[key] += 1
        original = getattr(owner, name).__wrapped__
    stack = _mine.stacks[key]
    stack.append(make(stack[-1] if stack else original))
    try:
        yield
    finally:
        stack.pop()
        with _lock:
            _used[key] -= 1
            if not _used[key]:
                del _used[key]
                if key in _inherited:
                    _inherited.remove(key)
                    delattr(owner, name)
                else:
                    setattr(owner, name, original)


def _dispatcher(key: tuple[int, str], original: Callable[..., Any]) -> Callable[..., Any]:
    """Stands for a function in all threads."""

    @wraps(original)
    def function(*args: Any, **kwargs: Any) -> Any:
        stack = _mine.stacks[key]
        return (stack[-1] if stack else original)(*args, **kwargs)

    return function
