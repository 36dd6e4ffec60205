"""Checks of parameters. Each error names the value and what is accepted."""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, TypeGuard


def is_whole(value: object) -> TypeGuard[int]:
    """Whether it is an int, as JSON and YAML have it; True and False are none here."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a number, which True and False are not here."""
    return isinstance(value, Real) and not isinstance(value, bool)


def whole_number(
    name: str, value: object, least: int = 1, of: str = "units", hint: str = "", null: str | None = None
) -> None:
    """Raises: ValueError: ``value`` is not an integer of at least ``least``; ``hint`` is added in brackets. With
    ``null``, None passes; it says in the error what that means."""
    if value is None and null is not None:
        return
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        if isinstance(value, float) and value.is_integer():
            hint = hint or f"written without a point or exponent, as in {name}={value:.0f}"
        more = (f", or null {null}".rstrip() if null is not None else "") + (hint and f" ({hint})")
        raise ValueError(f"{name} is {value!r}; it is a whole number{of and f' of {of}'}, at least {least}{more}")


def probability(name: str, value: object, hint: str = "") -> None:
    """Raises: ValueError: ``value`` is not a number from 0 to 1; ``hint`` is added in brackets."""
    if not is_number(value) or not 0 <= value <= 1:
        hint = hint and f" ({hint})"
        raise ValueError(f"{name} is {value!r}; it is a probability, from 0 to 1{hint}")


def number(
    name: str,
    value: object,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    hint: str = "",
    infinite: bool = False,
) -> None:
    """Raises: ValueError: ``value`` is not a number above ``above``, of at least ``least``, below ``below`` and of at
    most ``most``; or it is infinite, unless that is accepted. ``hint`` is added in brackets."""
    if not (
        is_number(value)
        and (infinite or abs(value) < math.inf)
        and (above is None or value > above)
        and (least is None or value >= least)
        and (below is None or value < below)
        and (most is None or value <= most)
    ):
        bounds = {"above": above, "at least": least, "below": below, "at most": most}
        accepted = " and ".join(f"{words} {bound:g}" for words, bound in bounds.items() if bound is not None)
        more = (f", {accepted}" if accepted else "") + (f" ({hint})" if hint else "")
        finite = "finite " if is_number(value) and abs(value) == math.inf else ""
        raise ValueError(f"{name} is {value!r}; it is a {finite}number{more}")


def flag(name: str, value: object, null: str | None = None) -> None:
    """Raises: ValueError: ``value`` is neither True nor False. With ``null``, None passes; it says what that means."""
    if not isinstance(value, bool) and not (value is None and null is not None):
        more = "" if null is None else f", and null {null}".rstrip()
        raise ValueError(f"{name} is {value!r:.80}; accepted are true and false{more}")


def text(name: str, value: object, null: str | None = None) -> None:
    """Raises: ValueError: ``value`` is no text. With ``null``, None passes; it says what that means."""
    if not isinstance(value, str) and not (value is None and null is not None):
        more = "" if null is None else f", or null {null}".rstrip()
        raise ValueError(f"{name} is {value!r:.80}; it is text, in quotes if it looks like something else{more}")


def heads(name: str, value: object) -> None:
    """Raises: ValueError: ``value`` is neither None nor a list of pairs of layer and head of attention."""
    if value is None:
        return
    pairs: Any = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    if not (pairs and all(_is_pair(head) for head in pairs)):
        raise ValueError(
            f"{name} are {value!r:.80}; accepted are pairs of layer and head, such as [[2,0],[3,1]], and null"
        )


def _is_pair(head: object) -> bool:
    if not isinstance(head, Sequence) or isinstance(head, str) or len(head) != 2:
        return False
    return all(is_whole(index) and index >= 0 for index in head)


def batch_size(value: object) -> None:
    """Raises: ValueError: ``value`` is no number of sentences at a time."""
    whole_number("batch_size", value, of="sentences at a time", null="for one that suits the device")


def check_model(policy: object, model: Any) -> None:
    """Ask a policy, before anything is translated, whether it can decide with this model: those that have a method
    ``check_model`` say what they need of it.

    Raises: ValueError: it cannot.
    """
    if (check := getattr(policy, "check_model", None)) is not None:
        check(model)
