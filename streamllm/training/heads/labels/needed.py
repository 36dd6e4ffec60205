"""What a part of the target needs of the source: WRITE where that has been read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamllm.check import heads, whole_number
from streamllm.models.model import StreamingModel
from streamllm.training.heads.cells import Cells
from streamllm.training.heads.labels.agreement import ranks
from streamllm.training.heads.labels.labels import ByLatency

Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Needed(ByLatency):
    """WRITE is right iff the source units that the next part needs, and ``beyond`` more, have been read.

    Args:
        beyond: source units to be read beyond those; or a list, with a number for each of ``cells.latencies``.

    Raises:
        ValueError: beyond is not an integer of at least 0.
    """

    beyond: int | Sequence[int] = 0

    by_latency = "beyond"

    def __post_init__(self) -> None:
        for beyond in self.each_value():
            whole_number("labels.beyond", beyond, 0, of="source units")

    def needed(self, cells: Cells) -> np.ndarray[Any, np.dtype[np.int64]]:
        """How many source units each part needs, (parts,); more than there are where only the end of the source
        tells."""
        raise NotImplementedError

    def measured(self, cells: Cells) -> Floats:
        return (cells.read - self.needed(cells)[cells.part]).astype(np.float32)

    def targets(self, measured: Floats) -> Floats:
        return (measured >= self.beyond).astype(np.float32)


@dataclass(frozen=True)
class Oracle(Needed):
    """The minimal sufficient prefix: the first from which on each longer one, too, predicts the tokens that the whole
    source predicts. With these numbers as its delays, `policies.Oracle` writes each part as early as that.

    What is written before is that of the data, so a token counts that the model would write after it, whether or not
    the data have it.

    Args:
        rank: the likeliest token by the whole source is to be among so many by the prefix.

    Raises:
        ValueError: as `Needed`; or rank is not an integer of at least 1.
    """

    rank: int = 1

    every_lag = True

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("labels.rank", self.rank, of="")

    @property
    def measures(self) -> str:
        return f"oracle {self.rank}"

    def attends(self, model: StreamingModel) -> None:
        return None

    def needed(self, cells: Cells) -> np.ndarray[Any, np.dtype[np.int64]]:
        sufficient = ranks(cells, cells.whole.argmax(axis=-1)) <= self.rank
        found = np.full(len(cells.parts.starts), cells.units + 1)
        for part in range(len(found)):
            (own,) = np.nonzero(cells.part == part)
            for cell in own[np.argsort(-cells.read[own], kind="stable")]:
                if not sufficient[cell]:
                    break
                found[part] = cells.read[cell]
        return found


@dataclass(frozen=True)
class Alignment(Needed):
    """The newest source unit that a part's tokens are aligned with: the unit that attention heads look at most, on
    average, where the model predicts them from the whole source (AlignAtt, Papi et al. 2023, arXiv 2305.11408, asks
    this of the source so far).

    Args:
        heads: pairs of layer and head, such as [[2, 0], [3, 1]]; None takes those that the model names.

    Raises:
        ValueError: as `Needed`; or heads are not pairs of layer and head.
    """

    heads: Any = None

    every_lag = False

    def __post_init__(self) -> None:
        super().__post_init__()
        heads("labels.heads", self.heads)

    @property
    def measures(self) -> str:
        return "alignment"

    def attends(self, model: StreamingModel) -> list[list[int]]:
        """Raises: ValueError: no heads are given, and the model names none."""
        found = self.heads if self.heads is not None else model.alignment_heads
        if found is None:
            raise ValueError(
                "labels=alignment looks at attention heads, none are given, and the model names none: find some with "
                "`streamllm calibrate`, and set labels.heads"
            )
        return [list(head) for head in found]

    def needed(self, cells: Cells) -> np.ndarray[Any, np.dtype[np.int64]]:
        assert cells.aligned is not None
        found: np.ndarray[Any, np.dtype[np.int64]] = 1 + np.maximum.reduceat(cells.aligned, cells.parts.starts)
        return found
