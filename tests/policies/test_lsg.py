"""LSG, played against a session that is told what the model says, and against sessions that begin from scratch."""

import math
from random import Random
from typing import Any

import mlx.core as mx
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from tiny_fixtures import FakePrediction, FakeSession, sentence

from streamllm.engine.loop import translate
from streamllm.engine.paradigms.reencoded import Batch
from streamllm.engine.session import Session
from streamllm.policies import LSG, Bounded
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import READ, WRITE, Action, Decide, Emission, Example, State

SURE = FakePrediction({1: 0.9, 2: 0.1})
EVEN = FakePrediction({1: 0.5, 2: 0.5})
# By hand: KL(sure ‖ even) = 0.9 ln 1.8 + 0.1 ln 0.2 = 0.3681, KL(even ‖ sure) = 0.5 ln 0.5556 + 0.5 ln 5 = 0.5108.


def decides(policy: LSG, says: dict[int, FakePrediction], read: int, written: int = 0) -> Action:
    """With what the model says after so many units."""
    session = FakeSession(predictions=lambda read, written: says[read])
    session.calls = [("read", "s")] * read
    return policy.start(sentence(9))(State(read, written, False, session))


@pytest.mark.parametrize(
    ("current", "baseline", "mean_under", "divergence"),
    [
        (SURE, EVEN, "current", 0.3681),
        (SURE, EVEN, "baseline", 0.5108),
        (EVEN, SURE, "current", 0.5108),
        (EVEN, SURE, "baseline", 0.3681),
    ],
)
def test_the_divergence_is_the_paper_s_or_that_of_its_code(
    current: FakePrediction, baseline: FakePrediction, mean_under: Any, divergence: float
) -> None:
    says = {1: baseline, 3: current}  # the first target unit: x≤1 against all
    below, above = (LSG(divergence + by, 1.0, 1, 9, mean_under=mean_under) for by in (-1e-4, 1e-4))
    assert decides(below, says, read=3) == WRITE
    assert decides(above, says, read=3) == READ


def test_a_likely_token_is_written_and_one_that_just_reaches_alpha_is_not() -> None:
    says = {1: SURE, 3: SURE}
    assert decides(LSG(9.0, 0.89, 1, 9), says, 3) == WRITE
    assert decides(LSG(9.0, 0.9, 1, 9), says, 3) == READ


def test_what_has_not_changed_is_not_written_even_if_delta_is_0() -> None:
    assert decides(LSG(0.0, 1.0, 1, 9), {1: EVEN, 3: EVEN}, 3) == READ
    assert decides(LSG(0.0, 1.0, 1, 9), {1: EVEN}, 1) == READ  # the baseline is all that was read


@pytest.mark.parametrize(("written", "hidden"), [(0, 3), (2, 1)])
def test_the_baseline_of_unit_i_is_what_wait_k_has_read(written: int, hidden: int) -> None:
    """The third unit's, with wait-2 as baseline, is the first four source units of five."""
    session = FakeSession(predictions=lambda read, written: EVEN)
    session.calls = [("read", "s")] * 5
    session._written = written
    LSG(9.0, 1.0, 2, 9, baseline=2).start(sentence(9))(State(5, written, False, session))
    assert session.asked == [("prediction", 5 - hidden, written), ("prediction", 5, written)]


def kl(one: float, other: float) -> float:
    return one * math.log(one / other) + (1 - one) * math.log((1 - one) / (1 - other))


@given(
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.1, 0.4, 0.9]),
    st.sampled_from([0.6, 0.8, 1.0]),
    st.integers(1, 3),
    st.integers(0, 4),
    st.integers(1, 3),
    st.integers(0, 6),
    st.integers(0, 6),
)
def test_a_unit_is_written_at_the_first_moment_that_the_paper_s_rule_allows(
    seed: int, delta: float, alpha: float, low: int, more: int, k: int, x: int, y: int
) -> None:
    """Target unit i, from 1: after L+i-1 source units at the earliest and L+i-1+U at the latest."""
    dice = Random(seed)
    p = [[dice.choice([0.05, 0.3, 0.5, 0.7, 0.95]) for _ in range(7)] for _ in range(7)]
    k = min(k, low)
    expected, read = [], 0
    for i in range(1, y + 1):
        while read < x:
            if read >= low + i - 1 + more:
                break
            prefix = min(read, i + k - 1)
            if read >= low + i - 1 and (
                kl(p[read][i - 1], p[prefix][i - 1]) > delta + 1e-9 or max(p[read][i - 1], 1 - p[read][i - 1]) > alpha
            ):
                break
            read += 1
        expected.append(read)
    session = FakeSession(
        lambda read, written, ended: f"t{written}" if written < y else None,
        predictions=lambda read, written: FakePrediction({1: p[read][written], 2: 1 - p[read][written]}),
    )
    assert list(translate(session, sentence(x), LSG(delta + 1e-9, alpha, low, more, k)).delays) == expected


def test_the_baseline_is_asked_for_once_a_target_unit_and_only_where_confidence_does_not_decide() -> None:
    says = {1: EVEN, 2: EVEN, 3: SURE, 4: SURE}
    session = FakeSession(
        lambda read, written, ended: f"t{written}" if written < 2 else None,
        predictions=lambda read, written: says[read],
    )
    assert translate(session, sentence(4), LSG(9.0, 0.8, 1, 9)).delays == (3, 3)
    assert session.asked[:5] == [
        ("prediction", 1, 0),  # nothing to hide
        *(("prediction", 1, 0), ("prediction", 2, 0)),  # the baseline first, as the other is then at hand for a WRITE
        ("prediction", 3, 0),
        ("prediction", 3, 1),  # known by the end of the last unit, and sure: no baseline
    ]


def test_a_baseline_is_that_of_the_unit_that_comes_next_whoever_wrote_the_last() -> None:
    """Bounds write without asking."""
    session = FakeSession(lambda read, written, ended: f"t{written}", predictions=lambda read, written: EVEN)
    translate(session, sentence(6), Bounded(LSG(9.0, 1.0, 1, 9), max_lag=3))
    asked = [(read, written) for _, read, written in session.asked]
    assert all((written + 1, written) in asked for written in range(1, 4))


def test_sentences_remember_their_own_baseline() -> None:
    policy = LSG(0.3, 1.0, 1, 9)
    first, second = policy.start(sentence(4)), policy.start(Example("2", "a b", ""))
    for decide, says, action in ((first, {1: EVEN, 2: EVEN}, READ), (second, {1: SURE, 2: EVEN}, WRITE)):
        session = FakeSession(predictions=lambda read, written, says=says: says[read])
        session.calls = [("read", "s")] * 2
        assert decide(State(2, 0, False, session)) == action


# --- held against predictions from scratch

PROMPT = Prompt(source_header="a <", source_footer=" =>", target_header="German:")


class _Noting(Session):
    """Keeps the tokens that were written."""

    def write(self, tokens: tuple[int, ...] = ()) -> Emission:
        emission = super().write(tokens)
        self.__dict__.setdefault("noted", []).append(emission.tokens)
        return emission


class _Decided:
    """A policy whose decisions are noted, with the target tokens at each."""

    def __init__(self, policy: LSG):
        self.policy, self.session = policy, None
        self.found: list[tuple[State, Action, list[int]]] = []

    def start(self, example: Example) -> Decide:
        decide = self.policy.start(example)

        def note(state: State) -> Action:
            assert self.session is not None
            tokens = [token for each in self.session.__dict__.get("noted", []) for token in each]
            self.found.append((state, decide(state), tokens))
            return self.found[-1][1]

        return note

    session: _Noting | None


@pytest.mark.parametrize("seed", [1, 5])
@pytest.mark.parametrize("mean_under", ["current", "baseline"])
def test_with_a_target_that_is_encoded_again_both_predictions_are_as_if_no_more_had_been_read(
    tokenizer: Any, seed: int, mean_under: Any
) -> None:
    model: Any = tiny.Biased(tiny.random_model(seed, len(tokenizer)), tiny.sentence_bias(tokenizer, 0.0))
    facts, words = PromptTokens(PROMPT, tokenizer), ["the", "dog", "runs,", "cats", "the", "a", "dog"]
    policy = LSG(0.004, 0.9, 1, 4, mean_under=mean_under)
    decided = _Decided(policy)
    decided.session = _Noting(Batch().open(model), facts, max_unit_tokens=4)
    translate(decided.session, Example("1", " ".join(words), ""), decided)

    def afresh(read: int, tokens: list[int]) -> Any:
        session = Session(Batch().open(model), facts, max_unit_tokens=4)
        for word in words[:read]:
            session.read(word)
        if tokens:
            session.write(tuple(tokens))
        return session.prediction()

    seen = set()
    for state, action, tokens in decided.found:
        lag = state.read - state.written
        if not 1 < lag < 5:
            continue
        one, other = afresh(state.read, tokens), afresh(state.written + 1, tokens)
        if mean_under == "baseline":
            one, other = other, one
        divergence = one.divergence(other)
        if abs(divergence - policy.delta) > 1e-4 * policy.delta:
            assert (action == WRITE) == (divergence > policy.delta), (state, divergence)
            seen.add(action == WRITE)
    assert seen == {True, False}, "the threshold decides nothing here: choose another"


def test_a_kept_baseline_holds_no_batch_in_memory(tokenizer: Any) -> None:
    session = Session(Batch().open(tiny.random_model(1, len(tokenizer))), PromptTokens(PROMPT, tokenizer))
    session.read("the")
    session.read("dog")
    kept = session.prediction(hidden=1).logits
    assert not isinstance(kept, mx.array) and kept.base is None
