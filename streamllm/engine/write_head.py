"""A small network on a model's hidden state that says how likely WRITE is right (`policy=learned`). Numpy computes it
in float32 whatever the model is in: in bfloat16 thresholds near 0 and 1 could not be told apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float32]]


class NoWriteHead(ValueError):
    """A model is asked for what only a write head says, and has none."""


@dataclass(frozen=True)
class WriteHead:
    """Layers (weight (out, in), bias (out,)), a ReLU between each two; the last one gives one logit.

    What it is given is what the model's output layer is given where it predicts the next token: after the last norm.

    Args:
        latencies: the tags in the target header that it was trained with; none where those did not matter.
    """

    layers: Sequence[tuple[Floats, Floats]]
    latencies: Sequence[str] = ()

    def check_latency(self, latency: str) -> None:
        """Raises: ValueError: the head was trained with tags for latency, and this is none of them."""
        if self.latencies and latency not in self.latencies:
            tags = ", ".join(self.latencies)
            raise ValueError(
                f"the latency asked for is {latency!r}, and the write head was trained with {tags} (cells.latencies): "
                "give one of them as policy.latency"
            )

    @property
    def width(self) -> int:
        """E of the states that it takes."""
        return int(self.layers[0][0].shape[1])

    def __call__(self, states: Floats) -> Floats:
        """Logits (N,) of WRITE for hidden states (N, E)."""
        x = states
        for weight, bias in self.layers[:-1]:
            x = x @ weight.T
            x += bias
            np.maximum(x, 0, out=x)
        weight, bias = self.layers[-1]
        logits: Floats = (x @ weight.T + bias)[:, 0]
        return logits


class Judgement(NamedTuple):
    """What a write head says of a state (E,), as a logit."""

    logit: float
    state: Floats


def some(head: WriteHead | None) -> WriteHead:
    """The head.

    Raises:
        NoWriteHead: there is none.
    """
    if head is None:
        raise NoWriteHead(
            "the model has no write head, which policy=learned asks: train one with `streamllm train-head "
            "model=… dataset=…` (docs/learned.md) and give the folder that it writes as model.path"
        )
    return head
