"""Random sentences through a session and through `reference_session`, which computes everything from scratch.

For longer: ``pytest --hypothesis-profile=long tests/engine/test_reference_session.py`` (`tests/conftest.py`)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_session import DROPPED, SPACES, Kind, ReferenceSession
from sessions import tokens_of

from streamllm.batching.coroutines import Task, run_all
from streamllm.batching.pool import Pool
from streamllm.cache.retention import Retention
from streamllm.engine.paradigms.group import Group
from streamllm.engine.paradigms.interleaved import Interleaved
from streamllm.engine.paradigms.memory import Memory, Paradigm, TargetStart
from streamllm.engine.paradigms.reencoded import Batch, BatchPositions
from streamllm.engine.paradigms.windows import memories
from streamllm.engine.sampling import Sampling
from streamllm.engine.session import Session
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import Emission

EXAMPLES = settings().max_examples  # 100, unless a profile says otherwise
WORDS = ("a", "cat,", "the", DROPPED, "Größe:", "runs")
PIECES = ((" dog",), (",",), (" run", "ing"), (" sch", "ön", "er"))
PARADIGMS: dict[Kind, Paradigm] = {
    "group": Group(),
    "batch": Batch(),
    "batch_positions": BatchPositions(),
    "interleaved": Interleaved(),
}
HEADERS = ("<mark>", "German: cat")  # one token, and several
ALL = Retention()
Step = tuple[str, int]


class Facts(PromptTokens):
    """A tokenizer that drops one unit."""

    def source_tokens(self, unit: str, first: bool) -> list[int]:
        return [] if unit == DROPPED else super().source_tokens(unit, first)


@cache
def model_of(seed: int, vocabulary: int, hidden: int = 32) -> Any:
    return tiny.random_model(seed, vocabulary, hidden)


@dataclass(frozen=True)
class Case:
    """One sentence: a model, how it is set up, and what is done."""

    seed: int
    end: float
    kind: Kind
    target_start: TargetStart
    unit: Any
    header: str
    sampled: bool
    steps: tuple[Step, ...]
    long_words: bool = False
    retention: Retention = ALL

    def model(self, tokenizer: Any) -> Any:
        hidden = 32 if self.retention.kv_bits is None else 128
        bias = tiny.sentence_bias(tokenizer, self.end)
        if self.long_words:
            bias -= mx.array(
                [6.0 * (text[:1] in SPACES or text[-1:] in SPACES) for text in tiny.token_bytes(tokenizer)]
            )
        return tiny.Biased(model_of(self.seed, len(tokenizer), hidden), bias)

    @property
    def longest(self) -> int:
        return 18 if self.long_words else 4

    @property
    def prompt(self) -> Prompt:
        return Prompt(source_header="a <", source_footer=" =>", target_header=self.header)

    @property
    def sampling(self) -> Sampling | None:
        return Sampling(self.seed, 0.8, 0.9) if self.sampled else None

    def session(self, tokenizer: Any, memory: Memory | None = None) -> Session:
        facts = Facts(self.prompt, tokenizer, "word", self.unit)
        if memory is None:
            model, paradigm = self.model(tokenizer), PARADIGMS[self.kind]
            headers = len(facts.source_header), len(facts.target_header)
            retention = self.retention
            if retention.keeps_all:
                memory = paradigm.open(model, self.target_start)
            else:
                memory = memories(retention, model, paradigm, *headers)(self.target_start)
        return Session(memory, facts, self.sampling, max_unit_tokens=self.longest, max_ahead=self.retention.max_target)

    def reference(self, tokenizer: Any) -> ReferenceSession:
        retention = self.retention
        return ReferenceSession(
            self.model(tokenizer),
            tokenizer,
            self.prompt,
            self.kind,
            self.target_start,
            self.unit,
            self.longest,
            self.sampling,
            retention.max_source,
            retention.max_target,
            retention.kv_bits,
            tie=0.3 if retention.kv_bits else 2e-3,
        )


def play(session: Any, case: Case, tokenizer: Any) -> Iterator[tuple[str, Any]]:
    """Do the steps; yield what each gives. The session is one or the other."""
    marks: list[Any] = []
    read, ended = 0, False
    for kind, n in (*case.steps, ("prediction", 0), ("write", 0), ("read", 0), ("draft", 3), ("write", 0)):
        if kind == "read" and not ended:
            session.read(WORDS[(read + n) % len(WORDS)])
            read, marks = read + 1, []
        elif kind == "end" and not ended:
            session.end_source()
            ended, marks = True, []
        elif kind == "write":
            yield kind, session.write()
        elif kind == "give":
            draft = session.draft(1) if n == 0 else ()
            yield kind, session.write(draft[0].tokens if draft else tokens_of(tokenizer, *PIECES[n]))
            marks = []
            # Given tokens see what has been read when they are fed: that is now.
            yield kind, session.prediction(n % 2 if case.kind != "interleaved" else 0)
        elif kind == "mark":
            marks.append(session.mark())
        elif kind == "rewind" and marks:
            del marks[len(marks) - n % len(marks) :]
            session.rewind(marks[-1])
        elif kind == "prediction":
            yield kind, session.prediction()
        elif kind == "hidden" and case.kind != "interleaved":
            yield kind, session.prediction(1 + n)
        elif kind == "draft":
            yield kind, session.draft(1 + n)
        elif kind == "beam":
            yield kind, session.beam(1 + n % 3, 1 + n // 2)
        elif kind == "watched" and case.retention.kv_bits is None:
            try:
                yield kind, [*session.watched_draft(None, 1 + n)]
            except ValueError:
                yield kind, None
        elif kind == "attended" and case.retention.kv_bits is None:
            try:
                yield kind, session.unit_attention()
            except ValueError:
                yield kind, None
    yield "target tokens", session.target_tokens


def plain(given_: Any) -> Any:
    """What a step gave, to be compared."""
    if isinstance(given_, Emission):
        return given_.unit and given_.unit.strip(), given_.tokens, given_.extends
    if isinstance(given_, tuple | list):
        return [plain(each) for each in given_]
    logits = getattr(given_, "logits", given_)
    return np.array(logits.astype(mx.float32)) if isinstance(logits, mx.array) else logits


def expected(case: Case, tokenizer: Any) -> list[tuple[str, Any]]:
    """What the steps give, up to the first that hangs on rounding."""
    session = case.reference(tokenizer)
    found: list[tuple[str, Any]] = []
    for kind, gave in play(session, case, tokenizer):
        if session.tied:
            break
        found.append((kind, plain(gave)))
    return found


def compare(case: Case, ours: Sequence[tuple[str, Any]], theirs: Sequence[tuple[str, Any]]) -> None:
    tolerance = 0.06 if case.retention.kv_bits else 2e-3
    for i, ((kind, ours_), (_, true)) in enumerate(zip(ours, theirs, strict=False)):
        where = f"{i}: {kind}"
        if kind == "watched" and true is not None:
            assert ours_[0] == true[0], where
            ours_, true = ours_[1], true[1]
        if isinstance(true, np.ndarray):
            assert ours_ is not None and ours_.shape == true.shape, where
            assert np.abs(ours_ - true).max(initial=0) <= tolerance * np.abs(true).max(initial=0), where
        else:
            assert ours_ == true, where


def alone(case: Case, tokenizer: Any) -> None:
    theirs = expected(case, tokenizer)
    ours = []
    for (kind, gave), _ in zip(play(case.session(tokenizer), case, tokenizer), theirs, strict=False):
        ours.append((kind, plain(gave)))
    compare(case, ours, theirs)


QUESTIONS = ["prediction", "hidden", "hidden", "draft", "beam", "attended", "watched"]
DEEDS = ["read", "read", "read", "write", "write", "write", "give", "mark", "mark", "rewind", "rewind", "end"]

PHRASES = (  # what has gone wrong before, beside steps of any kind
    ("mark", "write", "hidden", "rewind", "beam"),
    ("mark", "write", "hidden", "rewind", "read", "prediction"),
    ("write", "read", "prediction"),
    ("read", "give", "hidden", "prediction"),
    ("draft", "hidden", "attended", "write"),
)


def programs() -> st.SearchStrategy[tuple[Step, ...]]:
    kinds = st.one_of(
        st.sampled_from([*QUESTIONS, *DEEDS]).map(lambda kind: (kind,)),
        st.sampled_from([*QUESTIONS, *DEEDS]).map(lambda kind: (kind,)),
        st.sampled_from(PHRASES),
    )
    steps = st.tuples(kinds, st.integers(0, 3)).map(lambda drawn: [(kind, drawn[1]) for kind in drawn[0]])
    return st.lists(steps, min_size=4, max_size=10).map(lambda parts: tuple(step for part in parts for step in part))


def cases(**fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Case]:
    usual: dict[str, st.SearchStrategy[Any]] = {
        "seed": st.integers(0, 20),
        "end": st.sampled_from([0.0, 4.0, 8.0]),
        "kind": st.sampled_from(["group", "batch", "batch_positions", "interleaved"]),
        "target_start": st.sampled_from([0, 5, "after_source"]),
        "unit": st.sampled_from(["word", "word", "character"]),
        "header": st.sampled_from(HEADERS),
        "sampled": st.booleans(),
        "steps": programs(),
        "long_words": st.booleans(),
    }
    return st.builds(Case, **(usual | fixed))


@pytest.mark.long
@pytest.mark.parametrize("kind", PARADIGMS)
@settings(max_examples=EXAMPLES * 3 // 10)
@given(data=st.data())
def test_a_session_does_what_one_from_scratch_does(tokenizer: Any, kind: Kind, data: st.DataObject) -> None:
    alone(data.draw(cases(kind=st.just(kind))), tokenizer)


def windows(kv_bits: st.SearchStrategy[int | None]) -> st.SearchStrategy[Retention]:
    return st.builds(
        Retention,
        max_source=st.sampled_from([None, 6, 9]),
        max_target=st.sampled_from([None, 8, 11]),
        sinks=st.just(0),
        kv_bits=kv_bits,
        kv_group_size=st.just(32),
    )


@pytest.mark.long
@settings(max_examples=EXAMPLES * 3 // 10)
@given(case=cases(kind=st.just("group"), retention=windows(st.sampled_from([None, None, 8]))))
def test_a_session_with_windows_and_quantised_caches_does_what_one_from_scratch_does(
    tokenizer: Any, case: Case
) -> None:
    alone(case, tokenizer)


@pytest.mark.long
@settings(max_examples=EXAMPLES // 10)
@given(
    sentences=st.lists(cases(kind=st.just("group")), min_size=3, max_size=6),
    rows=st.integers(1, 3),
    packs=st.booleans(),
)
def test_rows_of_a_pool_do_what_sessions_from_scratch_do(
    tokenizer: Any, sentences: list[Case], rows: int, packs: bool
) -> None:
    """More sentences than rows: rows close, and open again."""
    first = sentences[0]
    sentences = [
        replace(case, seed=first.seed, end=first.end, target_start=first.target_start, long_words=first.long_words)
        for case in sentences
    ]

    def task(case: Case) -> Task[tuple[Case, list[tuple[str, Any]]]]:
        def do(row: Any, clock: Callable[[], float]) -> tuple[Case, list[tuple[str, Any]]]:
            session = case.session(tokenizer, row)
            return case, [(kind, plain(gave)) for kind, gave in play(session, case, tokenizer)]

        return do

    pool = Pool(first.model(tokenizer), rows, first.target_start, packs)
    for case, ours in run_all(pool, map(task, sentences)):
        compare(case, ours, expected(case, tokenizer))
