"""What a session says of the target to come, without writing it: predictions, drafts and beams. Held against forwards
from scratch, against enumeration, and against what is written then."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import scratch
import tiny
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sessions import (
    PROMPT,
    SCRIPTED,
    TIE,
    WORDS,
    Noted,
    Table,
    by_hand,
    close,
    fed,
    scripted,
    sentence,
    tokens_of,
    units,
    varied_models,
)

from streamllm.batching.pool import Pool
from streamllm.engine.lookahead import NextToken, beam_search
from streamllm.engine.paradigms.group import Group
from streamllm.engine.paradigms.interleaved import Interleaved
from streamllm.engine.paradigms.memory import Paradigm, TargetStart
from streamllm.engine.paradigms.reencoded import Batch, BatchPositions
from streamllm.engine.session import Session
from streamllm.prompt import PromptTokens
from streamllm.records import Emission


@pytest.fixture(scope="module")
def models(tokenizer: Any) -> list[Any]:
    return varied_models(tokenizer)


@pytest.fixture(scope="module")
def facts(tokenizer: Any) -> PromptTokens:
    return PromptTokens(PROMPT, tokenizer)


# The next token


def test_a_prediction_is_that_of_the_softmax() -> None:
    logits = np.random.default_rng(0).normal(size=50).astype(np.float32) * 3
    prediction = NextToken(mx.array(logits), frozenset({3}))
    p = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum()
    assert prediction.token == p.argmax()
    assert prediction.confidence == pytest.approx(p.max(), rel=1e-6)
    assert prediction.entropy == pytest.approx(-(p * np.log(p)).sum(), rel=1e-6)
    assert [prediction.probability(i) for i in range(50)] == pytest.approx(p.tolist(), rel=1e-6)


def test_the_entropy_is_log_v_at_most_and_zero_at_least() -> None:
    uniform, certain = NextToken(mx.zeros(32), frozenset()), NextToken(mx.array([0.0, 200.0, 0.0]), frozenset())
    assert uniform.entropy == pytest.approx(math.log(32))
    assert uniform.confidence == pytest.approx(1 / 32)
    assert certain.entropy == pytest.approx(0, abs=1e-12)
    assert (certain.token, certain.confidence) == (1, pytest.approx(1))


def test_the_divergence_is_the_mean_log_ratio_in_nats() -> None:
    """By hand: 0.9 ln 1.8 + 0.1 ln 0.2, and 0.5 ln (5 / 9) + 0.5 ln 5."""
    sure, even = (NextToken(mx.array(p).log() + 3.0, frozenset()) for p in ([0.9, 0.1], [0.5, 0.5]))
    assert sure.divergence(even) == pytest.approx(0.36806, abs=1e-5)
    assert even.divergence(sure) == pytest.approx(0.51083, abs=1e-5)
    assert sure.divergence(sure) == even.divergence(even) == 0


def test_what_one_rules_out_is_no_part_of_its_divergence_and_makes_that_from_it_infinite() -> None:
    some = NextToken(mx.array([0.0, -math.inf, 0.0]), frozenset())
    every = NextToken(mx.array([0.0, 0.0, 0.0]), frozenset())
    assert some.divergence(every) == pytest.approx(math.log(3 / 2))
    assert every.divergence(some) == math.inf
    barely = NextToken(mx.array([0.0, -1000.0, 0.0]), frozenset())  # a probability that float64 has as 0
    assert barely.divergence(some) == pytest.approx(0)


@given(st.integers(0, 10**6))
def test_a_divergence_is_never_negative(seed: int) -> None:
    dice = np.random.default_rng(seed)
    one = dice.normal(size=50)
    near = NextToken(one + 1e-9 * dice.normal(size=50), frozenset())
    assert 0 <= NextToken(one, frozenset()).divergence(near) < 1e-6


def test_what_is_impossible_has_no_probability_and_no_share_in_the_entropy() -> None:
    prediction = NextToken(mx.array([-math.inf, 1.0, -math.inf, 1.0]), frozenset())
    assert (prediction.probability(0), prediction.probability(1)) == (0, pytest.approx(0.5))
    assert prediction.entropy == pytest.approx(math.log(2))


def test_a_prediction_ends_where_an_end_token_is_the_likeliest() -> None:
    logits = mx.array([0.0, 2.0, 1.0])
    assert NextToken(logits, frozenset({1, 5})).ends
    assert not NextToken(logits, frozenset({0, 2})).ends


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_a_prediction_in_half_precision_adds_up(dtype: mx.Dtype) -> None:
    logits = (mx.random.normal((200,), key=mx.random.key(0)) * 4).astype(dtype)
    prediction = NextToken(logits, frozenset())
    assert sum(prediction.probability(i) for i in range(200)) == pytest.approx(1, abs=1e-9)
    assert prediction.token == mx.argmax(logits).item()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=30), st.floats(-1000, 1000, width=32))
def test_a_prediction_does_not_depend_on_a_constant(values: list[float], constant: float) -> None:
    one, other = (NextToken(mx.array(values) + shift, frozenset()) for shift in (0.0, constant))
    assert other.confidence == pytest.approx(one.confidence, rel=1e-2)
    assert 0 <= one.confidence <= 1 + 1e-9
    assert -1e-9 <= one.entropy <= math.log(len(values)) + 1e-9


# Beam search, on a table of logits for every beginning

END = 0


def table(seed: int, vocabulary: int) -> Table:
    def logits(beginning: tuple[int, ...]) -> np.ndarray:
        return np.random.default_rng([seed, *beginning]).normal(size=vocabulary) * 2

    return logits


def search(logits: Table, size: int, max_tokens: int) -> list[tuple[int, ...]]:
    branches: list[tuple[int, ...]] = [()]

    def step(parents: list[int], tokens: list[int]) -> mx.array:
        branches[:] = [(*branches[parent], token) for parent, token in zip(parents, tokens, strict=True)]
        return mx.array(np.stack([logits(branch) for branch in branches]), mx.float32)

    first = mx.array(logits(()), mx.float32)
    return [tuple(tokens) for tokens in beam_search(first, step, lambda token: token == END, size, max_tokens)]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 5), vocabulary=st.integers(2, 6), longest=st.integers(1, 7))
def test_a_beam_search_is_that_of_whole_forwards(seed: int, size: int, vocabulary: int, longest: int) -> None:
    expected, margin = by_hand(table(seed, vocabulary), lambda token: token == END, size, longest)
    assume(margin > TIE)
    assert search(table(seed, vocabulary), size, longest) == expected


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), longest=st.integers(1, 4))
def test_a_beam_as_wide_as_all_there_is_finds_the_best_of_all(seed: int, longest: int) -> None:
    """Ended ones by the mean log-probability of a token, the end token one of them; then the others by their sum."""
    logits, vocabulary = table(seed, 3), 3
    ended: list[tuple[float, tuple[int, ...]]] = []
    cut: list[tuple[float, tuple[int, ...]]] = []
    for n in range(longest + 1):
        for path in itertools.product(range(1, vocabulary), repeat=n):
            steps = [scratch.logprobs(logits(path[:i]))[token] for i, token in enumerate(path)]
            if n == longest:
                cut.append((sum(steps), path))
            else:
                ended.append((float(np.mean([*steps, scratch.logprobs(logits(path))[END]])), path))
    ranked = [sorted(group, reverse=True) for group in (ended, cut)]
    margins = [one[0] - other[0] for group in ranked for one, other in itertools.pairwise(group)]
    assume(min(margins, default=1) > TIE)
    expected = [path for _, path in [*ranked[0], *ranked[1]]]
    assert search(logits, len(expected) + 1, longest) == expected


def test_a_beam_of_one_is_greedy() -> None:
    for seed in range(20):
        path: tuple[int, ...] = ()
        while len(path) < 6 and (token := int(table(seed, 5)(path).argmax())) != END:
            path = (*path, token)
        assert search(table(seed, 5), 1, 6) == [path]


@pytest.mark.parametrize("better", [0, 1, 3])
def test_of_equal_candidates_those_with_the_lowest_tokens_are_taken(better: int) -> None:
    """Many tie where the beam is cut; what is likelier than they comes first."""
    logits = np.zeros(300, np.float32)
    logits[[250, 200, 299][:better]] = [3, 2, 1][:better]
    found = beam_search(
        mx.array(logits), lambda parents, tokens: mx.zeros((len(tokens), 300)), lambda token: False, 5, 1
    )
    assert found == [[token] for token in [250, 200, 299][:better] + [0, 1, 2, 3, 4][: 5 - better]]


def test_an_end_beyond_the_beam_is_no_hypothesis() -> None:
    """Of four candidates for two places, the third ends: it is not among the best two."""
    first = mx.array([1.0, 3.0, 2.0, -9.0])
    found = beam_search(first, lambda parents, tokens: mx.zeros((len(tokens), 4)), lambda token: token == END, 2, 1)
    assert found == [[1], [2]]


def test_a_search_is_over_when_enough_have_ended() -> None:
    asked: list[list[int]] = []

    def step(parents: list[int], tokens: list[int]) -> mx.array:
        asked.append(tokens)
        return mx.array([[5.0, 0.0, -9.0]] * len(tokens))

    found = beam_search(mx.array([-9.0, 1.0, 0.9]), step, lambda token: token == END, 2, 50)
    assert (found, asked) == ([[1], [2]], [[1, 2]])


def test_what_is_impossible_is_no_hypothesis_while_there_is_another() -> None:
    first = mx.array([-math.inf, -math.inf, 1.0, 0.0])
    step = lambda parents, tokens: mx.array([[0.0, -math.inf, -math.inf, -math.inf]] * len(tokens))  # noqa: E731
    assert beam_search(first, step, lambda token: token == END, 2, 5) == [[2], [3]]


# Predictions of a session


def written(session: Session, n: int) -> list[int]:
    return [token for _ in range(n) for token in session.write().tokens]


def visible(facts: PromptTokens, words: Sequence[str]) -> int:
    """Source tokens up to the last of ``words``, the header with them."""
    return len(facts.source_header) + sum(len(facts.source_tokens(word, i == 0)) for i, word in enumerate(words))


@pytest.mark.parametrize("target_start", [0, 7])
def test_a_prediction_is_that_of_a_forward_from_scratch(
    models: list[Any], facts: PromptTokens, target_start: int
) -> None:
    """At every point of a sentence, with any number of source units hidden: only the last tokens do not see them."""
    memory = Noted(models[2], target_start)
    session = Session(memory, facts, max_unit_tokens=4)
    target = list(facts.target_header)
    compared = 0

    def ask(read: int) -> None:
        nonlocal compared
        for n in (0, 1, 2, read, read + 3, 0):
            before = memory.target[: len(target) - 1] if len(target) > len(facts.target_header) else []
            got = session.prediction(hidden=n)
            sees = visible(facts, WORDS[: max(0, read - n)]) if n else len(memory.source)
            close(got.logits, memory.logits([*before, *((t, sees) for t in target[len(before) :])], target_start))
            compared += 1

    for read, word in enumerate(WORDS, 1):
        session.read(word)
        ask(read)
        if read in (2, 3, 5):
            target += written(session, read - 1)
            ask(read)
    session.end_source()
    ask(5)
    target += written(session, 1)
    ask(5)
    assert compared == 60 and len(target) > 10
    assert [token for token, _ in memory.target] == target


def test_a_prediction_without_hidden_units_costs_one_forward_and_writing_goes_on_from_it(
    models: list[Any], facts: PromptTokens
) -> None:
    session, other = (Session(Group().open(models[2]), facts) for _ in range(2))
    session.read("a")
    other.read("a")
    token = session.prediction().token
    assert session.forward_passes == 2
    assert session.prediction().token == token
    assert session.forward_passes == 2
    assert session.write() == other.write()
    assert session.forward_passes == other.forward_passes


def test_a_prediction_with_hidden_units_costs_one_forward(models: list[Any], facts: PromptTokens) -> None:
    """And one more where the other one was known already."""
    session = Session(Group().open(models[2]), facts)
    for word in WORDS[:2]:
        session.read(word)
    costs = []
    for hidden in (1, 0, 0, 1, 0):
        before = session.forward_passes
        session.prediction(hidden)
        costs.append(session.forward_passes - before)
    assert costs == [1, 1, 0, 1, 1]


def test_nothing_read_leaves_nothing_to_hide(models: list[Any], facts: PromptTokens) -> None:
    memory = Noted(models[2], "after_source")
    session = Session(memory, facts)
    close(session.prediction(hidden=1).logits, memory.logits([(token, 0) for token in facts.target_header]))
    assert session.prediction(hidden=1).token == session.prediction().token


def test_the_target_header_belongs_to_what_sees_no_hidden_source(models: list[Any], facts: PromptTokens) -> None:
    """Whichever of the two predictions is asked for first."""
    predictions = []
    for order in ((2,), (0, 2)):
        session = Session(Group().open(models[2]), facts)
        for word in WORDS[:3]:
            session.read(word)
        predictions.append([session.prediction(n) for n in order][-1])
    close(predictions[0].logits, np.array(predictions[1].logits))


def test_a_unit_that_goes_on_after_a_hidden_prediction_and_a_read_is_one_unit(tokenizer: Any) -> None:
    """As without the question: "dog" ended because " cat" was to follow; with more source, "," follows."""

    def say(source: str, target: str) -> str:
        return " dog" if "dog" not in target else "," if source.count("x") > 1 and "," not in target else " cat"

    session = scripted(tokenizer, say)
    session.read("x")
    assert session.write().unit == "dog"
    session.prediction(hidden=1)
    session.read("x")
    assert session.write() == Emission(",", tokens_of(tokenizer, ","), extends=True)


def test_interleaved_refuses_hidden_units_and_goes_on(models: list[Any], facts: PromptTokens) -> None:
    session, other = (Session(Interleaved().open(models[2]), facts) for _ in range(2))
    for each in (session, other):
        each.read("a")
        each.write()
    with pytest.raises(ValueError, match="paradigm=interleaved cannot predict with some of the source hidden"):
        session.prediction(hidden=1)
    assert [session.write() for _ in range(2)] == [other.write() for _ in range(2)]


# Drafts


@pytest.mark.parametrize("unit", ["word", "character"])
@pytest.mark.parametrize("before", [0, 2])
def test_a_draft_is_what_writing_gives_and_writing_it_costs_nothing(
    models: list[Any], tokenizer: Any, unit: Any, before: int
) -> None:
    facts, lengths = PromptTokens(PROMPT, tokenizer, "word", unit), []
    for model in models:
        session, other = (Session(Group().open(model), facts, max_unit_tokens=4) for _ in range(2))
        for each in (session, other):
            for word in WORDS[:2]:
                each.read(word)
            for _ in range(before):
                each.write()
        draft = session.draft(max_units=6)
        assert draft == session.draft(max_units=6)
        passes = session.forward_passes
        assert list(draft) == [session.write() for _ in draft] == [other.write() for _ in draft]
        assert session.forward_passes == passes, "what was drafted was fed again"
        ended = len(draft) < 6
        assert not ended or session.write().unit is None
        assert session.forward_passes == passes
        lengths.append(len(draft))
    assert 6 in lengths and any(length < 6 for length in lengths)


def test_a_draft_ends_with_the_unit_that_reaches_its_limit_of_tokens(models: list[Any], facts: PromptTokens) -> None:
    session = Session(Group().open(models[2]), facts, max_unit_tokens=4)
    session.read("a")
    whole = session.draft(max_units=6)
    lengths = [len(emission.tokens) for emission in whole]
    assert len(whole) > 2 and max(lengths) > 1
    for most in range(1, sum(lengths)):
        units = next(n for n in range(len(lengths) + 1) if sum(lengths[:n]) >= most)
        assert session.draft(max_units=6, max_tokens=most) == whole[:units]


def test_a_draft_writes_nothing(models: list[Any], facts: PromptTokens) -> None:
    session = Session(Group().open(models[2]), facts)
    session.read("a")
    session.write()
    tokens, mark = session.target_tokens, session.mark()
    session.draft(5)
    assert session.target_tokens == tokens and session.mark() == mark


def test_a_draft_goes_up_to_the_end_or_to_the_limit(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence(" dog", " run", "ing", " a", " cat"))
    session.read("x")
    assert units(session.draft()) == ["dog", "runing", "a", "cat"]
    assert units(session.draft(2)) == ["dog", "runing"]
    assert session.draft(0) == ()
    session.write()
    assert units(session.draft()) == ["runing", "a", "cat"]


def test_a_draft_is_forgotten_by_a_read(tokenizer: Any) -> None:
    """All of it is trimmed: the model is asked anew, and sees none of the old draft."""
    session = scripted(tokenizer, lambda source, target: " cat" if "y" in source else " dog")
    session.read("x")
    assert units(session.draft(3)) == ["dog"] * 3
    session.read("y")
    assert units(session.draft(2)) == ["cat"] * 2
    model: Any = session.memory.model  # type: ignore[attr-defined]
    assert "dog" not in model.fed[-1][1]


def test_a_draft_may_extend_the_unit_before_it(tokenizer: Any) -> None:
    def say(source: str, target: str) -> str:
        return " dog" if "dog" not in target else "," if source.count("x") > 1 and "," not in target else " cat"

    session = scripted(tokenizer, say)
    session.read("x")
    session.write()
    session.read("x")
    draft = session.draft(3)
    assert [(emission.unit, emission.extends) for emission in draft] == [(",", True), ("cat", False), ("cat", False)]
    assert [session.write() for _ in range(3)] == list(draft)


def test_a_draft_begins_with_units_that_are_waiting(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence(" of the", " dog"))
    session.read("x")
    session.write()
    assert units(session.draft()) == ["the", "dog"]
    assert [session.write().unit for _ in range(3)] == ["the", "dog", None]


def test_a_draft_ends_with_the_text_before_a_stop(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence(" dog", ".\n"), replace(SCRIPTED, stop="\n"))
    session.end_source()
    assert units(session.draft()) == ["dog."]
    assert units(session.draft()) == ["dog."]
    assert [session.write().unit for _ in range(2)] == ["dog.", None]


@pytest.mark.parametrize("ask", ["prediction", "hidden", "draft", "beam", "attended"])
@pytest.mark.parametrize("target_start", [0, "after_source"])
def test_a_question_before_the_first_write_leaves_the_header_to_the_first_write(
    models: list[Any], facts: PromptTokens, ask: str, target_start: TargetStart
) -> None:
    """It is fed again, whole, after a read: nothing of it may have seen less source than without the question; and
    where "after the source" is has not been decided."""
    asked, other = (Session(Group().open(models[2], target_start), facts) for _ in range(2))
    for session in (asked, other):
        session.read(WORDS[0])
        if session is asked:
            questions: dict[str, Callable[[], Any]] = {
                "prediction": session.prediction,
                "hidden": lambda: asked.prediction(hidden=1),
                "draft": lambda: asked.draft(3),
                "beam": lambda: asked.beam(2, 1),
                "attended": lambda: asked.attended([[0, 0]]),
            }
            questions[ask]()
        for word in WORDS[1:3]:
            session.read(word)
    close(asked.prediction().logits, np.array(other.prediction().logits))
    assert asked.memory.caches[0].target_start == other.memory.caches[0].target_start  # type: ignore[attr-defined]


def test_only_the_last_token_of_a_header_that_was_written_after_is_fed_again(models: list[Any], tokenizer: Any) -> None:
    """A first write that gives the end token has fed the header, as DESIGN.md has it."""
    session = scripted(
        tokenizer,
        lambda source, target: " dog" if source.count("x") > 1 else "<end>",
        replace(SCRIPTED, target_header="<mark> German:"),
    )
    session.read("x")
    assert session.write().unit is None
    session.read("x")
    assert session.write().unit == "dog"
    assert fed(session) == ["<bos>x", "<mark> German:", " x", ":", " dog"]


@pytest.mark.parametrize("header", ["<mark>", "German: cat"], ids=["one token", "several tokens"])
@pytest.mark.parametrize("shared", [False, True], ids=["alone", "in a pool"])
def test_the_first_write_decides_where_the_target_starts_though_it_gives_the_end_token(
    tokenizer: Any, header: str, shared: bool
) -> None:
    """Also where the header's only token is fed again after a read."""
    model = tiny.Biased(tiny.random_model(0, len(tokenizer)), tiny.sentence_bias(tokenizer, 99.0))
    memory: Any = Pool(model, 1, "after_source").open() if shared else Group().open(model, "after_source")
    session = Session(memory, PromptTokens(replace(PROMPT, target_header=header), tokenizer))
    session.read("the")
    first = session.source_tokens
    assert session.write().unit is None
    session.read("cat,")
    session.prediction(hidden=1)
    session.prediction()
    assert (memory if shared else memory.caches[0]).target_start == first


def test_a_first_write_that_is_taken_back_has_not_decided_where_the_target_starts(
    tokenizer: Any,
) -> None:
    model = tiny.Biased(tiny.random_model(0, len(tokenizer)), tiny.sentence_bias(tokenizer, 99.0))
    memory = Group().open(model, "after_source")
    session = Session(memory, PromptTokens(replace(PROMPT, target_header="<mark>"), tokenizer))
    session.read("the")
    mark = session.mark()
    assert session.write().unit is None
    session.prediction(hidden=1)
    session.rewind(mark)
    session.read("cat,")
    session.prediction()
    assert memory.caches[0].target_start == session.source_tokens


def test_a_header_is_fed_again_whole_after_a_first_write_that_is_taken_back(
    models: list[Any], facts: PromptTokens
) -> None:
    """Whatever was asked in between."""
    logits = []
    for hidden in (0, 1):
        session = Session(Group().open(models[2]), facts)
        session.read("the")
        mark = session.mark()
        session.write()
        if hidden:
            session.prediction(hidden=1)
            session.write()
            session.prediction(hidden=1)
        session.rewind(mark)
        session.read("cat,")
        logits.append(session.prediction().logits)
    close(logits[0], np.array(logits[1]))


@pytest.mark.parametrize("header", ["<mark>", "German: cat"], ids=["one token", "several tokens"])
def test_the_target_of_batch_positions_follows_the_source_after_a_first_write_that_gives_the_end_token(
    tokenizer: Any, header: str
) -> None:
    model = tiny.Biased(tiny.random_model(0, len(tokenizer)), tiny.sentence_bias(tokenizer, 99.0))
    memory = BatchPositions().open(model)
    session = Session(memory, PromptTokens(replace(PROMPT, target_header=header), tokenizer))
    session.read("the")
    session.write()
    session.read("cat,")
    session.prediction()
    assert memory.caches[0].target_start == session.source_tokens


# Beams


def beam_from_scratch(
    memory: Noted, facts: PromptTokens, size: int, max_tokens: int, ends: Callable[[int], bool]
) -> tuple[list[tuple[int, ...]], float]:
    """From the tokens that ``memory`` holds, each new one seeing all of the source."""
    held = list(memory.target)
    everything = len(memory.source)

    def logits(beginning: tuple[int, ...]) -> np.ndarray:
        return memory.logits([*held, *((token, everything) for token in beginning)])

    return by_hand(logits, ends, size, max_tokens)


@pytest.mark.parametrize("stop", [None, "g"])
def test_a_beam_is_that_of_forwards_from_scratch(models: list[Any], tokenizer: Any, stop: str | None) -> None:
    facts = PromptTokens(replace(PROMPT, stop=stop), tokenizer)
    compared = 0
    for model, size, before in itertools.product(models, (1, 2, 3), (0, 1)):
        memory = Noted(model)
        session = Session(memory, facts)
        session.read("the")
        for _ in range(before):
            session.write()
        session.prediction()
        vocabulary = tiny.token_bytes(tokenizer)

        def ends(token: int, vocabulary: list[bytes] = vocabulary) -> bool:
            return token == 0 or (stop is not None and stop.encode() in vocabulary[token])

        expected, margin = beam_from_scratch(memory, facts, size, max_tokens=12, ends=ends)
        if margin < TIE:
            continue
        found = session.beam(size, max_units=1)
        assert len(found) == len(expected) == size
        for hypothesis, tokens in zip(found, expected, strict=True):
            text = b"".join(vocabulary[token] for token in tokens).decode("utf-8", "replace")
            assert units(hypothesis) == text.split()[:1]
        compared += 1
    assert compared >= 9


def test_hypotheses_of_a_beam_have_the_tokens_of_their_units(models: list[Any], facts: PromptTokens) -> None:
    """And are cut into units as writing cuts them."""
    session = Session(Noted(models[1]), facts)
    for word in WORDS[:3]:
        session.read(word)
    session.write()
    session.prediction()
    memory: Any = session.memory
    expected, _ = beam_from_scratch(memory, facts, 3, max_tokens=28, ends=lambda token: token == 0)
    for hypothesis, tokens in zip(session.beam(3, max_units=5), expected, strict=True):
        said = tuple(token for emission in hypothesis for token in emission.tokens)
        assert said == tokens[: len(said)] and said
        for emission in hypothesis:
            assert emission.unit == facts.decode(emission.tokens).strip()
        assert not any(emission.extends for emission in hypothesis)


@pytest.mark.parametrize("unit", ["word", "character"])
def test_a_beam_of_one_is_the_draft(models: list[Any], tokenizer: Any, unit: Any) -> None:
    facts = PromptTokens(PROMPT, tokenizer, "word", unit)
    for model, before, paradigm in itertools.product(models, (0, 2), (Group(), Interleaved(), Batch())):
        session = Session(paradigm.open(model), facts, max_unit_tokens=4)
        for word in WORDS[:2]:
            session.read(word)
        for _ in range(before):
            session.write()
        assert session.beam(1, max_units=4) == [session.draft(4)]


def test_a_beam_is_the_same_before_and_after_a_draft(models: list[Any], facts: PromptTokens) -> None:
    session = Session(Group().open(models[1]), facts)
    session.read("the")
    before = session.beam(2, 3)
    session.draft(4)
    assert session.beam(2, 3) == before
    assert session.beam(2, 3) == before


@pytest.mark.parametrize("paradigm", [Group(), Batch(), BatchPositions()], ids=["group", "batch", "batch_positions"])
def test_a_beam_is_the_same_after_a_prediction_with_units_hidden(
    models: list[Any], facts: PromptTokens, paradigm: Paradigm
) -> None:
    found = []
    for hidden in (0, 2):
        session = Session(paradigm.open(models[2]), facts, max_unit_tokens=4)
        for word in WORDS[:4]:
            session.read(word)
        mark = session.mark()
        session.write()
        session.prediction(hidden)
        session.rewind(mark)
        found.append(session.beam(3, 3))
    assert found[0] == found[1]


LONG = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"]  # tokens of a word


@pytest.mark.parametrize("max_ahead", [None, 3])
def test_a_unit_of_a_beam_is_whole_however_long(tokenizer: Any, max_ahead: int | None) -> None:
    for pieces in ([" run", *LONG, " cat"], [" run", *LONG], [" dog", " run", *LONG, " dog"]):
        session = scripted(tokenizer, sentence(*pieces), max_ahead=max_ahead)
        session.read("x")
        draft = session.draft(1)
        assert session.beam(1, 1) == [draft]
        assert draft[0].unit == "".join(pieces).split()[0]


def test_a_unit_without_end_ends_where_writing_cuts_it_in_a_beam_too(tokenizer: Any) -> None:
    session = scripted(tokenizer, lambda source, target: "a", max_unit_tokens=20)
    session.read("x")
    assert session.beam(1, 1) == [session.draft(1)]
    assert units(session.draft(1)) == ["a" * 20]


def test_a_beam_leaves_out_a_unit_that_is_not_whole(models: list[Any], facts: PromptTokens) -> None:
    """Of many units: what is shown of the last one is what writing on would give."""
    for model, paradigm in itertools.product(models, (Group(), Batch(), Interleaved())):
        session = Session(paradigm.open(model), facts, max_ahead=6)
        session.read("the")
        for hypothesis in session.beam(3, 8):
            again = Session(paradigm.open(model), facts)
            again.read("the")
            written = [again.write(emission.tokens) for emission in hypothesis]
            assert written == list(hypothesis)
            if hypothesis:
                following = again.prediction()
                ends = following.ends or facts.starts_unit(following.token)
                assert ends or facts.ends_unit(hypothesis[-1].tokens[-1])


def test_a_beam_begins_with_units_that_are_waiting(tokenizer: Any) -> None:
    session = scripted(tokenizer, sentence(" of the", " dog"))
    session.read("x")
    session.write()
    assert [units(hypothesis) for hypothesis in session.beam(1)] == [["the", "dog"]]
    assert [session.write().unit for _ in range(3)] == ["the", "dog", None]


def test_a_beam_may_extend_the_unit_before_it(tokenizer: Any) -> None:
    def say(source: str, target: str) -> str:
        return " dog" if "dog" not in target else "," if source.count("x") > 1 and "," not in target else "<end>"

    session = scripted(tokenizer, say)
    session.read("x")
    session.write()
    session.read("x")
    [[emission]] = session.beam(1)
    assert (emission.unit, emission.extends) == (",", True)
    assert session.write() == emission


def test_a_beam_that_ends_at_once_is_an_empty_hypothesis(tokenizer: Any) -> None:
    session = scripted(tokenizer, lambda source, target: "<end>")
    session.read("x")
    assert session.beam(1) == [()]
    assert session.write().unit is None


def test_a_beam_ends_at_a_stop_text(tokenizer: Any) -> None:
    """Which is not fed, like an end token."""
    session = scripted(tokenizer, sentence(" dog", ".\n", " cat"), replace(SCRIPTED, stop="\n"))
    session.read("x")
    assert [units(hypothesis) for hypothesis in session.beam(1)] == [["dog"]]
    assert fed(session) == ["<bos>x", "<mark>", " dog"]


@pytest.mark.parametrize("size", [0, -1])
def test_a_beam_of_nothing_is_refused(models: list[Any], facts: PromptTokens, size: int) -> None:
    session = Session(Group().open(models[2]), facts)
    session.read("a")
    with pytest.raises(ValueError, match=rf"the beam's size is {size}; accepted is at least 1"):
        session.beam(size)
    assert session.forward_passes == 1


def test_a_beam_feeds_the_source_to_nothing(models: list[Any], facts: PromptTokens) -> None:
    """Each forward after the first prediction feeds one token for each hypothesis."""
    session = Session(Group().open(models[2]), facts)
    session.read("the")
    session.prediction()
    passes, tokens, source = session.forward_passes, session.fed_tokens, session.source_tokens
    session.beam(3, max_units=1)
    assert session.source_tokens == source
    assert session.fed_tokens - tokens == 3 * (session.forward_passes - passes)
