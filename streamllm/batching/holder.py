"""What a pool has its keys and values in, and its forwards computed by: mlx-lm's model (`batching.in_model`), or numpy
where that is faster (`batching.in_numpy`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from streamllm.engine.attention import Attention
from streamllm.engine.finite import Logits
from streamllm.engine.write_head import Judgement, WriteHead, some

Columns = list[int]
"""Of the tokens of a hypothesis, in their order."""

Index = np.ndarray[Any, np.dtype[np.int32]]

Numbers = np.ndarray[Any, np.dtype[np.int64]]


class Fed(NamedTuple):
    """Tokens on their way into the memory, (T,) or (S, N) each. Of its sentence, which has a slot, a token sees the
    source tokens with an index below ``source_end`` and the target tokens with one below ``target_end``."""

    token: Numbers
    slot: Numbers
    column: Numbers
    position: Numbers
    source_end: Numbers
    target_end: Numbers


@dataclass(frozen=True)
class Answer:
    """What a step gave a row: the ``logits`` (V,) after its last token, the likeliest one (1,), the ``highest`` logit
    (1,), where it looked, and what the write head says. To a beam it gave these of each hypothesis, logits
    (hypotheses, V); to a check, of each token checked."""

    logits: Logits
    likeliest: list[int]
    highest: list[float]
    attention: Attention | None
    judgement: Judgement | None = None


@dataclass(frozen=True)
class Asked:
    """What the rows of a step ask for, all in the order of the rows.

    Args:
        tokens: which of the forward's tokens' logits are wanted, those of a row together.
        ends: where those of each row end in ``tokens``.
        several: whether a row wants more than one row of logits, (n, V) instead of (V,).
        attends: whether a row's attention is read out, that of its last token.
        judges: whether the write head is asked, of the same token.
    """

    tokens: list[int]
    ends: list[int]
    several: list[bool]
    attends: list[bool]
    judges: list[bool]


def judge(head: WriteHead | None, states: np.ndarray[Any, Any], asked: Asked) -> list[Judgement | None]:
    """What the write head says of the last of ``states`` (tokens asked for, E) of each row; None for a row that did not
    ask. All rows go through it at once."""
    last = states[np.array(asked.ends) - 1]
    said = zip(some(head)(last).tolist(), last, asked.judges, strict=True)
    return [Judgement(logit, state) if judges else None for logit, state, judges in said]


class Holder(Protocol):
    """Holds what the rows of a pool were fed. Rows are told by their slots, and tokens by their columns."""

    reads_apart: bool
    """Whether long reads are fed before, in a forward of their own with one padded batch row for each sentence."""

    @property
    def nbytes(self) -> int:
        """Of keys and values, slack included."""
        ...

    def begin(self, slot: int, shape: tuple[int, ...]) -> None:
        """The first columns of an empty row are those of the prefix, and are never forgotten. The pool has (rows,
        columns) as ``shape`` says."""
        ...

    def forget(self, slot: int, columns: np.ndarray[Any, Any], moved: np.ndarray[Any, Any], by: int) -> None:
        """Of a row, only ``columns`` stay, which become the first ones; the keys of those that have ``moved`` (one a
        column that stays) go to positions that are ``by`` higher."""
        ...

    def keep(self, slots: list[int]) -> None:
        """These become the first rows; the others are gone."""
        ...

    def close(self, slot: int) -> None:
        """What this row holds is not wanted any more."""
        ...

    def read(self, fed: Fed, source: Index, target: Index) -> None:
        """Feed tokens whose logits nobody wants, (S, N) where `reads_apart`, a row for each sentence, else (T,).

        Args:
            source, target: of each slot and column, the index of the token there in its stream; not of this stream: the
                largest number.
        """
        ...

    def step(
        self,
        fed: Fed,
        source: Index,
        target: Index,
        asked: Asked,
        paths: Mapping[int, Columns],
    ) -> Sequence[Answer]:
        """Feed tokens (T,), those of a row together, and answer each row.

        Args:
            paths: of those tokens that end the hypotheses of a beam: the columns of each.
        """
        ...
