"""How a stream lives on after a target sentence has ended: where its source sentence ends, and what is kept."""

from dataclasses import dataclass
from typing import Literal, get_args

Boundary = Literal["punctuation", "attention"]


@dataclass(frozen=True)
class LivingOn:
    """What the loop does at the end of a target sentence.

    Args:
        held: reading stops at the end of a source sentence until its translation has ended; the footer follows it, as
            at the end of a source.
        context: how many ended sentence pairs are held; None leaves that to windows.
        boundary: "punctuation": a source sentence ends with a unit that `units.ends_sentence`, as soon as it is read.
            "attention": it ends where the model looked last in it; at the nearest such unit, if one is near.
        asks: after the end token of a held sentence, whether the model is asked if anything is left to be written:
            where nothing tells two sentences apart, the second is not lost. It costs a forward a sentence.
    """

    held: bool
    context: int | None
    boundary: Boundary = "punctuation"
    asks: bool = False


def check_boundary(boundary: object) -> None:
    """Raises: ValueError: it is no `Boundary`."""
    if boundary not in get_args(Boundary):
        raise ValueError(f"paradigm.boundary is {boundary!r}; accepted are {', '.join(get_args(Boundary))}")
