"""A session that was asked what it would write goes on as one that was not."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sessions import PROMPT, TIE, WORDS, close, tokens_of, varied_models

from streamllm.engine.limits import Limits
from streamllm.engine.loop import translate
from streamllm.engine.paradigms.group import Group
from streamllm.engine.paradigms.interleaved import Interleaved
from streamllm.engine.paradigms.memory import Paradigm, TargetStart
from streamllm.engine.paradigms.reencoded import Batch, BatchPositions
from streamllm.engine.session import Session
from streamllm.policies import Stride, WaitK
from streamllm.prompt import PromptTokens
from streamllm.records import Decide, Emission, Example, Hypothesis, Policy, Prediction, State, Write


@pytest.fixture(scope="module")
def models(tokenizer: Any) -> list[Any]:
    return varied_models(tokenizer)


@pytest.fixture(scope="module")
def facts(tokenizer: Any) -> PromptTokens:
    return PromptTokens(PROMPT, tokenizer)


class _Margins:
    """Greedy; notes how clear each choice was."""

    def __init__(self) -> None:
        self.smallest = math.inf

    def __call__(self, logprobs: mx.array) -> mx.array:
        second, first = np.sort(np.array(logprobs[0]))[-2:]
        self.smallest = min(self.smallest, float(first - second))
        return mx.argmax(logprobs, axis=-1)


Deed = tuple[str, Any]  # "read" and a unit; "end"; "write" and tokens
QUESTIONS = ["prediction", "hidden", "draft", "beam", "attended", "watched draft"]
DEEDS = ["read", "read", "write", "write", "write", "give", "mark", "rewind", "end"]
HEADS = [[0, 0], [1, 3]]


def act(session: Session, deed: Deed) -> Emission | None:
    kind, what = deed
    if kind == "write":
        emission = session.write(what)
        if what:
            session.prediction()  # given tokens see what has been read when they are fed: that is now
        return emission
    if kind == "read":
        session.read(what)
    else:
        session.end_source()
    return None


def live(
    session: Session, steps: Sequence[tuple[str, int]], given_: Sequence[tuple[int, ...]], can_hide: bool
) -> tuple[list[Deed], list[Emission | None]]:
    """Take the steps, questions among them; returns what was done and not taken back, and what it gave."""
    deeds: list[Deed] = []
    gave: list[Emission | None] = []
    marks: list[tuple[Any, int]] = []
    for kind, n in steps:
        ended = ("end", None) in deeds
        read = sum(deed[0] == "read" for deed in deeds)
        deed: Deed | None = None
        if kind == "prediction":
            session.prediction()
        elif kind == "hidden" and can_hide:
            session.prediction(hidden=n)
        elif kind == "draft":
            session.draft(n)
        elif kind == "beam":
            session.beam(1 + n % 3, max_units=1)
        elif kind == "attended" and read:
            session.attended(HEADS)
        elif kind == "watched draft" and read:
            assert session.watched_draft(HEADS, n)[1].shape[1] == read
        elif kind == "mark":
            marks.append((session.mark(), len(deeds)))
        elif kind == "rewind" and marks:
            del marks[len(marks) - n % len(marks) :]
            mark, length = marks[-1]
            session.rewind(mark)
            del deeds[length:], gave[length:]
        elif kind == "write":
            deed = "write", ()
        elif kind == "give":
            draft = session.draft(1) if n == 0 else ()
            deed = "write", draft[0].tokens if draft else given_[n % len(given_)]
        elif kind == "read" and not ended:
            deed = "read", WORDS[read % len(WORDS)]
        elif kind == "end" and not ended:
            deed = "end", None
        if deed:
            deeds.append(deed)
            gave.append(act(session, deed))
            marks = marks if deed == ("write", ()) else []
    return deeds, gave


PARADIGMS: list[tuple[Paradigm, TargetStart]] = [
    (Group(), 0),
    (Group(), "after_source"),
    (Batch(), 0),
    (Batch(), "after_source"),
    (BatchPositions(), 0),
    (Interleaved(), 0),
]


@pytest.mark.parametrize(
    ("paradigm", "target_start"), PARADIGMS, ids=[f"{type(paradigm).__name__}-{start}" for paradigm, start in PARADIGMS]
)
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    end=st.floats(0, 6),
    unit=st.sampled_from(["word", "word", "character"]),
    steps=st.lists(st.tuples(st.sampled_from([*QUESTIONS, *DEEDS]), st.integers(0, 3)), min_size=1, max_size=14),
)
def test_questions_change_nothing(
    tokenizer: Any,
    paradigm: Paradigm,
    target_start: TargetStart,
    seed: int,
    end: float,
    unit: Any,
    steps: list[tuple[str, int]],
) -> None:
    """Whatever is asked and taken back: what is written, and what would be, is that of a session which only read and
    wrote the rest."""
    model = tiny.Biased(tiny.random_model(seed % 50, len(tokenizer)), tiny.sentence_bias(tokenizer, end))
    facts, margins = PromptTokens(PROMPT, tokenizer, "word", unit), _Margins()
    asked, other = (Session(paradigm.open(model, target_start), facts, margins, max_unit_tokens=4) for _ in range(2))
    given_ = [tokens_of(tokenizer, *pieces) for pieces in ((" dog",), (",",), (" run", "ing"))]
    deeds, gave = live(asked, steps, given_, can_hide=not isinstance(paradigm, Interleaved))
    again = [act(other, deed) for deed in deeds]
    predictions = [session.prediction().logits for session in (asked, other)]
    assume(margins.smallest > TIE)
    assert gave == again
    close(predictions[0], np.array(predictions[1]))
    assert asked.source_tokens == other.source_tokens
    assert asked.target_tokens == other.target_tokens
    if any(kind == "read" for kind, _ in deeds):
        assert asked.attended(HEADS) == other.attended(HEADS)
    if ("end", None) not in deeds:
        for session in (asked, other):
            session.read("the")
        predictions = [session.prediction().logits for session in (asked, other)]
        close(predictions[0], np.array(predictions[1]))
        assert asked.memory.target_offset == other.memory.target_offset
    rest = [[session.write() for _ in range(2)] for session in (asked, other)]
    assume(margins.smallest > TIE)
    assert rest[0] == rest[1]


class _Asks:
    """Decides as another policy does, and asks for everything before."""

    def __init__(self, policy: Policy):
        self._policy = policy

    def start(self, example: Example) -> Decide:
        decide = self._policy.start(example)

        def ask(state: State) -> Any:
            said: list[Prediction | Hypothesis | Sequence[Hypothesis]] = [
                state.model.prediction(hidden=1),
                state.model.draft(),
                state.model.beam(2),
                state.model.prediction(),
            ]
            assert len(said) == 4
            return decide(state)

        return ask


def test_a_policy_that_asks_for_everything_writes_what_one_that_asks_for_nothing_writes(
    models: list[Any], facts: PromptTokens
) -> None:
    for model, policy in itertools.product(models, (WaitK(1), WaitK(3), Stride(2, 2))):
        traces = [
            translate(
                Session(Group().open(model), facts, max_unit_tokens=4),
                Example("1", " ".join(WORDS[:4]), ""),
                each,
                Limits(length_ratio=1, length_extra=2),
            )
            for each in (policy, _Asks(policy))
        ]
        assert traces[0].units == traces[1].units
        assert traces[0].delays == traces[1].delays
        events = [[(event.kind, event.text) for event in trace.events if event.kind != "draft"] for trace in traces]
        assert events[0] == events[1]
        assert any(event.kind == "draft" for event in traces[1].events)


def test_giving_a_session_its_own_drafts_writes_what_it_would_have_written(
    models: list[Any], facts: PromptTokens
) -> None:
    class Giving:
        def start(self, example: Example) -> Decide:
            decide = WaitK(2).start(example)

            def give(state: State) -> Any:
                action = decide(state)
                draft = state.model.draft() if isinstance(action, Write) else ()
                return Write(draft[0].tokens) if draft else action

            return give

    example = Example("1", " ".join(WORDS[:4]), "")
    traces = []
    for policy in (WaitK(2), Giving()):
        session = Session(Group().open(models[2]), facts, max_unit_tokens=4)
        traces.append(translate(session, example, policy, Limits(length_ratio=1, length_extra=2)))
    assert traces[0].units == traces[1].units and traces[0].delays == traces[1].delays
