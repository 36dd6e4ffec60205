"""What each fixed policy decides, and the delays that follow from it; bounds on the lag; what all policies share."""

import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_fixtures import FakeSession, sentence

from streamllm.engine.loop import translate
from streamllm.policies import (
    DOA,
    DST,
    LSG,
    RALCP,
    AlignAtt,
    Bounded,
    Confidence,
    DrFrattn,
    Entropy,
    Full,
    HoldN,
    Learned,
    LocalAgreement,
    MultiK,
    Oracle,
    Stride,
    WaitIfDiff,
    WaitIfWorse,
    WaitK,
)
from streamllm.policies.bounded import bounded
from streamllm.records import READ, WRITE, Action, Decide, Example, State

EXAMPLE = Example("1", "a b c", "")


class Decided:
    """A policy that follows a rule given as a function."""

    def __init__(self, rule: Decide):
        self._rule = rule

    def start(self, example: Example) -> Decide:
        return self._rule


def delays(policy: Any, source_units: int, target_units: int) -> list[int]:
    """Delays when the model writes just ``target_units`` units."""
    session = FakeSession(lambda read, written, ended: f"t{written}" if written < target_units else None)
    return list(translate(session, sentence(source_units), policy).delays)


def due(policy: Any, written: int) -> int:
    """How many units have to be read before one more is written."""
    decide = policy.start(EXAMPLE)
    return next(read for read in range(10_000) if decide(State(read, written, False)) == WRITE)


# --- wait-k and full


@pytest.mark.parametrize("k", range(1, 7))
def test_wait_k_writes_unit_t_after_k_plus_t_minus_1_units(k: int) -> None:
    for x in range(7):
        for y in range(9):
            assert delays(WaitK(k), x, y) == [min(k + t - 1, x) for t in range(1, y + 1)], (x, y)


def test_wait_k_reads_until_it_is_k_units_ahead() -> None:
    decide = WaitK(3).start(EXAMPLE)
    assert [decide(State(read, 0, False)) for read in range(5)] == [READ, READ, READ, WRITE, WRITE]
    assert [decide(State(4, written, False)) for written in range(4)] == [WRITE, WRITE, READ, READ]


def test_wait_k_writes_once_the_source_is_done() -> None:
    assert WaitK(5).start(EXAMPLE)(State(0, 0, True)) == WRITE


@pytest.mark.parametrize("k", [0, -1, 2.5, 3.0, True, "3", None])
def test_wait_k_refuses_a_k_that_is_no_number_of_units(k: Any) -> None:
    with pytest.raises(ValueError, match="whole number of units, at least 1") as error:
        WaitK(k)
    assert f"k is {k!r}" in str(error.value)
    assert "policy=full" in str(error.value)


@given(st.integers(1, 9), st.integers(0, 99), st.integers(1, 300))
def test_catching_up_saves_every_unit_that_its_decimal_says(k: int, hundredths: int, t: int) -> None:
    """In whole numbers, as 0.29 * 100 is below 29."""
    assert due(WaitK(k, hundredths / 100), t - 1) == k + t - 1 - hundredths * t // 100


def test_catching_up_is_exact_where_the_floating_point_product_is_not() -> None:
    assert due(WaitK(1, 0.29), 99) == 1 + 99 - 29


@pytest.mark.parametrize("catchup", [0.2, 0.5, 0.9])
def test_wait_k_with_catchup_has_the_delays_of_its_formula(catchup: float) -> None:
    for k in (1, 3):
        for x in range(7):
            g = [k + t - 1 - int(Fraction(str(catchup)) * t) for t in range(1, 12)]
            assert delays(WaitK(k, catchup), x, 11) == [min(units, x) for units in g], (k, x)


@pytest.mark.parametrize("catchup", [-0.1, 1, 1.0, 1.5, float("nan"), True, "0.2", None])
def test_wait_k_refuses_a_catchup_that_would_overtake_the_source(catchup: Any) -> None:
    with pytest.raises(ValueError, match="it is a number from 0 to below 1") as error:
        WaitK(3, catchup)
    assert f"catchup is {catchup!r}" in str(error.value)


def test_full_reads_everything_first() -> None:
    decide = Full().start(EXAMPLE)
    assert [decide(State(read, 0, False)) for read in range(4)] == [READ] * 4
    assert decide(State(3, 0, True)) == WRITE
    for x in range(5):
        assert delays(Full(), x, 6) == [x] * 6


# --- stride


@pytest.mark.parametrize("initial", [1, 2, 5])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_stride_has_the_delays_of_its_formula(initial: int, step: int) -> None:
    for x in range(9):
        for y in range(9):
            g = [min(initial + step * ((t - 1) // step), x) for t in range(1, y + 1)]
            assert delays(Stride(initial, step), x, y) == g, (x, y)


def test_stride_by_one_is_wait_k() -> None:
    assert delays(Stride(3, 1), 8, 9) == delays(WaitK(3), 8, 9)


# --- oracle


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(0, 8), st.integers(0, 10))
def test_oracle_replays_its_delays_and_reads_everything_for_units_beyond(given: list[int], x: int, y: int) -> None:
    replayed = delays(Oracle(given), x, y)
    assert replayed == [min(max(given[: t + 1]), x) if t < len(given) else x for t in range(y)]


def test_oracle_takes_the_delays_of_each_sentence_by_its_id() -> None:
    policy = Oracle({"a": [1, 1], "b": [2, 2]})
    session = FakeSession(lambda read, written, ended: "t" if written < 2 else None)
    assert translate(session, sentence(3, id="b"), policy).delays == (2, 2)


def test_oracle_says_which_sentence_has_no_delays() -> None:
    with pytest.raises(ValueError, match=r"no delays for example '7'.* 2 others.*same data set"):
        Oracle({"a": [1], "b": [2]}).start(sentence(3, id="7"))


def test_a_delay_beyond_the_source_waits_for_its_footer_and_one_of_its_length_does_not() -> None:
    def kinds(given: list[int]) -> list[str]:
        session = FakeSession(lambda read, written, ended: "t" if written < 1 else None)
        return [event.kind for event in translate(session, sentence(2), Oracle(given)).events]

    assert kinds([2])[:3] == ["read", "read", "write"]
    assert kinds([3])[:4] == ["read", "read", "end", "write"]


@pytest.mark.parametrize("given", [3, "123", None, [[1]], [1.0], [-1], [True], {"a": 3}, {"a": [None]}])
def test_oracle_refuses_what_are_no_delays(given: Any) -> None:
    with pytest.raises(ValueError, match=r"list of numbers of units|whole number of source units, at least 0"):
        Oracle(given)


def test_oracle_says_whose_delays_are_wrong() -> None:
    with pytest.raises(ValueError, match="a delay of example 'b' is -2"):
        Oracle({"a": [1], "b": [1, -2]})


# --- bounds


@st.composite
def rules(draw: Callable[..., Any]) -> Decide:
    """Any decisions at all."""
    table = draw(st.lists(st.lists(st.booleans(), min_size=14, max_size=14), min_size=8, max_size=8))
    return lambda state: WRITE if table[state.read][state.written] else READ


@given(rules(), st.integers(1, 5), st.integers(0, 7), st.integers(0, 10))
def test_any_policy_with_both_bounds_at_k_is_wait_k(rule: Decide, k: int, x: int, y: int) -> None:
    assert delays(Bounded(Decided(rule), k, k), x, y) == delays(WaitK(k), x, y)


@given(rules(), st.integers(1, 4), st.integers(0, 3), st.integers(0, 7), st.integers(0, 10))
def test_bounded_delays_lie_between_those_of_two_wait_k(rule: Decide, low: int, more: int, x: int, y: int) -> None:
    got = delays(Bounded(Decided(rule), low, low + more), x, y)
    assert got == sorted(got)
    assert all(min(low + t, x) <= delay <= min(low + more + t, x) for t, delay in enumerate(got))


def test_one_bound_leaves_the_other_side_to_the_policy() -> None:
    assert delays(Bounded(Full(), max_lag=2), 5, 6) == delays(WaitK(2), 5, 6)
    assert delays(Bounded(Full(), min_lag=2), 5, 6) == delays(Full(), 5, 6)
    assert delays(Bounded(WaitK(1), min_lag=3), 5, 6) == delays(WaitK(3), 5, 6)
    assert delays(Bounded(WaitK(3), min_lag=1, max_lag=9), 5, 6) == delays(WaitK(3), 5, 6)


def test_a_policy_is_not_asked_where_a_bound_decides() -> None:
    asked: list[int] = []

    def rule(state: State) -> Action:
        asked.append(state.read)
        return READ

    decide = Bounded(Decided(rule), 2, 4).start(EXAMPLE)
    assert [decide(State(read, 0, False)) for read in range(6)] == [READ] * 4 + [WRITE] * 2
    assert decide(State(3, 0, True)) == WRITE
    assert asked == [2, 3]


def test_without_bounds_the_policy_is_itself() -> None:
    policy = WaitK(2)
    assert bounded(policy) is policy
    assert bounded(policy, None, 4) == Bounded(policy, None, 4)
    assert bounded(policy, 1, None) == Bounded(policy, 1, None)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (0, None, "min_lag is 0; it is a whole number of units, at least 1"),
        (2.0, None, "min_lag is 2.0"),
        (None, 0, "max_lag is 0; it is a whole number of units, at least 1"),
        (None, True, "max_lag is True"),
        (3, 2, "max_lag is 2; it is a whole number of units, at least 3 .*not below min_lag"),
    ],
)
def test_wrong_bounds_are_refused(low: Any, high: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Bounded(WaitK(1), low, high)


# --- what all share


def test_every_policy_writes_once_the_source_is_done_without_asking_the_model() -> None:
    policies = [
        *(WaitK(9), WaitK(9, 0.5), Stride(9, 2), Full(), Oracle([9]), Oracle([]), Bounded(Full(), 9, 9)),
        *(Confidence(1.0), Entropy(0.0), WaitIfWorse(9), WaitIfDiff(9), MultiK(8, 9, 1.0, 1.0), AlignAtt(9)),
        *(LocalAgreement(9), HoldN(9), RALCP(5, 1.0)),
        *(LSG(9.0, 1.0, 9, 9), DST(1.0, 9), DrFrattn(0.0, 9), DOA(9)),
    ]
    assert [policy.start(EXAMPLE)(State(3, 0, True)) for policy in policies] == [WRITE] * len(policies)


NO_UNITS = [0, -1, 1.5, 2.0, True, "2", None]
NO_PROBABILITY = [-0.1, 1.1, 2, float("nan"), True, "0.5", None]


@pytest.mark.parametrize(
    ("make", "name", "wrong"),
    [
        (lambda v: Stride(v, 1), "initial", NO_UNITS),
        (lambda v: Stride(1, v), "step", NO_UNITS),
        (Confidence, "threshold", NO_PROBABILITY),
        (Entropy, "threshold", [-0.1, float("nan"), True, "1", None]),
        (lambda v: WaitIfWorse(5, v), "step", NO_UNITS),
        (lambda v: WaitIfDiff(5, v), "step", NO_UNITS),
        (lambda v: WaitIfWorse(v, 2), "initial", [2, *NO_UNITS]),
        (lambda v: WaitIfDiff(v, 2), "initial", [2, *NO_UNITS]),
        (lambda v: MultiK(v, 9, 0.5, 0.5), "k_min", NO_UNITS),
        (lambda v: MultiK(3, v, 0.5, 0.5), "k_max", [2, *NO_UNITS]),
        (lambda v: MultiK(1, 9, v, 0.5), "threshold_min", NO_PROBABILITY),
        (lambda v: MultiK(1, 9, 0.5, v), "threshold_max", NO_PROBABILITY),
        (LocalAgreement, "n", NO_UNITS),
        (lambda v: LocalAgreement(2, v), "step", NO_UNITS),
        (lambda v: LocalAgreement(2, 1, v), "beam", NO_UNITS),
        (HoldN, "n", [-1, 1.5, True, None]),
        (lambda v: HoldN(2, v), "step", NO_UNITS),
        (lambda v: HoldN(2, 1, v), "beam", NO_UNITS),
        (lambda v: RALCP(v, 0.5), "beam", [1, *NO_UNITS]),
        (lambda v: RALCP(5, v), "threshold", [0, 0.0, *NO_PROBABILITY]),
        (lambda v: RALCP(5, 0.5, v), "step", NO_UNITS),
        (AlignAtt, "f", NO_UNITS),
        (lambda v: LSG(v, 0.5, 1, 4), "delta", [-0.1, float("nan"), True, "1", None]),
        (lambda v: LSG(1, v, 1, 4), "alpha", NO_PROBABILITY),
        (lambda v: LSG(1, 0.5, v, 4), "k_min", NO_UNITS),
        (lambda v: LSG(1, 0.5, 1, v), "k_more", [-1, 1.5, True, None]),
        (lambda v: LSG(1, 0.5, 1, 4, v), "baseline", [2, *NO_UNITS]),
        (lambda v: LSG(1, 0.5, 1, 4, 1, v), "mean_under", ["paper", 1, None]),
        (DST, "threshold", NO_PROBABILITY),
        (lambda v: DST(0.5, v), "initial", NO_UNITS),
        (DrFrattn, "threshold", NO_PROBABILITY),
        (lambda v: DrFrattn(0.5, v), "newest", NO_UNITS),
        (lambda v: DrFrattn(0.5, 1, v), "layer", [-1, 1.0, True, "1"]),
        (lambda v: DrFrattn(0.5, 1, None, v), "temperature", [0, -1.0, float("inf"), True, None]),
        (DOA, "f", NO_UNITS),
        (lambda v: DOA(1, v), "step", NO_UNITS),
        (lambda v: DOA(1, 1, v), "heads", [[], [1], [[1]], 3]),
        (lambda v: DOA(1, 1, None, v), "z_score", [1, None, "true"]),
        (lambda v: DOA(1, 1, None, True, v), "max_tokens", NO_UNITS),
        (Learned, "threshold", NO_PROBABILITY),
        (lambda v: AlignAtt(2, v), "heads", [[], [1], [[1]], [[1, 2, 3]], [[0, -1]], [[0, 1.0]], ["01"], 3]),
    ],
)
def test_wrong_parameters_are_refused_by_name_and_value(make: Callable[[Any], Any], name: str, wrong: list) -> None:
    for value in wrong:
        with pytest.raises(ValueError, match=r"it is|accepted") as error:
            make(value)
        assert str(error.value).startswith((f"{name} is {value!r};", f"{name} are {value!r};"))


def test_sentences_under_way_at_once_do_not_disturb_each_other() -> None:
    def trace_of(make: Callable[[], Decide]) -> list[Any]:
        decide = make()
        return [decide(State(read, read // 2, False)) for read in range(6)]

    policy = WaitK(2)
    first, second = policy.start(EXAMPLE), policy.start(Example("2", "d", ""))
    interleaved = [(first(State(read, read // 2, False)), second(State(0, 0, True)))[0] for read in range(6)]
    assert interleaved == trace_of(lambda: WaitK(2).start(EXAMPLE))


def test_policies_know_nothing_of_models() -> None:
    """Policies are asked at every step and by live clients; they import records only."""
    names = "mlx, numpy, streamllm.engine.session, streamllm.models, hydra"
    code = f"import sys, streamllm.policies; print([n for n in {names.split(', ')!r} if n in sys.modules])"
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
