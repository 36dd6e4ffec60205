"""How a stream lives on after a target sentence has ended: where its source sentence ends, and what is kept."""

from dataclasses import dataclass
from typing import Literal, get_args

Boundary = Literal["punctuation", "attention"]


@dataclass(frozen=True)
class Revision:
    """How the translation of a sentence under way is revised (`streamllm.engine.revised`).

    Args:
        mask: how many of the last units of an output are not shown while its source goes on.
        chunk: how many source units are read between two outputs.
        longest: after so many source units without an end, a sentence is ended.
        drafts: whether each output is the draft of the next, which saves forwards and changes nothing else.
    """

    mask: int = 0
    chunk: int = 1
    longest: int = 100
    drafts: bool = True


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
        revision: how the sentence under way is translated again and again; None where what is written stays.
    """

    held: bool
    context: int | None
    boundary: Boundary = "punctuation"
    asks: bool = False
    revision: Revision | None = None


def check_boundary(boundary: object) -> None:
    """Raises: ValueError: it is no `Boundary`."""
    if boundary not in get_args(Boundary):
        raise ValueError(f"paradigm.boundary is {boundary!r}; accepted are {', '.join(get_args(Boundary))}")
