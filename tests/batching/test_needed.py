"""The memory of a run is estimated before it, and said where it may not be there."""

import logging
import tracemalloc
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import tiny
from mlx.utils import tree_flatten

from streamllm.batching import needed as file
from streamllm.batching.needed import PROGRAM, needed, say_memory, token_bytes
from streamllm.cache.dual import make_caches
from streamllm.cache.retention import Retention
from streamllm.cpu import weights
from streamllm.cpu.decoder import Decoder
from streamllm.data.sample import Sample
from streamllm.engine.forward import forward
from streamllm.machine import Room
from streamllm.models import precision
from streamllm.models.loading import ASSETS, ModelConfig, ModelError
from streamllm.models.model import StreamingModel
from streamllm.prompt import Prompt, PromptTokens

EXAMPLES = Sample(limit=20).load()
MODEL = ModelConfig("bundled:tiny-en-de")
CPU = mx.default_device() == mx.Device(mx.cpu)  # type: ignore[arg-type]
on_a_cpu = pytest.mark.skipif(not CPU, reason="memory is estimated on a CPU")


@pytest.fixture(scope="module")
def model() -> StreamingModel:
    return MODEL.load()


def test_a_tokens_bytes_are_those_that_a_cache_holds(model: StreamingModel) -> None:
    caches = make_caches(model.model)
    forward(model.model, mx.array([[5] * 10]), [cache.source for cache in caches])
    held = sum(array.nbytes for cache in caches for array in cache.get_source() if array is not None)
    assert token_bytes(model.model) == held / 10 == 2 * 5 * 160 * 4  # keys and values, layers, numbers, bytes


def test_more_rows_longer_sentences_and_more_processes_take_more(model: StreamingModel) -> None:
    one, four = (needed(model, EXAMPLES, rows) for rows in (1, 4))
    assert (one.rows, four.rows, needed(model, EXAMPLES, 128).rows) == (1, 4, 20)
    assert one.weights == four.weights == sum(array.nbytes for array in _arrays(model))
    assert one.held < four.held <= 4 * one.held
    assert one.step < four.step
    twice = needed(model, EXAMPLES, 4, processes=2)
    assert twice.rows == 8
    assert twice.whole - four.whole > 2 * (PROGRAM + four.weights)


def test_the_longest_sentences_count_with_their_references(model: StreamingModel) -> None:
    longest = max(EXAMPLES, key=lambda example: len(example.source))
    tokens = len(model.prompt.source_header) + len(model.prompt.source_footer) + len(model.prompt.target_header)
    for text in (longest.source, longest.reference):
        tokens += len(model.prompt.encode(" " + text))
    assert needed(model, EXAMPLES, 1).held == pytest.approx(1.25 * tokens * token_bytes(model.model), rel=0.1)


def test_windows_bound_what_is_held(tokenizer: Any) -> None:
    def held(retention: Retention) -> int:
        tokens = PromptTokens(Prompt(source_footer=" =>", target_header="German:"), tokenizer)
        inside = tiny.random_model(1, len(tokenizer))
        return needed(StreamingModel(inside, tokens, tokenizer, retention=retention), EXAMPLES, 4).held

    assert held(Retention(max_source=8, max_target=8)) < held(Retention())


@on_a_cpu
def test_what_may_not_fit_is_said_with_what_to_do(
    model: StreamingModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(file, "room", lambda: Room(4_000_000_000, 1_000_000))
    with caplog.at_level(logging.WARNING, "streamllm"):
        say_memory(model, EXAMPLES, 16)
    (said,) = caplog.messages
    assert said.startswith("this run may take 3")
    assert "keys and values of 16 sentences" in said
    assert "1 MB free of 4.0 GB: give a batch_size below 16 or windows (model.max_source, model.max_target)" in said


@on_a_cpu
def test_what_fits_is_not_spoken_of(
    model: StreamingModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for there in (Room(4_000_000_000, 3_000_000_000), None):
        monkeypatch.setattr(file, "room", lambda there=there: there)
        say_memory(model, EXAMPLES, None)
    assert caplog.messages == []


@on_a_cpu
def test_weights_that_no_memory_holds_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "room", lambda: Room(7_000_000, 7_000_000))
    with pytest.raises(ModelError, match=r"take 12 MB of memory in float32, .* has 7 MB: give model.dtype=bfloat16"):
        MODEL.load()
    ModelConfig("bundled:tiny-en-de", dtype="bfloat16").load()
    monkeypatch.setattr(precision, "room", lambda: Room(1_000_000, 1_000_000))
    with pytest.raises(ModelError, match="has 1 MB: give a smaller model"):
        MODEL.load()


@on_a_cpu
def test_weights_are_held_once_however_they_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: Any = {name: array.astype(mx.bfloat16) for name, array in _named(MODEL.load()).items()}
    for path in (ASSETS / "tiny-en-de").glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    mx.save_safetensors(str(tmp_path / "model.safetensors"), stored)
    in_file = sum(array.nbytes for array in stored.values())
    del stored
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    loaded = ModelConfig(str(tmp_path)).load()
    whole = sum(array.nbytes for array in _arrays(loaded))
    assert whole == 2 * in_file
    assert mx.get_active_memory() - before < 1.1 * whole
    assert mx.get_peak_memory() - before < 0.95 * (whole + in_file), "an array at a time is changed into float32"
    monkeypatch.setattr(weights, "COPIED", 0)  # as a large model
    tracemalloc.start()
    decoder = Decoder.of(loaded.model)
    own, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert decoder is None or own < 0.05 * whole, "numpy computes with what MLX holds"


def _arrays(model: StreamingModel) -> list[mx.array]:
    return list(_named(model).values())


def _named(model: StreamingModel) -> dict[str, mx.array]:
    return dict(tree_flatten(model.model.parameters()))  # type: ignore[arg-type]
