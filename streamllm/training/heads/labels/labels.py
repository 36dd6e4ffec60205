"""What training a write head needs of its labels."""

import random
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from streamllm.models.model import StreamingModel
from streamllm.records import Example
from streamllm.training.heads.cells import Cells, Measured

Floats = np.ndarray[Any, np.dtype[np.float32]]


class Labels(Protocol):
    """How right WRITE is at a cell; a frozen dataclass whose fields are the keys of its YAML.

    What costs forwards is measured once and kept; what is made of it may change without a forward.
    """

    @property
    def measures(self) -> str:
        """What is measured: labels that say the same share what is kept."""
        ...

    def targets(self, measured: Floats) -> Floats:
        """How right WRITE is, 0 to 1, of each number."""
        ...


class OfCells(Labels, Protocol):
    """Labels that are measured at the cells of paths through the pairs of the data."""

    every_lag: bool
    """Whether all cells of a pair have to be there, not those of a few drawn rows."""

    def attends(self, model: StreamingModel) -> Sequence[Sequence[int]] | None:
        """Pairs of layer and head whose attention the cells are to have; None for none."""
        ...

    def measured(self, cells: Cells) -> Floats:
        """A number for each cell of a pair, (C,)."""
        ...


@runtime_checkable
class OfSentences(Labels, Protocol):
    """Labels that find cells of their own, with the model's own translations as what was written before."""

    def of_sentences(
        self,
        model: StreamingModel,
        examples: Sequence[Example],
        ahead: int,
        behind: int,
        rows: int | None,
        rng: random.Random,
    ) -> Iterator[Measured]:
        """What is measured of each sentence, in order.

        Args:
            ahead, behind, rows: as of `streamllm.training.heads.measured.CellConfig`.
        """
        ...


class FromPaths:
    """Labels for which a few paths are enough, and that look at no attention."""

    every_lag = False

    def attends(self, model: StreamingModel) -> Sequence[Sequence[int]] | None:
        return None
