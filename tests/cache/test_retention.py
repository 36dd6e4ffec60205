"""Windows on both streams: what is held, where, and that nothing else is told apart from a memory without them."""

import io
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import mlx.core as mx
import numpy as np
import pytest
import sessions
import tiny
from families import FAMILIES
from hypothesis import given, settings
from reference import build

from streamllm.batching.scheduler import translate_many
from streamllm.batching.trial import batching
from streamllm.cache.dual import DualStreamingCache
from streamllm.cache.retention import Retention
from streamllm.engine.limits import Limits
from streamllm.engine.paradigms.group import Group, GroupMemory
from streamllm.engine.paradigms.interleaved import Interleaved
from streamllm.engine.paradigms.memory import Memory
from streamllm.engine.paradigms.windows import memories
from streamllm.engine.session import Session
from streamllm.live.terminal import translate_live
from streamllm.models.loading import ModelConfig, ModelError
from streamllm.models.model import StreamingModel
from streamllm.policies import DOA, DST, LSG, LocalAgreement, WaitK
from streamllm.prompt import PromptTokens
from streamllm.records import Example, Policy

VOCABULARY = 64
FAMILY = {family.name: family for family in FAMILIES}


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.random_model(7, VOCABULARY)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.byte_level_tokenizer(folder)
    return tiny.load(folder)


def opened(model: Any, target_start: Any = 0, **retention: Any) -> GroupMemory:
    return memories(Retention(**retention), model, Group())(target_start)


# --- a reference that keeps keys without positions, and gives each its place anew in every forward


def turned(keys: np.ndarray, positions: np.ndarray, base: float = 10000.0) -> np.ndarray:
    """RoPE of Su et al. 2021 in the half-split form: keys (H, L, D) by ``positions`` (L,)."""
    half = keys.shape[-1] // 2
    angles = positions[:, None] * base ** (-np.arange(half) / half)
    left, right = keys[..., :half], keys[..., half:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([left * cos - right * sin, left * sin + right * cos], axis=-1)


class Layer:
    """What the model sees. ``held``: of each stream, keys without position and values, (H, L, D)."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.stream, self.start = "source", 0

    def length(self, stream: str) -> int:
        return self.held[stream][0].shape[1] if stream in self.held else 0

    @property
    def offset(self) -> int:
        return self.length(self.stream) + (self.start if self.stream == "target" else 0)

    def make_mask(self, N: int, **_: Any) -> mx.array:
        own = np.tri(N, self.length(self.stream) + N, self.length(self.stream), dtype=bool)
        if self.stream == "source":
            return mx.array(own)
        return mx.array(np.concatenate([np.ones((N, self.length("source") - self.hidden), bool), own], axis=1))

    hidden = 0

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        places = self.offset + np.arange(keys.shape[2])
        new = turned(np.array(keys[0], np.float64), -places), np.array(values[0], np.float64)
        old = self.held.get(self.stream)
        self.held[self.stream] = new if old is None else self.joined([old, new])
        parts = []
        for stream in ("source", "target") if self.stream == "target" else ("source",):
            if stream in self.held:
                raw, held_values = self.held[stream]
                if stream == "source" and self.stream == "target" and self.hidden:
                    raw, held_values = raw[:, : -self.hidden], held_values[:, : -self.hidden]
                begin = self.start if stream == "target" else 0
                parts.append((turned(raw, begin + np.arange(raw.shape[1])), held_values))
        seen_keys, seen_values = self.joined(parts)
        return mx.array(seen_keys[None], mx.float32), mx.array(seen_values[None], mx.float32)

    @staticmethod
    def joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate([k for k, _ in parts], axis=1), np.concatenate([v for _, v in parts], axis=1)

    def keep(self, stream: str, rows: list[int]) -> None:
        if stream in self.held:
            raw, values = self.held[stream]
            self.held[stream] = raw[:, rows], values[:, rows]


class Explicit:
    """A memory by the words of the documentation: `names` says which tokens are held, by their number in the stream."""

    def __init__(self, model: Any, target_start: Any, max_source: int | None, max_target: int | None, sinks: int):
        self.model, self.target_start = model, target_start
        self.sizes, self.sinks = {"source": max_source, "target": max_target}, sinks
        self.layers = [Layer() for _ in model.layers]
        self.names: dict[str, list[int]] = {"source": [], "target": []}
        self.fed = {"source": 0, "target": 0}

    def forget(self, stream: str, new: int) -> None:
        size, held = self.sizes[stream], len(self.names[stream])
        if size is None or held + new <= size:
            return
        least = int(np.ceil((size - self.sinks) / 8))
        gone = max(held + new - size, least)
        rows = [row for row in range(held) if row < self.sinks or row >= self.sinks + gone]
        self.names[stream] = [self.names[stream][row] for row in rows]
        for layer in self.layers:
            layer.keep(stream, rows)

    def feed(self, stream: str, tokens: list[int], hidden: int = 0) -> np.ndarray:
        for layer in self.layers:
            layer.stream, layer.hidden = stream, hidden
            layer.start = 0 if self.target_start == "after_source" else self.target_start
        self.names[stream] += range(self.fed[stream], self.fed[stream] + len(tokens))
        self.fed[stream] += len(tokens)
        return np.array(self.model(mx.array([tokens]), cache=self.layers)[0, -1])

    def read(self, tokens: list[int]) -> None:
        self.forget("target", 0)
        while tokens:
            size, held = self.sizes["source"], len(self.names["source"])
            room = len(tokens) if size is None else size - min(held, self.sinks)
            self.forget("source", len(tokens[:room]))
            self.feed("source", tokens[:room])
            tokens = tokens[room:]

    def write(self, tokens: list[int], hidden: int = 0) -> np.ndarray:
        return self.feed("target", tokens, hidden)

    def trim(self, n: int) -> None:
        held = len(self.names["target"])
        self.names["target"] = self.names["target"][: held - n]
        self.fed["target"] -= n
        for layer in self.layers:
            layer.keep("target", list(range(held - n)))


STEPS = st.lists(
    st.tuples(st.sampled_from(["read", "read", "write", "write", "hidden", "trim"]), st.integers(1, 6)), max_size=30
)
SIZES = st.one_of(st.none(), st.integers(6, 14))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(steps=STEPS, sizes=st.tuples(SIZES, SIZES), sinks=st.integers(0, 5), target_start=st.sampled_from([0, 9]))
def test_predictions_are_those_of_the_tokens_that_are_held_at_their_places(
    model: Any, steps: list[tuple[str, int]], sizes: tuple[int | None, int | None], sinks: int, target_start: int
) -> None:
    memory = opened(model, target_start, max_source=sizes[0], max_target=sizes[1], sinks=sinks)
    explicit = Explicit(model, target_start, *sizes, sinks)
    fresh = 0  # target tokens since the last read
    for number, (action, n) in enumerate([*steps, ("read", 1), ("write", 1)]):
        tokens = [(11 * number + 5 * i) % VOCABULARY for i in range(n)]
        if action == "read":
            memory.read(tokens)
            explicit.read(tokens)
            fresh = 0
        elif action == "trim":
            memory.trim(min(n, fresh))
            explicit.trim(min(n, fresh))
            fresh -= min(n, fresh)
        else:
            hidden = min(n, max(0, len(explicit.names["source"]) - sinks)) if action == "hidden" else 0
            got = np.array(memory.write(tokens, hidden))
            np.testing.assert_allclose(got, explicit.write(tokens, hidden), atol=1e-3, rtol=1e-3)
            fresh += n
        held = memory.caches[0].source_offset, memory.caches[0].target_offset
        assert held == (len(explicit.names["source"]), len(explicit.names["target"]))
        first, end = memory.source_gap
        assert explicit.names["source"] == [i for i in range(memory.source_tokens) if not first <= i < end]
        assert memory._columns == list(range(held[0]))
        assert sizes[0] is None or held[0] <= sizes[0]
        assert sizes[1] is None or held[1] <= sizes[1] + fresh


def test_a_target_after_the_source_follows_the_source_that_was_held_at_its_first_write(model: Any) -> None:
    memory = opened(model, "after_source", max_source=10, sinks=2)
    memory.read([i % VOCABULARY for i in range(30)])
    memory.write([3])
    assert memory.caches[0].target.offset == memory.caches[0].source_offset + 1 <= 11


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "mistral3", "phi", "gptj", "glm4", "qwen3_moe"])
def test_other_families_forget_as_a_memory_that_never_had_it(name: str) -> None:
    """In the first layer keys depend on nothing but the token and its position: those of the tokens that are held, fed
    one after the other."""
    model = build(FAMILY[name])
    memory = opened(model, 3, max_source=10, max_target=9, sinks=2)
    source, target = [(5 * i) % 40 for i in range(40)], [(7 * i) % 40 for i in range(40)]
    for s, t in zip(source, target, strict=True):
        memory.read([s])
        memory.write([t])
    cache = memory.caches[0]
    there = Group().open(model, 3)
    there.read(source[:2] + source[len(source) - cache.source_offset + 2 :])
    there.write(target[:2] + target[len(target) - cache.target_offset + 2 :])
    for got, expected in ((cache.get_source()[0], there.caches[0].get_source()[0]),
                          (cache.get_target()[0], there.caches[0].get_target()[0])):  # fmt: skip
        np.testing.assert_allclose(np.array(got), np.array(expected), atol=1e-4 * np.abs(np.array(expected)).max())


# --- the cache


@pytest.mark.parametrize("stream", ["source", "target"])
def test_the_cache_forgets_from_the_middle_of_a_stream(stream: str) -> None:
    def rows(n: int, start: float) -> mx.array:
        return mx.arange(start, start + n)[None, None, :, None] + mx.zeros((1, 2, n, 4))

    def numbers(held: tuple[Any, Any]) -> list[list[float]]:
        return [array[0, 0, :, 0].tolist() for array in held]

    cache = DualStreamingCache()
    cache.update_source(rows(6, 0), rows(6, 100))
    cache.update_target(rows(5, 50), rows(5, 150))
    getattr(cache, f"forget_{stream}")(2, 1, lambda keys: keys + 0.5)
    if stream == "source":
        assert numbers(cache.get_source()) == [[0, 3.5, 4.5, 5.5], [100, 103, 104, 105]]
        assert numbers(cache.get_target()) == [[50, 51, 52, 53, 54], [150, 151, 152, 153, 154]]
    else:
        assert numbers(cache.get_source()) == [[0, 1, 2, 3, 4, 5], [100, 101, 102, 103, 104, 105]]
        assert numbers(cache.get_target()) == [[50, 53.5, 54.5], [150, 153, 154]]
    with pytest.raises(ValueError, match=f"cannot forget 9 {stream} tokens after the first 1: "):
        getattr(cache, f"forget_{stream}")(9, 1, lambda keys: keys)
    cache.merge_source_target()
    with pytest.raises(RuntimeError, match="separate_source_target"):
        getattr(cache, f"forget_{stream}")(1, 1, lambda keys: keys)


# --- nothing changes where windows are not reached, or are not there


def events(model: StreamingModel, policy: Policy, text: str) -> str:
    out, chunks = io.StringIO(), iter([text.encode()])
    translate_live(model, policy, lambda: next(chunks, b""), out, show_source=True)
    return out.getvalue()


def streaming(model: Any, tokenizer: Any, **retention: Any) -> StreamingModel:
    tokens = PromptTokens(sessions.PROMPT, tokenizer)
    return StreamingModel(model, tokens, tokenizer, retention=Retention(**retention))


TEXT = "a cat, the dog jumps over the Haus and a cat runs to the dog of the Haus\n"


@pytest.mark.parametrize(
    "policy",
    [
        WaitK(2),
        LSG(0.05, 0.3, 1, 3),
        DST(0.6),
        *(pytest.param(one, marks=pytest.mark.long) for one in (LocalAgreement(), DOA(1))),
    ],
    ids=lambda policy: type(policy).__name__,
)
def test_windows_larger_than_everything_change_nothing(tokenizer: Any, policy: Policy) -> None:
    for model in sessions.varied_models(tokenizer):
        large = streaming(model, tokenizer, max_source=4000, max_target=4000)
        assert events(large, policy, TEXT) == events(streaming(model, tokenizer), policy, TEXT)


def test_logits_with_large_windows_are_equal_to_the_last_bit(model: Any) -> None:
    lives = []
    for memory in (GroupMemory(model, 0), opened(model, max_source=100, max_target=100, sinks=0)):
        logits = []
        for i in range(20):
            memory.read([i, 2 * i])
            logits.append(np.array(memory.write([3 * i])))
        lives.append((np.stack(logits), memory.forward_passes, memory.fed_tokens))
    assert np.array_equal(lives[0][0], lives[1][0])
    assert lives[0][1:] == lives[1][1:]


def test_the_bundled_model_writes_the_same_in_large_windows() -> None:
    text = "a man is riding a bicycle down the street.\n"
    large = ModelConfig("bundled:tiny-en-de", max_source=64, max_target=64).load()
    assert events(large, WaitK(3), text) == events(ModelConfig("bundled:tiny-en-de").load(), WaitK(3), text)


# --- sessions


WINDOWS: dict[str, Any] = {"max_source": 24, "max_target": 24, "sinks": 2}


def endless(tokenizer: Any) -> Any:
    """Seldom ends a word or a sentence late."""
    return tiny.Biased(tiny.random_model(4, len(tokenizer)), tiny.sentence_bias(tokenizer, -100.0))


def long_session(tokenizer: Any, ask: Callable[[Session], Any]) -> list[str | None]:
    session = streaming(endless(tokenizer), tokenizer, **WINDOWS).session()
    written: list[str | None] = []
    for i in range(30):
        session.read(sessions.WORDS[i % len(sessions.WORDS)])
        ask(session)
        written.append(session.write().unit)
    assert session.memory.source_gap[1] > 40, "the window was never full"
    assert session.memory.target_offset <= 24 + 64
    return written


def marked_and_rewound(session: Session) -> None:
    mark = session.mark()
    for _ in range(3):
        session.write()
    session.rewind(mark)


@pytest.mark.parametrize(
    "ask",
    [
        lambda session: session.draft(6),
        lambda session: session.beam(2, 2),
        lambda session: session.prediction().token,
        lambda session: session.prediction(hidden=1).token,
        lambda session: session.prediction(hidden=1000).token,
        lambda session: session.attended([[0, 0]]),
        marked_and_rewound,
    ],
    ids=["draft", "beam", "prediction", "hidden", "all hidden", "attended", "rewind"],
)
def test_looking_ahead_does_not_change_what_is_written(tokenizer: Any, ask: Callable[[Session], Any]) -> None:
    """The window moves at a read only, and no mark outlives a read."""
    assert long_session(tokenizer, ask) == long_session(tokenizer, lambda session: None)


def test_drafts_and_beams_end_at_the_length_of_the_window(tokenizer: Any) -> None:
    session = streaming(endless(tokenizer), tokenizer, **WINDOWS).session()
    session.read("cat")
    drafted = sum(len(emission.tokens) for emission in session.draft(10_000))
    assert 24 <= drafted < 24 + 64
    assert session.memory.target_offset < 24 + 64 + 8
    for hypothesis in session.beam(2, 10_000):
        assert sum(len(emission.tokens) for emission in hypothesis) <= 24


def test_all_units_hidden_leaves_the_sinks_in_sight(tokenizer: Any) -> None:
    session = streaming(endless(tokenizer), tokenizer, **WINDOWS).session()
    for i in range(30):
        session.read(sessions.WORDS[i % len(sessions.WORDS)])
    memory: Any = session.memory
    seen: list[int] = []
    write = memory.write

    def noting(tokens: list[int], hidden: int = 0) -> mx.array:
        seen.append(memory.caches[0].source_offset - hidden)
        return write(tokens, hidden)

    memory.write = noting
    session.prediction(hidden=1000)
    assert seen == [memory.source_gap[0]]


def test_attention_goes_to_units_by_their_number_in_the_stream(tokenizer: Any) -> None:
    session = streaming(endless(tokenizer), tokenizer, **WINDOWS).session()
    for i in range(30):
        session.read(sessions.WORDS[i % len(sessions.WORDS)])
        session.write()
    heads = [[0, 0], [1, 2]]
    attended, look = session.attended(heads), session.unit_attention(heads)
    assert session._ahead.attention is not None
    weights = np.array(session._ahead.attention.weights(heads))
    first, end = session.memory.source_gap
    # The last unit is the last tokens, the first is what is left of the first one that is held.
    last = len(session.prompt.source_tokens(sessions.WORDS[29 % 5], first=False))
    np.testing.assert_allclose(look[:, -1], weights[:, -last:].sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(look.sum(axis=1), weights[:, first:].sum(axis=1), rtol=1e-5)
    lengths = [len(session.prompt.source_tokens(sessions.WORDS[i % 5], first=i == 0)) for i in range(30)]
    ends = len(session.prompt.source_header) + np.cumsum(lengths)
    assert look.shape[1] == int((ends > end).sum())
    assert attended == 30 - look.shape[1] + int(look.mean(axis=0).argmax())


def test_a_header_is_never_forgotten(tokenizer: Any) -> None:
    session = streaming(endless(tokenizer), tokenizer, max_source=24, max_target=24, sinks=0).session()
    first_keys: list[np.ndarray] = []
    for i in range(30):
        session.read(sessions.WORDS[i % len(sessions.WORDS)])
        session.write()
        keys = session.memory.caches[0].get_source()[0][..., : len(session.prompt.source_header), :]  # type: ignore[attr-defined]
        first_keys.append(np.array(keys))
    assert len(session.prompt.source_header) > 1
    assert np.array_equal(first_keys[0], first_keys[-1])
    assert session.memory.source_gap[0] == len(session.prompt.source_header)


# --- endless streams


class Nowhere(io.StringIO):
    written = 0

    def write(self, text: str) -> int:
        self.written += 1
        return len(text)


class Kept(StreamingModel):
    last: Session

    def session(self, seed: int = 0, name: str = "", memory: Memory | None = None) -> Session:
        self.last = super().session(seed, name, memory)
        return self.last


def endless_stream(tokenizer: Any, policy: Policy, words: int, from_word: int) -> list[tuple[int, int, int]]:
    """Bytes of keys and values, of MLX, and of Python, at each hundredth word from ``from_word`` on."""
    tokens = PromptTokens(sessions.PROMPT, tokenizer)
    model = Kept(endless(tokenizer), tokens, tokenizer, retention=Retention(**WINDOWS))
    measured: list[tuple[int, int, int]] = []

    def arriving() -> Iterator[bytes]:
        for i in range(words):
            if i >= from_word and i % 100 == 0:
                held = sum(cache.nbytes for cache in model.last.memory.caches)  # type: ignore[attr-defined]
                measured.append((held, mx.get_active_memory(), tracemalloc.get_traced_memory()[0]))
            yield f"{sessions.WORDS[i % len(sessions.WORDS)]} ".encode()

    chunks, out = arriving(), Nowhere()
    tracemalloc.start()
    try:
        translate_live(model, policy, lambda: next(chunks, b""), out)
    finally:
        tracemalloc.stop()
    assert out.written > words
    return measured


def check_constant(measured: list[tuple[int, int, int]], slack: int) -> None:
    buffers, active, python = zip(*measured, strict=True)
    assert len(set(buffers)) == 1
    assert max(active) - min(active) < 200_000
    assert python[-1] - python[0] < slack, python


@pytest.mark.long
def test_a_live_stream_without_end_does_not_grow(tokenizer: Any) -> None:
    check_constant(endless_stream(tokenizer, WaitK(2), words=400, from_word=200), slack=200_000)


# --- what cannot be


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_source": 0}, "model.max_source is 0; accepted are a number of tokens, at least 1, and null"),
        ({"max_target": "all"}, "model.max_target is 'all'; accepted are a number of tokens"),
        ({"sinks": -1}, "model.sinks is -1; accepted is a number of tokens, at least 0"),
        ({"kv_bits": 3}, "model.kv_bits is 3; accepted are 8, 4 and null"),
        ({"kv_bits": 8, "kv_group_size": 40}, "model.kv_group_size is 40; accepted are 32, 64 and 128"),
    ],
)
def test_a_value_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as error:
        ModelConfig("bundled:tiny-en-de", **options)
    assert message in str(error.value)


def test_a_window_needs_room_beside_what_is_never_forgotten() -> None:
    with pytest.raises(ModelError, match=r"model.max_target is 4, and 4 tokens .* are never forgotten: give it more"):
        ModelConfig("bundled:tiny-en-de", max_target=4).load()


def test_other_paradigms_are_refused(model: Any) -> None:
    with pytest.raises(
        ValueError, match=r"are for paradigm=group, sentences, continuous and revised, and the paradigm is Interleaved"
    ):
        memories(Retention(max_source=20), model, Interleaved())


@pytest.mark.parametrize("name", ["gpt2", "deepseek_v3", "gpt_oss"])
def test_positions_that_do_not_add_up_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"model.max_source and model.max_target need rotary positions that add up"):
        memories(Retention(max_source=20), build(FAMILY[name]), Group())


def test_a_batch_of_quantised_streams_says_that_it_goes_one_by_one(tokenizer: Any) -> None:
    model = tiny.random_model(0, len(tokenizer), hidden=128)
    reason = batching(streaming(model, tokenizer, kv_bits=8, kv_group_size=32)).why_not
    assert reason == "quantised keys and values need a memory for each sentence"
    assert batching(streaming(model, tokenizer)).why_not is None


def test_windows_in_a_batch_are_windows_alone(tokenizer: Any) -> None:
    model = streaming(endless(tokenizer), tokenizer, **WINDOWS)
    assert batching(model).why_not is None
    examples = [Example(str(i), TEXT * (i + 1), "") for i in range(3)]
    limits = Limits(length_ratio=1, length_extra=1)
    found = [
        {trace.id: replace(trace, elapsed=(), events=(), stats={}) for trace in traces}
        for traces in (translate_many(model, examples, WaitK(2), limits, batch_size=size) for size in (1, 3))
    ]
    assert found[0] == found[1]
    assert all(len(trace.units) > 16 for trace in found[0].values())
