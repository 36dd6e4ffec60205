"""WRITE where nothing better comes of reading on: both are tried."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamllm.batching.coroutines import Clock
from streamllm.batching.scheduler import in_sessions
from streamllm.check import number, whole_number
from streamllm.engine.frontier import Exploration, Place
from streamllm.engine.limits import Limits
from streamllm.engine.session import Session
from streamllm.engine.write_head import WriteHead
from streamllm.metrics.of_one import SentenceLag, SentenceQuality
from streamllm.models.model import StreamingModel
from streamllm.records import Example
from streamllm.training.heads.cells import Measured
from streamllm.units import pieces

Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Regret:
    """How much better the best way on after READ is than the best after WRITE, where a way is worth its quality less
    ``trade`` · lag (`streamllm.engine.frontier.explore`). Ways are those of the model itself, with bare units, as
    policy=learned writes them; so are the states, which are those that it will be asked in.

    The label is soft, the sigmoid of -regret / ``temperature``; or hard, 1 where the regret is at most 0.

    Args:
        trade: points of quality that a unit of lag is worth; more writes earlier.
        width: ways that go on where as many units are read and as many times written.
        quality: "bleu" or "chrf" of a sentence.
        lag: "dal", "laal", "al", "ap" or "atd". LAAL counts one unit of those that are written at the end of the
            source, and so pays for writing a little early and all else late.
        tokenizer: of BLEU, by sacrebleu's name; None is 13a.
        temperature: in points of quality; None is a hard label.
        batch_size: sentences at a time; None for what suits the device.

    Raises:
        ValueError: a value is not accepted.
    """

    trade: float = 2.0
    width: int = 2
    quality: str = "bleu"
    lag: str = "dal"
    tokenizer: str | None = None
    temperature: float | None = 2.0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        number("labels.trade", self.trade, least=0, hint="points of quality for a unit of lag")
        whole_number("labels.width", self.width, of="ways")
        whole_number("labels.batch_size", self.batch_size, of="sentences", null="for what suits the device")
        if self.temperature is not None:
            number("labels.temperature", self.temperature, above=0, hint="null for hard labels")
        SentenceQuality(self.quality, self.tokenizer)  # which check
        SentenceLag(self.lag)

    @property
    def measures(self) -> str:
        tokenizer = f" {self.tokenizer}" if self.tokenizer else ""
        return f"regret {self.quality}{tokenizer} {self.trade:g} {self.lag} width {self.width}"

    def targets(self, measured: Floats) -> Floats:
        if self.temperature is None:
            return (measured <= 0).astype(np.float32)
        soft: Floats = 1 / (1 + np.exp(np.clip(measured / self.temperature, -50, 50)))
        return soft.astype(np.float32)

    def of_sentences(
        self,
        model: StreamingModel,
        examples: Sequence[Example],
        ahead: int,
        behind: int,
        rows: int | None,
        rng: random.Random,
    ) -> Iterator[Measured]:
        quality_of, lag_of = SentenceQuality(self.quality, self.tokenizer), SentenceLag(self.lag)

        def explored(
            session: Session, example: Example, clock: Clock
        ) -> tuple[str, tuple[int, list[tuple[Place, float]]]]:
            def quality(prediction: str) -> float:
                return quality_of(prediction, example.reference)

            def value(quality: float, delays: Sequence[int]) -> float:
                if not delays:
                    return -np.inf
                return quality - self.trade * lag_of(delays, found.units, example.reference, found.target_unit)

            # Whatever is far longer than the reference is no good way.
            longest = 5 + 2 * len(pieces(example.reference, model.prompt.target_unit))
            limits = Limits(length_ratio=0, length_extra=longest, bare=True)
            found = session.explore(example.source, limits, self.width, quality, judges=True, ahead=ahead)
            return example.id, (found.units, [*_cells(found, value, ahead, behind)])

        head, model.write_head = model.write_head, model.write_head or Silent()
        try:
            found = dict(in_sessions(model, examples, explored, self.batch_size))
        finally:
            model.write_head = head
        for example in examples:
            units, cells = found[example.id]
            most = len(cells) if rows is None else rows * (1 + max((place.writes for place, _ in cells), default=0))
            if len(cells) > most:
                cells = [cells[i] for i in sorted(rng.sample(range(len(cells)), most))]
            if cells:
                places = [place for place, _ in cells]
                yield Measured(
                    np.array([place.state for place in places], np.float16),
                    np.array([regret for _, regret in cells], np.float32),
                    np.array([place.read for place in places], np.int32),
                    np.array([len(place.shown) for place in places], np.int32),
                    np.full(len(places), units, np.int32),
                    np.full(len(places), -1, np.int32),
                )


def _cells(found: Exploration, value: Any, ahead: int, behind: int) -> Iterator[tuple[Place, float]]:
    """The places that a policy could stand at, with their regrets."""
    for place in found.places:
        if place.left_out or place.state is None or not 1 - ahead <= place.read - len(place.shown) <= behind:
            continue
        regret = found.regret(place, value)
        if regret is not None and np.isfinite(regret):
            yield place, regret


class Silent(WriteHead):
    """A write head that says nothing, where states are wanted and none is there."""

    def __init__(self) -> None:
        super().__init__([])

    def __call__(self, states: Floats) -> Floats:
        return np.zeros(len(states), np.float32)
