"""Numbers that are not finite end a sentence with an error, before anything of it is a result."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from mlx.utils import tree_map

from streamllm.batching.scheduler import translate_many
from streamllm.engine.finite import Likeliest, NotFinite
from streamllm.engine.limits import Limits
from streamllm.engine.lookahead import NextToken
from streamllm.evaluation.api import evaluate
from streamllm.models.loading import ModelConfig, ModelError
from streamllm.models.model import StreamingModel
from streamllm.policies import RALCP, WaitIfDiff, WaitK
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import Example, Policy
from streamllm.runs.folder import METRICS, PREDICTIONS

PROMPT = Prompt(source_header="a <", source_footer=" =>", target_header="German:")
LIMITS = Limits(length_extra=3)
WHOLE = [Example("good", "a cat", ""), Example("fine", "a cat a cat", "")]
BROKEN = Example("broken", "a dog", "")


def model_of(model: Any, tokenizer: Any, temperature: float = 0.0) -> StreamingModel:
    return StreamingModel(model, PromptTokens(PROMPT, tokenizer), tokenizer, temperature=temperature)


def broken_by(tokenizer: Any, value: float) -> Any:
    """A model that a source with the word "dog" breaks, and nothing else: it never writes it."""
    (dog,) = tokenizer.encode(" dog")
    model, bias = tiny.random_model(0, len(tokenizer)), mx.zeros(len(tokenizer))
    model.model.embed_tokens.weight[dog], bias[dog] = value, -1e9
    return tiny.Biased(model, bias)


def logits_of(value: float) -> np.ndarray:
    logits = np.random.default_rng(0).normal(size=(3, 60)).astype(np.float32)
    logits[1, 7] = value
    return logits


# The likeliest token


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_the_likeliest_token_is_the_first_of_equal_ones(dtype: mx.Dtype) -> None:
    logits = mx.array([[0.0, 2, 1, 2], [-math.inf, -1, -math.inf, -1]]).astype(dtype)
    tokens, highest = Likeliest.of(logits).found()
    assert (tokens.tolist(), highest.tolist()) == ([1, 1], [2, -1])
    token, value = Likeliest.of(logits[0]).found()
    assert (int(token), float(value)) == (1, 2)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_show_in_the_highest_logit_of_their_row(dtype: mx.Dtype, value: float) -> None:
    _, highest = Likeliest.of(mx.array(logits_of(value)).astype(dtype)).found()
    assert np.isfinite(highest).tolist() == [True, False, True]


def test_a_row_of_minus_infinity_alone_shows_and_a_single_one_does_not() -> None:
    logits = logits_of(-math.inf)
    assert np.isfinite(Likeliest.of(mx.array(logits)).found()[1]).all()
    logits[1] = -math.inf
    assert Likeliest.of(mx.array(logits)).found()[1][1] == -math.inf


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_policy_gets_no_probabilities_of_logits_that_are_not_finite(value: float) -> None:
    with pytest.raises(NotFinite, match=f"logits are {value:g}"):
        NextToken(mx.array(logits_of(value)[1]), frozenset({3})).confidence  # noqa: B018


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_probabilities_of_half_precision_are_right_over_a_large_vocabulary(dtype: mx.Dtype) -> None:
    """MLX's softmax in half precision gives 0.52 for 0.126 on a CPU."""
    logits = mx.zeros(151_936, dtype)
    logits[77] = 10.0
    expected = math.exp(10) / (math.exp(10) + 151_935)
    prediction = NextToken(logits, frozenset())
    assert prediction.probability(77) == pytest.approx(expected, rel=1e-6)
    assert prediction.confidence == pytest.approx(expected, rel=1e-6)


# Sentences


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_sentence_whose_logits_are_not_finite_is_named(
    tokenizer: Any, batch_size: int, temperature: float, value: float
) -> None:
    model = model_of(broken_by(tokenizer, value), tokenizer, temperature)
    traces = translate_many(model, [*WHOLE, BROKEN], WaitK(3), LIMITS, batch_size)
    with pytest.raises(NotFinite, match=r"^sentence 'broken': the model's logits are nan after \d+ source and \d+ ta"):
        assert "broken" not in [trace.id for trace in traces]


@pytest.mark.parametrize("policy", [WaitIfDiff(initial=2), RALCP(2, 0.6)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_so_it_is_where_a_policy_asks_the_model(tokenizer: Any, policy: Policy, batch_size: int) -> None:
    model = model_of(broken_by(tokenizer, math.nan), tokenizer)
    with pytest.raises(NotFinite, match=r"^sentence 'broken': the model's logits are nan"):
        list(translate_many(model, [*WHOLE, BROKEN], policy, LIMITS, batch_size))


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_token_that_is_ruled_out_is_no_fault(tokenizer: Any, batch_size: int) -> None:
    def biased(value: float) -> StreamingModel:
        bias = mx.zeros(len(tokenizer))
        bias[40] = value
        return model_of(tiny.Biased(tiny.random_model(0, len(tokenizer)), bias), tokenizer)

    def units(model: StreamingModel) -> list[tuple[str, ...]]:
        found = {trace.id: trace.units for trace in translate_many(model, WHOLE, WaitK(2), LIMITS, batch_size)}
        return [found[example.id] for example in WHOLE]

    assert units(biased(-math.inf)) == units(biased(-1e4))


def test_a_run_stores_nothing_of_such_a_sentence_and_no_scores(tmp_path: Path, model_folder: Path) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    weights = tiny.read_weights(folder / "model.safetensors")
    weights["model.norm.weight"][3] = math.nan
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    with pytest.raises(NotFinite, match=r"^sentence 'good'.*model.dtype=float32.*get the weights anew$"):
        evaluate(ModelConfig(str(folder)), WaitK(2), WHOLE, prompt=PROMPT, root=tmp_path, name="run", limits=LIMITS)
    (run,) = tmp_path.glob("run-*")
    assert not (run / METRICS).exists()
    assert not (run / PREDICTIONS).exists() or not (run / PREDICTIONS).read_text()


# Dtypes


def large(folder: Path) -> None:
    weights = tiny.read_weights(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"] * 1e6
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})


def test_weights_that_float16_does_not_hold_are_refused(tmp_path: Path) -> None:
    folder = tiny.model_folder(tmp_path / "model")
    large(folder)
    with pytest.raises(ModelError, match=r"'float16'.*'lm_head.weight' are not finite in float16.*bfloat16 or float32"):
        ModelConfig(str(folder), dtype="float16").load(PROMPT)
    ModelConfig(str(folder), dtype="bfloat16").load(PROMPT)


def test_saving_in_a_dtype_that_does_not_hold_the_weights_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    folder = tiny.model_folder(tmp_path / "model")
    large(folder)
    model = ModelConfig(str(folder), dtype="float32").load(PROMPT)
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"'lm_head.weight' are not finite in float16"):
        model.save(folder, mx.float16)
    assert (folder / "model.safetensors").read_bytes() == before


# Products of what is quantised


def flat(dtype: mx.Dtype, vocabulary: int) -> Any:
    """A model whose heads attend to all tokens alike, so that sums are long."""
    model = tiny.random_model(3, vocabulary, 128)
    model.update(tree_map(lambda a: (a * 0.4 if a.ndim > 1 else a).astype(dtype), model.parameters()))
    return model


def far(logits: Callable[[mx.Dtype], np.ndarray]) -> float:
    """How far logits of bfloat16 are from those of float32, as a share of the largest."""
    exact, half = logits(mx.float32), logits(mx.bfloat16)
    return float(np.abs(half - exact).max() / np.abs(exact).max())


def test_quantised_keys_and_values_add_bfloat16_s_rounding_and_no_more() -> None:
    from streamllm.cache.quantised import QuantisedCache
    from streamllm.engine.paradigms.group import GroupMemory

    def logits(dtype: mx.Dtype) -> np.ndarray:
        model = flat(dtype, 100)
        memory = GroupMemory(model, 0, [QuantisedCache(bits=8, group_size=32) for _ in model.layers])
        memory.read([(7 * i + 3) % 100 for i in range(1500)])
        return np.array(memory.write([1, 2, 3]).astype(mx.float32))

    assert far(logits) < 0.02  # 0.14 where products add up in bfloat16


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_products_of_quantised_weights_add_up_in_float32(dtype: mx.Dtype) -> None:
    from streamllm.engine.quantised_products import in_float32

    half = tiny.random_model(0, 8)
    half.set_dtype(dtype)
    x, packed = mx.ones((1, 4096), dtype), mx.quantize(mx.ones((64, 4096), dtype))
    with in_float32(half):
        product = mx.quantized_matmul(x, *packed)
        experts = mx.gather_qmm(x[None], *(part[None] for part in packed), rhs_indices=mx.array([0]))
    assert product.dtype == experts.dtype == dtype
    assert product[0].tolist() == experts.reshape(-1).tolist() == [4096] * 64
