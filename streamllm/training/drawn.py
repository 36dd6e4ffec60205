"""Batches that are drawn from what learns, as it is when each is asked for: of learning by reward."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from streamllm.contents import of_texts
from streamllm.records import Example
from streamllm.training.heads.network import Steps
from streamllm.training.objectives.grpo import Groups


def draws_write(logit: float, dice: random.Random, chance: float = 1.0) -> bool:
    """WRITE with the probability that has this logit over ``chance``."""
    drawn = dice.random()
    return drawn == 0 or logit > chance * (math.log(drawn) - math.log1p(-drawn))


class DrawnData:
    """Batches of samples: sentences are shuffled in each epoch anew, and the same for all processes up to their own
    rows. How samples are drawn, `drawn` of a subclass says."""

    count = 1

    def __init__(self, objective: Groups, examples: Sequence[Example], seed: int):
        self.objective, self.examples, self.seed = objective, examples, seed
        self.source = self

    def drawn(self, rows: Sequence[int], place: str, samples: int) -> Any:
        """A batch of so many ``samples`` of each of some examples, at a ``place`` in the training that tells their
        random numbers from others."""
        raise NotImplementedError(f"{type(self).__name__} draws nothing: write its method `drawn`")

    @cached_property
    def digest(self) -> str:
        return of_texts(text for one in self.examples for text in (one.id, one.source, one.reference))[:16]

    def blocks(self, epoch: int, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Any]:
        if start == 0 and self.examples:
            samples = self.objective.samples

            def made(own: list[int], of_all: int, index: int) -> tuple[Any, int]:
                return self.drawn(own, f"{epoch}/{index}", samples), samples * of_all

            yield Steps(len(self.examples), f"{self.seed}/{epoch}", self.objective.sentences, rank, world, made)

    def fixed(self) -> list["HeldOut"]:
        """All of it, in order, one sample of each: for validation."""
        size, rows = self.objective.batch_size, range(len(self.examples))
        return [HeldOut(self, rows[i : i + size]) for i in rows[::size]]


@dataclass(frozen=True)
class HeldOut:
    """Sentences whose samples are drawn whenever they are asked for, by the same random numbers each time."""

    data: DrawnData
    rows: Sequence[int]

    @property
    def labels(self) -> np.ndarray[Any, Any]:
        return np.zeros(len(self.rows), np.int32)

    def drawn(self) -> Any:
        return self.data.drawn(self.rows, "validation", 1)
