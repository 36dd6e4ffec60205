"""Which sentences share a memory in which all rows are as long as the longest."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import TypeVar

T = TypeVar("T")

FAR = 4
"""Sentences that are so many times as long as the one in the middle have a memory of their own: in one with the
others, each row would be as long as theirs. Each memory ends with few sentences in a step, so it has to be worth it."""


SHORT = 256
"""Characters up to which none is long."""


def by_length(items: Sequence[T], length: Callable[[T], int], short: int = SHORT) -> list[list[T]]:
    """Groups in which none longer than ``short`` is more than `FAR` times as long as the one in the middle; those of
    the longest first, each in the order of ``items``."""
    groups: list[list[T]] = []
    rest = list(items)
    while rest:
        most = max(short, FAR * median(map(length, rest)))
        groups.append([item for item in rest if length(item) <= most])
        rest = [item for item in rest if length(item) > most]
    return groups[::-1]
