"""A sentence pair, or a stream of several, in tokens, and a batch of them as padded arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PADDING = 2**30  # unit index of padding: beyond every k, so never visible


@dataclass(frozen=True)
class Encoded:
    """One sentence pair in tokens, and the unit that each token belongs to.

    ``source_units``: -1 for the header, then 0, 1, …, |x| - 1, and |x| for the footer.
    ``target_units[j]`` is the target unit of the token that target token j predicts; 0 in the header.
    ``arrival_units[j]`` is the one by which target token j arrives where streams are interleaved: the same, but that
    for half of the units their last token comes with its own unit. There it is fed first, to see where the unit ends,
    and a model that has always found source between two units would never end one.

    ``whole_units`` is ``target_units`` as it is where each target unit is predicted from its whole source sentence.

    Of a stream of several sentences, ``k`` is 0 and all three are what `documents.seen` gives; of a `RandomPath`, ``k``
    is 0, too.

    ``latency``: which of ``data.latencies`` its target header asks for; -1 is the prompt's own.
    """

    source: list[int]
    source_units: list[int]
    target: list[int]
    target_units: list[int]
    arrival_units: list[int]
    whole_units: list[int]
    labels: list[int]  # -1 where nothing is learned (the header)
    k: int
    sentences: int = 1
    latency: int = -1

    def __len__(self) -> int:
        return len(self.source) + len(self.target)


@dataclass(frozen=True)
class Batch:
    """Right-padded arrays: source (B, S), the others (B, T), k and latency (B,)."""

    source: np.ndarray
    source_units: np.ndarray
    target: np.ndarray
    target_units: np.ndarray
    arrival_units: np.ndarray
    whole_units: np.ndarray
    labels: np.ndarray
    k: np.ndarray
    latency: np.ndarray

    @property
    def tokens(self) -> int:
        """Of both streams, padding included."""
        return self.source.size + self.target.size

    @property
    def padding(self) -> int:
        """How many of them are padding."""
        after_the_last_label = (self.labels[:, ::-1] >= 0).argmax(axis=1)
        return int((self.source_units == PADDING).sum() + after_the_last_label.sum())


def pad(group: Sequence[Encoded]) -> Batch:
    """Right-pad some pairs to arrays."""

    def stack(rows: list[list[int]], fill: int) -> np.ndarray:
        out = np.full((len(rows), max(map(len, rows))), fill, dtype=np.int32)
        for i, row in enumerate(rows):
            out[i, : len(row)] = row
        return out

    return Batch(
        source=stack([e.source for e in group], 0),
        source_units=stack([e.source_units for e in group], PADDING),
        target=stack([e.target for e in group], 0),
        target_units=stack([e.target_units for e in group], 0),
        arrival_units=stack([e.arrival_units for e in group], 0),
        whole_units=stack([e.whole_units for e in group], 0),
        labels=stack([e.labels for e in group], -1),
        k=np.array([e.k for e in group], dtype=np.int32),
        latency=np.array([e.latency for e in group], dtype=np.int32),
    )
