"""WRITE where the prediction is already what it will be."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamllm.check import whole_number
from streamllm.training.heads.cells import Cells
from streamllm.training.heads.labels.labels import ByLatency, FromPaths

Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Agreement(FromPaths, ByLatency):
    """Whether each token that a WRITE would write is among the ``rank`` likeliest by the source so far.

    The target is the translation that is learned from: with the model's own full-source translations (`streamllm
    distill`), a rank of 1 says that the translation from this prefix begins as that from the whole source does, which
    is what Zhang et al. 2020 (EMNLP, "meaningful units") ask of a prefix. Higher ranks ask less.

    Args:
        rank: a token agrees where it is among so many of the likeliest; or a list, with a value for each of
            ``cells.latencies``.

    Raises:
        ValueError: rank is not an integer of at least 1.
    """

    rank: int | Sequence[int] = 1

    by_latency = "rank"

    def __post_init__(self) -> None:
        for rank in self.each_value():
            whole_number("labels.rank", rank, of="")

    @property
    def measures(self) -> str:
        return "rank"

    def measured(self, cells: Cells) -> Floats:
        return ranks(cells, cells.parts.tokens)

    def targets(self, measured: Floats) -> Floats:
        return (measured <= self.rank).astype(np.float32)


def ranks(cells: Cells, tokens: np.ndarray[Any, Any]) -> Floats:
    """Of the worst of a cell's ``tokens`` (M,), (C,): 1 is the likeliest; of equal ones, all have the best rank."""
    own = np.take_along_axis(cells.logits, tokens[cells.places][:, None], axis=1)
    found: Floats = np.maximum.reduceat(1 + (cells.logits > own).sum(axis=-1), cells.starts).astype(np.float32)
    return found
