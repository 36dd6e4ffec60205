"""What training a write head needs of its labels."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeGuard, runtime_checkable

import numpy as np

from streamllm.models.model import StreamingModel
from streamllm.prompt import PromptTokens
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


@runtime_checkable
class OfLinks(OfCells, Protocol):
    """Labels that go by word alignments of the data."""

    def needs(
        self, examples: Sequence[Example], some: Sequence[int], prompt: PromptTokens, folder: Path
    ) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
        """How many source units each target unit needs, of those of the ``examples`` that are measured.

        Args:
            folder: where what cannot be computed again is kept.
        """
        ...


class ByLatency:
    """Labels of which one value may be a list, with a value for each latency that the cells are measured with
    (``cells.latencies``): so the same head is strict or lenient as it is asked to be."""

    by_latency: ClassVar[str]
    """The name of that value."""

    def each_value(self) -> Sequence[Any]:
        """Its values; one where it is no list."""
        value = getattr(self, self.by_latency)
        return value if is_list(value) else [value]

    def of_latency(self, number: int) -> Self:
        """The labels of one latency."""
        value = getattr(self, self.by_latency)
        return replace(self, **{self.by_latency: value[number]}) if is_list(value) else self  # type: ignore[type-var]


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str)


def check_latencies(labels: Labels, tags: Sequence[str]) -> None:
    """Raises: ValueError: labels and the latencies of their cells do not fit each other."""
    if tags and not isinstance(labels, ByLatency):
        raise ValueError(
            f"cells.latencies are {', '.join(tags)}, and labels of {type(labels).__name__} do not depend on a latency: "
            "leave it at null, or take other labels"
        )
    if not isinstance(labels, ByLatency) or not is_list(value := getattr(labels, labels.by_latency)):
        return
    if len(value) != len(tags):
        there = f"{len(tags)} tags" if tags else "null: give cells.latencies=all, or one value"
        raise ValueError(
            f"labels.{labels.by_latency} has {len(value)} values, one for each latency, and cells.latencies is {there}"
        )


def targets(labels: Labels, measured: Measured) -> Floats:
    """How right WRITE is at each cell, by the labels of its latency."""
    if not isinstance(labels, ByLatency):
        return labels.targets(measured.measured)
    found = np.zeros(len(measured), np.float32)
    for latency in np.unique(measured.latency):
        own = measured.latency == latency
        found[own] = labels.of_latency(int(latency)).targets(measured.measured[own])
    return found


class FromPaths:
    """Labels for which a few paths are enough, and that look at no attention."""

    every_lag = False

    def attends(self, model: StreamingModel) -> Sequence[Sequence[int]] | None:
        return None
