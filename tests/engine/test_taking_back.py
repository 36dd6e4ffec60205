"""A source that is revised: a session that is taken back to a common prefix goes on as one that read nothing else."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_reference_session import ALL, WORDS, Case

from streamllm.batching.pool import Pool
from streamllm.cache.retention import Retention
from streamllm.engine.session import Session

TIE = 2e-3  # differences under which float32 may decide either way

Steps = list[tuple[str, int]]
steps = st.lists(
    st.tuples(
        st.sampled_from(["read", "read", "write", "write", "draft", "prediction", "hidden", "beam", "mark"]),
        st.integers(0, 5),
    ),
    max_size=8,
)


class _Tie(Exception):
    """What was compared hangs on the last digits."""


def do(session: Session, step: tuple[str, int], mark: list[Any]) -> Any:
    kind, n = step
    match kind:
        case "read":
            mark.clear()
            return session.read(WORDS[n])
        case "end":
            mark.clear()
            return session.end_source()
        case "write":
            return session.write()
        case "draft":
            return session.draft(1 + n)
        case "prediction":
            return session.prediction().token
        case "hidden":
            return session.prediction(hidden=n % 3).token if session.memory.source_tokens else None
        case "beam":
            return session.beam(2, 1 + n % 2)
        case "mark":  # to go back to, the second time
            if mark:
                return session.rewind(mark.pop())
            return mark.append(session.mark())


def same(ours: Session, theirs: Session, do_it: Callable[[Session], Any]) -> None:
    """Both do the same, and say the same of what comes next."""
    first, second = (np.array(each.prediction().logits, np.float64) for each in (ours, theirs))
    np.testing.assert_allclose(first, second, atol=2e-3, rtol=1e-3)
    a, b = do_it(ours), do_it(theirs)
    if a != b:
        best = np.sort(second)[-2:]
        if best[1] - best[0] < TIE:
            raise _Tie
    assert a == b


def compare(ours: Session, theirs: Session, after: Steps) -> None:
    for step in [*after, ("write", 0), ("read", 4), ("write", 0), ("end", 0), ("write", 0), ("write", 0)]:
        if step[0] in ("read", "end", "write", "draft", "prediction"):
            if step[0] == "read" or step[0] == "end":
                for each in (ours, theirs):
                    do(each, step, [])
            else:
                same(ours, theirs, lambda each, step=step: do(each, step, []))  # type: ignore[misc]
    assert ours.target_tokens == theirs.target_tokens
    assert ours.units_read == theirs.units_read


@pytest.mark.long
@settings(max_examples=60)
@given(
    seed=st.integers(0, 3),
    end=st.sampled_from([0.0, 4.5]),
    kind=st.sampled_from(["group", "batch", "batch_positions", "interleaved"]),
    target_start=st.sampled_from([0, 3, "after_source"]),
    unit=st.sampled_from(["word", "character"]),
    header=st.sampled_from(["<mark>", "German: cat"]),
    sampled=st.booleans(),
    pooled=st.booleans(),
    bits=st.booleans(),
    before=steps,
    junk=steps,
    ends=st.booleans(),
    after=steps,
    revises=st.booleans(),
)
def test_a_session_taken_back_goes_on_as_one_that_read_the_prefix_alone(
    tokenizer: Any,
    seed: int,
    end: float,
    kind: Any,
    target_start: Any,
    unit: Any,
    header: str,
    sampled: bool,
    pooled: bool,
    bits: bool,
    before: Steps,
    junk: Steps,
    ends: bool,
    after: Steps,
    revises: bool,
) -> None:
    if kind == "interleaved":
        before, junk, after = ([step for step in each if step[0] != "hidden"] for each in (before, junk, after))
    retention = Retention(kv_bits=8, kv_group_size=32) if bits and kind == "group" and not pooled else ALL
    case = Case(seed, end, kind, target_start, unit, header, sampled, (), retention=retention)
    model = case.model(tokenizer)

    def opened() -> Session:
        row: Any = Pool(model, 2, target_start).open() if pooled and kind == "group" else None
        return case.session(tokenizer, row)

    ours, theirs = opened(), opened()
    for session in (ours, theirs):
        marks: list[Any] = []
        for step in before:
            do(session, step, marks)
    read, tokens = ours.units_read, ours.target_tokens
    written: list[int] = []
    marks = []
    for step in [("read", 0), *junk, *([("end", 0)] if ends else [])]:
        at = ours.target_tokens
        gave = do(ours, step, marks)
        if step[0] == "write" and gave.tokens:
            written += gave.tokens
        del written[max(0, ours.target_tokens - tokens) :]
        assert ours.target_tokens - tokens == len(written), at
    ours.take_back(read, revises)
    if not revises:  # units of one token come out one by one: some may be left, of what was given, too
        theirs._output._queue.clear()
        if written:
            theirs.write(tuple(written))
            theirs._output._after_space = ours._output._after_space
        theirs._output._queue = ours._output._queue.copy()
    assert ours.target_tokens == theirs.target_tokens
    try:
        compare(ours, theirs, after)
    except _Tie:
        return


# --- by example


def opened(tokenizer: Any, retention: Retention = ALL, pooled: bool = False) -> Session:
    case = Case(0, 0.0, "group", 0, "word", "<mark>", False, (), retention=retention)
    return case.session(tokenizer, Pool(case.model(tokenizer), 1).open() if pooled else None)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("revises", [False, True])
def test_what_was_written_stays_unless_the_output_revises(tokenizer: Any, revises: bool, pooled: bool) -> None:
    ours, theirs = opened(tokenizer, pooled=pooled), opened(tokenizer)
    for session in (ours, theirs):
        session.read("a")
        session.write()
    ours.read("cat,")
    wrote = ours.write().tokens
    ours.end_source()
    ours.take_back(1, revises)
    if not revises:
        theirs.write(wrote)
    assert (ours.units_read, ours.target_tokens) == (1, theirs.target_tokens)
    for session in (ours, theirs):
        session.read("the")
    np.testing.assert_allclose(np.array(ours.prediction().logits), np.array(theirs.prediction().logits), atol=1e-4)
    assert ours.source_tokens == theirs.source_tokens


def test_where_it_cannot_be_exact_it_is_one_error_and_nothing_has_changed(tokenizer: Any) -> None:
    session = opened(tokenizer)
    session.read("a")
    with pytest.raises(ValueError, match="back to 2 units: 1 have been read"):
        session.take_back(2)
    session.write()
    session.close_sentence()
    session.read("cat,")
    session.take_back(1)
    with pytest.raises(RuntimeError, match="back to 0 units, only to 1: a target sentence ended"):
        session.take_back(0)

    session = opened(tokenizer, Retention(max_source=12))
    for _ in range(20):
        session.read("the")
        session.write()
    before = np.array(session.prediction().logits)
    with pytest.raises(RuntimeError, match="cannot take the source back"):
        session.take_back(14)
    np.testing.assert_array_equal(before, np.array(session.prediction().logits))


def test_a_mark_of_what_was_taken_back_is_none(tokenizer: Any) -> None:
    session = opened(tokenizer)
    session.read("a")
    mark = session.mark()
    session.read("cat,")
    session.take_back(1, revises=True)
    with pytest.raises(RuntimeError, match="cannot rewind"):
        session.rewind(mark)
