"""Ways through a sentence: all of them where there is room, each what a run gives that decides so; and regrets worked
out by hand."""

import itertools
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sessions import PROMPT, varied_models

from streamllm.engine.frontier import Exploration, Place, chosen, explore, spread
from streamllm.engine.limits import Limits
from streamllm.engine.loop import translate
from streamllm.engine.paradigms.group import Group
from streamllm.engine.paradigms.interleaved import Interleaved
from streamllm.engine.paradigms.reencoded import Batch, BatchPositions
from streamllm.engine.session import Session
from streamllm.models.model import StreamingModel
from streamllm.prompt import PromptTokens
from streamllm.records import READ, WRITE, Action, Decide, Emission, Example, State, Trace, Way

FEW = Limits(length_ratio=0.5, length_extra=2)


class Toy:
    """A session that says something else after each history: a word, a comma after one, or the end token."""

    def __init__(self, seed: int):
        self._seed = seed
        self._history: tuple[str, ...] = ()
        self._has_unit = False
        self.closed = False
        self.forward_passes = self.source_tokens = self.fed_tokens = self.target_tokens = 0
        self.notes: dict[str, Any] = {}

    def read(self, unit: str) -> None:
        self._happens(f"read {unit}")

    def end_source(self) -> None:
        self._happens("end")

    def write(self, tokens: tuple[int, ...] = (), bare: bool = False) -> Emission:
        # A read after the last write changes what comes, so says the history.
        dice = hash((self._seed, *(sum(map(ord, each)) for each in self._history))) % 7
        if dice == 0 or (dice == 1 and not self._has_unit):
            return Emission(None)
        text = "," if dice == 1 else f"w{dice}"
        self._happens(f"write {text}")
        self._has_unit = True
        self.target_tokens += 1
        return Emission(text, (dice,), extends=dice == 1)

    def _happens(self, what: str) -> None:
        assert not self.closed, "a session that was closed is used"
        self.fed_tokens += 1
        self._history = (*self._history, what)

    def twin(self) -> "Toy":
        assert not self.closed
        return copy(self)

    def rest(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class Scripted:
    """A policy that decides as it was told."""

    def __init__(self, decisions: str):
        self._decisions = decisions

    def start(self, example: Example) -> Decide:
        left = iter(self._decisions)
        return lambda state: WRITE if next(left, "R") == "W" else READ


def every_way(seed: int, source: str) -> dict[str, Trace]:
    """By brute force: all that a policy can decide that reads first, by the decisions that it was asked for."""
    found: dict[str, Trace] = {}
    waiting = ["R"]
    while waiting:
        beginning = waiting.pop()
        asked = ""

        def decide(state: State, beginning: str = beginning) -> Action:
            nonlocal asked
            asked += beginning[len(asked) : len(asked) + 1] or "R"
            return WRITE if asked[-1] == "W" else READ

        policy: Any = type("Policy", (), {"start": lambda self, example, decide=decide: decide})()
        trace = translate(Toy(seed), Example("1", source, ""), policy, FEW)  # type: ignore[arg-type]
        found[asked] = trace
        waiting += [asked[:i] + "W" for i in range(len(beginning), len(asked))]
    return found


def quality(prediction: str) -> float:
    return float(hash(tuple(map(ord, prediction))) % 101)


def explored(seed: int, source: str, width: int) -> Exploration:
    return explore(Toy(seed), source.split(), FEW, "word", width, quality)  # type: ignore[arg-type]


@given(st.integers(0, 10**6), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_with_room_for_all_of_them_all_ways_are_gone(seed: int, units: int) -> None:
    """Those where WRITE was a forced READ are found as a READ."""
    source = " ".join("abc"[:units])
    expected = {(trace.prediction, trace.delays) for trace in every_way(seed, source).values()}
    ways = explored(seed, source, 10**6).ways
    assert {(way.prediction, way.delays) for way in ways} == expected
    assert all(way.quality == quality(way.prediction) for way in ways)
    best = max(quality(prediction) - 3 * sum(delays) for prediction, delays in expected)
    assert max(way.quality - 3 * sum(way.delays) for way in ways) == best


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_each_way_is_what_a_run_gives_that_decides_so(seed: int, width: int, units: int) -> None:
    source = " ".join("abcde"[:units])
    found = explored(seed, source, width)
    for way in found.ways:
        trace = translate(Toy(seed), Example("1", source, ""), Scripted(way.decisions), FEW)  # type: ignore[arg-type]
        assert (trace.prediction, trace.delays) == (way.prediction, way.delays)
    cells: dict[tuple[int, int], int] = {}
    for place in found.places:
        cells[place.read, place.writes] = cells.get((place.read, place.writes), 0) + (not place.left_out)
    assert max(cells.values()) <= width


@given(st.integers(0, 10**6), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_a_regret_is_the_best_after_read_less_the_best_after_write(seed: int, units: int) -> None:
    source = " ".join("abc"[:units])
    every = every_way(seed, source)

    def value(quality: float, delays: Sequence[int]) -> float:
        return quality - 2 * sum(delays)

    def best(beginning: str) -> float:
        ways = [trace for asked, trace in every.items() if asked.startswith(beginning)]
        return max(value(quality(trace.prediction), trace.delays) for trace in ways)

    found = explored(seed, source, 10**6)
    for way in found.ways[:20]:
        for i, regret in enumerate(found.regrets(way, value)):
            before = way.decisions[:i]
            if regret is not None:
                assert regret == best(before + "R") - best(before + "W")
            elif i:  # after the first READ, only a WRITE that was none has no regret
                read, write = (
                    {
                        (trace.prediction, trace.delays)
                        for asked, trace in every.items()
                        if asked.startswith(before + by)
                    }
                    for by in "RW"
                )
                assert read == write


# By hand


def hand_made() -> Exploration:
    """Two source units. After one, WRITE leads to a place that was left out for one with the same text."""
    bad, good = Way("RWR", "x", (1,), 10.0), Way("RRW", "y", (2,), 30.0)
    start, one, two = Place(), Place(1, 0, "R"), Place(2, 0, "RR")
    left_out, kept = Place(1, 1, "RW", ("x",), (1,), left_out=True), Place(1, 1, "?", ("x",), (0,))
    start.after_read, one.after_read, one.after_write = one, two, left_out
    two.after_read = Place(2, 0, "RRR", way=Way("RRR", "z", (2, 2), 40.0))
    two.after_write = Place(2, 1, "RRW", ("y",), (2,), way=good)
    left_out.likeness = kept
    kept.after_read = Place(2, 1, "?R", ("x", "y"), (0, 2), way=Way("?R", "x y", (0, 2), 50.0))
    return Exploration(2, "word", [start, one, kept, left_out, two], [bad, good])


def test_regrets_by_hand() -> None:
    """Worth is quality - 10 · (sum of delays). After R: READ leads to 40 - 40 = 0 or 30 - 20 = 10, so to 10; WRITE to
    what the likeness comes to, 50, with the delay of its own, 1 for 0: 50 - 30 = 20. After RR: 0 - 10."""
    found = hand_made()
    way = found.ways[1]
    regrets = found.regrets(way, lambda quality, delays: quality - 10 * sum(delays))
    assert regrets == [None, 10 - 20, 0 - 10]


def test_a_place_that_is_left_out_keeps_what_extended_its_last_unit_later() -> None:
    found = hand_made()
    kept = found.places[2]
    assert kept.after_read is not None
    kept.after_read.way = Way("?R", "x, y", (2, 2), 50.0)  # a comma came at 2
    assert found.ends(found.places[3]) == [(50.0, (2, 2))]


def test_of_a_cell_those_go_on_that_no_other_beats() -> None:
    def place(quality: float, delay: int) -> Place:
        return Place(delays=(delay,), whole=Way("", "", (), quality))

    best, early, middle, beaten = place(9, 5), place(3, 1), place(5, 3), place(4, 4)
    worse = place(9, 6)
    all_of_them = [beaten, worse, early, best, middle]
    assert chosen(all_of_them, 1) == [best]
    assert chosen(all_of_them, 2) == [best, early]
    assert chosen(all_of_them, 3) == [best, middle, early]
    assert set(chosen(all_of_them, 4)) == {best, middle, early, worse}
    assert len(chosen(all_of_them, 9)) == 5
    assert spread([best, middle, early], 1) == [best]


# In sessions


@pytest.fixture(scope="module")
def models(tokenizer: Any) -> list[Any]:
    return varied_models(tokenizer)


@pytest.mark.parametrize(
    "paradigm", [Group(), Interleaved(), Batch(), BatchPositions()], ids=lambda p: type(p).__name__
)
@pytest.mark.parametrize("start", [0, "after_source"])
def test_a_session_says_in_each_way_what_it_says_alone(
    models: list[Any], tokenizer: Any, paradigm: Any, start: Any
) -> None:
    prompt = PromptTokens(PROMPT, tokenizer)
    model = StreamingModel(models[1], prompt, tokenizer, target_start=start, paradigm=paradigm)
    example = Example("1", "a cat, the", "")
    session = model.session()
    found = session.explore(example.source, FEW, 1, lambda text: -float(len(text)))
    assert len(found.ways) > 2
    for way in found.ways[:4]:
        trace = translate(model.session(), example, Scripted(way.decisions), FEW)
        assert (trace.prediction, trace.delays) == (way.prediction, way.delays)
    trace = translate(session, example, Scripted(found.ways[0].decisions), FEW)  # as if nothing had been
    assert (trace.prediction, trace.delays) == (found.ways[0].prediction, found.ways[0].delays)


def test_a_session_that_has_begun_is_refused(models: list[Any], tokenizer: Any) -> None:
    model = StreamingModel(models[0], PromptTokens(PROMPT, tokenizer), tokenizer)
    session = model.session()
    session.read("a")
    with pytest.raises(ValueError, match="before it begins"):
        session.explore("a cat", FEW, 2, quality)


def test_a_twin_goes_on_by_itself(models: list[Any], tokenizer: Any) -> None:
    def told(session: Session, words: Sequence[str]) -> Iterator[str | None]:
        for word in words:
            session.read(word)
            yield session.write().unit

    model = StreamingModel(models[2], PromptTokens(PROMPT, tokenizer), tokenizer)
    session = model.session()
    first = [*told(session, ["a", "cat,"])]
    twin = session.twin()
    one, other = [*told(twin, ["the", "runs"])], [*told(session, ["Größe:", "a"])]
    assert [*told(model.session(), ["a", "cat,", "the", "runs"])] == first + one
    assert [*told(model.session(), ["a", "cat,", "Größe:", "a"])] == first + other
    assert list(itertools.chain(one, other)).count(None) < 4
