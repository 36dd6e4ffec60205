"""Learning by reward: rewards, advantages and gradients are those worked out by hand or by finite differences; a toy
problem is learned to its optimum; what is drawn depends on no batch."""

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
import tiny

from streamllm.engine.limits import Limits
from streamllm.metrics.latency import length_adaptive_average_lagging
from streamllm.metrics.quality import chrf_counts, chrf_of_counts, sentence_bleu
from streamllm.models.model import StreamingModel
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import Example, Trace
from streamllm.training.heads.by_reward import check, sharpened
from streamllm.training.heads.network import Network
from streamllm.training.heads.rewards import chrf_with_penalty, reward
from streamllm.training.heads.rollouts import PathData, Rollouts
from streamllm.training.loop import TrainingConfig
from streamllm.training.objectives.cross_entropy import CrossEntropy
from streamllm.training.objectives.grpo import GRPO, Paths, advantages

TEN = "one two three four five six seven eight nine ten"


# --- rewards: source and reference of ten words


def trace(prediction: str, delays: Sequence[int]) -> Trace:
    units, times = tuple(prediction.split()), (0.0,) * len(delays)
    return Trace("1", TEN, TEN, units, tuple(delays), times, (), 10, prediction)


def test_a_reward_is_the_quality_less_what_the_lag_costs() -> None:
    """wait-3: each unit lags 3. All after the first word: 1 by DAL, while LAAL would pay for it."""
    waits = trace(TEN, [*range(3, 11), 10, 10])
    assert reward(waits, "bleu", 2.0, "en") == pytest.approx(100 - 2 * 3)
    guesses = trace(TEN, [1] * 10)
    assert length_adaptive_average_lagging(guesses.delays, 10, 10) == -3.5
    assert reward(guesses, "bleu", 2.0, "en") == pytest.approx(100 - 2 * 1)
    stops = trace("one", [1])
    assert reward(stops, "bleu", 2.0, "en") == pytest.approx(sentence_bleu("one", TEN, "en") - 2)


@pytest.mark.parametrize("latency", [0.0, 2.0])
def test_writing_nothing_is_worse_than_the_worst_output(latency: float) -> None:
    """The worst: nothing right, all at the end, where DAL is 10."""
    worst = trace("x " * 9 + "x", [10] * 10)
    assert reward(worst, "bleu", latency, "en") == pytest.approx(-10 * latency)
    assert reward(trace("", []), "bleu", latency, "en") == -10 * latency - 1


def test_chrf_does_not_forgive_what_is_too_much() -> None:
    """Twice as many characters: exp(1 - 8 / 4)."""
    plain = chrf_of_counts(chrf_counts(["abcd abcd"], ["abcd"])[0].tolist())
    assert chrf_with_penalty("abcd abcd", "abcd") == pytest.approx(plain * math.exp(-1))
    assert chrf_with_penalty("abc", "abcd") == chrf_of_counts(chrf_counts(["abc"], ["abcd"])[0].tolist())
    assert reward(trace(TEN, [1] * 10), "chrf", 3.0, "en") == pytest.approx(100 - 3)


# --- advantages


def test_advantages_are_those_of_the_sentence() -> None:
    """Rewards 0, 1: ±½ over √½. 1, 2, 6: -2, -1, 3 over √7. Equal ones: 0."""
    pair, triple = np.array([[0, 1], [4, 4]], np.float32), np.array([[1, 2, 6]], np.float32)
    expected = [[-0.5 / (math.sqrt(0.5) + 1e-4), 0.5 / (math.sqrt(0.5) + 1e-4)], [0, 0]]
    np.testing.assert_allclose(advantages(pair, "group"), expected, rtol=1e-5)
    np.testing.assert_allclose(advantages(triple, "group"), np.array([[-2, -1, 3]]) / (7**0.5 + 1e-4), rtol=1e-5)
    assert advantages(triple, "none").tolist() == [[-2, -1, 3]]


# --- the objective


def linear(weights: Sequence[float], bias: float = 0.0) -> Network:
    network = Network(np.zeros(len(weights), np.float32), np.ones(len(weights), np.float32), (), 0)
    network.layers[0].weight, network.layers[0].bias = mx.array([weights], mx.float32), mx.array([bias])
    return network


def paths(states: Any, writes: Any, each: Any, start: Any = 0.0, rewards: Any = (0.0,)) -> Paths:
    states = np.array(states, np.float32)
    start = np.broadcast_to(np.array(start, np.float32), len(states))
    return Paths(states, np.array(writes, bool), start, np.array(each, np.float32), np.array(rewards, np.float32))


def value_and_gradient(objective: GRPO, network: Network, batch: Paths) -> tuple[float, np.ndarray]:
    value, grads = nn.value_and_grad(network, objective)(network, batch, 0, "group", 0.0)
    return float(value), np.array(grads["layers"][0]["weight"])[0]


@pytest.mark.parametrize("scale", ["none", "group"])
def test_a_sample_alone_has_nothing_to_be_compared_with(scale: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert advantages(np.array([[3.0], [-1.0]], np.float32), scale).tolist() == [[0.0], [0.0]]


def test_the_gradient_by_hand() -> None:
    """At logit 0, d/dz of -A log σ(z) is -A/2 for WRITE, and of -A log σ(-z) A/2 for READ; dz/dw is the state."""
    batch = paths([[1, 0], [0, 1]], [True, False], [3.0, 5.0], rewards=[7, 2])
    value, gradient = value_and_gradient(GRPO(kl=0.5), linear([0, 0]), batch)
    np.testing.assert_allclose(gradient, [-1.5, 2.5], atol=1e-6)
    assert value == pytest.approx(-9), "minus the rewards: there is no divergence from a start of the same logits"


def test_the_divergence_by_hand() -> None:
    """KL(½ ‖ ¾) = ½ ln(4/3); its gradient is p(1 - p)(z - z₀) = -¼ ln 3."""
    batch = paths([[1.0]], [True], [0.0], start=math.log(3))
    value, gradient = value_and_gradient(GRPO(kl=2.0), linear([0]), batch)
    assert value == pytest.approx(2 * 0.5 * math.log(4 / 3), abs=1e-6)
    np.testing.assert_allclose(gradient, [-2 * 0.25 * math.log(3)], atol=1e-6)


def test_the_gradient_by_finite_differences() -> None:
    dice = np.random.default_rng(0)
    batch = paths(
        dice.normal(size=(9, 3)), dice.random(9) < 0.5, dice.normal(size=9), dice.normal(size=9), dice.random(4)
    )

    def surrogate(weights: np.ndarray) -> float:
        logits = batch.states.astype(float) @ weights
        p, start = 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(-batch.start.astype(float)))
        policy = -(batch.advantages * np.log(np.where(batch.writes, p, 1 - p))).sum()
        return policy + 0.3 * (p * np.log(p / start) + (1 - p) * np.log((1 - p) / (1 - start))).sum()

    weights, step = np.array([0.4, -1.1, 0.7]), 1e-5
    expected = [(surrogate(weights + step * e) - surrogate(weights - step * e)) / (2 * step) for e in np.eye(3)]
    _, gradient = value_and_gradient(GRPO(kl=0.3), linear(weights.tolist()), batch)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)


def test_the_gradient_on_average_is_that_of_the_mean_reward() -> None:
    """One decision, two samples, every outcome with its probability. d/dz of p·3 + (1 - p)·1 is 2p(1 - p); a mean that
    holds the sample itself leaves (G - 1) / G of it."""
    z = 0.4
    p = 1 / (1 + math.exp(-z))
    mean = 0.0
    for writes in ([True, True], [True, False], [False, True], [False, False]):
        rewards = np.array([[3.0 if write else 1.0 for write in writes]], np.float32)
        batch = paths([[1.0], [1.0]], writes, advantages(rewards, "none")[0], z, rewards[0])
        _, gradient = value_and_gradient(GRPO(kl=0.0), linear([z]), batch)
        mean += math.prod(p if write else 1 - p for write in writes) * float(gradient[0]) / 2
    assert mean == pytest.approx(-0.5 * 2 * p * (1 - p), rel=1e-4)


@pytest.mark.parametrize(("kl", "learns"), [(0.0, True), (100.0, False)])
def test_a_toy_problem_is_learned_to_its_optimum_and_a_heavy_start_holds(kl: float, learns: bool) -> None:
    """Three kinds of states: WRITE is right, READ is right, and it does not matter."""
    dice, network, optimizer = np.random.default_rng(0), linear([0, 0, 0]), optim.Adam(0.05)
    objective = GRPO(kl=kl)
    for _ in range(150):
        kinds = np.repeat(dice.integers(0, 3, 8), 4)
        states = np.eye(3, dtype=np.float32)[kinds]
        writes = dice.random(32) < 1 / (1 + np.exp(-np.array(network(mx.array(states)))))
        rewards = np.where(kinds == 0, writes, np.where(kinds == 1, ~writes, 1)).astype(np.float32)
        batch = paths(states, writes, advantages(rewards.reshape(8, 4), "group").reshape(-1), rewards=rewards)
        _, grads = nn.value_and_grad(network, objective)(network, batch, 0, "group", 0.0)
        optimizer.update(network, grads)
    write, read, _ = (1 / (1 + np.exp(-np.array(network(mx.eye(3)))))).tolist()
    assert (write > 0.95 and read < 0.05) if learns else (0.4 < read < write < 0.6)


def test_decisions_far_from_one_half_have_finite_gradients() -> None:
    """In bfloat16, or by a logarithm of σ, a logit of 100 would cost nothing or everything."""
    value, gradient = value_and_gradient(GRPO(), linear([100.0]), paths([[1.0]], [False], [1.0], start=-100.0))
    assert math.isfinite(value)
    assert gradient[0] == pytest.approx(1.0, abs=1e-3), "a READ that was nearly ruled out becomes likelier"


# --- what is drawn

PAIRS = [
    Example("1", "the dog runs", "dog, cat the end."),
    Example("2", "a", "the dog"),
    Example("3", "a b c the dog", "a: b the cat"),
]


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> StreamingModel:
    inside = tiny.random_model(4, len(tokenizer))
    prompt = Prompt(source_header="a <", source_footer=" =>", target_header="German:")
    return StreamingModel(inside, PromptTokens(prompt, tokenizer), tokenizer)


SHORT = Limits(length_ratio=1, length_extra=1, tokens_per_unit=2)
HEAD = sharpened(tiny.write_head(2), 0.5, 30.0)  # which leaves much to chance


def rollouts(model: StreamingModel, **objective: Any) -> Rollouts:
    return Rollouts(model, HEAD, GRPO(**{"samples": 3, **objective}), SHORT, 5, "de")


def test_paths_depend_on_no_batch_and_on_no_sentence_beside_them(model: StreamingModel) -> None:
    alone, together = (rollouts(model, batch_size=n).paths(HEAD, PAIRS, 3, "0/0") for n in (1, 8))
    np.testing.assert_array_equal(alone.writes, together.writes)
    np.testing.assert_allclose(alone.states, together.states, atol=1e-4)
    np.testing.assert_allclose(alone.rewards, together.rewards, atol=1e-4)
    first = rollouts(model).paths(HEAD, PAIRS[:1], 3, "0/0")
    np.testing.assert_array_equal(first.writes, together.writes[: len(first.writes)])
    assert 0 < together.writes.mean() < 1


def test_a_decision_is_kept_with_what_the_head_says_of_its_state(model: StreamingModel) -> None:
    found = rollouts(model).paths(HEAD, PAIRS, 3, "0/0")
    assert len(found.states) == len(found.writes) == len(found.advantages) == len(found.start)
    np.testing.assert_array_equal(found.start, HEAD(found.states))
    assert len(found.rewards) == 9
    by_hand = advantages(found.rewards.reshape(3, 3), "none")
    assert set(found.advantages.tolist()) <= set(by_hand.reshape(-1).tolist())


def test_other_places_and_samples_draw_other_paths(model: StreamingModel) -> None:
    draws = rollouts(model)
    here, again, there = (draws.paths(HEAD, PAIRS, 8, place) for place in ("0/0", "0/0", "0/1"))
    assert here.writes.tolist() == again.writes.tolist() != there.writes.tolist()
    assert len(set(here.rewards[16:].tolist())) > 1


@pytest.mark.parametrize("bias", [-50.0, 50.0])
def test_a_head_that_is_sure_leaves_nothing_to_chance(model: StreamingModel, bias: float) -> None:
    weight, _ = HEAD.layers[-1]
    sure = replace(HEAD, layers=[*HEAD.layers[:-1], (weight * 0, np.array([bias], np.float32))])
    found = rollouts(model).paths(sure, PAIRS, 3, "0/0")
    assert set(found.writes.tolist()) == {bias > 0}
    assert not found.advantages.any(), "equal samples teach nothing"


def test_a_bound_on_the_lag_decides_instead_of_the_head(model: StreamingModel) -> None:
    weight, _ = HEAD.layers[-1]
    reads = replace(HEAD, layers=[*HEAD.layers[:-1], (weight * 0, np.array([-50], np.float32))])
    delays = [rollouts(model, max_lag=lag)._translated(reads, PAIRS[2:], 1, "0/0")[0][0].delays for lag in (None, 3)]
    assert delays[1][0] < delays[0][0] == 5


def test_a_start_is_one_half_where_the_head_says_the_threshold() -> None:
    head = tiny.write_head(1)
    states = np.random.default_rng(0).normal(size=(5, 32)).astype(np.float32)
    expected = (head(states) - math.log(0.9 / 0.1)) / 0.5
    np.testing.assert_allclose(sharpened(head, 0.9, 0.5)(states), expected, rtol=1e-3, atol=1e-4)


def test_a_network_of_a_head_gives_it_back_to_the_last_digit() -> None:
    head = tiny.write_head(1)
    for found, expected in zip(Network.of(head).head().layers, head.layers, strict=True):
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_all_sentences_are_drawn_once_an_epoch_and_each_process_has_its_own(model: StreamingModel) -> None:
    asked: list[tuple[list[int], str]] = []

    class Noted(PathData):
        def drawn(self, rows: Sequence[int], place: str, samples: int) -> Any:
            asked.append((list(rows), place))

    data = Noted(rollouts(model, sentences=1), Network.of(HEAD), PAIRS)
    for batches in data.blocks(0):
        assert [paths for _, paths in batches] == [3, 3, 3]
    assert sorted(rows for rows, _ in asked) == [[0], [1], [2]]
    assert [place for _, place in asked] == ["0/0", "0/1", "0/2"]
    asked.clear()
    halves = [next(iter(data.blocks(0, 0, rank, 2)))[0] for rank in (0, 1)]
    assert [paths for _, paths in halves] == [6, 6], "of both together"
    assert len({row for rows, _ in asked for row in rows}) == 2


# --- what is not accepted


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"samples": 1}, "objective.samples is 1; it is a whole number of paths, at least 2 (one has nothing to be"),
        ({"sentences": 0}, "objective.sentences is 0; it is a whole number, at least 1"),
        ({"quality": "comet"}, "objective.quality is 'comet'; accepted are bleu, chrf"),
        ({"scale": "batch"}, "objective.scale is 'batch'; accepted are group, none"),
        ({"latency": -1}, "objective.latency is -1; it is a number, at least 0"),
        ({"kl": float("nan")}, "objective.kl is nan; it is a number"),
        ({"threshold": 1}, "objective.threshold is 1; it is a number, above 0 and below 1"),
        ({"temperature": 0}, "objective.temperature is 0; it is a number, above 0"),
        ({"max_lag": 0}, "objective.max_lag is 0; it is a whole number of units, at least 1, or null for no bound"),
        ({"batch_size": None}, "objective.batch_size is None; it is a whole number of paths, at least 1"),
    ],
)
def test_what_is_not_accepted_is_said_with_its_key(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        GRPO(**keys)


def test_trainings_that_rewards_cannot_be_part_of_are_refused() -> None:
    plain = TrainingConfig(label_smoothing=0, dropout=0)
    check(plain, GRPO())
    with pytest.raises(ValueError, match="objective is CrossEntropy, and a write head learns from labels"):
        check(plain, CrossEntropy())
    with pytest.raises(ValueError, match=r"training\.label_smoothing is 0\.1, and rewards are no labels"):
        check(replace(plain, label_smoothing=0.1), GRPO())
    for keys in ({"patience": 2}, {"export": "best"}):
        with pytest.raises(ValueError, match="go by BLEU, and a reward counts latency"):
            check(replace(plain, **keys), GRPO())
