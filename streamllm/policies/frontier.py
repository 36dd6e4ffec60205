"""The best way through each sentence, seen from its end: what no policy for streaming can know."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streamllm.check import number, whole_number
from streamllm.contents import Contents, of_text
from streamllm.records import READ, WRITE, Action, Decide, Example, State, Way

Quality = Callable[[str, str], float]
"""Of a translation, given its reference."""

Lag = Callable[[Sequence[int], int, str, str], float]
"""Of delays, given the units of the source, the reference, and the unit of the target."""

FRONT, REGRETS = "front", "regrets"
"""What is noted in a trace: the ways that no other beats, and the regret of each decision of the one that was taken."""


@dataclass(frozen=True)
class Frontier:
    """Of many ways through a sentence, take the one with the highest quality - ``trade`` · lag.

    Ways are found by trying READ and WRITE at each place (`streamllm.engine.frontier.explore`), exactly, since a
    session can be copied where it stands: all ways if ``width`` is large enough. It asks the reference and reads the
    source before it has come, so it is for analysis and for labels: an upper front. A sweep over ``trade`` gives it as
    a curve.

    The trace has two notes. "front" holds the ways that no other beats in quality and lag, which another run may choose
    from (``found``). "regrets" has a number for each decision: what the best way on after READ is worth, less the best
    after WRITE; above 0, READ was right. It is null where WRITE would have been a forced READ, or was not tried.

    Args:
        trade: quality that a unit of lag is worth; 0 takes the best translation, whatever its lag.
        width: ways that go on where as many units are read and as many times written.
        quality: of a whole translation.
        lag: of its delays.
        found: fronts of another run, by the ids of sentences; None looks for them.

    Raises:
        ValueError: trade is not a number of at least 0, width not an integer of at least 1; or an example is a document
            or has no reference, or ``found`` has nothing of it (when it starts).
    """

    trade: float
    quality: Quality
    lag: Lag
    width: int = 4
    found: Mapping[str, Mapping[str, Any]] | None = None

    takes_bounds = False

    def __post_init__(self) -> None:
        number("trade", self.trade, least=0, hint="of quality, for a unit of lag")
        whole_number("width", self.width, of="ways")
        for name, value in (("quality", self.quality), ("lag", self.lag)):
            if not callable(value):
                raise ValueError(f"{name} is {value!r:.80}; it is a function, such as conf/policy/frontier.yaml names")

    def contents(self) -> Contents:
        """The fronts of another run, which come from its files, as a digest."""
        if self.found is None:
            return {}
        return {"policy": {"found": of_text(repr(sorted((id, repr(of)) for id, of in self.found.items())))}}

    def start(self, example: Example) -> Decide:
        if example.segments:
            raise ValueError("policy=frontier goes through single sentences, and this data set has documents")
        if not example.reference:
            raise ValueError(
                f"policy=frontier scores ways against the reference, and sentence {example.id!r} has none: choose a "
                "data set with references, or another policy"
            )
        decisions: Iterator[str] | None = None

        def decide(state: State) -> Action:
            nonlocal decisions
            if decisions is None:
                decisions = iter(self._decisions(state, example))
            return WRITE if next(decisions, "R") == "W" else READ

        return decide

    def _decisions(self, state: State, example: Example) -> str:
        if self.found is None:
            return self._explored(state, example)
        if example.id not in self.found:
            raise ValueError(
                f"there is no front of sentence {example.id!r} (there are of {len(self.found)} others): give a run "
                "over the same data set as policy.found.run"
            )
        found = self.found[example.id]
        ways = [Way(way["decisions"], "", tuple(way["delays"]), way["quality"]) for way in found["ways"]]
        return self._best(ways, int(found["units"]), found["target_unit"], example).decisions

    def _explored(self, state: State, example: Example) -> str:
        def quality(prediction: str) -> float:
            return self.quality(prediction, example.reference)

        explored = state.model.explore(example.source, self.width, quality)
        units, unit = explored.units, explored.target_unit

        def value(quality: float, delays: Sequence[int]) -> float:
            return self._value(quality, self.lag(delays, units, example.reference, unit))

        lags = [self.lag(way.delays, units, example.reference, unit) for way in explored.ways]
        front = [way for way, _ in front_of(explored.ways, lags)]
        ways = [{"decisions": way.decisions, "delays": list(way.delays), "quality": way.quality} for way in front]
        state.model.note(FRONT, {"units": units, "target_unit": unit, "ways": ways})
        best = self._best(explored.ways, units, unit, example)
        regrets = explored.regrets(best, value)
        state.model.note(REGRETS, [None if r is None or not math.isfinite(r) else round(r, 6) for r in regrets])
        return best.decisions

    def _best(self, ways: Sequence[Way], units: int, unit: str, example: Example) -> Way:
        """The way that is worth most; of equal ones the one with less lag."""
        lags = [self.lag(way.delays, units, example.reference, unit) for way in ways]
        scored = zip(ways, lags, strict=True)
        return min(scored, key=lambda each: (-self._value(each[0].quality, each[1]), each[1], each[0].decisions))[0]

    def _value(self, quality: float, lag: float) -> float:
        return -math.inf if math.isnan(lag) else quality - self.trade * lag


def front_of(ways: Sequence[Way], lags: Sequence[float]) -> list[tuple[Way, float]]:
    """The ways, with their lags, that no other beats in both quality and lag, those with less lag first; a way without
    a lag (it wrote nothing) only where there is no other."""
    pairs = list(zip(ways, lags, strict=True))
    found: list[tuple[Way, float]] = []
    defined = [each for each in pairs if not math.isnan(each[1])]
    for way, lag in sorted(defined, key=lambda each: (each[1], -each[0].quality, each[0].decisions)):
        if not found or way.quality > found[-1][0].quality:
            found.append((way, lag))
    return found or pairs[:1]
