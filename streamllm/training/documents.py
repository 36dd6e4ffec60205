"""Sentence pairs joined to streams, so that a model learns to write on after a sentence has ended."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from streamllm.check import is_whole, probability
from streamllm.training.paths import RandomPath

T = TypeVar("T")
Order = Literal["shuffled", "kept"]


@dataclass(frozen=True)
class Documents:
    """How sentence pairs become streams. Between two sentences of a target stands the end token.

    Args:
        sentences: numbers of sentence pairs that are drawn from, one for each stream.
        order: "shuffled", or "kept" where the pairs stand in the order of real documents. Where the data set says
            where a document begins, no stream has sentences of two.
        held: the share of streams in which each source sentence has its footer, and reading stops there until its
            translation has ended, as in ``paradigm=sentences``. In the others it goes on meanwhile, as in
            ``paradigm=continuous``.
    """

    sentences: Sequence[int] = (1, 1, 1, 2, 3, 4)
    order: Order = "shuffled"
    held: float = 0.5

    def __post_init__(self) -> None:
        numbers = list(self.sentences) if isinstance(self.sentences, Sequence) else []
        if not numbers or not all(is_whole(n) and n >= 1 for n in numbers):
            raise ValueError(
                f"data.documents.sentences is {self.sentences!r}; accepted is a list of numbers of sentences, each at "
                "least 1, such as [1,2,4]"
            )
        if self.order not in ("shuffled", "kept"):
            raise ValueError(f"data.documents.order is {self.order!r}; accepted are 'shuffled' and 'kept'")
        probability("data.documents.held", self.held)

    def join(
        self, pairs: Sequence[T], rng: random.Random, begins: Callable[[T], bool] = lambda pair: False
    ) -> Iterator[list[T]]:
        """All pairs, each once, in streams; the last stream may be shorter than its number, and so may the last one of
        a document where their order is kept.

        Args:
            begins: whether a pair is the first of its document.
        """
        order = list(range(len(pairs)))
        if self.order == "shuffled":
            rng.shuffle(order)
            runs = [order]
        else:
            runs = document_runs([begins(pair) for pair in pairs])
        for run in runs:
            at = 0
            while at < len(run):
                size = rng.choice(self.sentences)
                yield [pairs[index] for index in run[at : at + size]]
                at += size


def document_runs(begins: Sequence[bool]) -> list[list[int]]:
    """The numbers of the pairs of each document, from whether each pair begins one."""
    runs: list[list[int]] = []
    for index, first in enumerate(begins):
        if first or not runs:
            runs.append([])
        runs[-1].append(index)
    return runs


def seen(sources: Sequence[int], targets: Sequence[int], k: int | RandomPath | None, held: bool) -> list[list[int]]:
    """How many source units each target unit of a stream is predicted from, the end token of each sentence included,
    and at last the end token that follows the last one: nothing is left to be written.

    wait-k counts from the beginning of its sentence: unit i of a sentence that begins after b source units is predicted
    from b + k + i (Ma et al. 2019, arXiv 1810.08398, for a stream of one sentence), or from what the unit before it was
    predicted from, if that is more.

    Args:
        sources, targets: units of each sentence.
        k: None is the whole source sentence; a path is drawn for each sentence, and begins with it as wait-k does.
        held: each source sentence has a footer, which counts as a unit, and nothing behind it is seen. Else the last
            one alone has a footer.
    """
    start = before = 0
    found: list[list[int]] = []
    total = sum(sources)
    for number, (source, target) in enumerate(zip(sources, targets, strict=True), 1):
        last = number == len(sources)
        end = start + source + (held or last)
        most = end if held or k is None else total + 1
        count = target + 1 + last
        own = k.counts(source, target, number) if isinstance(k, RandomPath) else [(k or 0) + i for i in range(count)]
        sees = [end] * count if k is None else [max(before, min(start + n, most)) for n in (own + own[-1:])[:count]]
        if last:
            sees[-1] = most
        found.append(sees)
        start, before = end, sees[-1]
    return found
