"""A write head as it learns: the network, its batches and its objective, as `streamllm.training.loop.Trainer` takes
them."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from streamllm.check import whole_number
from streamllm.contents import of_text
from streamllm.engine.write_head import WriteHead

Floats = np.ndarray[Any, np.dtype[np.float32]]
T = TypeVar("T")


@dataclass(frozen=True)
class HeadConfig:
    """The shape of a write head, and how much of the labels a step sees.

    Args:
        hidden: the width of each hidden layer; none is a linear head.
        batch: cells of a step.

    Raises:
        ValueError: a value is not accepted.
    """

    hidden: Sequence[int] = (64,)
    batch: int = 1024

    def __post_init__(self) -> None:
        if isinstance(self.hidden, str) or not isinstance(self.hidden, Sequence):
            raise ValueError(f"head.hidden is {self.hidden!r}; it is a list of widths, such as [64], or [] for none")
        for width in self.hidden:
            whole_number("head.hidden", width, of="")
        whole_number("head.batch", self.batch, of="cells")


class Network(nn.Module):  # type: ignore[misc]
    """A `WriteHead` that learns.

    Args:
        mean, deviation: of each number of a state, (E,), by which it is normed.
    """

    def __init__(self, mean: Floats, deviation: Floats, hidden: Sequence[int], seed: int):
        super().__init__()
        mx.random.seed(seed % 2**64)
        widths = [len(mean), *hidden, 1]
        self.layers = [nn.Linear(n, m) for n, m in pairwise(widths)]
        self._mean, self._deviation = mx.array(mean), mx.array(deviation)  # no parameters: nothing to learn

    @staticmethod
    def of(head: WriteHead) -> "Network":
        """One that goes on with a head; its norm stays in the first layer."""
        widths = [len(bias) for _, bias in head.layers[:-1]]
        network = Network(np.zeros(head.width, np.float32), np.ones(head.width, np.float32), widths, 0)
        for layer, (weight, bias) in zip(network.layers, head.layers, strict=True):
            layer.weight, layer.bias = mx.array(weight), mx.array(bias)
        return network

    def __call__(self, states: mx.array) -> mx.array:
        """Logits (N,) of WRITE."""
        x = (states - self._mean) / self._deviation
        for layer in self.layers[:-1]:
            x = nn.relu(layer(x))
        logits: mx.array = self.layers[-1](x)[:, 0]
        return logits

    def head(self) -> WriteHead:
        """The same, with the norm in the first layer."""
        layers = [(np.array(layer.weight), np.array(layer.bias)) for layer in self.layers]
        weight, bias = layers[0]
        mean, deviation = np.array(self._mean, np.float64), np.array(self._deviation, np.float64)
        first = weight / deviation
        layers[0] = first.astype(np.float32), (bias - first @ mean).astype(np.float32)
        return WriteHead(layers)


@dataclass(frozen=True)
class CellBatch:
    """What a step learns from: states (N, E) and how right WRITE is (N,)."""

    states: Floats
    targets: Floats
    padding = 0

    @property
    def labels(self) -> np.ndarray[Any, Any]:
        """As the trainer counts them."""
        return np.zeros(len(self.targets), np.int32)

    @property
    def tokens(self) -> int:
        return len(self.targets)


class CellData:
    """Batches of cells, shuffled in each epoch anew; the same for all processes up to their own rows."""

    count = 1

    def __init__(self, states: np.ndarray[Any, Any], targets: Floats, batch: int, seed: int):
        self._states, self.targets, self._batch, self.seed = states, targets, batch, seed
        self.source = self

    @cached_property
    def digest(self) -> str:
        return of_text(self.targets.tobytes().hex(), self._states[:1000].tobytes().hex())[:16]

    def blocks(
        self, epoch: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[Sequence[tuple[CellBatch, int]]]:
        if start == 0:
            yield Steps(len(self.targets), f"{self.seed}/{epoch}", self._batch, rank, world, self._step)

    def _step(self, own: list[int], of_all: int, index: int) -> tuple[CellBatch, int]:
        return self.rows(np.array(own, dtype=np.intp)), of_all

    def fixed(self) -> list[CellBatch]:
        """All of it, in order: for validation."""
        size = 8 * self._batch
        return [self.rows(slice(i, i + size)) for i in range(0, len(self.targets), size)]

    def rows(self, rows: Any) -> CellBatch:
        return CellBatch(self._states[rows].astype(np.float32), self.targets[rows])


class Steps(Sequence[T]):
    """The batches of an epoch, each made when it is asked for: ``count`` rows in an order drawn from ``seed``, so many
    as ``batch`` for each process a step. What is left over is left out, unless it is all there is.

    Args:
        made: makes a batch from this process's rows, the number of those of all processes, and that of the step.
    """

    def __init__(
        self, count: int, seed: str, batch: int, rank: int, world: int, made: Callable[[list[int], int, int], T]
    ):
        self._order = list(range(count))
        random.Random(seed).shuffle(self._order)
        self._size, self._rank, self._world, self._made = batch * world, rank, world, made

    def __len__(self) -> int:
        return max(1, len(self._order) // self._size)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):  # which ends an iteration
            raise IndexError(index)
        rows = self._order[index * self._size : (index + 1) * self._size]
        return self._made(rows[self._rank :: self._world], len(rows), index)


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Sum over cells of the binary cross-entropy of WRITE, in nats."""

    def __call__(self, model: Any, batch: Any, target_start: int, paradigm: str, label_smoothing: float) -> mx.array:
        targets = mx.array(batch.targets)
        if label_smoothing:
            targets = targets * (1 - label_smoothing) + label_smoothing / 2
        total: mx.array = nn.losses.binary_cross_entropy(model(mx.array(batch.states)), targets, reduction="sum")
        return total
