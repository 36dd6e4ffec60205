"""Policies that ask the model about the next token, played against a session that is told what the model says."""

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_fixtures import FakePrediction, FakeSession, sentence

from streamllm.engine.loop import translate
from streamllm.policies import AlignAtt, Confidence, Entropy, Learned, MultiK, WaitIfDiff, WaitIfWorse
from streamllm.records import READ, WRITE, WRITE_BARE, Example, State

Table = list[list[Any]]  # what holds with so many units read, so many written
X = Y = 6  # more than any sentence here has units


def tables(values: Sequence[Any]) -> st.SearchStrategy[Table]:
    """Tables of values drawn evenly: those that hypothesis builds are mostly of one value."""
    return st.integers(0, 10**6).map(lambda seed: [Random(seed + read).choices(values, k=Y) for read in range(X)])


def sure(probability: float) -> FakePrediction:
    """Token 1 with that probability, others with less."""
    rest = 1 - probability
    return FakePrediction({1: probability, **dict.fromkeys(range(2, 1001), rest / 999)})


def writes(units: int) -> Callable[[int, int, bool], str | None]:
    return lambda read, written, ended: f"t{written}" if written < units else None


def first_times(may_write: Callable[[int, int], bool], x: int, y: int) -> list[int]:
    """Delays of a policy that writes unit t (from 0) as soon as ``may_write(read, t)``, or at the end of the source."""
    delays, read = [], 0
    for t in range(y):
        while read < x and not may_write(read, t):
            read += 1
        delays.append(read)
    return delays


# --- confidence and entropy

PROBABILITIES = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
THRESHOLDS = st.sampled_from(PROBABILITIES)
LENGTHS = st.integers(0, X - 1)


@given(tables(PROBABILITIES), THRESHOLDS, LENGTHS, LENGTHS)
def test_confidence_writes_at_the_first_moment_that_is_sure_enough(p: Table, threshold: float, x: int, y: int) -> None:
    session = FakeSession(writes(y), predictions=lambda read, written: sure(p[read][written]))
    delays = translate(session, sentence(x), Confidence(threshold)).delays
    assert list(delays) == first_times(lambda read, t: read > 0 and p[read][t] >= threshold, x, y)


@given(tables(PROBABILITIES), st.sampled_from([0.0, 0.5, 2.0, 4.0, 9.0]), LENGTHS, LENGTHS)
def test_entropy_writes_at_the_first_moment_of_little_doubt(p: Table, threshold: float, x: int, y: int) -> None:
    def entropy(probability: float) -> float:
        rest = 1 - probability
        return -probability * math.log(probability) - (rest * math.log(rest / 999) if rest else 0)

    session = FakeSession(writes(y), predictions=lambda read, written: sure(p[read][written]))
    delays = translate(session, sentence(x), Entropy(threshold)).delays
    assert list(delays) == first_times(lambda read, t: read > 0 and entropy(p[read][t]) <= threshold, x, y)


def test_a_threshold_that_is_just_reached_is_reached() -> None:
    state = State(1, 0, False, FakeSession(predictions=lambda read, written: FakePrediction({1: 0.5, 2: 0.5})))
    assert Confidence(0.5).start(sentence(1))(state) == WRITE
    assert Confidence(0.51).start(sentence(1))(state) == READ
    assert Entropy(math.log(2)).start(sentence(1))(state) == WRITE
    assert Entropy(0.69).start(sentence(1))(state) == READ


@pytest.mark.parametrize("policy", [Confidence(0.0), Entropy(99.0), MultiK(1, 9, 0.0, 0.0), AlignAtt(1), Learned(0.0)])
def test_nothing_is_predicted_from_no_source(policy: Any) -> None:
    session = FakeSession()
    assert policy.start(sentence(1))(State(0, 0, False, session)) == READ
    assert session.asked == []


# --- a write head


@given(tables(PROBABILITIES), THRESHOLDS, LENGTHS, LENGTHS)
def test_learned_writes_at_the_first_moment_that_the_head_is_sure_enough(
    p: Table, threshold: float, x: int, y: int
) -> None:
    """A threshold that is just reached is reached: both are logits, rounded to float32 alike."""

    def logit(probability: float) -> float:
        return float(np.float32(math.log(probability / (1 - probability)))) if probability < 1 else math.inf

    session = FakeSession(writes(y), write_logits=lambda read, written: logit(p[read][written]))
    delays = translate(session, sentence(x), Learned(threshold)).delays
    assert list(delays) == first_times(lambda read, t: read > 0 and p[read][t] >= threshold, x, y)


def test_learned_makes_bare_units_until_the_source_has_ended() -> None:
    model = FakeSession(write_logits=lambda read, written: 0.0)
    decide = Learned(0.5).start(sentence(1))
    assert decide(State(1, 0, False, model)) == WRITE_BARE
    assert decide(State(1, 0, True, model)) == WRITE


# --- multi-k


@given(tables(PROBABILITIES), st.integers(1, 3), st.integers(0, 3), THRESHOLDS, THRESHOLDS, LENGTHS, LENGTHS)
def test_multi_k_has_a_threshold_for_each_lag(
    p: Table, low: int, more: int, rho_min: float, rho_max: float, x: int, y: int
) -> None:
    high = low + more

    def may_write(read: int, t: int) -> bool:
        lag = read - t
        if lag < low or lag >= high:
            return lag >= high
        return bool(p[read][t] >= rho_min + (lag - low) / (high - low) * (rho_max - rho_min))

    session = FakeSession(writes(y), predictions=lambda read, written: sure(p[read][written]))
    delays = translate(session, sentence(x), MultiK(low, high, rho_min, rho_max)).delays
    assert list(delays) == first_times(may_write, x, y)


def test_thresholds_of_multi_k_lie_on_a_line_between_the_bounds() -> None:
    policy = MultiK(2, 6, 0.9, 0.1)
    assert [policy.threshold(lag) for lag in range(2, 6)] == pytest.approx([0.9, 0.7, 0.5, 0.3])


def test_multi_k_asks_between_its_bounds_only() -> None:
    session = FakeSession(predictions=lambda read, written: sure(0.5))
    decide = MultiK(2, 4, 0.6, 0.2).start(sentence(9))  # rho(2) = 0.6, rho(3) = 0.4
    session.calls = [("read", None)] * 3
    decisions = [decide(State(read, 0, False, session)) for read in range(6)]
    assert decisions == [READ, READ, READ, WRITE, WRITE, WRITE]
    assert len(session.asked) == 2


# --- wait if worse, wait if different


def peeking_times(waits: Callable[[int, int], bool], initial: int, step: int, x: int, y: int) -> list[int]:
    """Delays by the paper's loop over C and C', with what C' holds counted as read."""
    delays, read = [], initial
    for t in range(y):
        while read <= x and waits(read, t):
            read += step
        delays.append(min(read, x))
    return delays


STEPS = st.integers(1, 3)


@given(tables(PROBABILITIES), STEPS, STEPS, LENGTHS, LENGTHS)
def test_wait_if_worse_waits_while_more_source_makes_the_token_less_likely(
    p: Table, step: int, more: int, x: int, y: int
) -> None:
    session = FakeSession(writes(y), predictions=lambda read, written: sure(p[read][written]))
    delays = translate(session, sentence(x), WaitIfWorse(step + more, step)).delays
    assert list(delays) == peeking_times(lambda r, t: p[r - step][t] > p[r][t], step + more, step, x, y)


@given(tables((1, 2)), STEPS, STEPS, LENGTHS, LENGTHS)
def test_wait_if_diff_waits_while_more_source_changes_the_token(
    token: Table, step: int, more: int, x: int, y: int
) -> None:
    session = FakeSession(writes(y), predictions=lambda read, written: FakePrediction({token[read][written]: 1.0}))
    delays = translate(session, sentence(x), WaitIfDiff(step + more, step)).delays
    assert list(delays) == peeking_times(lambda r, t: token[r - step][t] != token[r][t], step + more, step, x, y)


def test_wait_if_worse_follows_the_token_that_was_likeliest_before() -> None:
    """That another one is surer now is no reason to write."""
    says = {1: FakePrediction({1: 0.6, 2: 0.4}), 2: FakePrediction({1: 0.1, 2: 0.9})}
    session = FakeSession(predictions=lambda read, written: says[read])
    session.calls = [("read", "s1"), ("read", "s2")]
    assert WaitIfWorse(2).start(sentence(2))(State(2, 0, False, session)) == READ


@pytest.mark.parametrize("policy", [WaitIfWorse(3, 2), WaitIfDiff(3, 2)])
def test_the_prediction_with_hidden_units_is_asked_for_first(policy: Any) -> None:
    session = FakeSession(writes(2), predictions=lambda read, written: sure(0.5))
    translate(session, sentence(5), policy)
    assert session.asked[:2] == [("prediction", 1, 0), ("prediction", 3, 0)]


def test_after_waiting_the_next_decision_is_step_units_later_and_after_writing_it_is_at_once() -> None:
    token = {1: 1, 3: 2, 4: 2, 5: 2}
    session = FakeSession(writes(2), predictions=lambda read, written: FakePrediction({token[read]: 1.0}))
    assert translate(session, sentence(5), WaitIfDiff(3, 2)).delays == (5, 5)
    moments = [(read, written) for _, read, written in session.asked]
    assert moments[:6] == [(1, 0), (3, 0), (3, 0), (5, 0), (3, 1), (5, 1)]


@pytest.mark.parametrize("policy", [WaitIfWorse(2, 1), WaitIfDiff(2, 1)])
def test_each_sentence_waits_for_itself(policy: Any) -> None:
    changes = FakeSession(predictions=lambda read, written: FakePrediction({read: 1.0}))
    changes.calls = [("read", "s1"), ("read", "s2")]
    same = FakeSession(predictions=lambda read, written: sure(0.5))
    first, second = policy.start(sentence(4)), policy.start(Example("2", "a b c", ""))
    assert first(State(2, 0, False, changes)) == READ
    assert second(State(2, 0, False, same)) == WRITE


# --- AlignAtt


@given(tables(range(X)), st.integers(1, 4), LENGTHS, LENGTHS)
def test_alignatt_writes_at_the_first_moment_that_looks_before_the_last_f_units(
    table: Table, f: int, x: int, y: int
) -> None:
    def attended(read: int, written: int) -> int:
        return int(min(table[read][written], read - 1))

    session = FakeSession(writes(y), attends=attended)
    delays = translate(session, sentence(x), AlignAtt(f)).delays
    assert list(delays) == first_times(lambda read, t: read > 0 and attended(read, t) < read - f, x, y)


def test_alignatt_looks_at_the_heads_that_it_was_given_and_not_before_it_matters() -> None:
    session = FakeSession(writes(1), attends=lambda read, written: 0)
    heads = [[2, 0], [3, 1]]
    assert translate(session, sentence(5), AlignAtt(2, heads)).delays == (3,)
    assert session.asked[:2] == [("attended", 3, 0), ("attended", 3, 1)]
    assert session.heads == heads
