"""Learning by reward for the model itself: what the learned forward says of the tokens is what they were drawn with,
gradients are those worked out by hand, and what is drawn depends on no batch."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from mlx.utils import tree_flatten

from streamllm.engine.limits import Limits
from streamllm.engine.paradigms.group import Group
from streamllm.engine.paradigms.interleaved import Interleaved
from streamllm.engine.write_head import WriteHead
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import Example
from streamllm.training import samples as drawing
from streamllm.training.adapters import AdapterConfig
from streamllm.training.batch import Encoded, pad
from streamllm.training.by_reward import check
from streamllm.training.data import DataConfig
from streamllm.training.fresh import FreshModel
from streamllm.training.heads.rewards import reward
from streamllm.training.loop import TrainingConfig
from streamllm.training.loss import forward, of_labels, reinforced
from streamllm.training.objectives.grpo_model import ModelGRPO, Samples
from streamllm.training.samples import Sampler

PAIRS = [
    Example("1", "the dog runs", "dog, cat the end."),
    Example("2", "a", "the dog"),
    Example("3", "a b c the dog", "a: b the cat"),
]
SHORT = Limits(length_ratio=1, length_extra=1, tokens_per_unit=2)


def half_sure(width: int = 32) -> WriteHead:
    """A head that says READ about as often as WRITE, and leaves something to chance."""
    *layers, (weight, bias) = tiny.write_head(2, width).layers
    return WriteHead([*layers, ((weight / 30).astype(np.float32), bias)])


def random_model(tokenizer: Any, paradigm: Any = Group(), ends: int = 3) -> StreamingModel:
    """One of whose tokens every so manieth ends a sentence."""
    inside = tiny.random_model(4, len(tokenizer))
    prompt = PromptTokens(Prompt(source_header="a <", source_footer=" =>", target_header="German:"), tokenizer)
    prompt.end_tokens = frozenset(range(0, len(tokenizer), ends))
    return StreamingModel(inside, prompt, tokenizer, paradigm=paradigm, write_head=half_sure())


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> StreamingModel:
    return random_model(tokenizer)


def sampler(model: StreamingModel, limits: Limits = SHORT, **objective: Any) -> Sampler:
    made = ModelGRPO(**{"samples": 3, "thresholds": [0.5, 0.6], **objective})
    return Sampler(model, made.prepared_for(model.model, model.prompt.wait_token), limits, 5, "de")


class Kept(drawing.Draws):
    """Keeps the logarithm of the probability that each token was drawn with."""

    def __init__(self, *given: Any):
        super().__init__(*given)
        self.log_probabilities: list[float] = []

    def draw(self, logits: Any, reads: int, written: int) -> int:
        token = super().draw(logits, reads, written)
        scaled = np.array(logits, np.float64) / self._at
        del self.log_probabilities[written:]
        self.log_probabilities.append(float(scaled[token] - np.logaddexp.reduce(scaled)))
        return token


def both(made: Sampler, examples: Sequence[Example], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, list[Any]]:
    """Log-probabilities of the tokens of some translations, as they were drawn and as a learned forward has them."""
    kept: dict[int, list[float]] = {}

    def noted(prompt: Any, trace: Any, draws: Any, *more: Any) -> Encoded:
        one = real(prompt, trace, draws, *more)
        kept[id(one)] = draws.log_probabilities[: sum(label >= 0 for label in one.labels)]
        return one

    real = drawing.encoded
    monkeypatch.setattr(drawing, "Draws", Kept)
    monkeypatch.setattr(drawing, "encoded", noted)
    drawn = made.drawn(examples, made.objective.samples, "0/0")
    batch = pad([one for _, one in drawn])
    model = made.model
    logits, labels = of_labels(model.model, batch, model.target_start, model.paradigm.trained_as, gradient=False)
    has = np.array(labels) >= 0
    scaled = np.array(logits, np.float64)[has] / made.objective.temperature
    learned = scaled[np.arange(len(scaled)), np.array(labels)[has]] - np.logaddexp.reduce(scaled, axis=1)
    return np.concatenate([kept[id(one)] for _, one in drawn]), learned, [trace for trace, _ in drawn]


WAYS = [
    {"thresholds": [0.5]},
    {"thresholds": [0.5], "chance": 1.0, "temperature": 0.6},
    {"thresholds": [0.6, "full"], "max_lag": 2},
    {"policy": "waitk", "k": [1, 2]},
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("paradigm", [Group(), Interleaved()])
def test_a_learned_forward_says_of_tokens_what_they_were_drawn_with(
    tokenizer: Any, paradigm: Any, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where units end before their punctuation, words go on after a READ, and an end token had to wait."""
    made = sampler(random_model(tokenizer, paradigm), **way, samples=8)
    drawn, learned, traces = both(made, PAIRS, monkeypatch)
    np.testing.assert_allclose(learned, drawn, atol=1e-4)
    kinds = {event.kind for trace in traces for event in trace.events}
    ends = {trace.events[-1].text for trace in traces}
    assert {"read", "write", "end"} <= kinds
    assert "end_token" in ends


def test_so_it_does_for_the_bundled_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """There numpy computes, in the batch and in the learned forward."""
    pairs = [Example("1", "A man in a red hat, with a dog.", "x"), Example("2", "Two dogs run.", "x")]
    made = sampler(ModelConfig("bundled:tiny-en-de").load(), Limits(), thresholds=[0.7], max_lag=3, samples=4)
    drawn, learned, traces = both(made, pairs, monkeypatch)
    np.testing.assert_allclose(learned, drawn, atol=1e-4)
    assert "extend" in {event.kind for trace in traces for event in trace.events}


# --- the objective


def value_and_gradient(logits: Any, start: Any, labels: Any, advantages: Any, kl: float, lazy: bool) -> Any:
    def value(x: mx.array) -> mx.array:
        given = mx.array(start, mx.float32), mx.array(labels), mx.array(advantages, mx.float32)
        return reinforced(x, *given, kl, lazy)

    found, gradient = mx.value_and_grad(value)(mx.array(logits, mx.float32))
    return float(found), np.array(gradient)


@pytest.mark.parametrize("lazy", [False, True])
def test_the_gradient_by_hand(lazy: bool) -> None:
    """p = ½, ¼, ¼ at logits ln 2, 0, 0. Of -A log p(y): A (p - 1 at y). KL(p ‖ ⅓, ⅓, ⅓) = ½ ln(3/2) + ½ ln(3/4); its
    gradient is p (log p/q - KL). A row without a label counts for nothing."""
    logits, uniform = [[math.log(2), 0, 0]] * 3, [[0, 0, 0]] * 3
    apart = 0.5 * math.log(3 / 2) + 0.5 * math.log(3 / 4)
    found, gradient = value_and_gradient(logits, uniform, [0, 2, -1], [2, -4, 5], 0.5, lazy)
    assert found == pytest.approx(2 * 0.5 * apart, abs=1e-6)
    ratios = np.log([3 / 2, 3 / 4, 3 / 4])
    of_kl = 0.5 * np.array([0.5, 0.25, 0.25]) * (ratios - apart)
    expected = [2 * np.array([-0.5, 0.25, 0.25]), -4 * np.array([0.5, 0.25, -0.75]), [0, 0, 0]]
    np.testing.assert_allclose(gradient, np.array(expected) + np.array([of_kl, of_kl, np.zeros(3)]), atol=1e-6)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_token_that_is_ruled_out_costs_nothing(lazy: bool) -> None:
    logits, start = [[0.3, -0.2, -math.inf]], [[0.7, 0.2, -math.inf]]
    found, gradient = value_and_gradient(logits, start, [0], [1.5], 0.7, lazy)
    two = value_and_gradient([[0.3, -0.2]], [[0.7, 0.2]], [0], [1.5], 0.7, lazy)
    assert found == pytest.approx(two[0], abs=1e-6)
    np.testing.assert_allclose(gradient, [[*two[1][0], 0]], atol=1e-6)


def one_pair(target: list[int], seen: list[int], header: int = 2) -> Encoded:
    labels = [-1] * (header - 1) + target[header:]
    return Encoded([1, 5, 6, 7], [-1, 0, 1, 2], target[:-1], seen, seen, [3] * len(seen), labels, 0)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_gradient_of_the_weights_is_that_of_what_is_defined(tokenizer: Any, temperature: float) -> None:
    """- A · Σ log p + kl · Σ KL, over the tokens of each translation, in words of MLX alone; the start is elsewhere."""
    inside = tiny.random_model(4, len(tokenizer))
    objective = ModelGRPO(kl=0.3, temperature=temperature).prepared_for(inside, None)
    noise = [(name, weight + 0.05 * mx.sin(1 + mx.arange(weight.size)).reshape(weight.shape)) for name, weight in
             tree_flatten(inside.parameters())]  # fmt: skip
    start = tiny.random_model(4, len(tokenizer))
    inside.load_weights(noise)
    batch = pad([one_pair([2, 9, 8, 30, 0], [1, 1, 2, 3]), one_pair([2, 9, 11, 12, 13, 0], [2, 2, 3, 3, 3])])
    advantages = np.where(batch.labels >= 0, np.array([[3.0], [-1.5]]), 0).astype(np.float32)

    def expected(model: Any) -> mx.array:
        here, there = (forward(one, batch, 0) / temperature for one in (model, start))
        p, q = (x - mx.logsumexp(x, axis=-1, keepdims=True) for x in (here, mx.stop_gradient(there)))
        chosen = mx.take_along_axis(p, mx.array(np.maximum(batch.labels, 0))[..., None], axis=-1)[..., 0]
        apart = (mx.exp(p) * (p - q)).sum(axis=-1)
        return mx.where(mx.array(batch.labels >= 0), -mx.array(advantages) * chosen + 0.3 * apart, 0).sum()

    samples = Samples(batch, advantages, np.array([4.0, 1.0], np.float32))
    inside.train()
    value, ours = nn.value_and_grad(inside, objective)(inside, samples, 0, "group", 0.0)
    _, theirs = nn.value_and_grad(inside, expected)(inside)
    for (name, gradient), (_, hand) in zip(tree_flatten(ours), tree_flatten(theirs), strict=True):
        np.testing.assert_allclose(np.array(gradient), np.array(hand), rtol=1e-4, atol=1e-4, err_msg=name)
    assert float(value) > -5, "minus the rewards, and a divergence above 0"
    for (_, now), (_, before) in zip(tree_flatten(inside.parameters()), noise, strict=True):
        np.testing.assert_array_equal(np.array(now), np.array(before), "the start is looked at, and put away again")


def test_at_the_start_the_value_is_minus_the_rewards(model: StreamingModel) -> None:
    made = sampler(model, kl=3.0)
    samples = made.samples(PAIRS, 2, "0/0")
    value = made.objective(model.model, samples, model.target_start, "group", 0.0)
    assert float(value) == pytest.approx(-samples.rewards.sum(), abs=1e-3)


# --- what is drawn


def test_draws_depend_on_no_batch_and_on_no_sentence_beside_them(model: StreamingModel) -> None:
    alone, together = (sampler(model, batch_size=n).samples(PAIRS, 3, "0/0") for n in (1, 8))
    np.testing.assert_array_equal(alone.batch.target, together.batch.target)
    np.testing.assert_array_equal(alone.batch.target_units, together.batch.target_units)
    np.testing.assert_allclose(alone.rewards, together.rewards, atol=1e-4)
    other = sampler(model).samples(PAIRS, 3, "0/1")
    assert other.batch.target.tolist() != together.batch.target.tolist()
    assert len(set(together.rewards.tolist())) > 3, "samples of a sentence differ"


def test_samples_of_a_sentence_have_one_policy_and_sentences_several(model: StreamingModel) -> None:
    drawn = sampler(model, policy="waitk", k=[1, 2, 3, 4, 5]).drawn(PAIRS * 4, 4, "0/0")
    first = [[trace.events[i].kind for i in range(3)].count("read") for trace, _ in drawn]
    assert all(len(set(first[i : i + 4])) == 1 for i in range(0, len(first), 4))
    assert len(set(first)) > 1


def test_after_the_source_has_ended_only_quality_counts(model: StreamingModel) -> None:
    made, blind = (sampler(model, latency=7.0, phases=phases, policy="waitk", k=[1]) for phases in (True, False))
    drawn = made.drawn(PAIRS, 3, "0/0")
    each = np.array([[reward(trace, "bleu", latency, "de") for latency in (7.0, 0.0)] for trace, _ in drawn])
    each = each.reshape(3, 3, 2)
    centred = (each - each.mean(axis=1, keepdims=True)).reshape(9, 2)
    samples, plain = (one.samples(PAIRS, 3, "0/0") for one in (made, blind))
    for row, (_, one) in enumerate(drawn):
        ended = np.array(one.target_units) == np.array(one.whole_units)
        has = np.array(one.labels) >= 0
        expected = np.where(has, np.where(ended, centred[row, 1], centred[row, 0]), 0)
        np.testing.assert_allclose(samples.advantages[row, : len(expected)], expected, atol=1e-3)
        np.testing.assert_allclose(plain.advantages[row, : len(has)], np.where(has, centred[row, 0], 0), atol=1e-3)
    assert np.abs(samples.advantages - plain.advantages).max() > 0.1


def test_dropout_is_off_where_translations_are_drawn(tokenizer: Any) -> None:
    from streamllm.training.dropout import add_dropout

    model = random_model(tokenizer)
    quiet = sampler(model).samples(PAIRS, 3, "0/0")
    add_dropout(model.model, 0.5)
    model.model.train()
    np.testing.assert_array_equal(sampler(model).samples(PAIRS, 3, "0/0").batch.target, quiet.batch.target)
    assert model.model.training


def test_an_adapter_starts_as_the_model_and_draws_as_it(tokenizer: Any) -> None:
    model = random_model(tokenizer)
    plain = sampler(model).samples(PAIRS, 3, "0/0")
    AdapterConfig().apply(model.model, 1)
    made = sampler(model, kl=1.0)
    adapted = made.samples(PAIRS, 3, "0/0")
    np.testing.assert_array_equal(adapted.batch.target, plain.batch.target)
    model.model.update(replace_all(model.model.trainable_parameters(), 0.1))
    value = made.objective(model.model, adapted, model.target_start, "group", 0.0)
    assert float(value) > -adapted.rewards.sum() + 1e-3, "the start is the model without what the adapter has learned"


def replace_all(tree: Any, value: float) -> Any:
    from mlx.utils import tree_map

    return tree_map(lambda array: array * 0 + value, tree)


# --- what is not accepted


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"samples": 1},
            "objective.samples is 1; it is a whole number of translations, at least 2 (one has nothing",
        ),
        ({"quality": "comet"}, "objective.quality is 'comet'; accepted are bleu, chrf"),
        ({"scale": "batch"}, "objective.scale is 'batch'; accepted are group, none"),
        ({"kl": -1}, "objective.kl is -1; it is a number, at least 0"),
        ({"policy": "alignatt"}, "objective.policy is 'alignatt'; accepted are learned, waitk"),
        (
            {"thresholds": [1]},
            "objective.thresholds is [1]; accepted is a list of numbers above 0 and below 1, and",
        ),
        ({"thresholds": 0.5}, "objective.thresholds is 0.5; accepted is a list"),
        ({"thresholds": []}, "objective.thresholds is []; accepted is a list"),
        ({"k": [0]}, "objective.k is [0]; each is a whole number of at least 1, or 'full'"),
        ({"chance": -1}, "objective.chance is -1; it is a number, at least 0"),
        ({"temperature": 0}, "objective.temperature is 0; it is a number, above 0 (greedy samples would all be alike)"),
        ({"phases": 1}, "objective.phases is 1; accepted are true and false"),
    ],
)
def test_what_is_not_accepted_is_said_with_its_key(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ModelGRPO(**keys)


PLAIN = TrainingConfig(label_smoothing=0, dropout=0)
MODEL = ModelConfig("bundled:tiny-en-de")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"training": replace(PLAIN, label_smoothing=0.1)},
            "training.label_smoothing is 0.1, and rewards are no",
        ),
        (
            {"training": replace(PLAIN, dropout=0.1)},
            "training.dropout is 0.1, and what is learned from must be what",
        ),
        ({"training": replace(PLAIN, patience=2)}, "training.patience and training.export=best go by BLEU"),
        ({"adapter": AdapterConfig(dropout=0.2)}, "adapter.dropout is 0.2, and what is learned from must be"),
        (
            {"data": DataConfig(k=3)},
            "data.k is 3, and with objective=grpo_model translations are drawn instead",
        ),
        ({"data": DataConfig(batch_tokens=9)}, "data.batch_tokens is 9, and with objective=grpo_model"),
        ({"model": replace(MODEL, temperature=0.5)}, "model.temperature is 0.5 and model.top_p 1.0, and tokens"),
        ({"model": FreshModel({})}, "objective=grpo_model goes on with a model that translates, and fresh"),
    ],
)
def test_trainings_that_rewards_cannot_be_part_of_are_refused(parts: dict[str, Any], message: str) -> None:
    usual = {"training": PLAIN, "data": DataConfig(), "adapter": None, "model": MODEL}
    check(**usual)  # type: ignore[arg-type]
    check(**usual | {"data": DataConfig(k=list(DataConfig().k), max_tokens=99)})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=re.escape(message)):
        check(**usual | parts)  # type: ignore[arg-type]
