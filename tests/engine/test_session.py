"""A sentence on its way through a model. Random models are held against an oracle that computes each step
from scratch; a model that shows what it sees tells the rules apart."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from sessions import tokens_of

from streamllm.engine.limits import Limits
from streamllm.engine.loop import translate
from streamllm.engine.paradigms.group import GroupMemory
from streamllm.engine.sampling import Sampling
from streamllm.engine.session import Session
from streamllm.models.model import StreamingModel
from streamllm.policies import Full, WaitK
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import READ, WRITE, Action, Decide, Example, Policy, State

TIE = 1e-3  # top-2 margin under which float32 may decide either way
PROMPT = Prompt(source_header="a <", source_footer=" =>", target_header="German:")
SOURCES = ("a cat, the Größe: 你好.", "the", "")


class RandomPolicy:
    """READ and WRITE as a die says."""

    def __init__(self, seed: int, chance: float = 0.5):
        self._seed, self._chance = seed, chance

    def start(self, example: Example) -> Decide:
        dice = random.Random(f"{self._seed}/{example.id}")

        def decide(state: State) -> Action:
            return READ if dice.random() < self._chance else WRITE

        return decide


# The oracle


class _FromScratch:
    """What a model sees in place of a cache when each token is a row of its own: all keys, positions, a mask."""

    def __init__(self, positions: list[int], mask: np.ndarray):
        self.offset = mx.array(positions)
        self._mask = mx.array(mask)[:, None, None, :]  # (L, 1, 1, L)

    def make_mask(self, N: int, **_: Any) -> mx.array:
        return self._mask

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """(L, H, 1, D) -> (L, H, L, D): every row attends to the tokens of all rows."""

        def all_rows(array: mx.array) -> mx.array:
            return mx.broadcast_to(array.transpose(2, 1, 0, 3), (array.shape[0], array.shape[1], *array.shape[::3]))

        return all_rows(keys), all_rows(values)


class Oracle:
    """DESIGN.md's loop on two lists of tokens; everything is computed anew for every prediction.

    It knows the vocabulary as bytes and nothing of streamllm.
    """

    def __init__(self, model: Any, tokenizer: Any, prompt: Prompt, unit: str, phi: Any, ends: set[int], longest: int):
        self._model, self._tokenizer, self._prompt = model, tokenizer, prompt
        self._unit, self._phi, self._ends, self._longest = unit, phi, ends, longest
        self._bytes = tiny.token_bytes(tokenizer)
        self.source: list[int] = []
        self.target: list[tuple[int, int]] = []  # token, number of source tokens it saw when it was last fed
        self._pending = self._encode(prompt.target_header)
        self._predicted: tuple[int, int, int] | None = None  # token, source and target length
        self.logits: list[np.ndarray] = []
        self.forward_passes = 0
        self._stopped = False
        self._wrote = self._stale = False  # whether the last unit's end was predicted from less source
        self.extends = False
        self._written = ""

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False)) if text else []

    def text(self, tokens: Sequence[int]) -> str:
        return b"".join(self._bytes[token] for token in tokens).decode("utf-8", "replace")

    def read(self, text: str) -> None:
        self.source += self._encode(text)
        self.forward_passes += bool(text)
        if text and not self._pending:
            self._stale = self._wrote

    def next_token(self) -> int:
        seen = len(self.source)
        if not self._pending and self._predicted and self._predicted[1:] == (seen, len(self.target)):
            return self._predicted[0]
        if self._phi == "after_source":
            self._phi = seen
        self.target += [(token, seen) for token in self._pending]
        if not self._pending:  # source has come since the last token was fed
            self.target[-1] = (self.target[-1][0], seen)
        self._pending = []
        self.logits.append(self._forward())
        self.forward_passes += 1
        token = int(self.logits[-1].argmax())
        self._predicted = (token, seen, len(self.target))
        return token

    def _forward(self) -> np.ndarray:
        """Logits of the last token."""
        S, T = len(self.source), len(self.target)
        mask = np.zeros((S + T, S + T), bool)
        mask[:S, :S] = np.tri(S, dtype=bool)
        mask[S:, S:] = np.tri(T, dtype=bool)
        for row, (_, seen) in enumerate(self.target):
            mask[S + row, :seen] = True
        positions = [*range(S), *range(self._phi, self._phi + T)]
        tokens = mx.array([*self.source, *(token for token, _ in self.target)])[:, None]
        cache = _FromScratch(positions, mask)
        return np.array(self._model(tokens, cache=[cache] * len(self._model.layers))[-1, -1])

    def write(self, done: bool) -> list[str] | None:
        """The units that the next tokens make up, None for the end token."""
        unit: list[int] = []
        tail = ""
        while True:
            token = self.next_token()
            if token in self._ends:
                break
            if self._prompt.stop and self._prompt.stop in self.text([token]):
                if done and not self._stopped:  # the text before the stop belongs to the sentence
                    tail = self.text([token]).split(self._prompt.stop)[0]
                    self._stopped = True
                break
            if len(unit) >= self._longest or (self._unit == "word" and self._divides(unit, token)):
                break
            self._pending = [token]
            unit.append(token)
            text = self.text(unit)
            if self._unit == "character" and text.strip() and not text.endswith("\ufffd"):
                break
        text = self.text(unit) + tail
        after_space = self._written[-1:].isspace()
        self._written += text
        units = text.split() if self._unit == "word" else self._characters(text)
        if not units:
            return None
        first = self._bytes[unit[0]] if unit else b"."
        begins = after_space or not first or first.startswith((b" ", b"\n", b"\r", b"\t"))
        self.extends = self._stale and self._unit == "word" and not begins
        self._wrote, self._stale = True, False
        return units

    def _characters(self, text: str) -> list[str]:
        """Each with a space before it where white space is written there, but not at the beginning."""
        start, units = len(self._written) - len(text), []
        for at, char in enumerate(text, start):
            before = self._written[:at]
            if not char.isspace():
                units.append((" " if before[-1:].isspace() and before.strip() else "") + char)
        return units

    def _divides(self, unit: list[int], following: int) -> bool:
        space = (b" ", b"\n", b"\r", b"\t")
        if not self.text(unit).strip():
            return False
        return self._bytes[following].startswith(space) or self._bytes[unit[-1]].endswith(space)


def oracle_events(
    oracle: Oracle, words: list[str], decide: Decide, prompt: Prompt, limit: int
) -> list[tuple[str, str]]:
    """The steps of a sentence as (kind, text)."""
    events: list[tuple[str, str]] = []
    read = written = 0
    done = False
    ready: list[str] = []
    while True:
        full = written >= 2 * read + limit
        if done and full:
            return [*events, ("stop", "max_units")]
        take = "forced_read" if full else "read"
        write = not full and (done or decide(State(read, written, done)) == WRITE)
        if write:
            fresh = [] if ready else oracle.write(done) or []
            extends = bool(fresh) and oracle.extends
            ready = ready or fresh
            if ready:
                events.append(("extend" if extends else "write", ready.pop(0)))
                written += not extends
                continue
            if done:
                return [*events, ("stop", "end_token")]
            take = "forced_read"
        header = prompt.source_header if not oracle.source else ""
        if read < len(words):
            oracle.read(header)
            oracle.read((" " if read or prompt.leading_space else "") + words[read])
            oracle.forward_passes -= bool(header)  # header and word go in together
            events.append((take, words[read]))
            read += 1
        else:
            oracle.read(header)
            oracle.read(prompt.source_footer)
            oracle.forward_passes -= bool(header) and bool(prompt.source_footer)
            events.append(("end", ""))
            done = True


def compare_with_oracle(
    model: Any,
    tokenizer: Any,
    policy: Policy,
    source: str,
    prompt: Prompt = PROMPT,
    unit: Any = "word",
    phi: Any = 0,
    longest: int = 8,
) -> tuple[list[tuple[str, str]], bool]:
    """Translate with a session and with the oracle; returns the events, and whether all could be compared."""
    facts = PromptTokens(prompt, tokenizer, "word", unit)
    logits: list[np.ndarray] = []

    def greedy(logprobs: mx.array) -> mx.array:
        logits.append(np.array(logprobs[0]))
        return mx.argmax(logprobs, axis=-1)

    example = Example("1", source, "")
    session = Session(GroupMemory(model, phi), facts, greedy, max_unit_tokens=longest)
    trace = translate(session, example, policy, Limits(length_extra=4), target_unit=unit)
    oracle = Oracle(model, tokenizer, prompt, unit, phi, set(facts.end_tokens), longest)
    expected = oracle_events(oracle, source.split(), policy.start(example), prompt, 4)
    for ours, theirs in zip(logits, oracle.logits, strict=False):
        theirs = theirs - np.logaddexp.reduce(theirs)
        np.testing.assert_allclose(ours, theirs, atol=2e-4, rtol=1e-4)
        second, first = np.sort(theirs)[-2:]
        if first - second < TIE:
            return expected, False
    assert [(event.kind, event.text) for event in trace.events] == expected
    assert len(logits) == len(oracle.logits)
    assert session.forward_passes == oracle.forward_passes
    assert [cache.source_offset for cache in session.memory.caches] == [len(oracle.source)] * len(session.memory.caches)
    assert session.source_tokens == len(oracle.source)
    return expected, True


@pytest.fixture(scope="module")
def random_models(tokenizer: Any) -> list[Any]:
    """From one that ends its sentences early to one that seldom does."""
    biases = [tiny.sentence_bias(tokenizer, end) for end in (6.0, 5.0, 0.0)]
    return [tiny.Biased(tiny.random_model(seed, len(tokenizer)), bias) for seed, bias in enumerate(biases)]


def test_sentences_are_those_of_a_forward_from_scratch(random_models: list[Any], tokenizer: Any) -> None:
    policies: list[Policy] = [WaitK(1), WaitK(3), Full(), RandomPolicy(1)]
    outcomes = [
        compare_with_oracle(model, tokenizer, policy, text)
        for policy in policies
        for model in random_models
        for text in SOURCES
    ]
    assert sum(whole for _, whole in outcomes) >= 0.8 * len(outcomes)
    # The sentences were varied, else the comparison would prove little.
    events = [event for events, _ in outcomes for event in events]
    units = [text for kind, text in events if kind == "write"]
    assert {kind for kind, _ in events} == {"read", "forced_read", "end", "write", "extend", "stop"}
    assert {text for kind, text in events if kind == "stop"} == {"end_token", "max_units"}
    assert any(len(tokenizer.encode(unit, add_special_tokens=False)) > 2 for unit in units)
    assert any(not unit[-1].isalnum() for unit in units)
    assert len(set(units)) > 30


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(10, 10**6),
    words=st.lists(st.sampled_from(["the", "dog", "cats", "Größe", "你好", "<run>", "a,"]), max_size=5),
    chance=st.floats(0.1, 0.9),
    end=st.floats(0, 7),
    unit=st.sampled_from(["word", "character"]),
    phi=st.sampled_from([0, 7, "after_source"]),
    stop=st.sampled_from([None, None, "."]),
)
def test_any_model_any_interleaving(
    tokenizer: Any, seed: int, words: list[str], chance: float, end: float, unit: str, phi: Any, stop: str | None
) -> None:
    bias = np.array(tiny.sentence_bias(tokenizer, end))
    if unit == "character":  # characters of several tokens, whole and broken
        bias += [4.0 if any(byte >= 128 for byte in text) else 0.0 for text in tiny.token_bytes(tokenizer)]
    model = tiny.Biased(tiny.random_model(seed, len(tokenizer)), mx.array(bias))
    prompt = replace(PROMPT, stop=stop)
    compare_with_oracle(model, tokenizer, RandomPolicy(seed, chance), " ".join(words), prompt, unit, phi)


@pytest.mark.parametrize("longest", [1, 2])
def test_long_units_are_cut_as_the_oracle_cuts_them(random_models: list[Any], tokenizer: Any, longest: int) -> None:
    for model in random_models:
        compare_with_oracle(model, tokenizer, WaitK(2), SOURCES[1], longest=longest)


def test_target_positions_start_at_target_start(random_models: list[Any], tokenizer: Any) -> None:
    """The same sentence comes out otherwise when they do not."""
    events = [compare_with_oracle(random_models[2], tokenizer, WaitK(2), SOURCES[0], phi=phi)[0] for phi in (0, 7)]
    assert events[0] != events[1]


def test_a_target_after_the_source_goes_on_where_the_source_stood_at_the_first_write(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence(" dog", " cat"), target_start="after_source")
    for word in ("the", "dog"):
        session.read(word)
    start = session.memory.caches[0].source_offset
    session.write()
    assert session.memory.caches[0].target.offset == start + session.memory.caches[0].target_offset
    session.read("runs")
    session.write()
    assert session.memory.caches[0].target.offset == start + session.memory.caches[0].target_offset


def test_an_offline_sentence_after_its_source_is_that_of_one_stream(random_models: list[Any], tokenizer: Any) -> None:
    """The logits are those of mlx-lm's own cache, fed source and target in a row."""
    from mlx_lm.models.cache import KVCache

    model = random_models[2]
    seen: list[np.ndarray] = []

    def greedy(logprobs: mx.array) -> mx.array:
        seen.append(np.array(logprobs[0]))
        return mx.argmax(logprobs, axis=-1)

    session = Session(GroupMemory(model, "after_source"), PromptTokens(PROMPT, tokenizer), greedy)
    for word in ("the", "dog"):
        session.read(word)
    session.end_source()
    tokens = [token for _ in range(3) for token in session.write().tokens]
    source = tokenizer.encode("a <the dog =>", add_special_tokens=False)
    row = [*source, *tokenizer.encode("German:", add_special_tokens=False), *tokens]
    logits = np.array(model(mx.array([row]), cache=[KVCache() for _ in model.layers])[0, -1 - len(tokens) :])
    expected = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    np.testing.assert_allclose(np.array(seen[: len(expected)]), expected, atol=2e-4, rtol=1e-4)


def test_an_empty_footer_and_header_are_fed_as_nothing(random_models: list[Any], tokenizer: Any) -> None:
    for prompt in (Prompt(target_header="German:"), Prompt(source_footer=" =>", target_header="German:")):
        for text in ("the dog", ""):
            compare_with_oracle(random_models[1], tokenizer, WaitK(2), text, prompt)


# Rules, one at a time. A Scripted model says what comes next from the text it finds in its cache.

SCRIPTED = Prompt(source_header="<bos>", source_footer="<stop>", target_header="<mark>")


def scripted(
    tokenizer: Any,
    say: Callable[[str, str], str],
    prompt: Prompt = SCRIPTED,
    unit: Any = "word",
    target_start: Any = 0,
    **options: Any,
) -> Session:
    model = tiny.Scripted(tokenizer, say)
    return Session(GroupMemory(model, target_start), PromptTokens(prompt, tokenizer, "word", unit), **options)


def sentence(*pieces: str) -> Callable[[str, str], str]:
    """Says the pieces one after the other, then the end token, whatever it reads."""
    texts = ["".join(pieces[:n]) for n in range(len(pieces))]

    def say(source: str, target: str) -> str:
        return pieces[texts.index(target)] if target in texts else "<end>"

    return say


class _Spelled(tiny.Scripted):
    """Says some pieces or bytes in order, by the number of target tokens it sees, then the end token."""

    def __init__(self, tokenizer: Any, pieces: Sequence[str | int]):
        super().__init__(tokenizer, lambda source, target: "<end>")
        vocabulary = tokenizer.get_vocab()
        said = [vocabulary[tiny.LETTERS[piece]] if isinstance(piece, int) else self.token(piece) for piece in pieces]
        self._tokens = [*said, self.token("<end>")]

    def following(self, held: list[int]) -> int:
        mark = self.token("<mark>")
        return self._tokens[len(held) - held.index(mark) - 1] if mark in held else 0


def fed(session: Session) -> list[str]:
    model: Any = session.memory.model
    return [text for text, _ in model.fed]


def units_of(session: Session, most: int = 20) -> list[str]:
    units: list[str] = []
    while len(units) < most and (unit := session.write().unit) is not None:
        units.append(unit)
    return units


def test_a_word_ends_where_the_next_one_starts(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence(" run", "ing", " dog", ".", " cat"))
    emissions = [session.write() for _ in range(4)]
    assert [emission.unit for emission in emissions] == ["runing", "dog.", "cat", None]
    assert [len(emission.tokens) for emission in emissions] == [2, 2, 1, 0]


def test_the_look_ahead_token_is_kept_when_the_next_action_is_write(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence(" run", "ing", " dog", ".", " cat"))
    session.read("x")
    passes = [session.forward_passes]
    for _ in range(4):
        session.write()
        passes.append(session.forward_passes)
    assert np.diff(passes).tolist() == [3, 2, 1, 0]  # the header and two tokens; two; one; the end is known
    assert fed(session) == ["<bos>x", "<mark>", " run", "ing", " dog", ".", " cat"]


def test_after_the_end_of_the_source_no_token_is_fed_twice(tokenizer: Any) -> None:
    """But for the last one before it, once: what was predicted after it did not know the footer."""
    session = scripted(tokenizer, sentence(" run", "ing", " dog", ".", " cat"))
    session.read("x")
    session.write()
    session.end_source()
    passes, tokens = session.forward_passes, session.fed_tokens
    assert units_of(session) == ["dog.", "cat"]
    assert (session.forward_passes - passes, session.fed_tokens - tokens) == (1 + 3, 1 + 3)


def test_the_look_ahead_token_is_forgotten_when_the_next_action_is_read(tokenizer: Any) -> None:
    """One token is trimmed, and fed again once the source has been read."""
    session = scripted(tokenizer, sentence(" run", "ing", " dog"))
    session.read("x")
    session.write()
    held = session.memory.caches[0].target_offset
    session.read("y")
    assert session.memory.caches[0].target_offset == held - 1
    session.read("z")
    assert session.memory.caches[0].target_offset == held - 1
    assert session.write().unit == "dog"
    assert fed(session) == ["<bos>x", "<mark>", " run", "ing", " y", " z", "ing", " dog"]


def test_a_prediction_from_stale_context_is_never_used(tokenizer: Any) -> None:
    """Each unit says how much source was in view when it was predicted."""
    say = lambda source, target: [" dog", " cat", " the", " a"][source.count("x")]  # noqa: E731
    session = scripted(tokenizer, say)
    units = []
    for _ in range(3):
        session.read("x")
        units.append(session.write().unit)
    assert units == ["cat", "the", "a"]


def test_a_word_that_goes_on_after_a_read_is_one_word(tokenizer: Any) -> None:
    """ " dog" ended because " cat" was to follow; with more source, "," follows: no space, so no new word."""

    def say(source: str, target: str) -> str:
        if "dog" not in target:
            return " dog"
        return " cat" if source.count("x") < 2 or "," in target else ","

    trace = translate(
        scripted(tokenizer, say), Example("1", "x x x", ""), WaitK(1), Limits(length_extra=1, length_ratio=1)
    )
    assert trace.units[:2] == ("dog,", "cat")
    assert trace.delays[:2] == (2, 2)
    assert [event.kind for event in trace.events][:5] == ["read", "write", "read", "extend", "write"]
    assert len(trace.delays) == len(trace.units) == len(trace.elapsed)


def test_a_word_after_a_read_is_a_new_one_where_white_space_stands_before_it(tokenizer: Any) -> None:
    session = scripted(tokenizer, lambda source, target: "<end>" if "cat" in target else "cat" if target else " the ")
    session.read("x")
    assert session.write().unit == "the"
    session.read("x")
    emission = session.write()
    assert (emission.unit, emission.extends) == ("cat", False)


def test_forced_white_space_parts_words(tokenizer: Any) -> None:
    session = scripted(tokenizer, lambda source, target: " dog")
    session.read("x")
    assert session.write(tokens_of(tokenizer, "dog")).unit == "dog"
    assert session.write(tokens_of(tokenizer, " ")).unit is None
    session.read("x")
    emission = session.write(tokens_of(tokenizer, "cat"))
    assert (emission.unit, emission.extends) == ("cat", False)


def test_a_write_may_come_before_any_read(tokenizer: Any) -> None:
    session = scripted(tokenizer, lambda source, target: " cat" if source else " dog")
    assert [session.write().unit, session.write().unit] == ["dog", "dog"]
    session.read("x")
    assert session.write().unit == "cat"


def test_an_end_token_from_stale_context_is_forgotten(tokenizer: Any) -> None:
    session = scripted(tokenizer, lambda source, target: "<end>" if source.count("x") < 2 else " dog")
    session.read("x")
    assert session.write().unit is None
    session.read("x")
    assert session.write().unit == "dog"
    assert fed(session) == ["<bos>x", "<mark>", " x", "<mark>", " dog"]


def test_the_end_token_is_never_fed(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence(" dog"))
    session.read("x")
    assert [session.write().unit for _ in range(3)] == ["dog", None, None]
    assert "<end>" not in "".join(fed(session))


@pytest.mark.parametrize("end", ["<end>", "<stop>"])
def test_every_end_token_ends_a_sentence(tmp_path: Path, end: str) -> None:
    tiny.byte_level_tokenizer(tmp_path)
    tokenizer = tiny.load(tmp_path, ["<end>", "<stop>"])
    assert units_of(scripted(tokenizer, lambda source, target: end if "dog" in target else " dog")) == ["dog"]


def test_headers_are_never_units(tokenizer: Any) -> None:
    prompt = replace(SCRIPTED, source_header="the dog <", target_header="<mark> German:")
    session = scripted(tokenizer, lambda source, target: " cat" if target == " German:" else "<end>", prompt)
    session.read("x")
    emission = session.write()
    assert (emission.unit, len(emission.tokens), session.target_tokens) == ("cat", 1, 1)


def test_the_target_header_is_fed_in_one_forward(tokenizer: Any) -> None:
    prompt = replace(SCRIPTED, target_header="<mark> German:")
    session = scripted(tokenizer, lambda source, target: " cat", prompt)
    session.read("x")
    assert not session.memory.caches[0].target_offset
    session.write()
    assert fed(session)[1] == "<mark> German:"


def test_the_source_is_fed_once(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence(" dog", " cat"))
    for word in ("the", "dog", "runs"):
        session.read(word)
        session.write()
    session.end_source()
    units_of(session)
    facts = session.prompt
    words = [facts.source_tokens(word, first=i == 0) for i, word in enumerate(("the", "dog", "runs"))]
    assert session.source_tokens == len(facts.source_header) + sum(map(len, words)) + len(facts.source_footer)
    assert session.memory.caches[0].source_offset == session.source_tokens
    model: Any = session.memory.model
    assert model.fed[-1][1].startswith("<bos>the dog runs<stop><mark>")


def test_the_header_is_fed_with_the_footer_when_there_are_no_words(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence(" dog"))
    session.end_source()
    assert fed(session) == ["<bos><stop>"]


def test_white_space_is_no_unit(tokenizer: Any) -> None:
    """Tokens of white space only, one after the other, belong to the word they precede."""
    session = scripted(tokenizer, sentence(" ", "  ", "\n", "dog", "\n", " ", "cat"))
    assert units_of(session) == ["dog", "cat"]


def test_a_non_breaking_space_is_white_space(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence("\u00a0", " dog", "\u00a0", "cat", " a"))
    assert units_of(session) == ["dog", "cat", "a"]


def test_a_word_may_bring_the_space_after_it(tokenizer: Any) -> None:
    """The word that follows without a space is not written, nor fed, before its turn."""
    session = scripted(tokenizer, sentence(" the ", "cat", " a"))
    assert session.write().unit == "the"
    assert fed(session) == ["<mark>", " the "]
    assert units_of(session) == ["cat", "a"]


def test_white_space_before_the_end_is_no_unit(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence(" dog", "\n", "  "))
    assert units_of(session) == ["dog"]


def test_white_space_before_a_forced_read_stays(tokenizer: Any) -> None:
    """It was fed; the word that follows does not need another."""
    say = lambda source, target: {"": " ", " ": "cat" if "y" in source else "<end>"}.get(target, "<end>")  # noqa: E731
    session = scripted(tokenizer, say)
    session.read("x")
    assert session.write().unit is None
    session.read("y")
    assert units_of(session) == ["cat"]


def test_a_token_with_several_words_gives_them_one_by_one(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence(" of the", " dog"))
    session.read("x")
    assert session.write().unit == "of"
    session.read("y")  # the token was fed: what it says stands
    assert units_of(session) == ["the", "dog"]


def test_special_tokens_are_not_text(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence(" dog", "<bos>", "<mark>", " cat"))
    assert units_of(session) == ["dog", "cat"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([" the", " a", "ing", "  ", "\n", " ", ".", ".\n", " of the", "\u00a0", "好"])))
def test_units_are_the_words_of_the_text(tokenizer: Any, pieces: list[str]) -> None:
    """Whatever tokens it came in: no unit contains white space, none is empty."""
    model = _Spelled(tokenizer, pieces)
    assert units_of(Session(GroupMemory(model), PromptTokens(SCRIPTED, tokenizer)), most=100) == "".join(pieces).split()


def test_a_unit_without_end_is_cut(tokenizer: Any) -> None:
    session = scripted(tokenizer, lambda source, target: "er", max_unit_tokens=3)
    assert [session.write().unit for _ in range(3)] == ["ererer"] * 3
    assert fed(session) == ["<mark>", *["er"] * 9]


@pytest.mark.parametrize("unit", ["word", "character"])
def test_endless_white_space_counts_as_the_end(tokenizer: Any, unit: str) -> None:
    session = scripted(tokenizer, lambda source, target: "  ", unit=unit, max_unit_tokens=5)
    assert session.write().unit is None
    assert session.forward_passes <= 6


# Characters


def test_every_character_is_a_unit(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence("好", "a", " dog", "好"), unit="character")
    assert units_of(session) == ["好", "a", "d", "o", "g", "好"]


def test_the_space_before_a_latin_word_is_shown_and_is_no_unit(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence("好", " the", " dog", "好"), unit="character")
    session.end_source()
    emissions = []
    while (emission := session.write()).unit is not None:
        emissions.append(emission)
    assert [emission.unit for emission in emissions] == list("好thedog好")
    assert "".join(emission.text for emission in emissions) == "好 the dog好"


def test_characters_of_several_tokens_are_never_cut(tokenizer: Any) -> None:
    """Byte by byte, also with a read between any two units."""
    text = "吗😀é好👩‍👧"
    for reads in (False, True):
        model = _Spelled(tokenizer, list(text.encode()))
        session = Session(GroupMemory(model), PromptTokens(SCRIPTED, tokenizer, "word", "character"))
        units: list[str] = []
        while (unit := session.write().unit) is not None:
            units.append(unit)
            if reads:
                session.read("x")
        assert units == list(text)


def test_a_broken_character_does_not_swallow_the_next_word(tokenizer: Any) -> None:
    model = _Spelled(tokenizer, ["a", 0xE5, " ", "b"])
    session = Session(GroupMemory(model), PromptTokens(SCRIPTED, tokenizer, "word", "character"))
    assert units_of(session) == ["a", "\ufffd", "b"]


def test_characters_of_one_token_are_queued(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence("你好", "好"), unit="character")
    session.read("x")
    assert session.write().unit == "你"
    passes = session.forward_passes
    session.read("y")
    assert session.write().unit == "好"
    assert session.forward_passes == passes + 1  # the read: the token has said this already
    assert units_of(session) == ["好"]


def test_a_character_needs_no_look_ahead(tokenizer: Any) -> None:
    """So a read after it trims nothing, and its token is fed with the fresh source in view."""
    session = scripted(tokenizer, sentence("好", "a"), unit="character")
    session.read("x")
    session.write()
    session.read("y")
    session.write()
    assert fed(session) == ["<bos>x", "<mark>", " y", "好"]


# Stop texts

STOPPED = replace(SCRIPTED, stop="\n")


def test_a_stop_text_ends_a_sentence(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence(" dog", ".", "\n", " cat"), STOPPED)
    session.end_source()
    assert units_of(session) == ["dog."]
    assert session.write().unit is None


@pytest.mark.parametrize("unit", ["word", "character"])
def test_text_before_a_stop_in_the_same_token_is_written(tokenizer: Any, unit: str) -> None:
    session = scripted(tokenizer, sentence("好", ".\n", "a"), STOPPED, unit)
    session.end_source()
    assert units_of(session) == (["好."] if unit == "word" else ["好", "."])
    assert session.write().unit is None


def test_words_before_a_stop_in_the_same_token_are_written(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence(" the", " end.\n", " a"), STOPPED)
    session.end_source()
    assert units_of(session) == ["the", "end."]


def test_text_before_a_stop_is_written_once(tokenizer: Any) -> None:
    """Also when it is all that is left to say, and when the sentence is asked for more."""
    session = scripted(tokenizer, sentence(".\n"), STOPPED)
    session.end_source()
    assert [session.write().unit for _ in range(3)] == [".", None, None]


def test_a_stop_from_stale_context_is_forgotten_with_the_text_before_it(tokenizer: Any) -> None:
    """While source remains it is an end token like any other: its text was never fed, and may not come again."""
    say = lambda source, target: " dog" if not target else ".\n" if source.count("x") < 2 else " cat"  # noqa: E731
    session = scripted(tokenizer, say, STOPPED)
    session.read("x")
    assert [session.write().unit for _ in range(2)] == ["dog", None]
    session.read("x")
    assert session.write().unit == "cat"


def test_a_stop_after_a_read_ends_the_word_under_way(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence(" dog", ".\n"), STOPPED)
    session.read("x")
    assert session.write().unit == "dog"
    session.end_source()
    assert units_of(session) == ["."]


# Going back


def cache_of(session: Session) -> list[np.ndarray]:
    return [np.array(array) for cache in session.memory.caches for pair in (cache.get_source(), cache.get_target())
            for array in pair if array is not None]  # fmt: skip


@pytest.mark.parametrize("unit", ["word", "character"])
@pytest.mark.parametrize("before", [0, 1, 3])
def test_what_is_written_after_a_rewind_is_the_same(
    random_models: list[Any], tokenizer: Any, unit: Any, before: int
) -> None:
    for model in random_models[1:]:
        session = Session(GroupMemory(model), PromptTokens(PROMPT, tokenizer, "word", unit))
        for word in ("the", "dog"):
            session.read(word)
        for _ in range(before):
            session.write()
        mark = session.mark()
        first = [session.write() for _ in range(3)]
        after, passes = cache_of(session), session.forward_passes
        session.rewind(mark)
        assert session.mark() == mark
        assert [session.write() for _ in range(3)] == first
        assert session.forward_passes == passes, "what is known was fed again"
        for ours, theirs in zip(cache_of(session), after, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_rewind_takes_back_queued_units(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence(" of the", " dog"))
    assert session.write().unit == "of"
    mark = session.mark()
    assert units_of(session) == ["the", "dog"]
    session.rewind(mark)
    assert units_of(session) == ["the", "dog"]


def test_a_rewind_takes_back_the_text_before_a_stop(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence(" dog", ".\n"), STOPPED)
    session.end_source()
    mark = session.mark()
    for _ in range(2):
        assert units_of(session) == ["dog."]
        session.rewind(mark)


@pytest.mark.parametrize(
    ("before", "after", "extends"),
    [
        (" dog", ".\n", True),  # the full stop belongs to "dog"; the line break behind it is not yet written
        (" the ", "cat", False),  # the space was written before the mark
    ],
)
def test_a_rewind_remembers_whether_white_space_came_last(
    tokenizer: Any, before: str, after: str, extends: bool
) -> None:
    session = scripted(
        tokenizer,
        lambda source, target: {"": before, before: after if "y" in source else "<end>"}.get(target, "<end>"),
    )
    session.read("x")
    session.write()
    session.read("y")
    mark = session.mark()
    for _ in range(3):
        emission = session.write()
        assert (emission.unit, emission.extends) == (after.strip(), extends)
        session.rewind(mark)
    assert session.draft(1)[0].extends is extends
    assert session.write().extends is extends


@pytest.mark.parametrize("look", [lambda session: session.prediction(), lambda session: session.draft(3)])
def test_a_header_that_was_fed_to_look_ahead_alone_is_fed_again_as_a_whole(
    tokenizer: Any, look: Callable[[Session], Any]
) -> None:
    """What the model sees then is that of a session which was asked nothing."""
    prompt = replace(SCRIPTED, target_header="<mark> German:")
    seen: list[tuple[str, str]] = []

    def say(source: str, target: str) -> str:
        seen.append((source, target))
        return " dog" if target == " German:" else "<end>"

    session = scripted(tokenizer, say, prompt)
    session.read("x")
    look(session)
    session.read("y")
    fed_before = session.fed_tokens
    seen.clear()
    assert session.write().unit == "dog"
    assert seen[0] == ("<bos>x y", " German:")
    header = len(session.prompt.target_header)
    assert header > 1
    assert session.fed_tokens - fed_before == header + 1  # and " dog", to find where the word ends
    assert session.memory.caches[0].target_offset == header + 1


def test_a_read_after_a_rewind_is_as_if_nothing_had_been_written(random_models: list[Any], tokenizer: Any) -> None:
    def write_on(session: Session) -> list[Any]:
        session.read("dog")
        return [session.write() for _ in range(3)]

    facts = PromptTokens(PROMPT, tokenizer)
    direct, rewound = (Session(GroupMemory(random_models[2]), facts) for _ in range(2))
    for session in (direct, rewound):
        session.read("the")
        session.write()
    mark = rewound.mark()
    for _ in range(3):
        rewound.write()
    rewound.rewind(mark)
    assert write_on(rewound) == write_on(direct)


@pytest.mark.parametrize("read", [lambda session: session.read("y"), lambda session: session.end_source()])
def test_a_rewind_past_a_read_is_refused(tokenizer: Any, read: Callable[[Session], None]) -> None:
    session = scripted(tokenizer, sentence(" dog", " cat"))
    session.read("x")
    mark = session.mark()
    session.write()
    read(session)
    with pytest.raises(RuntimeError, match="cannot rewind past a read: take a new mark"):
        session.rewind(mark)


def test_a_rewind_forward_is_refused(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence(" dog", " cat"))
    start = session.mark()
    session.write()
    later = session.mark()
    session.rewind(start)
    with pytest.raises(RuntimeError, match="cannot rewind forward"):
        session.rewind(later)


# Sampling


@pytest.fixture(scope="module")
def sampling(tokenizer: Any) -> StreamingModel:
    model = tiny.Biased(tiny.random_model(5, len(tokenizer)), tiny.sentence_bias(tokenizer, end=-1.0))
    return StreamingModel(model, PromptTokens(PROMPT, tokenizer), tokenizer, temperature=1.0, top_p=0.95)


def sample(model: StreamingModel, name: str, seed: int = 0) -> tuple[str, ...]:
    return translate(model.session(seed, name), Example(name, "the dog", ""), WaitK(2), Limits(length_extra=4)).units


def test_a_sample_is_that_of_its_seed_and_name(sampling: StreamingModel) -> None:
    assert sample(sampling, "a") == sample(sampling, "a")
    assert sample(sampling, "a") != sample(sampling, "b")
    assert sample(sampling, "a", seed=1) != sample(sampling, "a", seed=2)


def test_samples_do_not_depend_on_their_order(sampling: StreamingModel) -> None:
    forwards = {name: sample(sampling, name) for name in "abc"}
    mx.random.seed(99)
    backwards = {name: sample(sampling, name) for name in "cba"}
    assert forwards == backwards


def test_samples_of_sentences_under_way_at_once_do_not_mix(sampling: StreamingModel) -> None:
    def write(session: Session) -> str | None:
        return session.write().unit

    alone = []
    for name in "ab":
        session = sampling.session(0, name)
        session.read("the")
        alone.append([write(session) for _ in range(4)])
    both = [sampling.session(0, name) for name in "ab"]
    for session in both:
        session.read("the")
    together = [[write(session) for session in both] for _ in range(4)]
    assert [list(units) for units in zip(*together, strict=True)] == alone


def test_sampling_leaves_the_random_state_of_others_alone(sampling: StreamingModel) -> None:
    mx.random.seed(3)
    expected = mx.random.uniform(shape=(4,)).tolist()
    mx.random.seed(3)
    sample(sampling, "a")
    assert mx.random.uniform(shape=(4,)).tolist() == expected


class _Says:
    """A model that says the same logits (V,) whatever it reads."""

    def __init__(self, logits: mx.array):
        self.layers, self._logits = [None], logits

    def __call__(self, tokens: mx.array, cache: Any) -> mx.array:
        ids = tokens.astype(mx.float32)[:, None, :, None]
        cache[0].update_and_fetch(ids, ids)
        return mx.broadcast_to(self._logits, (*tokens.shape, self._logits.shape[0]))


def test_a_sample_does_not_hang_on_the_last_digits_of_the_logits(tokenizer: Any) -> None:
    """Neighbours in a batch change these. The names are those, of 900, that `mx.random.categorical` gave another token:
    it adds up the probabilities of all tokens."""
    large = 32_000
    logits = 3 * mx.random.normal((large,), key=mx.random.key(1))
    rounding = 1e-5 * mx.random.normal((large,), key=mx.random.key(9))
    facts = PromptTokens(PROMPT, tokenizer)
    models = [StreamingModel(_Says(x), facts, tokenizer, temperature=1.0) for x in (logits, logits + rounding)]
    for name in ("13", "130", "406", "461", "466", "501", "745", "874"):
        drawn = {model.session(0, name).predict() for model in models}
        assert len(drawn) == 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_samples_are_as_frequent_as_the_model_finds_them_likely(temperature: float) -> None:
    logits = mx.array([0.0, 1.0, 2.0, -1.0, -9.0])
    draws = [Sampling(seed, temperature).draw(logits, 0, 0) for seed in range(2000)]
    shares = np.bincount(draws, minlength=5) / len(draws)
    np.testing.assert_allclose(shares, np.array(mx.softmax(logits / temperature)), atol=0.035)


def test_samples_with_top_p_are_among_the_likeliest_tokens() -> None:
    """As many as have that probability together, before the temperature."""
    logits = mx.log(mx.array([0.1, 0.5, 0.15, 0.25]))
    for top_p, likeliest in ((0.4, {1}), (0.7, {1, 3}), (0.85, {1, 2, 3}), (1.0, {0, 1, 2, 3})):
        assert {Sampling(seed, 3.0, top_p).draw(logits, 0, 0) for seed in range(200)} == likeliest


def test_samples_at_different_places_are_independent() -> None:
    """A token that is predicted anew after a read is drawn anew."""
    logits = mx.zeros((1000,))
    places = [(reads, written) for reads in range(8) for written in range(8)]
    draws = {Sampling(0, 1.0).draw(logits, *place) for place in places}
    assert len(draws) > 55  # of 64; the same noise would give one


def test_half_precision_is_sampled_in_float32() -> None:
    logits = 3 * mx.random.normal((5000,), key=mx.random.key(3))
    for dtype in (mx.bfloat16, mx.float16):
        half = logits.astype(dtype)
        for seed in range(20):
            assert Sampling(seed, 1.0, 0.9).draw(half, 0, 0) == Sampling(seed, 1.0, 0.9).draw(
                half.astype(mx.float32), 0, 0
            )


@pytest.mark.parametrize("question", ["hidden", "beam", "attended"])
def test_while_sampling_a_draft_is_what_is_written_whatever_was_asked_in_between(
    sampling: StreamingModel, question: str
) -> None:
    for name in "abcde":
        session = sampling.session(0, name)
        for word in ("the", "dog", "runs"):
            session.read(word)
        draft = session.draft(4)
        questions: dict[str, Callable[[], object]] = {
            "hidden": lambda session=session: session.prediction(hidden=2),
            "beam": lambda session=session: session.beam(2, 2),
            "attended": lambda session=session: session.attended([[0, 0]]),
        }
        questions[question]()
        assert session.draft(4) == draft
        assert [session.write() for _ in draft] == list(draft)


def test_any_sampler_is_asked_once_for_each_token(tokenizer: Any) -> None:
    """Also one that draws from random numbers that everybody shares."""
    asked = 0

    def sampler(logprobs: mx.array) -> mx.array:
        nonlocal asked
        asked += 1
        return mx.array([(37 * asked) % logprobs.shape[1]])

    session = Session(GroupMemory(tiny.random_model(5, len(tokenizer))), PromptTokens(PROMPT, tokenizer), sampler)
    session.read("the")
    draft = session.draft(2)
    before = asked
    session.prediction(hidden=1)
    assert session.draft(2) == draft
    assert asked == before


def test_temperature_and_top_p_shape_the_samples(tokenizer: Any) -> None:
    """Near temperature 0, and with a tiny top_p, samples are greedy."""
    model = tiny.Biased(tiny.random_model(5, len(tokenizer)), tiny.sentence_bias(tokenizer, end=-1.0))
    facts = PromptTokens(PROMPT, tokenizer)

    def units(**options: float) -> list[tuple[str, ...]]:
        return [sample(StreamingModel(model, facts, tokenizer, **options), name) for name in "abc"]  # type: ignore[arg-type]

    greedy = units()
    assert len(set(greedy)) == 1
    assert units(temperature=1e-4) == greedy
    assert units(temperature=1.0, top_p=1e-6) == greedy
    assert units(temperature=1.0) != greedy
