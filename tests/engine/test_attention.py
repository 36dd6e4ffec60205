"""Where a model looks: attention read out of unmodified models, held against the models' own, against weights computed
by hand, and against a model that was made to look where it is told."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from families import FAMILIES
from mlx_lm.models import qwen2
from reference import build

from streamllm.batching.pool import Pool
from streamllm.engine.attention import recorded
from streamllm.engine.paradigms.group import Group, GroupMemory
from streamllm.engine.paradigms.interleaved import Interleaved
from streamllm.engine.paradigms.memory import Paradigm, TargetStart
from streamllm.engine.paradigms.reencoded import Batch, BatchPositions
from streamllm.engine.session import Session
from streamllm.prompt import Prompt, PromptTokens

FAMILY = {family.name: family for family in FAMILIES}
PROMPT = Prompt(source_header="a <", source_footer=" =>", target_header="German:")
WORDS = ("cat,", "the", "Größe:", "runs")
ORIGINAL = mx.fast.scaled_dot_product_attention


@contextmanager
def exact() -> Iterator[list[np.ndarray]]:
    """The weights (H, N, L) of each attention inside, exactly: what comes out when the values are the unit vectors."""
    attention = mx.fast.scaled_dot_product_attention
    weights: list[np.ndarray] = []

    def spy(queries: mx.array, keys: mx.array, values: mx.array, **options: Any) -> mx.array:
        width = keys.shape[2]
        units = mx.broadcast_to(mx.eye(width, dtype=keys.dtype), (*keys.shape[:3], width))
        weights.append(np.array(attention(queries, keys, units, **options)[0].astype(mx.float32)))
        return attention(queries, keys, values, **options)

    mx.fast.scaled_dot_product_attention = spy  # type: ignore[assignment]
    try:
        yield weights
    finally:
        mx.fast.scaled_dot_product_attention = attention


def of_source(weights: list[np.ndarray], columns: list[int]) -> np.ndarray:
    """The share (layers * heads, source tokens) of each source token in what the last token gives to all of them."""
    last = np.concatenate([layer[:, -1] for layer in weights])[:, columns]
    shares: np.ndarray = last / last.sum(axis=-1, keepdims=True)
    return shares


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    return tiny.random_model(4, len(tokenizer))


@pytest.fixture(scope="module")
def facts(tokenizer: Any) -> PromptTokens:
    return PromptTokens(PROMPT, tokenizer)


# Weights


# Grouped heads, one head of keys, sliding windows, sinks, a norm, latent attention that is put together before.
READABLE = ["qwen2", "gemma", "llama-sliding", "gemma3_text", "gemma3n", "gpt_oss", "cohere2", "gpt2", "glm4",
            "deepseek_v2", "minicpm3", "qwen3_moe", "phi3-longrope"]  # fmt: skip


@pytest.mark.parametrize("name", READABLE)
def test_weights_are_those_of_the_models_own_attention(name: str) -> None:
    """For a first write of several tokens, and for one token after it."""
    memory = Group().open(build(FAMILY[name]), 2)
    memory.read([3, 9, 4, 11])
    for tokens in ([7, 8], [6]):
        with exact() as true:
            _, attention = memory.attend(tokens)
        weights = np.array(attention.weights(attention.heads))
        assert weights.shape == (len(attention.heads), 4)
        np.testing.assert_allclose(weights, of_source(true, [0, 1, 2, 3]), atol=1e-5)
        np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)


def test_weights_are_those_computed_by_hand(model: Any) -> None:
    """In the first layer, from its matrices: normalised embeddings, projected, rotated, two heads to a head of keys."""
    source, target = [5, 60, 7, 8], [9, 100]
    layer, width = model.layers[0], 8
    part = {name: np.array(value) for name, value in _flat(layer).items()}
    embedded = np.array(model.model.embed_tokens.weight)[[*source, *target]].astype(np.float64)
    normed = embedded / np.sqrt((embedded**2).mean(axis=-1, keepdims=True) + 1e-6) * part["input_layernorm.weight"]
    queries = normed @ part["self_attn.q_proj.weight"].T + part["self_attn.q_proj.bias"]
    keys = normed @ part["self_attn.k_proj.weight"].T + part["self_attn.k_proj.bias"]

    def turned(row: np.ndarray, position: int) -> np.ndarray:
        angles = position * 10000.0 ** (-np.arange(0, width, 2) / width)
        low, high = row[: width // 2], row[width // 2 :]
        return np.concatenate(
            [low * np.cos(angles) - high * np.sin(angles), low * np.sin(angles) + high * np.cos(angles)]
        )

    expected = []
    for head in range(4):
        query = turned(queries[-1, head * width :][:width], 1)  # the second target token, at position 1
        shared = head // 2
        scores = [query @ turned(keys[i, shared * width :][:width], i) / math.sqrt(width) for i in range(len(source))]
        expected.append(np.exp(scores) / np.exp(scores).sum())
    memory = Group().open(model)
    memory.read(source)
    _, attention = memory.attend(target)
    np.testing.assert_allclose(
        np.array(attention.weights([(0, head) for head in range(4)])), np.array(expected), atol=1e-5
    )


def _flat(module: Any) -> dict[str, mx.array]:
    from mlx.utils import tree_flatten

    return dict(tree_flatten(module.parameters()))


def test_heads_are_those_asked_for_in_their_order(model: Any) -> None:
    memory = Group().open(model)
    memory.read([5, 60, 7])
    _, attention = memory.attend([9])
    assert attention.heads == [(layer, head) for layer in range(2) for head in range(4)]
    every = np.array(attention.weights(attention.heads))
    np.testing.assert_array_equal(np.array(attention.weights([[1, 2], [0, 3]])), every[[6, 3]])
    assert len({tuple(row) for row in every.tolist()}) == 8


@pytest.mark.parametrize("heads", [[[2, 0]], [[0, 4]], [[-1, 0]], [[0, 0], [0, -1]], [[0]], [[0, 0, 0]], []])
def test_heads_that_are_not_there_are_refused(model: Any, facts: PromptTokens, heads: list[list[int]]) -> None:
    session = Session(Group().open(model), facts)
    session.read("a")
    with pytest.raises(ValueError, match=r"pairs of layer \(below 2\) and head \(below 4\), at least one") as error:
        session.attended(heads)
    assert str(heads) in str(error.value)
    assert session.write() == _fresh(model, facts, ["a"]).write()


def _fresh(model: Any, facts: PromptTokens, words: list[str]) -> Session:
    session = Session(Group().open(model), facts)
    for word in words:
        session.read(word)
    return session


@pytest.mark.parametrize(
    ("paradigm", "target_start"),
    [(Group(), 0), (Group(), 9), (Batch(), "after_source"), (BatchPositions(), 0), (Interleaved(), 0)],
)
def test_columns_are_where_the_source_lies(model: Any, paradigm: Paradigm, target_start: TargetStart) -> None:
    """Interleaved with the target, where the streams are; and what is read later does not change what was noted."""
    memory = paradigm.open(model, target_start)
    memory.read([5, 60, 7])
    memory.write([9, 10])
    memory.trim(1)
    memory.read([11, 12])
    with exact() as true:
        logits, attention = memory.attend([10, 13])
    columns = [0, 1, 2, 4, 5] if isinstance(paradigm, Interleaved) else [0, 1, 2, 3, 4]
    weights = np.array(attention.weights(attention.heads))
    np.testing.assert_allclose(weights, of_source(true, columns), atol=1e-5)
    memory.read([14])
    np.testing.assert_array_equal(np.array(attention.weights(attention.heads)), weights)

    same = paradigm.open(model, target_start)
    same.read([5, 60, 7])
    same.write([9, 10])
    same.trim(1)
    same.read([11, 12])
    np.testing.assert_allclose(np.array(logits), np.array(same.write([10, 13])), atol=1e-4)
    assert memory.forward_passes == same.forward_passes + 1  # the last read


# What cannot be read out


@pytest.mark.parametrize(("name", "layers"), [("gemma2", 0), ("nanbeige", 6), ("nemotron-nas", 2), ("deepseek_v3", 0)])
def test_a_model_whose_layers_do_not_leave_attention_to_mlx_is_refused(name: str, layers: int) -> None:
    """It computes it itself; more than once a layer; not in each; or a part of it (latent attention), elsewhere."""
    memory = Group().open(build(FAMILY[name]))
    memory.read([3, 9])
    with pytest.raises(
        ValueError, match=rf"cannot be read out: {layers} of its 3 layers.*other than alignatt"
    ) as error:
        memory.attend([7])
    assert name in str(error.value)
    assert mx.fast.scaled_dot_product_attention is ORIGINAL


def test_nothing_stays_changed(model: Any) -> None:
    memory = Group().open(model)
    memory.read([3, 9])
    memory.attend([7])
    assert mx.fast.scaled_dot_product_attention is ORIGINAL


def test_nothing_stays_changed_after_an_error_and_the_error_is_that_of_the_model() -> None:
    class Failing:
        layers = (None,)

        def __call__(self, tokens: mx.array, cache: Any = None) -> mx.array:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"), recorded(Failing()):
        Failing()(mx.array([[1]]))
    assert mx.fast.scaled_dot_product_attention is ORIGINAL


def test_a_forward_outside_is_not_recorded(model: Any) -> None:
    with recorded(model) as calls:
        model(mx.array([[1, 2]]))
    model(mx.array([[1, 2]]))
    assert len(calls) == 2


# Units


@pytest.fixture(scope="module")
def units(facts: PromptTokens) -> list[list[int]]:
    """Columns of the tokens of each word."""
    at, columns = len(facts.source_header), []
    for i, word in enumerate(WORDS):
        n = len(facts.source_tokens(word, i == 0))
        columns.append(list(range(at, at + n)))
        at += n
    assert at > len(facts.source_header) + len(WORDS)
    return columns


@pytest.mark.parametrize("ended", [False, True])
def test_the_attention_of_a_unit_is_that_of_its_tokens_together(
    model: Any, facts: PromptTokens, units: list[list[int]], ended: bool
) -> None:
    """Of some heads on average; header and footer are no units."""
    session = _fresh(model, facts, list(WORDS))
    if ended:
        session.end_source()
    with exact() as true:
        session.unit_attention()
    shares = of_source(true, list(range(session.source_tokens)))
    expected = np.stack([shares[:, columns].sum(axis=-1) for columns in units], axis=-1)
    np.testing.assert_allclose(session.unit_attention(), expected, atol=1e-5)
    assert (expected.sum(axis=-1) < 0.999).any(), "the header got something"
    seen = set()
    for heads in ([0], [5], [1, 6], [7, 2, 3], list(range(8))):
        found = session.attended([[head // 4, head % 4] for head in heads])
        assert found == expected[heads].mean(axis=0).argmax()
        seen.add(found)
    assert len(seen) > 1


@pytest.mark.parametrize("header", ["a <", ""])
@pytest.mark.parametrize("shared", [False, True], ids=["alone", "in a pool"])
@pytest.mark.parametrize("empty", [(0,), (1,), (3,), (0, 1), (1, 2, 3), (0, 1, 2, 3)], ids=str)
def test_a_unit_without_tokens_is_not_attended_to(
    model: Any, tokenizer: Any, empty: tuple[int, ...], header: str, shared: bool
) -> None:
    """A tokenizer may drop what it does not know. The others get what they get where it was not read."""

    class Dropping(PromptTokens):
        def source_tokens(self, unit: str, first: bool) -> list[int]:
            return super().source_tokens(unit, False) if unit != "?" else []

    dropping = Dropping(Prompt(source_header=header, target_header="German:"), tokenizer)
    words = ["?" if i in empty else word for i, word in enumerate(WORDS)]
    kept = [word for word in words if word != "?"]

    def session(words: list[str]) -> Session:
        memory: Any = Pool(model, 1).open() if shared else Group().open(model)
        session = Session(memory, dropping)
        for word in words:
            session.read(word)
        return session

    attended = session(words).unit_attention()
    assert not attended[:, list(empty)].any()
    if kept:
        rest = np.delete(attended, empty, axis=1)
        np.testing.assert_allclose(rest, session(kept).unit_attention(), atol=1e-6)
        assert session(words).attended([[0, 0]]) not in empty


def test_heads_of_the_model_are_taken_where_none_are_given(model: Any, facts: PromptTokens) -> None:
    heads = [[0, 1], [1, 2]]
    session = Session(Group().open(model), facts, alignment_heads=heads)
    for word in WORDS:
        session.read(word)
    np.testing.assert_array_equal(session.unit_attention(heads).shape, (2, 4))
    assert session.attended() == session.attended(heads) == _fresh(model, facts, list(WORDS)).attended(heads)


def test_no_heads_at_all_are_refused(model: Any, facts: PromptTokens) -> None:
    with pytest.raises(ValueError, match=r"`streamllm calibrate` and set policy\.heads"):
        _fresh(model, facts, ["a"]).attended()


@pytest.mark.parametrize("end", [False, True])
def test_where_nothing_was_read_nothing_is_attended_to(model: Any, facts: PromptTokens, end: bool) -> None:
    session = Session(Group().open(model), facts)
    if end:
        session.end_source()
    with pytest.raises(ValueError, match="no source unit has been read, so none is attended to: read one first"):
        session.attended([[0, 0]])


# When it is asked


def _looks(session: Session) -> np.ndarray:
    return session.unit_attention()


def test_looking_costs_nothing_but_the_prediction(model: Any, facts: PromptTokens) -> None:
    session, other = _fresh(model, facts, list(WORDS)), _fresh(model, facts, list(WORDS))
    for _ in range(3):
        _looks(session)
        assert session.write() == other.write()
        assert session.forward_passes == other.forward_passes
    session.read("a")
    _looks(session)
    _looks(session)
    assert session.forward_passes == other.forward_passes + 2


def test_what_a_layer_attends_to_is_the_mean_of_its_heads(model: Any, facts: PromptTokens) -> None:
    session = _fresh(model, facts, list(WORDS))
    layers = session.layer_attention()
    np.testing.assert_allclose(layers, _looks(session).reshape(2, 4, len(WORDS)).mean(axis=1), atol=1e-6)
    assert np.abs(layers[0] - layers[1]).max() > 1e-3


@pytest.mark.parametrize("seed", [3, 10])
def test_a_watched_draft_is_a_draft_and_costs_no_more(tokenizer: Any, facts: PromptTokens, seed: int) -> None:
    """And looks as a session does that writes one unit after the other."""
    heads, model = [[0, 1], [1, 2]], tiny.random_model(seed, len(tokenizer))
    watched, drafted, written = (_fresh(model, facts, list(WORDS)) for _ in range(3))
    hypothesis, rows = watched.watched_draft(heads, max_units=3)
    assert hypothesis == drafted.draft(3)
    assert len(hypothesis) == 3
    assert all(emission.tokens for emission in hypothesis)
    assert watched.forward_passes == drafted.forward_passes
    for emission, row in zip(hypothesis, rows, strict=True):
        np.testing.assert_allclose(row, written.unit_attention(heads).mean(axis=0), atol=1e-5)
        assert written.write() == emission
    assert np.abs(np.diff(rows, axis=0)).max() > 1e-3
    passes = watched.forward_passes
    assert [watched.write() for _ in range(3)] == list(hypothesis)
    assert watched.forward_passes == passes, "what was drafted is known"


def test_units_out_of_one_token_share_a_row(model: Any, facts: PromptTokens) -> None:
    hypothesis, rows = _fresh(model, facts, list(WORDS)).watched_draft(max_units=4)
    assert [bool(emission.tokens) for emission in hypothesis] == [True, True, False, True]
    assert (rows[1] == rows[2]).all() and (rows[2] != rows[3]).any()


@pytest.mark.parametrize("limit", [{"max_units": 0}, {"max_tokens": 0}])
def test_a_watched_draft_of_nothing_has_no_rows(model: Any, facts: PromptTokens, limit: Any) -> None:
    hypothesis, rows = _fresh(model, facts, list(WORDS)).watched_draft(**limit)
    assert hypothesis == () and rows.shape == (0, len(WORDS))


ROUNDABOUT: dict[str, Callable[[Session], Any]] = {
    "a prediction": lambda session: session.prediction(),
    "a prediction with source hidden": lambda session: session.prediction(hidden=1),
    "a draft": lambda session: session.draft(3),
    "a beam": lambda session: session.beam(2, 1),
    "a watched draft": lambda session: session.watched_draft(None, 3),
    "a draft and a beam": lambda session: (session.draft(3), session.beam(1, 1)),
    "a look, a draft and a beam": lambda session: (session.unit_attention(), session.draft(2), session.beam(2, 1)),
}


@pytest.mark.parametrize("way", ROUNDABOUT)
@pytest.mark.parametrize("written", [0, 2])
def test_a_look_is_that_of_the_next_token_whatever_was_asked_before(
    model: Any, facts: PromptTokens, way: str, written: int
) -> None:
    session, other = _fresh(model, facts, list(WORDS)), _fresh(model, facts, list(WORDS))
    _looks(session)
    for _ in range(written):
        session.write()
        other.write()
    ROUNDABOUT[way](session)
    np.testing.assert_allclose(_looks(session), _looks(other), atol=1e-5)
    session.read("a")
    other.read("a")
    np.testing.assert_allclose(_looks(session), _looks(other), atol=1e-5)


def test_a_look_after_a_rewind_is_that_of_the_token_that_comes_next_again(model: Any, tokenizer: Any) -> None:
    """Characters: a unit is written without looking ahead, so that a single token is known after the rewind."""
    facts = PromptTokens(PROMPT, tokenizer, "word", "character")
    session = _fresh(tiny.Biased(model, tiny.sentence_bias(tokenizer, end=0.0)), facts, list(WORDS))
    looks = [_looks(session)]
    mark = session.mark()
    assert len(session.write().tokens) == 1
    looks.append(_looks(session))
    session.prediction(hidden=1)
    session.rewind(mark)
    np.testing.assert_allclose(_looks(session), looks[0], atol=1e-5)
    session.write()
    np.testing.assert_allclose(_looks(session), looks[1], atol=1e-5)
    assert np.abs(looks[0] - looks[1]).max() > 1e-3


# A model that looks where it is told


def pointing(tokenizer: Any, angles: dict[str, float], query: float, sharpness: float) -> Any:
    """One layer, whose target header asks for an angle and whose source tokens each have one, in a plane that hardly
    turns with the position. Heads 0 and 3 look for the same angle, heads 1 and 2 for the opposite one."""
    config = tiny.config(len(tokenizer)) | {"num_hidden_layers": 1, "rope_theta": 1e12}
    model = qwen2.Model(qwen2.ModelArgs.from_dict(config))
    vocabulary = tokenizer.get_vocab()
    features = np.zeros((len(tokenizer), 32), np.float32)
    features[:, 0] = 1  # of keys; what nothing is said of is at angle 0
    features[:, 2] = 1  # of queries
    for piece, angle in angles.items():
        name = piece if piece in tiny.SPECIAL else "".join(tiny.LETTERS[byte] for byte in piece.encode())
        features[vocabulary[name], :2] = np.cos(angle), np.sin(angle)
    features[vocabulary["<mark>"], 2:4] = np.cos(query), np.sin(query)
    grown = 4  # by the norm: each row has two unit vectors in 32 numbers
    gain = sharpness * math.sqrt(8) / grown**2
    queries, keys = np.zeros((32, 32), np.float32), np.zeros((16, 32), np.float32)
    for head, sign in enumerate((1, -1, 1, -1)):
        queries[8 * head + 3, 2] = queries[8 * head + 7, 3] = sign * gain
    for head, sign in enumerate((1, -1)):
        keys[8 * head + 3, 0] = keys[8 * head + 7, 1] = sign
    attention = model.layers[0].self_attn
    model.model.embed_tokens.weight = mx.array(features)
    attention.q_proj.weight, attention.k_proj.weight = mx.array(queries), mx.array(keys)
    attention.q_proj.bias, attention.k_proj.bias = mx.zeros(32), mx.zeros(16)
    return model


POINTED = Prompt(source_header="<bos>", source_footer="<stop>", target_header="<mark>")


@pytest.mark.parametrize("unit", range(4))
def test_the_attended_unit_is_the_one_that_the_model_looks_at(tokenizer: Any, unit: int) -> None:
    """Header and footer lie exactly where it looks, and do not count."""
    angles = {piece: i * math.pi / 2 for i, piece in enumerate(("dog", " cat", " run", " a"))}
    asked = unit * math.pi / 2
    model = pointing(tokenizer, angles | {"<bos>": asked, "<stop>": asked}, asked, sharpness=6)
    session = Session(Group().open(model), PromptTokens(POINTED, tokenizer))
    for word in ("dog", "cat", "run", "a"):
        session.read(word)
    session.end_source()
    opposite = (unit + 2) % 4
    assert [session.attended([[0, head]]) for head in range(4)] == [unit, opposite, opposite, unit]
    assert session.attended([[0, 0], [0, 3]]) == unit
    assert session.attended([[0, 0], [0, 1], [0, 2]]) == opposite


def test_a_unit_of_two_tokens_counts_with_both(tokenizer: Any) -> None:
    """Each has 0.6 of the weight of the other unit's only token."""
    aside = math.acos(1 + math.log(0.6))
    model = pointing(tokenizer, {"dog": 0.0, " run": aside, "ing": aside, " cat": math.pi}, query=0.0, sharpness=1)
    session = Session(Group().open(model), PromptTokens(POINTED, tokenizer))
    session.read("dog")
    session.read("cat")
    assert session.attended([[0, 0]]) == 0
    session.read("runing")
    assert session.attended([[0, 0]]) == 2
    [row] = session.unit_attention([[0, 0]])
    assert row[2] / row[0] == pytest.approx(1.2, rel=1e-3)


def test_attention_is_read_out_where_numpy_takes_the_exponentials(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.random_model(3, 64)

    def weights() -> np.ndarray:
        memory = GroupMemory(model)
        memory.read([1, 2, 3, 4, 5])
        logits, attention = memory.attend([6])
        return np.concatenate([np.array(logits), np.array(attention.weights(attention.heads)).ravel()])

    by_mlx = weights()
    monkeypatch.setattr("streamllm.engine.paradigms.memory.MANY_EXPONENTIALS", 0)
    np.testing.assert_allclose(weights(), by_mlx, atol=1e-5)
