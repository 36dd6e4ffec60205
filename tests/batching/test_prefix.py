"""A source header that is fed once gives what it gives where each sentence is fed it anew: in memories of all
paradigms, in pools, in whole translations."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_map
from mlx_lm.tuner.utils import linear_to_lora_layers

from streamllm.batching.coroutines import Task, run_all
from streamllm.batching.pool import Pool
from streamllm.batching.scheduler import translate_many
from streamllm.cache.retention import Retention
from streamllm.cpu.decoder import Decoder
from streamllm.engine.loop import translate
from streamllm.engine.paradigms.group import Group, GroupMemory
from streamllm.engine.paradigms.interleaved import Interleaved
from streamllm.engine.paradigms.memory import CachedMemory, Memory
from streamllm.engine.paradigms.reencoded import Batch, BatchPositions
from streamllm.engine.paradigms.windows import memories
from streamllm.engine.prefix import Prefix
from streamllm.engine.session import Session
from streamllm.models.model import StreamingModel
from streamllm.policies import WaitK
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import Example

VOCABULARY = 40
HEADER = Prompt(source_header="the dog a cat runs: dog <", source_footer=" =>", target_header="German:")
LONGEST = 20  # tokens of a header
WINDOWS = Retention(max_source=LONGEST + 10, max_target=12, sinks=2)
EIGHT_BITS = Retention(kv_bits=8, kv_group_size=32)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.random_model(3, VOCABULARY, hidden=128)  # heads of 32, which can be quantised


Open = Callable[[Any], Any]
OPEN: dict[str, Open] = {
    "batch": lambda model: Batch().open(model, "after_source"),
    "batch positions": lambda model: BatchPositions().open(model),
    "group": lambda model: Group().open(model),
    "group, target after the source": lambda model: Group().open(model, "after_source"),
    "group, target start 5": lambda model: Group().open(model, 5),
    "interleaved": lambda model: Interleaved().open(model),
}


@pytest.fixture(scope="module")
def opens(model: Any) -> dict[str, Callable[[], CachedMemory]]:
    """What opens empty memories: what can be tried once is."""
    windows, quantised = memories(WINDOWS, model, Group(), LONGEST, 2), memories(EIGHT_BITS, model, Group())
    return {name: partial(open_one, model) for name, open_one in OPEN.items()} | {
        "windows": lambda: windows(3),
        "quantised": lambda: quantised("after_source"),
    }


def prefix_of(model: Any, memory: CachedMemory, header: list[int]) -> Prefix:
    memory.read(header)
    return Prefix(model, header, memory.caches)


def walk(memory: Memory, header: list[int], seed: int, writes_first: bool = False) -> np.ndarray:
    """Logits after the writes of a random sentence."""
    dice = random.Random(seed)

    def tokens(most: int) -> list[int]:
        return [dice.randrange(VOCABULARY) for _ in range(dice.randint(1, most))]

    logits = [np.array(memory.write(tokens(2)))] if writes_first else []
    memory.read([*header, *(tokens(5) if dice.random() < 0.8 else [])])
    for _ in range(4):
        for _ in range(dice.randint(0, 3)):
            memory.read(tokens(4))
        new = tokens(3)
        logits.append(np.array(memory.write(new)))
        memory.trim(dice.randrange(len(new)))
    return np.stack(logits)


def assert_close(got: np.ndarray, true: np.ndarray, tolerance: float = 1e-4) -> None:
    assert np.abs(got - true).max() <= tolerance * np.abs(true).max()


@pytest.mark.parametrize("kind", [*OPEN, "quantised", "windows"])
@settings(max_examples=6, deadline=None)
@given(length=st.integers(1, LONGEST), seed=st.integers(0, 10**6), writes_first=st.booleans())
def test_a_memory_that_begins_with_a_prefix_gives_the_same(
    model: Any, opens: dict[str, Callable[[], CachedMemory]], kind: str, length: int, seed: int, writes_first: bool
) -> None:
    header = [random.Random(seed).randrange(VOCABULARY) for _ in range(length)]
    plain, sharing = opens[kind](), opens[kind]()
    sharing.prefix = prefix_of(model, opens[kind](), header)
    before = [np.array(array) for cache in sharing.prefix.caches for array in cache.buffers]
    writes_first = writes_first and kind != "interleaved"  # which then reads the header after it
    # Rounding may decide between two steps of quantisation.
    close = partial(assert_close, tolerance=0.02 if kind == "quantised" else 1e-4)
    close(walk(sharing, header, seed, writes_first), walk(plain, header, seed, writes_first))
    counts = ("forward_passes", "source_tokens", "fed_tokens", "source_gap", "target_offset")
    assert [getattr(sharing, name) for name in counts] == [getattr(plain, name) for name in counts]
    after = [np.array(array) for cache in sharing.prefix.caches for array in cache.buffers]
    assert all((one == other).all() for one, other in zip(before, after, strict=True)), "the prefix stays as it was"


def test_a_prefix_is_not_fed_again(model: Any) -> None:
    header = list(range(12))
    memory = Group().open(model)
    memory.prefix = prefix_of(model, Group().open(model), header)
    lengths: list[int] = []
    memory.model = lambda tokens, **options: lengths.append(tokens.shape[1]) or model(tokens, **options)  # type: ignore[func-returns-value]
    memory.model.parameters, memory.model.args = model.parameters, model.args
    memory.read([*header, 3, 4])
    assert lengths == [2]


def test_a_memory_is_not_misled_by_a_prefix_of_other_tokens(model: Any) -> None:
    memory, plain = Group().open(model), Group().open(model)
    memory.prefix = prefix_of(model, Group().open(model), list(range(12)))
    header = [*range(11), 30]
    assert_close(walk(memory, header, 1), walk(plain, header, 1), 0)


@pytest.mark.parametrize("computes", ["MLX", "numpy"])
@pytest.mark.parametrize("retention", [Retention(), WINDOWS], ids=["whole", "windows"])
@pytest.mark.parametrize("start", [0, "after_source"])
def test_rows_of_a_pool_that_begin_with_a_prefix_give_what_memories_give(
    model: Any, computes: str, retention: Retention, start: Any
) -> None:
    decoder = Decoder.of(model) if computes == "numpy" else None
    if computes == "numpy" and decoder is None:
        pytest.skip("numpy computes where MKL does")
    header = [7 * i % VOCABULARY for i in range(LONGEST)]
    forgetting = Group().forgetting(model, retention, LONGEST, 2)
    prefix = prefix_of(model, GroupMemory(model), header)
    pool = Pool(model, 3, start, True, forgetting, decoder, prefix)

    def task(seed: int) -> Task[Any]:
        return lambda row, clock: (seed, walk(row, header, seed), row.forward_passes, row.fed_tokens)

    total = 0
    for seed, logits, passes, fed in run_all(pool, map(task, range(8))):  # rows are taken again
        total += fed
        alone = GroupMemory(model, start, forgetting=forgetting)
        assert_close(logits, walk(alone, header, seed))
        assert (passes, fed) == (alone.forward_passes, alone.fed_tokens)
    if computes == "numpy":  # it pads nothing
        assert pool.fed_tokens == total - 8 * LONGEST, "no row is fed its header"


def test_rows_that_begin_otherwise_share_a_forward_with_those_that_do(model: Any) -> None:
    decoder = Decoder.of(model)
    if decoder is None:
        pytest.skip("numpy computes where MKL does")
    header = [7 * i % VOCABULARY for i in range(LONGEST)]
    pool = Pool(model, 5, 0, True, None, decoder, prefix_of(model, GroupMemory(model), header))

    def begins(seed: int) -> list[int]:
        return header if seed % 3 else [1, 2, seed]

    def task(seed: int) -> Task[Any]:
        return lambda row, clock: (seed, walk(row, begins(seed), seed, writes_first=seed % 4 == 1))

    for seed, logits in run_all(pool, map(task, range(9))):
        assert_close(logits, walk(GroupMemory(model), begins(seed), seed, writes_first=seed % 4 == 1))


# Whole translations


def streaming(tokenizer: Any, **options: Any) -> StreamingModel:
    model = tiny.random_model(5, len(tokenizer))
    return StreamingModel(model, PromptTokens(HEADER, tokenizer), tokenizer, **options)


@pytest.fixture
def sentences() -> list[Example]:
    words = ["the", "dog", "cats", "Größe", "jumping."]
    return [Example(str(i), " ".join(words[: i % 6]), "") for i in range(9)]


def traces(found: Iterator[Any]) -> list[Any]:
    plain = (replace(trace, elapsed=(), events=tuple((e.kind, e.text) for e in trace.events)) for trace in found)
    stats = [(trace, {key: n for key, n in trace.stats.items() if key != "seconds"}) for trace in plain]
    return sorted(((replace(trace, stats={}), counts) for trace, counts in stats), key=lambda pair: pair[0].id)


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.long), 4])
def test_translations_are_those_of_sentences_that_are_fed_their_header(
    tokenizer: Any, sentences: list[Example], batch_size: int
) -> None:
    model = streaming(tokenizer, target_start="after_source")
    assert model.prefix is not None
    policy = WaitK(2)

    def alone() -> Iterator[Any]:
        for example in sentences:
            session = Session(Group().open(model.model, "after_source"), model.prompt)
            yield translate(session, example, policy)

    assert traces(translate_many(model, sentences, policy, batch_size=batch_size)) == traces(alone())


def test_a_prefix_is_kept_until_the_prompt_or_a_weight_is_another(tokenizer: Any) -> None:
    model = streaming(tokenizer)
    first = model.prefix
    assert first is not None
    assert model.session().memory.prefix is first is model.prefix  # type: ignore[attr-defined]
    model.prompt = PromptTokens(replace(HEADER, source_header="the cat a dog runs: cat <"), tokenizer)
    second = model.prefix
    assert second is not None and second.tokens == model.prompt.source_header != first.tokens
    model.model.update(tree_map(lambda weight: 1.01 * weight, model.model.parameters()))  # as an optimizer does
    assert model.prefix is not second
    third = model.prefix
    linear_to_lora_layers(model.model, 1, {"rank": 2, "scale": 1.0, "dropout": 0.0})
    assert model.prefix is not third


def test_a_short_header_is_fed_with_the_first_unit(tokenizer: Any) -> None:
    model = streaming(tokenizer)
    model.prompt = PromptTokens(replace(HEADER, source_header="a <"), tokenizer)
    assert model.prefix is None
