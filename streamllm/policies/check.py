"""Checks of parameters that several policies have. Each error names the value, what is accepted and what to do."""


def whole_number(name: str, value: object, least: int = 1, of: str = "units", hint: str = "") -> None:
    """Raises: ValueError: ``value`` is not an integer of at least ``least``; ``hint`` is added in brackets."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        hint = hint and f" ({hint})"
        raise ValueError(f"{name} is {value!r}; it is a whole number of {of}, at least {least}{hint}")


def probability(name: str, value: object, hint: str = "") -> None:
    """Raises: ValueError: ``value`` is not a number from 0 to 1; ``hint`` is added in brackets."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        hint = hint and f" ({hint})"
        raise ValueError(f"{name} is {value!r}; it is a probability, from 0 to 1{hint}")
