"""Training a write head: cells are what a session predicts there, labels are those worked out by hand, the network's
gradient is that of its formula, and a training that was stopped goes on to the same head."""

import random
import re
from itertools import chain
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny

from streamllm.engine.lookahead import logprobs
from streamllm.models.model import StreamingModel
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import Example
from streamllm.training.data import DataConfig, TrainingData
from streamllm.training.heads.cells import Cells, Parts, cells_of, drawn_paths, every_path
from streamllm.training.heads.labels.agreement import Agreement
from streamllm.training.heads.labels.divergence import Divergence
from streamllm.training.heads.measured import CellConfig, measure
from streamllm.training.heads.network import BinaryCrossEntropy, CellBatch, CellData, HeadConfig, Network

PAIRS = [Example("1", "the dog runs", "dog, cat the end."), Example("2", "a", "the dog"), Example("3", "a b", "a: b")]


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> StreamingModel:
    inside = tiny.random_model(4, len(tokenizer))
    prompt = Prompt(source_header="a <", source_footer=" =>", target_header="German:")
    return StreamingModel(inside, PromptTokens(prompt, tokenizer), tokenizer, write_head=tiny.write_head(2))


def tokenized(model: StreamingModel) -> list[Any]:
    data = TrainingData(PAIRS, model.prompt, DataConfig(), 0)
    return [data.tokenize(pair) for pair in PAIRS]


# --- cells


def test_a_target_is_cut_where_a_policy_decides(model: StreamingModel) -> None:
    pair = tokenized(model)[0]
    parts = Parts.of(pair, model.prompt)
    ends = [*parts.starts[1:], len(parts.tokens)]
    texts = [model.prompt.decode(parts.tokens[a:b].tolist()) for a, b in zip(parts.starts, ends, strict=True)]
    assert texts == ["dog", ",", "cat", "the", "end", ".", ""]
    assert parts.units.tolist() == [0, 0, 1, 2, 3, 3, 4]
    assert parts.tokens[-1] == model.prompt.end_token


def test_every_path_is_wait_k_and_drawn_ones_never_go_back() -> None:
    parts = Parts(np.arange(4), np.arange(4), np.array([0, 1, 1, 2]))
    assert every_path(parts, 2, 1).tolist() == [[0, 1, 1, 2], [1, 2, 2, 3], [2, 3, 3, 4]]
    for seed in range(20):
        paths = drawn_paths(parts, 9, 2, 4, 3, 5, random.Random(seed))
        assert paths.shape == (5, 4)
        assert (np.diff(paths, axis=1) >= 0).all()
        assert (abs(drawn_paths(parts, 9, 2, 4, 0, 5, random.Random(seed))[:, :1] - 1.5) <= 2.5).all()


def test_cells_are_what_a_session_predicts_on_the_same_path(model: StreamingModel) -> None:
    """Session and cells feed the same tokens in other orders: source read as it comes, or all at once and masked. What
    is fed sees the source read by then: the header that of the first part, a token within a part that of its part."""
    pairs = tokenized(model)
    paths = [every_path(Parts.of(pair, model.prompt), len(pair.source), 1) for pair in pairs]
    for pair, cells, path in zip(pairs, cells_of(model, pairs, paths), paths, strict=True):
        parts, place = cells.parts, 0
        words = PAIRS[pairs.index(pair)].source.split()
        for row in path:
            session = model.session()
            read = 0
            for part in np.flatnonzero(row <= len(words)):
                while read < max(1, row[part]):
                    session.read(words[read])
                    read += 1
                tokens = parts.tokens[parts.starts[part] : parts.starts[part] + parts.sizes[part]]
                if row[part] >= 1:
                    assert (cells.read[place], cells.part[place]) == (read, part)
                    start = cells.starts[place]
                    assert cells.written[place] == parts.units[part] + (
                        part > 0 and parts.units[part - 1] == parts.units[part]
                    )
                    found = model.write_head(cells.states[place : place + 1])[0]  # type: ignore[misc]
                    assert session.write_logit() == pytest.approx(found, abs=2e-3)
                    first = np.array(session.prediction().logits)
                    np.testing.assert_allclose(logprobs(first), logprobs(cells.logits[start]), atol=2e-3)
                    place += 1
                for token in tokens.tolist() if part < len(parts.sizes) - 1 else []:
                    session.predict()  # as one that writes does: the token before is fed by now, not after more source
                    session.write((token,))
        assert place == len(cells.read)
        session = model.session()
        for word in words:
            session.read(word)
        session.end_source()
        for part, token in enumerate(cells.whole[parts.starts]):
            np.testing.assert_allclose(logprobs(np.array(session.prediction().logits)), logprobs(token), atol=2e-3)
            tokens = parts.tokens[parts.starts[part] : parts.starts[part] + parts.sizes[part]]
            session.write(tuple(tokens.tolist()))


# --- labels, by hand


def two_cells() -> Cells:
    """Two parts: of one token (and the end), and of two. Probabilities over three tokens are easy numbers."""
    parts = Parts(np.array([0, 1, 2]), np.array([0, 1]), np.array([0, 1]))
    p = [[0.5, 0.25, 0.25], [0.2, 0.7, 0.1], [0.1, 0.6, 0.3]]  # cell 0: token 0; cell 1: tokens 1 and 2
    q = [[0.75, 0.125, 0.125], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8]]
    return Cells(
        parts,
        read=np.array([1, 1]),
        part=np.array([0, 1]),
        states=np.zeros((2, 4), np.float32),
        logits=np.log(np.array(p, np.float32)) + 7,  # a constant changes nothing
        whole=np.log(np.array(q, np.float32)),
        units=2,
    )


def test_total_variation_is_half_the_sum_of_differences_at_the_farthest_token() -> None:
    """Cell 0: (¼ + ⅛ + ⅛) / 2 = ¼. Cell 1: max(0, (0 + 0.5 + 0.5) / 2) = ½."""
    labels = Divergence()
    measured = labels.measured(two_cells())
    np.testing.assert_allclose(measured, [0.25, 0.5], atol=1e-6)
    np.testing.assert_allclose(labels.targets(measured), [0.75, 0.5], atol=1e-6)
    assert Divergence(threshold=0.3).targets(measured).tolist() == [1, 0]


def test_kl_is_that_of_the_whole_sources_distribution_from_the_prefixes() -> None:
    """Cell 0: ¾ ln(1.5) + ¼ ln(½). Cell 1, at its second token: 0.1 ln(1/6) + 0.8 ln(8/3)."""
    labels = Divergence("kl")
    measured = labels.measured(two_cells())
    expected = [0.75 * np.log(1.5) + 0.25 * np.log(0.5), 0.1 * np.log(1 / 6) + 0.8 * np.log(8 / 3)]
    np.testing.assert_allclose(measured, expected, atol=1e-5)
    np.testing.assert_allclose(labels.targets(measured), np.exp(-np.array(expected)), atol=1e-5)


def test_a_token_that_is_ruled_out_leaves_a_distance() -> None:
    cells = two_cells()
    cells.logits[0, 2] = cells.whole[0, 2] = -np.inf
    assert np.isfinite(Divergence("kl").measured(cells)).all()
    cells.logits[0, 0] = -np.inf  # what the whole source says is impossible by the prefix
    assert Divergence("kl").measured(cells)[0] == 100
    np.testing.assert_allclose(Divergence().measured(cells)[0], 0.75 / 0.875, atol=1e-6)


def test_agreement_asks_for_the_rank_of_the_worst_token_that_is_written() -> None:
    """Cell 0 writes token 0, the likeliest; cell 1 tokens 1, the likeliest, and 2, the second."""
    labels = Agreement()
    measured = labels.measured(two_cells())
    assert measured.tolist() == [1, 2]
    assert labels.targets(measured).tolist() == [1, 0]
    assert Agreement(2).targets(measured).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Divergence("cosine"), "labels.distance is 'cosine'; accepted are total_variation, kl"),  # type: ignore[arg-type]
        (lambda: Divergence(threshold=0), "labels.threshold is 0; it is a number, above 0"),
        (lambda: Agreement(0), "labels.rank is 0; it is a whole number, at least 1"),
        (lambda: HeadConfig(hidden=[0]), "head.hidden is 0; it is a whole number, at least 1"),
        (lambda: HeadConfig(hidden="64"), "head.hidden is '64'; it is a list of widths"),
        (lambda: HeadConfig(batch=0), "head.batch is 0; it is a whole number of cells"),
        (lambda: CellConfig(rows=0), "cells.rows is 0; it is a whole number of paths, at least 1, or null for all"),
        (lambda: CellConfig(ahead=-1), "cells.ahead is -1; it is a whole number of units, at least 0"),
        (lambda: CellConfig(jitter=0.5), "cells.jitter is 0.5; it is a whole number of units"),  # type: ignore[arg-type]
    ],
)
def test_what_is_not_accepted_is_said_with_its_key(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


# --- the network


def network(seed: int = 0, hidden: tuple[int, ...] = (3,)) -> Network:
    return Network(np.array([1.0, -2, 0, 5], np.float32), np.array([2.0, 1, 0.5, 4], np.float32), hidden, seed)


@pytest.mark.parametrize("hidden", [(), (3,), (6, 5)])
def test_the_head_that_is_written_is_the_network_that_has_learned(hidden: tuple[int, ...]) -> None:
    learned = network(1, hidden)
    states = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32) * 3
    np.testing.assert_allclose(learned.head()(states), np.array(learned(mx.array(states))), atol=1e-4)


def test_the_gradient_is_that_of_the_binary_cross_entropy() -> None:
    """Of a linear head: Σ (σ(z) - y) x, x the normed state; y = 0.75 at z = 0 gives (0.5 - 0.75) x."""
    learned = network(0, ())
    learned.layers[0].weight = mx.zeros((1, 4))
    learned.layers[0].bias = mx.zeros((1,))
    batch = CellBatch(np.array([[3.0, -2, 1, 5]], np.float32), np.array([0.75], np.float32))
    loss, grads = nn.value_and_grad(learned, BinaryCrossEntropy())(learned, batch, 0, "group", 0.0)
    assert float(loss) == pytest.approx(np.log(2))
    normed = np.array([1.0, 0, 2, 0])
    np.testing.assert_allclose(np.array(grads["layers"][0]["weight"])[0], -0.25 * normed, atol=1e-6)
    np.testing.assert_allclose(np.array(grads["layers"][0]["bias"]), [-0.25], atol=1e-6)
    assert set(grads) == {"layers"}, "the norm does not learn"


def test_all_cells_are_learned_from_once_an_epoch_in_another_order_each() -> None:
    states = np.arange(10, dtype=np.float16)[:, None]
    data = CellData(states, np.zeros(10, np.float32), 5, 3)
    epochs = [[batch.states[:, 0].tolist() for batch, _ in block] for e in (0, 1) for block in data.blocks(e)]
    assert all(sorted(chain(*epoch)) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    halves = [next(iter(data.blocks(0, 0, rank, 2))) for rank in (0, 1)]
    assert sorted(chain(*(half[0][0].states[:, 0].tolist() for half in halves))) == list(range(10))


# --- what is kept


def test_what_was_measured_is_read_back_and_a_stopped_computation_goes_on(
    model: StreamingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamllm.training.heads.measured.PAIRS", 1)
    config = CellConfig(rows=2)

    def told(done: int, of: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(model, PAIRS, Divergence(), config, tmp_path / "a", "weights", progress=told)
    (kept,) = (tmp_path / "a").iterdir()
    first = sorted(kept.iterdir())
    assert len(first) == 2
    times = [file.stat().st_mtime_ns for file in first]
    whole = measure(model, PAIRS, Divergence(threshold=0.5), config, tmp_path / "a", "weights")  # other targets
    assert [file.stat().st_mtime_ns for file in first] == times
    anew = measure(model, PAIRS, Divergence(), config, tmp_path / "b", "weights")
    np.testing.assert_array_equal(whole.measured, anew.measured)
    np.testing.assert_array_equal(whole.states, anew.states)
    assert set(whole.units.tolist()) == {1, 2, 3}
    measure(model, PAIRS, Agreement(), config, tmp_path / "a", "weights")  # beside it
    measure(model, PAIRS, Divergence(), config, tmp_path / "a", "other weights")
    assert len(list((tmp_path / "a").iterdir())) == 3


def test_a_damaged_file_of_labels_is_named(model: StreamingModel, tmp_path: Path) -> None:
    measure(model, PAIRS, Divergence(), CellConfig(), tmp_path, "weights")
    (file,) = tmp_path.glob("*/*.safetensors")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"00000\.safetensors is damaged .*: delete it, and it is measured again"):
        measure(model, PAIRS, Divergence(), CellConfig(), tmp_path, "weights")


def test_pairs_that_are_too_long_are_left_out_and_none_at_all_is_an_error(
    model: StreamingModel, tmp_path: Path
) -> None:
    first = tokenized(model)[0]
    prompt = model.prompt
    source = len(prompt.source_header) + len(prompt.source_footer) + sum(map(len, first.source))
    longest = max(source, len(prompt.target_header) + sum(map(len, first.target)))
    few = measure(model, PAIRS, Divergence(), CellConfig(max_tokens=longest - 1), tmp_path, "weights")
    assert set(few.units.tolist()) == {1, 2}
    all_of_them = measure(model, PAIRS, Divergence(), CellConfig(max_tokens=longest), tmp_path, "weights")
    assert set(all_of_them.units.tolist()) == {1, 2, 3}
    with pytest.raises(ValueError, match=r"no sentence pair is left to learn from: see cells\.max_tokens"):
        measure(model, PAIRS, Divergence(), CellConfig(max_tokens=2), tmp_path, "weights")
