"""The memories of all paradigms, held against forwards from scratch: which tokens see which, and at what positions."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import scratch
import tiny
from families import FAMILIES
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import KVCache
from reference import build

from streamllm import policies
from streamllm.cache.dual import SourceView
from streamllm.engine.limits import Limits
from streamllm.engine.loop import translate
from streamllm.engine.paradigms.group import Group
from streamllm.engine.paradigms.interleaved import Interleaved
from streamllm.engine.paradigms.memory import Memory, Paradigm, TargetStart
from streamllm.engine.paradigms.reencoded import Batch, BatchPositions
from streamllm.engine.session import Session
from streamllm.models.loading import ModelConfig
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
    LocalAgreement,
    MultiK,
    Oracle,
    Stride,
    WaitIfDiff,
    WaitIfWorse,
    WaitK,
)
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import Example

VOCABULARY = 40
WIDTH, BASE = 8, 10000.0  # of a head and of the rotary positions of `tiny.random_model`
Step = tuple[str, int, int]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.random_model(3, VOCABULARY)


# What is held, and what each paradigm must make of it


@dataclass
class Held:
    """The tokens that a memory was given and has not trimmed; a target token with the source it saw, and read, then."""

    source: list[int] = field(default_factory=list)
    target: list[tuple[int, int, int]] = field(default_factory=list)  # token, source tokens seen, source tokens read
    arrival: list[int] = field(default_factory=list)
    start: int = 0  # source tokens seen by the first target token
    fresh: int = 0  # target tokens fed since the last read

    def read(self, tokens: list[int]) -> None:
        self.source += tokens
        self.arrival += tokens
        self.fresh = 0

    def write(self, tokens: list[int], hidden: int = 0) -> None:
        seen = len(self.source) - hidden
        self.start = self.start if self.target else seen
        self.target += [(token, seen, len(self.source)) for token in tokens]
        self.arrival += tokens
        self.fresh += len(tokens)

    def trim(self, n: int) -> None:
        if n:
            del self.target[-n:], self.arrival[-n:]
        self.fresh -= n

    def and_then(self, tokens: list[int]) -> "Held":
        held = Held(list(self.source), list(self.target), list(self.arrival), self.start, self.fresh)
        held.write(tokens)
        return held


Expected = Callable[[Any, Held], np.ndarray]  # logits (V,) of the last target token


def as_group(target_start: TargetStart) -> Expected:
    """A target token keeps what it saw when it was fed."""

    def expected(model: Any, held: Held) -> np.ndarray:
        start = held.start if target_start == "after_source" else target_start
        tokens, seen, _ = zip(*held.target, strict=True)
        return scratch.streams(model, held.source, tokens, seen, start)

    return expected


def as_batch(target_start: TargetStart) -> Expected:
    """All target tokens see what the last one sees."""

    def expected(model: Any, held: Held) -> np.ndarray:
        tokens, seen, _ = zip(*held.target, strict=True)
        start = seen[-1] if target_start == "after_source" else target_start
        return scratch.streams(model, held.source[: seen[-1]], tokens, [seen[-1]] * len(seen), start)

    return expected


def as_interleaved(model: Any, held: Held) -> np.ndarray:
    return scratch.sequence(model, held.arrival)


def rotated(keys: np.ndarray, position: int) -> np.ndarray:
    """Keys (..., D) turned by rotary positions, in halves."""
    angles = position * BASE ** (-np.arange(0, WIDTH, 2) / WIDTH)
    low, high = keys[..., : WIDTH // 2], keys[..., WIDTH // 2 :]
    return np.concatenate(
        [low * np.cos(angles) - high * np.sin(angles), low * np.sin(angles) + high * np.cos(angles)], axis=-1
    )


class _Unrotated:
    """A cache of one layer that keeps keys without positions, and gives them the positions of the moment.

    Tokens come one by one; ``place`` says of the next one which source it sees, and its index in its stream.
    """

    def __init__(self) -> None:
        self.source: list[tuple[np.ndarray, np.ndarray]] = []
        self.target: list[tuple[np.ndarray, np.ndarray]] = []
        self.seen: int | None = None  # None: the next token is of the source

    @property
    def offset(self) -> int:
        return len(self.source) if self.seen is None else self.seen + len(self.target)

    def make_mask(self, N: int, **_: Any) -> None:
        assert N == 1

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        bare = rotated(np.array(keys), -self.offset), np.array(values)
        (self.source if self.seen is None else self.target).append(bare)
        source, target = self.source[: self.seen], self.target if self.seen is not None else []
        keys_now = [rotated(key, at) for at, (key, _) in enumerate([*source, *target])]  # target follows the source
        values_now = [value for _, value in [*source, *target]]
        return mx.array(np.concatenate(keys_now, axis=2)), mx.array(np.concatenate(values_now, axis=2))


def as_batch_positions(model: Any, held: Held) -> np.ndarray:
    """Tokens one by one, in the order of their arrival: what a target token is stays, where it is moves on."""
    layers = [_Unrotated() for _ in model.layers]
    logits = np.zeros(0)

    def feed(token: int, seen: int | None) -> None:
        nonlocal logits
        for layer in layers:
            layer.seen = seen
        logits = np.array(model(mx.array([[token]]), cache=layers)[0, -1].astype(mx.float32))

    read = 0
    for token, seen, at in held.target:
        for source in held.source[read:at]:
            feed(source, None)
        read = max(read, at)
        feed(token, seen)
    return logits


CASES: list[tuple[Paradigm, TargetStart, Expected, bool]] = [  # whether some of the source can be hidden
    (Group(), 0, as_group(0), True),
    (Group(), 7, as_group(7), True),
    (Group(), "after_source", as_group("after_source"), True),
    (Batch(), 0, as_batch(0), True),
    (Batch(), 7, as_batch(7), True),
    (Batch(), "after_source", as_batch("after_source"), True),
    (BatchPositions(), 0, as_batch_positions, True),
    (Interleaved(), 0, as_interleaved, False),
]
each_case = pytest.mark.parametrize(
    ("paradigm", "target_start", "expected", "can_hide"),
    CASES,
    ids=[f"{type(paradigm).__name__}-{start}" for paradigm, start, _, _ in CASES],
)


def close(got: mx.array, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.array(got.astype(mx.float32)), expected, atol=5e-4, rtol=1e-3)


def play(memory: Memory, model: Any, steps: list[Step], expected: Expected, can_hide: bool) -> Held:
    """Take the steps; compare every logit. As the protocol has it, only tokens fed since the last read are trimmed, and
    nothing is read between a write and a fork."""
    held, dice = Held(), np.random.default_rng(0)

    def some(n: int) -> list[int]:
        return dice.integers(VOCABULARY, size=n).tolist()

    for action, n, m in steps:
        if action == "read":
            tokens = some(n)
            memory.read(tokens)
            held.read(tokens)
        elif action == "write":
            tokens = some(n)
            held.write(tokens)
            close(memory.write(tokens), expected(model, held))
        elif action == "trim":
            memory.trim(min(n, held.fresh))
            held.trim(min(n, held.fresh))
        elif action == "hidden" and can_hide:
            tokens, hidden = some(n), min(m, len(held.source))
            held.write(tokens, hidden)
            close(memory.write(tokens, hidden=hidden), expected(model, held))
            memory.trim(n)
            held.trim(n)
        elif action == "fork" and held.fresh:
            tokens = some(8)
            branches = memory.fork()
            two = branches.step([0, 0], tokens[:2])
            three = branches.step([1, 0, 1], tokens[2:5])
            again = branches.step([2, 0, 0], tokens[5:])
            for logits, branch in zip(two, ([tokens[0]], [tokens[1]]), strict=True):
                close(logits, expected(model, held.and_then(branch)))
            paths = ([tokens[1], tokens[2]], [tokens[0], tokens[3]], [tokens[1], tokens[4]])
            for logits, branch in zip(three, paths, strict=True):
                close(logits, expected(model, held.and_then(branch)))
            for logits, parent, token in zip(again, (2, 0, 0), tokens[5:], strict=True):
                close(logits, expected(model, held.and_then([*paths[parent], token])))
        assert memory.target_offset == len(held.target)
        assert memory.source_tokens == len(held.source)
    return held


STEPS = st.lists(
    st.tuples(st.sampled_from(["read", "write", "trim", "hidden", "fork"]), st.integers(1, 3), st.integers(1, 4)),
    min_size=2,
    max_size=9,
)
SENTENCE: list[Step] = [  # every kind of step after every other kind
    ("hidden", 2, 1),
    ("read", 3, 0),
    ("hidden", 2, 2),
    ("write", 2, 0),
    ("fork", 1, 1),
    ("hidden", 1, 1),
    ("fork", 1, 1),
    ("write", 1, 0),
    ("trim", 2, 0),
    ("write", 1, 0),
    ("read", 2, 0),
    ("hidden", 1, 3),
    ("read", 1, 0),
    ("write", 1, 0),
    ("fork", 1, 1),
    ("trim", 1, 0),
    ("hidden", 1, 4),
    ("write", 2, 0),
    ("hidden", 2, 1),
    ("write", 1, 0),
    ("fork", 1, 1),
    ("write", 1, 0),
]


@each_case
def test_every_prediction_is_that_of_a_forward_from_scratch(
    model: Any, paradigm: Paradigm, target_start: TargetStart, expected: Expected, can_hide: bool
) -> None:
    held = play(paradigm.open(model, target_start), model, SENTENCE, expected, can_hide)
    assert len(held.target) == 6


@each_case
@settings(max_examples=6, deadline=None)
@given(steps=STEPS)
def test_any_reads_and_writes_give_the_predictions_of_a_forward_from_scratch(
    model: Any, paradigm: Paradigm, target_start: TargetStart, expected: Expected, can_hide: bool, steps: list[Step]
) -> None:
    play(paradigm.open(model, target_start), model, steps, expected, can_hide)


def test_the_paradigms_differ(model: Any) -> None:
    """Else what was proven of one would say nothing of the others."""
    held = play(Group().open(model, 0), model, SENTENCE, as_group(0), True)
    rows = [expected(model, held) for _, _, expected, _ in CASES]
    for i, row in enumerate(rows):
        for other in rows[:i]:
            assert np.abs(row - other).max() > 0.05


@pytest.mark.parametrize(("paradigm", "target_start"), [(paradigm, start) for paradigm, start, _, can in CASES if can])
def test_nothing_is_left_of_a_prediction_with_source_hidden(
    model: Any, paradigm: Paradigm, target_start: TargetStart
) -> None:
    """The cache holds the same afterwards as if it had not been asked for."""
    asked, other = (paradigm.open(model, target_start) for _ in range(2))
    for memory in (asked, other):
        memory.read([1, 2, 3])
        memory.write([4, 5])
        memory.read([6])
        if memory is asked:
            memory.write([7], hidden=2)
            memory.trim(1)
        memory.write([8])
    for ours, theirs in zip(asked.caches, other.caches, strict=True):  # type: ignore[attr-defined]
        assert ours.state[2:] == theirs.state[2:]
        for array, same in zip(ours.state[:2], theirs.state[:2], strict=True):
            np.testing.assert_allclose(np.array(array), np.array(same), atol=1e-4)
        assert ours.target.visible is None


def test_a_mask_that_hides_source_is_gone_even_after_an_error(model: Any) -> None:
    memory = Group().open(model)
    memory.read([1, 2])
    with pytest.raises(Exception, match=r".*"):
        memory.write([[1, 2]], hidden=1)  # type: ignore[list-item]
    assert all(cache.target.visible is None for cache in memory.caches)


# What the paradigms are for


@pytest.mark.parametrize("seed", range(3))
def test_batch_after_the_source_is_offline_translation_of_what_was_read(seed: int) -> None:
    """mlx-lm's own cache, fresh for each prediction, over the source read so far and the target so far."""
    model, dice = tiny.random_model(seed, VOCABULARY), np.random.default_rng(seed)
    memory = Batch().open(model, "after_source")
    source: list[int] = []
    target: list[int] = []
    for n, written in ((2, 2), (1, 1), (3, 1), (1, 3)):
        tokens = dice.integers(VOCABULARY, size=n).tolist()
        memory.read(tokens)
        source += tokens
        for _ in range(written):
            tokens = dice.integers(VOCABULARY, size=1 if target else 2).tolist()
            target += tokens
            logits = memory.write(tokens)
            offline = model(mx.array([[*source, *target]]), cache=[KVCache() for _ in model.layers])
            close(logits, np.array(offline[0, -1]))


def test_without_a_read_after_the_first_write_batch_positions_is_batch(model: Any) -> None:
    """Nothing is stale then; with one, values are."""
    memories = [paradigm.open(model, "after_source") for paradigm in (Batch(), BatchPositions())]
    for memory in memories:
        memory.read([1, 2, 3])
    for tokens in ([4, 5], [6], [7]):
        first, second = (memory.write(tokens) for memory in memories)
        close(first, np.array(second))
    for memory in memories:
        memory.read([8, 9])
    first, second = (memory.write([10]) for memory in memories)
    assert mx.abs(first - second).max().item() > 0.05  # type: ignore[operator]


def test_the_target_of_interleaved_moves_behind_the_source_that_is_read(model: Any) -> None:
    """As a session does it: the last target token is trimmed before a read, and fed again after it."""
    memory = Interleaved().open(model)
    memory.read([1, 2])
    memory.write([3, 4])
    memory.trim(1)
    memory.read([5])
    close(memory.write([4]), scratch.sequence(model, [1, 2, 3, 5, 4]))


def test_the_source_of_interleaved_sees_the_target(model: Any) -> None:
    memories = [Interleaved().open(model) for _ in range(2)]
    for memory, token in zip(memories, (3, 9), strict=True):
        memory.read([1, 2])
        memory.write([token])
        memory.read([5])
    keys = [np.array(memory.caches[1].get_source()[0])[..., -1, :] for memory in memories]
    assert np.abs(keys[0] - keys[1]).max() > 0.01


def test_interleaved_refuses_to_hide_source(model: Any) -> None:
    memory = Interleaved().open(model)
    memory.read([1, 2])
    with pytest.raises(ValueError, match=r"paradigm=interleaved cannot predict.*another policy, or paradigm=group"):
        memory.write([3], hidden=1)
    assert (memory.target_offset, memory.forward_passes) == (0, 1)


SESSION = Prompt(source_header="a <", source_footer=" =>", target_header="German: cat")


@pytest.mark.parametrize("paradigm", [Interleaved(), Batch()])
def test_predictions_of_a_session_are_those_of_ordinary_forwards(tokenizer: Any, paradigm: Paradigm) -> None:
    """Interleaved: over all that arrived, in that order, but that the last target token goes behind each read. Batch:
    over the source that was read and the target that was written."""
    model, facts = tiny.random_model(1, len(tokenizer)), PromptTokens(SESSION, tokenizer)
    session = Session(paradigm.open(model, "after_source"), facts, max_unit_tokens=3)
    arrived: list[int] = []
    source: list[int] = []
    target: list[int] = []

    def arrive(tokens: list[int]) -> None:
        nonlocal arrived, source
        arrived = [*arrived[:-1], *tokens, *arrived[-1:]] if target else [*arrived, *tokens]
        source += tokens

    def compare() -> None:
        row = arrived if isinstance(paradigm, Interleaved) else [*source, *target]
        close(session.prediction().logits, scratch.sequence(model, row))

    for i, word in enumerate(("the", "cat,", "runs", "a")):
        session.read(word)
        arrive([*(facts.source_header if not i else []), *facts.source_tokens(word, first=not i)])
        for _ in range(i % 3):
            tokens = session.write().tokens
            new = [*(facts.target_header if not target else []), *tokens]
            arrived, target = [*arrived, *new], [*target, *new]
            compare()
        if target:
            compare()
    session.end_source()
    arrive(facts.source_footer)
    compare()
    assert len(target) > 6


# What it costs


@pytest.mark.parametrize(("paradigm", "fed"), [(Group(), 9), (Batch(), 14), (BatchPositions(), 9), (Interleaved(), 9)])
def test_what_is_fed_is_counted(model: Any, paradigm: Paradigm, fed: int) -> None:
    """Batch feeds the target again with the first write after each read: 2 tokens, then 3."""
    memory = paradigm.open(model)
    for read, write in (([1, 2, 3], [4, 5]), ([6], [7])):
        memory.read(read)
        memory.write(write)
    memory.read([8])
    assert (memory.forward_passes, memory.fed_tokens, memory.source_tokens) == (5, 8 + 2 * (fed > 9), 5)
    memory.write([9])
    assert (memory.forward_passes, memory.fed_tokens, memory.source_tokens) == (6, fed, 5)


def test_a_branch_costs_a_forward_for_all_and_a_token_for_each(model: Any) -> None:
    memory = Group().open(model)
    memory.read([1, 2, 3])
    memory.write([4, 5])
    branches = memory.fork()
    branches.step([0, 0, 0], [6, 7, 8])
    branches.step([2, 1], [9, 10])
    assert (memory.forward_passes, memory.fed_tokens, memory.source_tokens) == (4, 10, 3)


@pytest.mark.parametrize("paradigm", [Group(), Batch(), BatchPositions(), Interleaved()])
def test_a_paradigm_names_a_mask_of_training(paradigm: Paradigm) -> None:
    assert paradigm.trained_as == ("interleaved" if isinstance(paradigm, Interleaved) else "group")


# Other families


FAMILY = {family.name: family for family in FAMILIES}
# Its own attention, sliding windows, shared keys, attention sinks, latent attention, learned positions, sequences.
OTHERS = ["gemma2", "gemma3_text", "gemma3n", "gpt_oss", "deepseek_v3", "gpt2", "internlm3", "cohere2"]


@pytest.mark.parametrize("name", OTHERS)
def test_hidden_source_is_as_if_it_had_not_been_read(name: str) -> None:
    model = build(FAMILY[name])
    whole, part = Group().open(model, 2), Group().open(model, 2)
    whole.read([3, 9, 4, 11, 5, 17])
    part.read([3, 9, 4, 11])
    got = np.array(whole.write([7, 8], hidden=2).astype(mx.float32))
    expected = np.array(part.write([7, 8]).astype(mx.float32))
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()
    whole.trim(2)
    unhidden = np.array(whole.write([7, 8]).astype(mx.float32))
    assert np.abs(unhidden - expected).max() > 1e-2 * np.abs(expected).max()


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("paradigm", [Group(), Interleaved()])
def test_branches_are_what_the_target_would_be(name: str, paradigm: Paradigm) -> None:
    model = build(FAMILY[name])
    memory = paradigm.open(model)
    memory.read([3, 9, 4, 11, 5, 17])
    memory.write([7, 8])
    branches = memory.fork()
    branches.step([0, 0], [4, 5])
    logits = branches.step([1, 0, 1], [6, 7, 8])
    for row, path in zip(logits, ([5, 6], [4, 7], [5, 8]), strict=True):
        alone = memory.write(path)
        memory.trim(2)
        assert mx.abs(row - alone).max().item() < 1e-4 * mx.abs(alone).max().item()  # type: ignore[operator]


ROTATED_ON = ["qwen2", "llama", "gemma3_text", "mistral3", "phi", "gptj", "smollm3", "glm4", "ministral3", "qwen3_moe"]


@pytest.mark.parametrize("name", ROTATED_ON)
def test_keys_are_moved_to_where_they_would_have_been_computed(name: str) -> None:
    """In the first layer, where they depend on nothing but the token and its position."""
    model = build(FAMILY[name])
    memory = BatchPositions().open(model)
    for read, write in (([3, 9], [7, 8]), ([4, 11, 2], [3]), ([5], [5])):
        memory.read(read)
        memory.write(write)
    there = Group().open(model, 6)
    there.write([7, 8, 3, 5])
    moved, computed = (np.array(each.caches[0].get_target()[0]) for each in (memory, there))
    np.testing.assert_allclose(moved, computed, atol=1e-5 * np.abs(computed).max() + 1e-5)


REFUSED = ["gpt2", "gpt_bigcode", "deepseek_v2", "deepseek_v3", "deepseek_v3-yarn", "phi3-longrope", "gpt_oss",
           "hunyuan_v1_dense", "llama4_text", "gemma3n", "minicpm3", "nanbeige"]  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_positions_that_do_not_add_up_are_refused(name: str) -> None:
    """Learned ones, ones that scale, latent attention, a norm after the rotation, layers without any."""
    with pytest.raises(ValueError, match=r"paradigm=batch_positions needs rotary positions.*choose paradigm=batch"):
        BatchPositions().open(build(FAMILY[name]))


# The source is never encoded twice


SENTENCES = ("A man rides a horse .", "Two dogs play in the snow with a ball .", "Hello")
POLICIES: dict[str, Any] = {
    "RALCP": RALCP(beam=3, threshold=0.6),
    "AlignAtt": AlignAtt(f=1),
    "DOA": DOA(f=1),
    "DST": DST(threshold=0.6),
    "DrFrattn": DrFrattn(threshold=0.3),
    "LSG": LSG(delta=0.5, alpha=0.6, k_min=1, k_more=3),
    "Bounded": Bounded(LocalAgreement(2), min_lag=2, max_lag=4),
    "Confidence": Confidence(0.5),
    "Entropy": Entropy(1.5),
    "Full": Full(),
    "HoldN": HoldN(2),
    "LocalAgreement": LocalAgreement(2),
    "MultiK": MultiK(k_min=1, k_max=4, threshold_min=0.8, threshold_max=0.4),
    "Oracle": Oracle([1, 1, 3, 3, 4]),
    "Stride": Stride(initial=2, step=2),
    "WaitIfDiff": WaitIfDiff(initial=2, step=1),
    "WaitIfWorse": WaitIfWorse(initial=2, step=1),
    "WaitK": WaitK(2, catchup=0.25),
}


class _Counting:
    """A model that counts the source tokens which it is given."""

    def __init__(self, model: Any):
        self.model, self.layers, self.source_tokens = model, model.layers, 0

    def __call__(self, tokens: mx.array, cache: Any) -> mx.array:
        self.source_tokens += tokens.size * isinstance(cache[0], SourceView)
        logits: mx.array = self.model(tokens, cache=cache)
        return logits


@pytest.fixture(scope="module")
def bundled() -> Any:
    return ModelConfig("bundled:tiny-en-de").load()


def test_every_policy_is_asked() -> None:
    """But Learned and WaitToken, which ask what the bundled model lacks (test_write_head.py, test_wait_token.py), and
    Frontier, which looks at the reference (test_frontier.py)."""
    assert set(POLICIES) == set(policies.__all__) - {"Learned", "WaitToken", "Frontier"}


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_no_group_policy_encodes_the_source_again(bundled: Any, name: str) -> None:
    facts = bundled.prompt
    for text in SENTENCES:
        model = _Counting(bundled.model)
        session = Session(Group().open(model, 0), facts, alignment_heads=bundled.alignment_heads)
        trace = translate(session, Example("1", text, ""), POLICIES[name], Limits(length_extra=5))
        units = [facts.source_tokens(unit, first=i == 0) for i, unit in enumerate(text.split())]
        once = len(facts.source_header) + sum(map(len, units)) + len(facts.source_footer)
        assert session.source_tokens == trace.stats["source_tokens"] == once
        assert model.source_tokens == once
        assert [cache.source_offset for cache in session.memory.caches] == [once] * len(model.layers)  # type: ignore[attr-defined]
        assert trace.units


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_no_group_policy_encodes_the_source_again_with_a_model_that_hesitates(tokenizer: Any, name: str) -> None:
    """A random one, which ends sentences early, and drafts something else after every read."""
    facts = PromptTokens(Prompt(source_header="a <", source_footer=" =>", target_header="German:"), tokenizer)
    words = ["the", "dog", "runs", ","]
    once = len(facts.source_header) + len(facts.source_footer)
    once += sum(len(facts.source_tokens(word, first=i == 0)) for i, word in enumerate(words))
    for seed, end in enumerate((6.0, 2.0)):
        model = _Counting(tiny.Biased(tiny.random_model(seed, len(tokenizer)), tiny.sentence_bias(tokenizer, end)))
        session = Session(Group().open(model, 0), facts, max_unit_tokens=4, alignment_heads=[[0, 1]])
        translate(session, Example("1", " ".join(words), ""), POLICIES[name], Limits(length_ratio=1, length_extra=3))
        assert (session.source_tokens, model.source_tokens) == (once, once)


def test_a_session_whose_forward_failed_halfway_goes_no_further() -> None:
    """Its first layers would hold a token that the others do not."""
    model = tiny.random_model(2, 64)
    memory = Group().open(model)
    memory.read([1, 2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model.layers[1]), "__call__", fails)
        with pytest.raises(OSError, match="no memory"):
            memory.read([3])
    with pytest.raises(RuntimeError, match="open a new session"):
        memory.write([4])


def fails(*args: Any, **kwargs: Any) -> None:
    raise OSError("no memory")
