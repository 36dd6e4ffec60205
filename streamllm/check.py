"""Checks of parameters. Each error names the value and what is accepted."""

from math import inf


def whole_number(
    name: str, value: object, least: int = 1, of: str = "units", hint: str = "", null: bool = False
) -> None:
    """Raises: ValueError: ``value`` is not an integer of at least ``least`` (or None, with ``null``); ``hint`` is added
    in brackets."""
    if value is None and null:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        hint = ", or null" * null + (hint and f" ({hint})")
        raise ValueError(f"{name} is {value!r}; it is a whole number{of and f' of {of}'}, at least {least}{hint}")


def probability(name: str, value: object, hint: str = "") -> None:
    """Raises: ValueError: ``value`` is not a number from 0 to 1; ``hint`` is added in brackets."""
    if not _is_number(value) or not 0 <= value <= 1:  # type: ignore[operator]
        hint = hint and f" ({hint})"
        raise ValueError(f"{name} is {value!r}; it is a probability, from 0 to 1{hint}")


def number(name: str, value: object, above: float = -inf, least: float = -inf, below: float = inf) -> None:
    """Raises: ValueError: ``value`` is not a number above ``above``, of at least ``least`` and below ``below``."""
    if not _is_number(value) or not (value > above and value >= least and value < below):  # type: ignore[operator]
        bounds = {"above ": above, "at least ": least, "below ": below}
        accepted = " and ".join(f"{words}{bound:g}" for words, bound in bounds.items() if abs(bound) != inf)
        raise ValueError(f"{name} is {value!r}; it is a number{accepted and f', {accepted}'}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
