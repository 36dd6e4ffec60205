"""Random paths: where they lie, that a stream sees what they say, and that what is streamed along one is what is
trained."""

import random
from dataclasses import replace
from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_training import PAIRS, fresh, streamed_logits

from streamllm.engine.paradigms.group import Group
from streamllm.engine.paradigms.interleaved import Interleaved
from streamllm.engine.paradigms.memory import Paradigm
from streamllm.metrics.latency import length_adaptive_average_lagging
from streamllm.models.model import StreamingModel
from streamllm.training.batch import pad
from streamllm.training.data import FULL, DataConfig, TrainingData
from streamllm.training.documents import Documents, seen
from streamllm.training.loss import forward
from streamllm.training.masks import visible
from streamllm.training.paths import RANDOM, RandomPath
from streamllm.training.train import ValidationConfig

lengths = st.integers(1, 30)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StreamingModel:
    return fresh(tmp_path_factory.mktemp("model"))


@given(st.integers(0, 2**32 - 1), lengths, st.integers(0, 30), st.integers(0, 3))
def test_a_path_reads_on_from_the_diagonal_and_follows_from_its_seed(
    seed: int, source: int, target: int, place: int
) -> None:
    counts = RandomPath(seed).counts(source, target, place)
    assert len(counts) == target + 1
    assert counts == sorted(counts)
    assert counts[0] >= 1
    assert all(count > (i + 0.5) * source / target - 1e-9 for i, count in enumerate(counts[:-1]))
    assert counts[-1] >= source
    assert counts == RandomPath(seed).counts(source, target, place)


def test_sentences_of_a_stream_have_paths_of_their_own() -> None:
    assert len({tuple(RandomPath(1).counts(20, 20, place)) for place in range(5)}) == 5
    assert len({tuple(RandomPath(seed).counts(20, 20)) for seed in range(5)}) == 5


def test_paths_lie_where_policies_work() -> None:
    drawn = [RandomPath(seed).counts(12, 12)[:12] for seed in range(2000)]
    paths = [[min(count, 12) for count in counts] for counts in drawn]
    lags = np.array([length_adaptive_average_lagging(path, 12, 12) for path in paths])
    assert np.quantile(lags, (0.05, 0.5, 0.75, 0.95)) == pytest.approx([1.0, 1.9, 3.0, 6.0], abs=0.4)
    reads = [after - before for path in paths for before, after in pairwise(path)]
    shares = np.bincount(reads, minlength=5) / len(reads)
    assert shares[0] > 0.15  # it writes several
    assert shares[2:].sum() > 0.05  # and reads a few at once
    assert 0.3 < np.mean([counts[-1] > 12 for counts in drawn]) < 0.8  # the last word sees the end where it says so


units_of_sentences = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4)


@given(units_of_sentences, st.integers(0, 99), st.booleans())
def test_a_stream_sees_along_the_path_of_each_sentence(units: list[tuple[int, int]], seed: int, held: bool) -> None:
    sources, targets = ([pair[i] for pair in units] for i in (0, 1))
    found = seen(sources, targets, RandomPath(seed), held)
    assert [len(one) for one in found] == [n + 1 + (i == len(units)) for i, n in enumerate(targets, 1)]
    start = before = 0
    for place, (source, target, one) in enumerate(zip(sources, targets, found, strict=True), 1):
        most = start + source + 1 if held else sum(sources) + 1
        counts = RandomPath(seed).counts(source, target, place)
        assert one[: target + 1] == [max(before, min(start + count, most)) for count in counts]
        before, start = one[-1], start + source + held
    assert found[-1][-1] == sum(sources) + (len(sources) if held else 1)


def sees(one: object) -> np.ndarray:
    batch = pad([one])  # type: ignore[list-item]
    return np.array(visible(mx.array(batch.source_units), mx.array(batch.target_units), mx.array(batch.k)))[0]


def test_a_sentence_sees_what_its_path_says_and_its_footer_behind_all_words(model: StreamingModel) -> None:
    data = TrainingData(PAIRS, model.prompt, DataConfig(), seed=0)
    footers = set()
    for seed in range(20):
        path = RandomPath(seed)
        for pair in PAIRS:
            one = data.encode(pair, path)
            words = len(pair.source.split())
            counts = path.counts(words, len(pair.reference.split()))
            units = np.array(one.source_units)
            visible = sees(one)
            shown = [int((units[row & (units >= 0)]).max()) + 1 for row in visible]
            learned = [count for label, count in zip(one.labels, shown, strict=True) if label >= 0]
            assert sorted(set(learned)) == sorted({min(count, words + 1) for count in counts})
            footers.add(learned[-1] == words + 1)
    assert footers == {True, False}


@pytest.mark.parametrize("k", [1, 3, FULL, RandomPath(4)])
@pytest.mark.parametrize("held", [None, True, False])
def test_with_the_whole_source_a_target_unit_sees_its_sentence(
    model: StreamingModel, k: int | str | RandomPath, held: bool | None
) -> None:
    data = TrainingData(PAIRS, model.prompt, DataConfig(), seed=0)
    one = data.encode(PAIRS[0], k) if held is None else data.encode_stream(PAIRS[:3], k, held)
    whole = data.encode(PAIRS[0], FULL) if held is None else data.encode_stream(PAIRS[:3], FULL, held)
    taught = replace(one, target_units=one.whole_units, k=0)
    assert (sees(taught) >= sees(one)).all()
    assert (sees(taught) >= sees(whole)).all()
    if held is not False:  # where reading goes on, the part may reach into sentences that follow
        np.testing.assert_array_equal(sees(taught), sees(whole))


@pytest.mark.parametrize("paradigm", [Group(), Interleaved()])
@pytest.mark.parametrize("seed", range(3))
def test_streamed_and_trained_forward_agree_along_a_path(model: StreamingModel, seed: int, paradigm: Paradigm) -> None:
    data, path = TrainingData(PAIRS, model.prompt, DataConfig(), seed=0), RandomPath(seed)
    pairs = [data.encode(example, path) for example in PAIRS]
    name = "group" if isinstance(paradigm, Group) else "interleaved"
    trained = forward(model.model, pad(pairs), paradigm=name)
    for i, (example, one) in enumerate(zip(PAIRS, pairs, strict=True)):
        counts = path.counts(len(example.source.split()), len(example.reference.split()))
        streamed, labels = streamed_logits(model, example, counts, paradigm)
        rows = [row for row, label in enumerate(one.labels) if label >= 0]
        assert labels == [one.labels[row] for row in rows]
        np.testing.assert_allclose(np.array(trained[i])[rows], np.array(mx.stack(streamed)), atol=2e-5)


@pytest.mark.parametrize("joined", [None, Documents([1, 2, 3])])
def test_a_path_does_not_depend_on_when_it_is_laid_out(model: StreamingModel, joined: Documents | None) -> None:
    data = TrainingData(PAIRS, model.prompt, DataConfig(k=(2, RANDOM, FULL), documents=joined), seed=1)
    first, again = (data.plan(PAIRS, random.Random(3)) for _ in range(2))
    forth = [planned.encoded() for planned in first]
    back = [planned.encoded() for planned in reversed(again)][::-1]
    assert forth == back
    assert forth != [planned.encoded() for planned in data.plan(PAIRS, random.Random(4))]


def test_random_is_for_training_alone_and_others_are_told_what_is_accepted() -> None:
    assert DataConfig(k=RANDOM).ks == [RANDOM]
    with pytest.raises(ValueError, match=r"score\.k is \['random'\]; each is a whole number .* or 'full'$"):
        ValidationConfig(k=[RANDOM])
    with pytest.raises(ValueError, match=r"data\.k is 'any'; .* or 'full' or 'random'$"):
        DataConfig(k="any")
