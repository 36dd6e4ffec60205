"""Checks of parameters. Each error names the value and what is accepted."""

from math import inf
from numbers import Integral, Real


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
    if not _is_number(value) or not 0 <= value <= 1:  # type: ignore[operator]
        hint = hint and f" ({hint})"
        raise ValueError(f"{name} is {value!r}; it is a probability, from 0 to 1{hint}")


def number(name: str, value: object, above: float = -inf, least: float = -inf, below: float | None = None) -> None:
    """Raises: ValueError: ``value`` is not a number above ``above``, of at least ``least`` and below ``below``."""
    within = _is_number(value) and value > above and value >= least  # type: ignore[operator]
    if not within or (below is not None and not value < below):  # type: ignore[operator]
        bounds = {"above ": above, "at least ": least, "below ": inf if below is None else below}
        accepted = " and ".join(f"{words}{bound:g}" for words, bound in bounds.items() if abs(bound) != inf)
        raise ValueError(f"{name} is {value!r}; it is a number{accepted and f', {accepted}'}")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
