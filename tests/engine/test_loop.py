"""The policy loop of DESIGN.md, told on sessions without a model."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_fixtures import Answer, FakeSession

from streamllm.engine.limits import Limits
from streamllm.engine.loop import stream, translate
from streamllm.policies import Full, WaitK
from streamllm.records import READ, WRITE, Action, Decide, Emission, Example, Hypothesis, State, Trace, Write


class Decided:
    """A policy that follows a rule given as a function."""

    def __init__(self, rule: Decide):
        self._rule = rule

    def start(self, example: Example) -> Decide:
        return self._rule


def sentence(n: int) -> Example:
    return Example("7", " ".join(f"s{i}" for i in range(1, n + 1)), "reference")


def writes(n: int) -> Answer:
    """A model that writes t1 … tn and then the end token, whatever it has read."""
    return lambda read, written, ended: f"t{written + 1}" if written < n else None


def ends_until(source_units: int, n: int) -> Answer:
    """A model that gives the end token until it has seen ``source_units`` units, then writes n units."""
    return lambda read, written, ended: f"t{written + 1}" if read >= source_units and written < n else None


def kinds(trace: Trace) -> list[str]:
    return [event.kind for event in trace.events]


def test_each_written_unit_has_one_delay_and_one_time() -> None:
    trace = translate(FakeSession(writes(4)), sentence(3), WaitK(2))
    assert trace.units == ("t1", "t2", "t3", "t4")
    assert trace.delays == (2, 3, 3, 3)
    assert len(trace.elapsed) == 4
    assert list(trace.elapsed) == sorted(trace.elapsed)
    assert trace.elapsed == tuple(event.seconds for event in trace.events if event.kind == "write")
    assert kinds(trace) == ["read", "read", "write", "read", "write", "end", "write", "write", "stop"]


def test_a_word_that_is_written_twice_has_the_delay_of_each_time() -> None:
    trace = translate(FakeSession(lambda read, written, ended: "hello" if written < 3 else None), sentence(3), WaitK(1))
    assert trace.units == ("hello", "hello", "hello")
    assert trace.delays == (1, 2, 3)


def test_the_trace_says_what_was_translated() -> None:
    trace = translate(FakeSession(writes(2)), sentence(3), Full())
    assert (trace.id, trace.source, trace.reference) == ("7", "s1 s2 s3", "reference")
    assert (trace.source_units, trace.prediction) == (3, "t1 t2")
    assert trace.stats["seconds"] == trace.events[-1].seconds


def test_a_read_that_finds_nothing_feeds_the_footer_and_ends_the_source() -> None:
    session = FakeSession(writes(2))
    states = [state for _, state in stream(session, ["s1"], WaitK(1).start(sentence(1)))]
    assert session.calls[:3] == [("read", "s1"), ("write", "t1"), ("end_source", None)]
    assert [state.source_done for state in states] == [False, False, True, True, True]


def test_the_end_of_the_source_is_not_known_before_a_read_finds_it() -> None:
    """With wait-k the footer is first seen by word i with i + k > |x|, as in training."""
    for x in range(1, 5):
        for k in range(1, 6):
            session = FakeSession(writes(6))
            translate(session, sentence(x), WaitK(k))
            before_footer = session.calls[: session.calls.index(("end_source", None))]
            assert sum(name == "write" for name, _ in before_footer) == max(0, x - k + 1)


def test_a_k_beyond_the_sentence_gives_no_delay_beyond_it() -> None:
    assert translate(FakeSession(writes(3)), sentence(2), WaitK(100)).delays == (2, 2, 2)


def test_an_end_token_while_source_remains_is_a_forced_read() -> None:
    trace = translate(FakeSession(ends_until(3, 2)), sentence(4), WaitK(1))
    assert kinds(trace) == ["read", *["forced_read"] * 2, "write", "write", "forced_read", "end", "stop"]
    assert [event.text for event in trace.events if event.kind == "forced_read"] == ["s2", "s3", "s4"]
    assert trace.delays == (3, 3)


def test_a_forced_read_may_find_the_end_of_the_source() -> None:
    session = FakeSession(lambda read, written, ended: "t" if ended and not written else None)
    trace = translate(session, sentence(1), WaitK(1))
    assert kinds(trace) == ["read", "end", "write", "stop"]
    assert trace.delays == (1,)


def test_early_stop_ends_the_sentence_at_an_end_token() -> None:
    trace = translate(FakeSession(ends_until(3, 2)), sentence(4), WaitK(1), Limits(early_stop="stop"))
    assert kinds(trace) == ["read", "stop"]
    assert trace.events[-1].text == "early_stop"
    assert (trace.units, trace.delays) == ((), ())
    assert trace.source_units == 4


def test_after_the_source_has_ended_the_rest_is_written() -> None:
    """Whatever the policy says: it is not asked any more."""
    asked: list[State] = []

    def always_read(state: State) -> Action:
        asked.append(state)
        return READ

    trace = translate(FakeSession(writes(5)), sentence(2), Decided(always_read))
    assert kinds(trace) == ["read", "read", "end", *["write"] * 5, "stop"]
    assert trace.events[-1].text == "end_token"
    assert not any(state.source_done for state in asked)


def test_an_empty_source_is_translated_from_header_and_footer() -> None:
    session = FakeSession(writes(2))
    trace = translate(session, Example("1", " \n", ""), WaitK(3))
    assert session.calls[0] == ("end_source", None)
    assert (trace.delays, trace.source_units) == ((0, 0), 0)


def test_an_empty_translation_is_a_trace_too() -> None:
    trace = translate(FakeSession(writes(0)), sentence(2), WaitK(1))
    assert (trace.units, trace.delays, trace.elapsed, trace.prediction) == ((), (), (), "")
    assert kinds(trace) == ["read", "forced_read", "end", "stop"]


def test_the_length_limit_counts_the_source_read_so_far() -> None:
    """Before the end of the source the loop reads on; after it, it stops."""
    session = FakeSession(writes(1000))
    trace = translate(session, sentence(2), Decided(lambda state: WRITE), Limits(length_ratio=2, length_extra=3))
    assert kinds(trace) == [*["write"] * 3, "forced_read", *["write"] * 2, "forced_read", *["write"] * 2, "end", "stop"]
    assert trace.events[-1].text == "max_units"
    assert trace.delays == (0, 0, 0, 1, 1, 2, 2)


def test_the_length_limit_holds_after_the_end_of_the_source() -> None:
    trace = translate(FakeSession(writes(1000)), sentence(3), Full(), Limits(length_ratio=1.5, length_extra=1))
    assert len(trace.units) == math.ceil(1.5 * 3 + 1)
    assert trace.events[-1].text == "max_units"


class Wordy(FakeSession):
    """Each unit that it writes is of ``tokens`` tokens. Notes how long a draft may be."""

    def __init__(self, answer: Answer, tokens: int):
        super().__init__(answer, drafts=None)
        self._tokens = tokens
        self.ahead: list[float] = []

    def write(self, tokens: tuple[int, ...] = ()) -> Emission:
        emission = super().write(tokens)
        self.target_tokens += self._tokens * (emission.unit is not None)
        return emission

    def draft(self, max_units: int = 200, max_tokens: float = math.inf) -> Hypothesis:
        self.ahead.append(max_tokens)
        return ()


def test_the_limit_of_tokens_ends_a_sentence_of_endless_words() -> None:
    """It is an average over all units that may be written, and holds from the first write after which it is passed."""
    limits = Limits(length_ratio=1, length_extra=2, tokens_per_unit=10)
    trace = translate(Wordy(writes(1000), 20), sentence(4), Full(), limits)
    assert trace.stats["target_tokens"] == 10 * (4 + 2)
    assert kinds(trace) == ["read"] * 4 + ["end"] + ["write"] * 3 + ["stop"]
    assert trace.events[-1].text == "max_tokens"


def test_while_source_remains_the_limit_of_tokens_forces_reads() -> None:
    """An event says so, since the counts of a trace do not."""
    limits = Limits(length_ratio=1, length_extra=2, tokens_per_unit=10)
    trace = translate(Wordy(writes(1000), 25), sentence(2), Decided(lambda state: WRITE), limits)
    assert [(event.kind, event.text) for event in trace.events] == [
        *(("write", "t1"), ("limit", "max_tokens"), ("forced_read", "s1")),
        *(("write", "t2"), ("limit", "max_tokens"), ("forced_read", "s2")),
        *(("limit", "max_tokens"), ("end", ""), ("stop", "max_tokens")),
    ]
    assert (trace.units, trace.delays) == (("t1", "t2"), (0, 1))


def test_where_both_limits_are_reached_the_stop_is_that_of_units() -> None:
    limits = Limits(length_ratio=0, length_extra=3, tokens_per_unit=2)
    trace = translate(Wordy(writes(1000), 2), sentence(1), Full(), limits)
    assert (len(trace.units), trace.events[-1].text) == (3, "max_units")


def test_without_a_limit_of_tokens_only_units_count() -> None:
    limits = Limits(length_ratio=0, length_extra=3, tokens_per_unit=None)
    trace = translate(Wordy(writes(1000), 500), sentence(1), Full(), limits)
    assert (len(trace.units), trace.events[-1].text) == (3, "max_units")


def test_the_limit_of_tokens_is_on_by_default_and_leaves_ordinary_words_alone() -> None:
    """Even a word of a language that the tokenizer spells byte by byte, once for each word of the source."""
    assert translate(Wordy(writes(12), 24), sentence(12), Full()).events[-1].text == "end_token"
    assert translate(Wordy(writes(1000), 64), sentence(12), Full()).events[-1].text == "max_tokens"


def test_a_draft_has_as_many_tokens_as_may_still_be_written() -> None:
    session = Wordy(writes(1000), 8)
    policy = Asking(lambda state: READ if state.read <= state.written else WRITE, lambda state: ["draft"])
    translate(session, sentence(2), policy, Limits(length_ratio=1, length_extra=2, tokens_per_unit=5))
    assert session.ahead == [10, 15, 15 - 8, 20 - 8, 20 - 16]  # before each read and write


@pytest.mark.parametrize(
    "settings",
    [
        *({"early_stop": "never"}, {"early_stop": True}, {"length_ratio": -1}, {"length_ratio": math.inf}),
        *({"length_ratio": "two"}, {"length_extra": 0}, {"tokens_per_unit": 0.5}, {"tokens_per_unit": math.nan}),
        *({"tokens_per_unit": math.inf}, {"tokens_per_unit": "many"}, {"tokens_per_unit": True}),
    ],
)
def test_limits_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    """In one message, with the name of what is wrong, its value and what is accepted."""
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match="accepted are") as error:
        Limits(**settings)
    assert name in str(error.value) and str(value) in str(error.value)


def test_an_action_that_is_none_is_refused() -> None:
    """A policy that forgets to return, or returns the class, would otherwise read or write for ever."""
    with pytest.raises(TypeError, match=r"records\.READ and records\.WRITE"):
        translate(FakeSession(writes(1)), sentence(1), Decided(lambda state: None))  # type: ignore[arg-type, return-value]


def test_a_read_waits_for_a_source_that_is_late() -> None:
    """Between asking for a unit and getting it nothing is written, and no unit is asked for ahead of time."""
    log: list[str] = []

    class Logged(FakeSession):
        def read(self, unit: str) -> None:
            log.append(f"read {unit}")
            super().read(unit)

        def write(self) -> Any:
            log.append("write")
            return super().write()

    def late() -> Iterator[str]:
        for unit in ("s1", "s2"):
            log.append(f"waiting for {unit}")
            yield unit
        log.append("waiting for the end")

    for event, _ in stream(Logged(writes(3)), late(), WaitK(1).start(sentence(2))):
        log.append(f"saw {event.kind}")
    assert log == [
        *("waiting for s1", "read s1", "saw read", "write", "saw write"),
        *("waiting for s2", "read s2", "saw read", "write", "saw write"),
        *("waiting for the end", "saw end", "write", "saw write", "write", "saw stop"),
    ]


def test_characters_are_units_of_both_sides() -> None:
    session = FakeSession(lambda read, written, ended: "你好吗"[written] if written < 3 else None)
    trace = translate(session, Example("1", "ab c", ""), WaitK(2), source_unit="character", target_unit="character")
    assert (trace.source_units, trace.delays, trace.prediction) == (3, (2, 3, 3), "你好吗")


@given(
    source=st.integers(0, 6),
    actions=st.lists(st.booleans(), min_size=1, max_size=12),
    answers=st.lists(st.booleans(), min_size=1, max_size=12),
    extra=st.integers(1, 6),
    ratio=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    early_stop=st.sampled_from(["read", "stop"]),
    tokens=st.integers(1, 5),
    tokens_per_unit=st.sampled_from([None, 1, 2.5, 4]),
)
def test_every_trace_is_consistent(
    source: int,
    actions: list[bool],
    answers: list[bool],
    extra: int,
    ratio: float,
    early_stop: Any,
    tokens: int,
    tokens_per_unit: float | None,
) -> None:
    """Whatever policy and model do."""
    steps = iter(range(10**6))
    rule = Decided(lambda state: WRITE if actions[next(steps) % len(actions)] else READ)
    tries = iter(range(10**6))
    answer = lambda read, written, ended: f"t{written}" if answers[next(tries) % len(answers)] else None  # noqa: E731
    session = Wordy(answer, tokens)
    limits = Limits(early_stop, length_ratio=ratio, length_extra=extra, tokens_per_unit=tokens_per_unit)
    trace = translate(session, sentence(source), rule, limits)

    events = kinds(trace)
    read = [event.text for event in trace.events if event.kind in ("read", "forced_read")]
    assert len(trace.units) == len(trace.delays) == len(trace.elapsed) == events.count("write")
    assert trace.prediction.split() == list(trace.units)
    assert trace.units == tuple(f"t{i}" for i in range(len(trace.units)))
    assert read == trace.source.split()[: len(read)]  # each once, in order
    assert events.count("end") <= 1
    assert events.count("stop") == 1 and events[-1] == "stop"
    if trace.events[-1].text != "early_stop":
        assert events.count("end") == 1 and len(read) == source
    if "end" in events:
        assert set(events[events.index("end") + 1 :]) <= {"write", "stop"}
    if early_stop == "read":
        assert trace.events[-1].text in ("end_token", "max_units", "max_tokens")
    for event, following in zip(trace.events, trace.events[1:], strict=False):
        assert event.kind != "limit" or following.kind in ("forced_read", "end")
    if tokens_per_unit is not None:  # the last word may pass the limit
        assert trace.stats["target_tokens"] < tokens_per_unit * math.ceil(ratio * len(read) + extra) + tokens
    elif "limit" in events or trace.events[-1].text == "max_tokens":
        raise AssertionError("a limit that was not set")
    assert list(trace.delays) == sorted(trace.delays)
    assert all(0 <= delay <= source for delay in trace.delays)
    count, delays = 0, []
    for event in trace.events:
        count += event.kind in ("read", "forced_read")
        delays += [count] if event.kind == "write" else []
    assert trace.delays == tuple(delays)
    assert len(trace.units) <= math.ceil(ratio * len(read) + extra)
    assert [event.seconds for event in trace.events] == sorted(event.seconds for event in trace.events)
    # What the session was asked to do is what the trace says.
    assert [unit for name, unit in session.calls if name == "read"] == read
    assert tuple(unit for name, unit in session.calls if name == "write" and unit) == trace.units
    assert session.count("end_source") == events.count("end")


# Hypotheses that a policy asks for


def words(text: str) -> Hypothesis:
    return tuple(Emission(word, (100 + i,)) for i, word in enumerate(text.split()))


class Asking:
    """Decides by a rule; before, it asks for so many drafts and beams as ``asks`` says of the state."""

    def __init__(self, rule: Decide, asks: Any):
        self._rule, self._asks = rule, asks

    def start(self, example: Example) -> Decide:
        def decide(state: State) -> Action:
            for question in self._asks(state):
                if question == "draft":
                    state.model.draft()
                else:
                    state.model.beam(2)
            return self._rule(state)

        return decide


def told(trace: Trace) -> list[tuple[str, str]]:
    return [(event.kind, event.text) for event in trace.events]


def test_a_draft_is_an_event_before_what_was_decided_by_it() -> None:
    """Its text is what would follow the units written so far."""
    drafts = {0: "a b", 1: "a b c", 2: "b c d"}
    session = FakeSession(drafts=lambda read, written: words(drafts[read])[written if read == 1 else 0 :])
    policy = Asking(lambda state: READ if state.read <= state.written else WRITE, lambda state: ["draft"])
    trace = translate(session, sentence(2), policy)
    assert told(trace)[:7] == [
        *(("draft", "a b"), ("read", "s1")),
        *(("draft", "a b c"), ("write", "a")),
        *(("draft", "b c"), ("read", "s2")),
        ("draft", "b c d"),
    ]
    assert [event.seconds for event in trace.events] == sorted(event.seconds for event in trace.events)


def test_a_draft_that_is_not_asked_for_is_no_event() -> None:
    assert "draft" not in kinds(translate(FakeSession(drafts=lambda read, written: words("a")), sentence(2), WaitK(1)))


def test_every_question_is_an_event_and_of_a_beam_the_best_hypothesis_is() -> None:
    session = FakeSession(
        drafts=lambda read, written: words("a b"), beams=lambda read, written: [words("c d"), words("a b")]
    )
    policy = Asking(lambda state: READ, lambda state: ["draft", "beam", "draft"] if state.read == 1 else [])
    trace = translate(session, sentence(2), policy)
    assert told(trace)[:5] == [("read", "s1"), ("draft", "a b"), ("draft", "c d"), ("draft", "a b"), ("read", "s2")]


def test_an_empty_hypothesis_is_an_event_without_text() -> None:
    session = FakeSession(drafts=lambda read, written: (), beams=lambda read, written: [])
    policy = Asking(lambda state: READ, lambda state: ["draft", "beam"])
    assert told(translate(session, sentence(1), policy))[:2] == [("draft", ""), ("read", "s1")]


def test_what_extends_the_last_unit_is_not_in_the_text_of_a_draft() -> None:
    """It is no unit that follows those written so far."""
    session = FakeSession(drafts=lambda read, written: (Emission(",", (1,), extends=True), *words("b c")))
    policy = Asking(lambda state: READ, lambda state: ["draft"])
    event, _ = next(stream(session, ["s1"], policy.start(sentence(1))))
    assert (event.kind, event.text) == ("draft", "b c")


def test_a_draft_in_characters_has_no_spaces() -> None:
    session = FakeSession(drafts=lambda read, written: words("你 好 吗"))
    trace = translate(
        session, Example("1", "ab", ""), Asking(lambda state: READ, lambda state: ["draft"]), target_unit="character"
    )
    assert told(trace)[0] == ("draft", "你好吗")


def test_nothing_is_asked_once_the_source_has_ended() -> None:
    session = FakeSession(drafts=lambda read, written: words("a b c")[written:])
    trace = translate(session, sentence(1), Asking(lambda state: READ, lambda state: ["draft"]))
    assert kinds(trace) == ["draft", "read", "draft", "end", "write", "write", "write", "stop"]


def test_a_draft_is_as_long_as_may_still_be_written() -> None:
    asked: list[tuple[str, int]] = []

    class Logged(FakeSession):
        def draft(self, max_units: int = 200, max_tokens: float = math.inf) -> Hypothesis:
            asked.append(("draft", max_units))
            return super().draft(max_units)

        def beam(self, size: int, max_units: int = 200) -> Any:
            asked.append(("beam", max_units))
            return super().beam(size, max_units)

    session = Logged(drafts=lambda read, written: words("a b c d"), beams=lambda read, written: [words("a")])
    policy = Asking(lambda state: READ if state.read <= state.written else WRITE, lambda state: ["draft", "beam"])
    translate(session, sentence(2), policy, Limits(length_ratio=2, length_extra=3))
    left = [3 - 0, 5 - 0, 5 - 1, 7 - 1, 7 - 2]  # before each read and write
    assert asked == [(question, units) for units in left for question in ("draft", "beam")]


@given(
    source=st.integers(0, 5),
    actions=st.lists(st.booleans(), min_size=1, max_size=8),
    questions=st.lists(st.lists(st.sampled_from(["draft", "beam"]), max_size=2), min_size=1, max_size=8),
    answers=st.lists(st.booleans(), min_size=1, max_size=8),
)
def test_what_is_asked_never_changes_what_is_written(
    source: int, actions: list[bool], questions: list[list[str]], answers: list[bool]
) -> None:
    """But for its events, the trace is that of a policy that asks for nothing."""
    traces = []
    for asks in (True, False):
        steps = iter(range(10**6))
        asked = iter(range(10**6))
        policy = Asking(
            lambda state, steps=steps: WRITE if actions[next(steps) % len(actions)] else READ,  # type: ignore[misc]
            lambda state, asks=asks, asked=asked: questions[next(asked) % len(questions)] if asks else [],
        )

        def drafts(read: int, written: int) -> Hypothesis:
            return words("a b c")[written:] if answers[read % len(answers)] else ()

        session = FakeSession(drafts=drafts, beams=lambda read, written: [words("x y")])
        traces.append(translate(session, sentence(source), policy, Limits(length_ratio=1, length_extra=2)))
    with_drafts, without = traces
    assert [event for event in told(with_drafts) if event[0] != "draft"] == told(without)
    assert (with_drafts.units, with_drafts.delays) == (without.units, without.delays)
    assert len(with_drafts.elapsed) == len(with_drafts.units)


# Units that a policy gives


class Given(FakeSession):
    """Writes the units that it is given as "g" and their tokens; whether they extend is said by ``extending``."""

    def __init__(self, answer: Answer, extending: tuple[int, ...] = ()):
        super().__init__(answer)
        self.given: list[tuple[int, ...]] = []
        self._extending = extending

    def write(self, tokens: tuple[int, ...] = ()) -> Emission:
        self.given.append(tokens)
        if not tokens:
            return super().write()
        emission = Emission("g" + "-".join(map(str, tokens)), tokens, extends=tokens == self._extending)
        self._written += not emission.extends
        return emission


def test_tokens_that_a_policy_gives_are_written_as_a_unit() -> None:
    session = Given(writes(3))
    policy = Decided(lambda state: READ if state.read <= state.written else Write((7, 8)) if state.written else WRITE)
    trace = translate(session, sentence(2), policy)
    assert told(trace) == [
        *(("read", "s1"), ("write", "t1"), ("read", "s2"), ("write", "g7-8")),
        *(("end", ""), ("write", "t3"), ("stop", "end_token")),
    ]
    assert (trace.units, trace.delays) == (("t1", "g7-8", "t3"), (1, 2, 2))
    assert session.given == [(), (7, 8), (), ()]


def test_a_given_unit_may_extend_the_one_before_it() -> None:
    """So it has no delay of its own, and the unit is whole when it is."""
    session = Given(writes(2), extending=(9,))
    actions = iter([READ, WRITE, READ, Write((9,)), READ])
    policy = Decided(lambda state: next(actions))
    trace = translate(session, sentence(2), policy)
    assert told(trace)[:4] == [("read", "s1"), ("write", "t1"), ("read", "s2"), ("extend", "g9")]
    assert (trace.units, trace.delays) == (("t1g9", "t2"), (2, 2))


def test_a_given_unit_counts_for_the_length_limit() -> None:
    trace = translate(Given(writes(0)), sentence(0), Decided(lambda state: Write((1,))), Limits(length_extra=3))
    assert kinds(trace) == ["write", "write", "write", "end", "stop"]
    assert trace.events[-1].text == "max_units"


def test_given_tokens_that_say_nothing_are_a_forced_read() -> None:
    """White space, say: like an end token, else the loop would never end."""

    class Blank(FakeSession):
        def write(self, tokens: tuple[int, ...] = ()) -> Emission:
            return Emission(None) if tokens else super().write()

    trace = translate(Blank(writes(1)), sentence(1), Decided(lambda state: Write((1,))))
    assert kinds(trace) == ["forced_read", "end", "write", "stop"]


def test_a_policy_sees_the_source_that_was_read_and_none_that_is_to_come() -> None:
    seen = []

    def decide(state: State) -> Action:
        seen.append((state.read, list(state.source)))
        return WRITE if state.source and state.source[-1] == "s2" and state.written == 0 else READ

    translate(FakeSession(writes(2)), sentence(3), Decided(decide))
    assert seen == [(0, []), (1, ["s1"]), (2, ["s1", "s2"]), (2, ["s1", "s2"]), (3, ["s1", "s2", "s3"])]


def test_a_policy_sees_the_source_that_arrives_live() -> None:
    seen = []

    def decide(state: State) -> Action:
        seen.append(list(state.source))
        return WRITE if state.source and not state.written else READ

    list(stream(FakeSession(writes(1)), iter(["one", "two"]), decide))
    assert seen == [[], ["one"], ["one"], ["one", "two"]]


def test_the_source_of_a_state_takes_no_part_in_comparisons() -> None:
    assert State(1, 0, False, source=["one"]) == State(1, 0, False)
    assert "source=" not in repr(State(1, 0, False, source=["one"]))


# --- units of different kinds


def pair(source: str, reference: str) -> Example:
    return Example("1", source, reference)


def test_units_of_one_kind_leave_the_limits_as_they_are():
    limits = Limits()
    assert limits.between("word", "word", [pair("a b", "c d e f g h")]) is limits
    assert limits.between("character", "character", [pair("一二", "三四五六")]) is limits


def test_characters_for_words_are_measured_on_the_references():
    limits = Limits().between(
        "word", "character", [pair("two words", "三個字"), pair("and three more", "七個漢字的句子")]
    )
    assert limits.unit_ratio == (3 + 7) / (2 + 3)
    assert limits.most_units(12) == 2 * (2 * 12 + 20)


def test_a_ratio_that_is_given_is_taken_and_one_below_1_cuts_no_more_than_before():
    assert Limits(unit_ratio=3.0).between("word", "character", [pair("a", "二字")]).unit_ratio == 3.0
    words = Limits().between("character", "word", [pair("六個漢字的句", "two words")])
    assert words.most_units(6) == Limits().most_units(6)


def test_without_references_four_characters_are_taken_for_a_word():
    assert Limits().between("word", "character").unit_ratio == 4
    assert Limits().between("word", "character", [pair("a b", " ")]).unit_ratio == 4


def test_a_right_output_in_characters_is_not_cut():
    """Three words with 40 characters: more than 2 * 3 + 20."""
    limits = Limits().between("word", "character", [pair("a b c", "字" * 40)])
    trace = translate(FakeSession(writes(40)), sentence(3), Full(), limits, target_unit="character")
    assert len(trace.units) == 40
    assert trace.events[-1].text not in ("max_units", "max_tokens")


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), True, "2"])
def test_ratio_that_is_none_is_refused(value: Any):
    with pytest.raises(ValueError, match="unit_ratio is"):
        Limits(unit_ratio=value)
