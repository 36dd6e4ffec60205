"""Quantised keys and values: attention to them is attention to what they say, and nothing else of the cache changes."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import sessions
import tiny
from families import FAMILIES, Family
from mlx_lm.models.cache import QuantizedKVCache, load_prompt_cache, save_prompt_cache
from reference import build

from streamllm.cache.dual import DualStreamingCache
from streamllm.cache.quantised import QuantisedCache
from streamllm.cache.retention import Retention
from streamllm.cache.rows import Rows
from streamllm.engine.paradigms.group import Group, GroupMemory
from streamllm.engine.paradigms.reencoded import Batch
from streamllm.engine.paradigms.windows import memories
from streamllm.engine.session import Session
from streamllm.models.loading import ModelConfig, ModelError
from streamllm.models.model import StreamingModel
from streamllm.prompt import PromptTokens

FAMILY = {family.name: family for family in FAMILIES}
VOCABULARY = 64


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.random_model(7, VOCABULARY, hidden=128)  # heads of 32


def wide(name: str) -> Any:
    """A family of the conformance test, with heads of 32."""
    family = FAMILY[name]
    return build(Family(**{**vars(family), "config": {**family.config, "hidden_size": 128, "head_dim": 32}}))


class Rounded(Rows):
    """Numbers as a quantised cache has them, in arrays as usual."""

    bits = 8

    def insert(self, at: int, keys: mx.array, values: mx.array) -> None:
        rounded = []
        for rows in (keys, values):
            packed, scales, biases = mx.quantize(rows, group_size=32, bits=self.bits)
            rounded.append(mx.dequantize(packed, scales, biases, group_size=32, bits=self.bits))
        super().insert(at, *rounded)


def rounded(bits: int) -> DualStreamingCache:
    cache = DualStreamingCache()
    cache.rows = Rounded()
    cache.rows.bits = bits
    return cache


def opened(model: Any, bits: int, **windows: int) -> GroupMemory:
    return memories(Retention(kv_bits=bits, kv_group_size=32, **windows), model, Group())(3)


def lived(memory: GroupMemory) -> np.ndarray:
    """Logits of a life with all that a memory does."""
    memory.read([3, 9, 4, 11, 6])
    logits = [memory.write([7, 8])]
    memory.read([5])
    logits += [memory.write([6]), memory.write([2, 3, 1], hidden=2)]
    memory.trim(3)
    logits.append(memory.write([1]))
    memory.read([8, 13])
    logits.append(memory.write([9, 2]))
    return np.stack([np.array(row.astype(mx.float32)) for row in logits])


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", ["qwen2", "llama-sliding", "gemma3_text", "mixtral", "cohere2"])
def test_attention_is_that_of_the_numbers_that_are_held(name: str, bits: int) -> None:
    model = wide(name)
    got = lived(opened(model, bits))
    expected = lived(GroupMemory(model, 3, [rounded(bits) for _ in model.layers]))
    exact = lived(GroupMemory(model, 3))
    # Both round the same numbers but for float32's last bits, which decide between two steps now and then.
    assert np.abs(got - expected).max() < {8: 1e-2, 4: 5e-2}[bits] * np.abs(expected).max()
    assert np.abs(got - exact).max() > 2 * np.abs(got - expected).max(), "nothing was quantised"


def test_four_bits_lose_more_than_eight(model: Any) -> None:
    exact = lived(GroupMemory(model, 3))
    eight, four = (np.abs(lived(opened(model, bits)) - exact).max() / np.abs(exact).max() for bits in (8, 4))
    assert 1e-5 < eight < 0.05
    assert 3 * eight < four < 0.5


@pytest.mark.parametrize("bits", [8, 4])
def test_a_token_takes_what_it_takes_in_mlx_lms_cache(bits: int) -> None:
    ours, theirs = QuantisedCache(bits=bits, group_size=32), QuantizedKVCache(group_size=32, bits=bits)
    keys = mx.random.normal((1, 2, 300, 64))
    ours.update_source(keys[:, :, :200], keys[:, :, :200])
    ours.update_target(keys[:, :, 200:], keys[:, :, 200:])
    theirs.update_and_fetch(keys, keys)
    row = 2 * 2 * (64 * bits // 8 + 2 * 2 * 4)  # of keys and values, two heads: numbers, two scales and two biases
    assert (ours.nbytes % row, theirs.nbytes % row) == (0, 0)
    assert 300 * row <= ours.nbytes <= theirs.nbytes
    ours.merge_source_target()
    held = theirs.keys_and_values()
    for got, expected in zip(ours.get_merged(), held, strict=True):
        assert got is not None
        assert all(bool(mx.array_equal(a, b)) for a, b in zip(got, expected, strict=True))


def test_a_state_goes_through_a_prompt_cache_file_and_on(tmp_path: Path) -> None:
    keys = mx.random.normal((1, 2, 6, 64))
    cache, empty = QuantisedCache(5, bits=4, group_size=32), QuantisedCache(bits=4)
    cache.update_source(keys[:, :, :4], keys[:, :, :4])
    cache.update_target(keys[:, :, 4:], keys[:, :, 4:])
    save_prompt_cache(str(tmp_path / "cache.safetensors"), [cache, empty])
    restored, nothing = load_prompt_cache(str(tmp_path / "cache.safetensors"))
    assert repr(restored) == repr(cache)
    assert (restored.target_start, nothing.offset, nothing.bits) == (5, 0, 4)
    for one in (cache, restored, nothing, cache.copy()):
        one.update_source(keys[:, :, :1], keys[:, :, :1])
    for got, expected in zip(restored.get_target()[0], cache.get_target()[0], strict=True):  # type: ignore[arg-type]
        assert bool(mx.array_equal(got, expected))
    assert (restored.source_offset, restored.offset, nothing.offset) == (5, 7, 1)


def test_an_update_of_another_shape_is_refused() -> None:
    cache = QuantisedCache(group_size=32)
    with pytest.raises(ValueError, match=r"are 40 wide, which is no multiple of kv_group_size=32.*leave kv_bits"):
        cache.update_source(mx.zeros((1, 2, 3, 40)), mx.zeros((1, 2, 3, 40)))
    cache.update_source(mx.zeros((1, 2, 3, 64)), mx.zeros((1, 2, 3, 64)))
    with pytest.raises(ValueError, match=r"keys of shape \(1, 2, 3, 32\) .* do not fit the cache.*'\*', 64\)"):
        cache.update_target(mx.zeros((1, 2, 3, 32)), mx.zeros((1, 2, 3, 64)))


def test_windows_move_quantised_keys(model: Any) -> None:
    """Within what four more roundings may cost."""
    quantised = opened(model, 8, max_source=16, max_target=16)
    plain = memories(Retention(max_source=16, max_target=16), model, Group())(3)
    for i in range(30):
        for memory in (quantised, plain):
            memory.read([(5 * i) % VOCABULARY])
            memory.write([(7 * i) % VOCABULARY])
    got, expected = (np.array(memory.write([1])) for memory in (quantised, plain))
    assert quantised.source_gap == plain.source_gap != (0, 0)
    assert 1e-5 < np.abs(got - expected).max() / np.abs(expected).max() < 0.1
    shapes = {buffer.shape[2] for cache in quantised.caches for buffer in cache.buffers}
    assert shapes == {256}


def test_branches_and_sessions_work_on_quantised_keys(tmp_path: Path) -> None:
    tiny.byte_level_tokenizer(tmp_path)
    tokenizer = tiny.load(tmp_path)
    model = tiny.Biased(tiny.random_model(3, len(tokenizer), hidden=128), tiny.sentence_bias(tokenizer, 0.0))
    tokens = PromptTokens(sessions.PROMPT, tokenizer)
    streaming = StreamingModel(model, tokens, tokenizer, retention=Retention(kv_bits=8, kv_group_size=32))
    session: Session = streaming.session()
    session.read("cat")
    session.read("the")
    drafted = session.draft(3)
    assert session.beam(3, 2)
    assert sessions.units([session.write() for _ in drafted]) == sessions.units(drafted)
    with pytest.raises(ValueError, match=r"leave all of it to MLX's attention.*model.kv_bits"):
        session.attended([[0, 0]])


# --- what cannot be


def test_a_model_whose_heads_do_not_fit_says_so_when_it_is_loaded(tmp_path: Path) -> None:
    tiny.model_folder(tmp_path, hidden=160)
    with pytest.raises(ModelError) as error:
        ModelConfig(str(tmp_path), kv_bits=8).load()
    assert "are 40 wide, which is no multiple of kv_group_size=64" in str(error.value)
    assert "leave kv_bits at null for this model" in str(error.value)


def test_a_group_size_that_fits_is_named(model: Any) -> None:
    with pytest.raises(ValueError, match=r"are 32 wide.*set kv_group_size to 32$"):
        memories(Retention(kv_bits=8), model, Group())


def test_other_paradigms_are_refused(model: Any) -> None:
    with pytest.raises(
        ValueError, match=r"are for paradigm=group, sentences, continuous and revised, and the paradigm is Batch"
    ):
        memories(Retention(kv_bits=8, kv_group_size=32), model, Batch())


@pytest.mark.parametrize("name", ["gemma2", "gpt_oss"])
def test_attention_that_does_not_know_quantised_keys_is_refused(name: str) -> None:
    """It would crash in the first forward, or be silently wrong."""
    with pytest.raises(ValueError, match=r"does not work on quantised keys and values \(.+\): leave kv_bits at null"):
        memories(Retention(kv_bits=8, kv_group_size=32), wide(name), Group())
