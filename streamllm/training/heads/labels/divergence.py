"""WRITE where more source would hardly change the prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from streamllm.check import number
from streamllm.training.heads.cells import Cells
from streamllm.training.heads.labels.labels import ByLatency, FromPaths

Floats = np.ndarray[Any, np.dtype[np.float32]]
Distance = Literal["total_variation", "kl"]
DISTANCES = ("total_variation", "kl")


@dataclass(frozen=True)
class Divergence(FromPaths, ByLatency):
    """How far the prediction from the source so far is from that of the whole source (DaP-SiMT, Zhao et al. 2023,
    arXiv 2310.14853), at the farthest of the tokens that a WRITE would write.

    With ``threshold`` None the label is soft: 1 - d of the total variation d = ½ Σ |p - q|, exp(-d) of d = KL(q ‖ p), q
    being from the whole source. The paper's labels are hard: 1 where d is at most its threshold.

    Args:
        distance: "total_variation" (0 to 1), or "kl" in nats.
        threshold: the largest distance at which WRITE is right; None is none. Or a list, with one for each of
            ``cells.latencies``.

    Raises:
        ValueError: there is no such distance, or the threshold is not a positive number.
    """

    distance: Distance = "total_variation"
    threshold: float | Sequence[float | None] | None = None

    by_latency = "threshold"

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            raise ValueError(f"labels.distance is {self.distance!r}; accepted are {', '.join(DISTANCES)}")
        for threshold in self.each_value():
            if threshold is not None:
                number("labels.threshold", threshold, above=0, hint="null for soft labels")

    @property
    def measures(self) -> str:
        return f"divergence {self.distance}"

    def measured(self, cells: Cells) -> Floats:
        return _farthest(divergences(cells, self.distance), cells)

    def targets(self, measured: Floats) -> Floats:
        bound: Any = self.threshold
        if bound is not None:
            hard: Floats = (measured <= bound).astype(np.float32)
            return hard
        soft: Floats = 1 - measured if self.distance == "total_variation" else np.exp(-measured)
        return soft


def divergences(cells: Cells, distance: Distance) -> Floats:
    """Of each token of each cell, (N,)."""
    (p, logs), (q, whole) = _softmax(cells.logits), _softmax(cells.whole)
    q = q[cells.places]
    if distance == "total_variation":
        p -= q
        found = np.abs(p, out=p).sum(axis=-1) / 2
    else:  # Σ q log q / p; what q rules out counts nothing
        possible = q > 0
        found = (q * (np.where(possible, whole[cells.places], 0) - np.where(possible, logs, 0))).sum(axis=-1)
    # Rounding may give a little less than 0, and an infinite KL has no use beside a large one.
    clipped: Floats = np.clip(found, 0, 1 if distance == "total_variation" else 100).astype(np.float32)
    return clipped


def _softmax(logits: Floats) -> tuple[Floats, Floats]:
    """Probabilities, and their logarithms, of logits (N, V); in float32, which is enough for a distance."""
    logs = logits - logits.max(axis=-1, keepdims=True)
    p = np.exp(logs)
    total = p.sum(axis=-1, keepdims=True)
    p /= total
    logs -= np.log(total)
    return p, logs


def _farthest(of_tokens: Floats, cells: Cells) -> Floats:
    found: Floats = np.maximum.reduceat(of_tokens, cells.starts)
    return found
