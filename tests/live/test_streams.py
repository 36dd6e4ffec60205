"""Live streams share a pool: each is told what a run records of its source alone, whatever the others do."""

import random
import threading
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain, count
from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from streamllm.batching.trial import Batching, batching
from streamllm.engine.limits import Limits
from streamllm.engine.loop import translate
from streamllm.engine.paradigms.interleaved import Interleaved
from streamllm.live.streams import LiveStream, LiveStreams
from streamllm.live.told import Told
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.policies import Confidence, Full, WaitK
from streamllm.records import Example, Policy, State

SENTENCES = [
    "A man is riding a bicycle.",
    "Two dogs run, and a child plays with a ball on the beach.",
    "A woman sits.",
    "Three people are standing in front of a house and look at the camera.",
    "Children play.",
]


@cache
def loaded() -> StreamingModel:
    model = ModelConfig("bundled:tiny-en-de").load()
    model.write_head = tiny.write_head(1, 160)
    return model


@cache
def way() -> Batching:
    return batching(loaded())


@pytest.fixture
def model() -> StreamingModel:
    return loaded()


def live(**given: Any) -> LiveStreams:
    return LiveStreams(loaded(), way=way(), **given)


class Heard:
    """What one stream is told."""

    def __init__(self, streams: LiveStreams, policy: Policy, name: str = "stream"):
        self.told: list[Told] = []
        self.stream: LiveStream = streams.open(name, policy, self.told.append)

    def of(self, sentence: int) -> list[tuple[str, str, int, int]]:
        return [one(told.event, told.state) for told in self.told if told.sentence == sentence]

    @property
    def ended(self) -> int:
        return sum(told.event.kind == "stop" for told in self.told)


def one(event: Any, state: State) -> tuple[str, str, int, int]:
    return event.kind, event.text, state.read, state.written


@cache
def alone(
    model: StreamingModel, text: str, policy: Policy, limits: Limits = Limits(), name: str = "stream-0"
) -> list[tuple[str, str]]:
    session = model.session(0, name)
    trace = translate(session, Example(name, text, ""), policy, limits, living_on=model.living_on)
    return [(event.kind, event.text) for event in trace.events]


def kinds(heard: Heard, sentence: int) -> list[tuple[str, str]]:
    return [each[:2] for each in heard.of(sentence)]


def until(streams: LiveStreams, done: Callable[[], bool], rounds: int = 2000) -> None:
    for _ in range(rounds):
        if done():
            return
        streams.advance()
    raise AssertionError("the streams do not come to an end")


def rest(streams: LiveStreams) -> None:
    """Until nobody has anything to do."""
    before = -1
    while before != streams.counts.steps:
        before = streams.counts.steps
        streams.advance()


POLICIES: Sequence[Policy] = [WaitK(1), WaitK(3), Full(), Confidence(0.5)]


@settings(max_examples=10)
@given(seed=st.integers(0, 2**20), most=st.sampled_from([None, 1, 2]), rows=st.sampled_from([2, 8]))
def test_each_stream_is_told_what_a_run_records(seed: int, most: int | None, rows: int) -> None:
    model, by_chance = loaded(), random.Random(seed)
    streams = live(rows=rows, most=most)
    chosen = [(by_chance.choice(SENTENCES), by_chance.choice(POLICIES)) for _ in range(4)]
    heard = [Heard(streams, policy, f"s{i}") for i, (_, policy) in enumerate(chosen)]
    left = [[*text.split(), None] for text, _ in chosen]
    while any(left):
        at = by_chance.choice([i for i, words in enumerate(left) if words])
        for _ in range(by_chance.randint(1, 3)):
            if left[at]:
                word = left[at].pop(0)
                heard[at].stream.end() if word is None else heard[at].stream.push(word)
        for _ in range(by_chance.randint(0, 3)):
            streams.advance()
    until(streams, lambda: all(each.ended for each in heard))
    for each, (text, policy) in zip(heard, chosen, strict=True):
        assert kinds(each, 0) == alone(model, text, policy, name="s")


def test_a_stream_that_waits_for_input_costs_no_forward(model: StreamingModel) -> None:
    streams = live()
    waits, goes_on = Heard(streams, WaitK(3), "a"), Heard(streams, WaitK(3), "b")
    waits.stream.push("A man is")
    rest(streams)
    assert kinds(waits, 0)[-1][0] == "write"
    told, rows, steps = len(waits.told), streams.counts.rows, streams.counts.steps
    goes_on.stream.push(SENTENCES[1])
    goes_on.stream.end()
    until(streams, lambda: bool(goes_on.ended))
    assert streams.counts.rows - rows == streams.counts.steps - steps  # one row a forward
    assert len(waits.told) == told


def test_those_with_work_go_through_one_forward(model: StreamingModel) -> None:
    streams = live()
    heard = [Heard(streams, WaitK(1), f"s{i}") for i in range(5)]
    for each in heard:
        each.stream.push("A")
    streams.advance()
    assert (streams.counts.steps, streams.counts.rows) == (1, 5)


def wrote(heard: Heard) -> int:
    return sum(told.event.kind == "write" for told in heard.told)


def test_where_a_forward_takes_few_those_that_are_late_go_first(model: StreamingModel) -> None:
    times = chain([10.0, 1.0], count(20.0))
    streams = live(most=1, clock=lambda: next(times))
    early, late = Heard(streams, WaitK(1), "early"), Heard(streams, WaitK(1), "late")
    early.stream.push("Two")  # at 10
    late.stream.push("Two")  # at 1
    until(streams, lambda: bool(wrote(late) or wrote(early)))
    assert (wrote(early), wrote(late)) == (0, 1)


def test_who_sends_much_at_once_keeps_nobody_waiting(model: StreamingModel) -> None:
    streams = live(most=1)
    much, little = Heard(streams, WaitK(1), "much"), Heard(streams, WaitK(1), "little")
    for _ in range(30):
        much.stream.push("dogs")
    little.stream.push("Two")
    until(streams, lambda: bool(wrote(little)))
    assert wrote(much) <= 2


def test_streams_join_and_leave_at_any_time(model: StreamingModel) -> None:
    streams = live(rows=1)
    leaves, stays = Heard(streams, WaitK(1), "a"), Heard(streams, WaitK(1), "stream")
    leaves.stream.push(SENTENCES[1])
    streams.advance()
    stays.stream.push(SENTENCES[0])
    stays.stream.end()
    rest(streams)
    assert not stays.told  # there is one row
    told = len(leaves.told)
    leaves.stream.close()
    until(streams, lambda: bool(stays.ended))
    assert len(leaves.told) == told
    assert kinds(stays, 0) == alone(model, SENTENCES[0], WaitK(1))
    assert streams.under_way == 0


def test_one_sentence_follows_the_other_and_may_have_another_policy(model: StreamingModel) -> None:
    streams = live()
    heard = Heard(streams, WaitK(1))
    heard.stream.push(SENTENCES[0])
    heard.stream.choose(WaitK(3))  # also in the middle of one
    heard.stream.end()
    heard.stream.push(SENTENCES[2])
    heard.stream.end()
    until(streams, lambda: heard.ended == 2)
    assert kinds(heard, 0) == alone(model, SENTENCES[0], WaitK(1))
    assert kinds(heard, 1) == alone(model, SENTENCES[2], WaitK(3))


def test_an_end_without_source_is_answered(model: StreamingModel) -> None:
    streams = live()
    heard = Heard(streams, WaitK(1))
    heard.stream.end()
    heard.stream.push("A woman sits.")
    heard.stream.end()
    until(streams, lambda: heard.ended == 2)
    assert kinds(heard, 0) == [("stop", "empty")]
    assert kinds(heard, 1) == alone(model, "A woman sits.", WaitK(1))


class Broken:
    """A policy that fails at the third unit."""

    def start(self, example: Example) -> Callable[[State], Any]:
        def decide(state: State) -> Any:
            if state.read == 3:
                raise ArithmeticError("no such thing")
            return WaitK(1).start(example)(state)

        return decide


def test_an_error_costs_one_sentence_and_nobody_else(model: StreamingModel) -> None:
    streams = live()
    fails, other = Heard(streams, Broken(), "a"), Heard(streams, WaitK(3))
    for each in (fails, other):
        each.stream.push(SENTENCES[0])
        each.stream.end()
    fails.stream.choose(WaitK(1))
    fails.stream.push(SENTENCES[2])
    fails.stream.end()
    until(streams, lambda: fails.ended == 2 and other.ended == 1)
    assert isinstance(next(told.error for told in fails.told if told.event.kind == "stop"), ArithmeticError)
    assert kinds(fails, 1) == alone(model, SENTENCES[2], WaitK(1))
    assert kinds(other, 0) == alone(model, SENTENCES[0], WaitK(3))


def test_a_forward_that_fails_costs_the_sentences_that_are_in_it(
    model: StreamingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = live()
    waits, fails = Heard(streams, WaitK(3)), Heard(streams, WaitK(1), "a")
    waits.stream.push("A woman")
    rest(streams)
    pool: Any = streams._pool
    with monkeypatch.context() as patch:
        patch.setattr(pool, "step", lambda rows: (_ for _ in ()).throw(MemoryError("no room")))
        fails.stream.push("A man")
        rest(streams)
        streams.advance()
    assert isinstance(fails.told[-1].error, MemoryError)
    waits.stream.push("sits.")
    waits.stream.end()
    until(streams, lambda: bool(waits.ended))
    assert kinds(waits, 0) == alone(model, "A woman sits.", WaitK(3))


def test_of_a_sentence_that_is_over_the_rest_of_the_source_is_skipped(model: StreamingModel) -> None:
    streams = live()
    heard = Heard(streams, Broken())
    heard.stream.push(SENTENCES[1])
    rest(streams)
    streams.advance()
    assert heard.ended == 1
    heard.stream.choose(WaitK(1))
    heard.stream.push("and more")
    heard.stream.end()
    heard.stream.push("A woman sits.")
    heard.stream.end()
    until(streams, lambda: heard.ended == 2)
    assert [told.event.text for told in heard.told if told.sentence == 1 and "read" in told.event.kind] == [
        "A",
        "woman",
        "sits.",
    ]


def test_a_model_whose_sentences_cannot_share_a_pool_takes_turns(model: StreamingModel) -> None:
    apart = StreamingModel(model.model, model.prompt, model.tokenizer, paradigm=Interleaved())
    streams = LiveStreams(apart)
    heard = [Heard(streams, WaitK(2), f"s{i}") for i in range(3)]
    for each, text in zip(heard, SENTENCES, strict=False):
        for word in text.split():
            each.stream.push(word)
            streams.advance()
        each.stream.end()
    until(streams, lambda: all(each.ended for each in heard))
    for each, text in zip(heard, SENTENCES, strict=False):
        assert kinds(each, 0) == alone(apart, text, WaitK(2))


def test_source_may_be_pushed_in_any_thread_and_wakes_who_waits(model: StreamingModel) -> None:
    streams = live()
    heard = Heard(streams, WaitK(2))

    def push() -> None:
        for word in SENTENCES[0].split():
            heard.stream.push(word)
        heard.stream.end()

    thread = threading.Thread(target=push)
    thread.start()
    while not heard.ended:
        streams.advance(seconds=60)
    thread.join()
    assert kinds(heard, 0) == alone(model, SENTENCES[0], WaitK(2))
