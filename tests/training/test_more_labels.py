"""Labels by the minimal sufficient prefix, by alignment and by regret: worked out by hand, and the same in batches."""

import random
from typing import Any

import numpy as np
import pytest
import tiny

from streamllm.engine.limits import Limits
from streamllm.engine.loop import translate
from streamllm.models.model import StreamingModel
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import READ, WRITE, Action, Decide, Example, State
from streamllm.training.data import DataConfig, TrainingData
from streamllm.training.heads.cells import Cells, Measured, Parts, cells_of, every_path
from streamllm.training.heads.labels.needed import Alignment, Oracle
from streamllm.training.heads.labels.regret import Regret

EXAMPLES = [Example("1", "a cat", "the dog"), Example("2", "the", "cat, dog"), Example("3", "dog a", "a: b")]
HEADS = [[0, 1], [1, 2]]


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> StreamingModel:
    inside = tiny.random_model(4, len(tokenizer))
    prompt = Prompt(source_header="a <", source_footer=" =>", target_header="German:")
    return StreamingModel(inside, PromptTokens(prompt, tokenizer), tokenizer, write_head=tiny.write_head(2))


# By hand


def cells(likeliest: list[list[int]], second: list[list[int]], whole: list[int], aligned: Any = None) -> Cells:
    """Two parts of one token each, after 1, 2 and 3 of three source units; which tokens of four are likely there."""
    parts = Parts(np.array([1, 0]), np.array([0, 1]), np.array([0, 1]))
    one_hot, read = np.eye(4, dtype=np.float32), np.tile([1, 2, 3], 2)
    logits = 2 * one_hot[np.ravel(likeliest)] + one_hot[np.ravel(second)]
    states = np.zeros((6, 4), np.float32)
    return Cells(parts, read, np.repeat([0, 1], 3), states, logits, one_hot[whole], 3, aligned)


def test_the_minimal_sufficient_prefix_by_hand() -> None:
    """The whole source says 1, then 2. The first part: right after one unit, wrong after two, so three suffice. The
    second: two. Data that have other tokens change nothing."""
    found = cells([[1, 3, 1], [0, 2, 2]], [[0, 1, 0], [3, 3, 3]], [1, 2])
    oracle = Oracle()
    measured = oracle.measured(found)
    assert measured.tolist() == [-2, -1, 0, -1, 0, 1]
    assert oracle.targets(measured).tolist() == [0, 0, 1, 0, 1, 1]
    assert Oracle(beyond=1).targets(measured).tolist() == [0, 0, 0, 0, 0, 1]
    assert Oracle(rank=2).measured(found).tolist() == [0, 1, 2, -1, 0, 1]


def test_where_only_the_end_of_the_source_tells_no_prefix_suffices() -> None:
    assert Oracle().measured(cells([[1, 1, 0], [2, 2, 2]], [[0] * 3] * 2, [1, 2])).tolist() == [-3, -2, -1, 0, 1, 2]


def test_alignment_is_the_newest_unit_that_a_token_of_the_part_looks_at() -> None:
    found = cells([[1] * 3] * 2, [[0] * 3] * 2, [1, 2], np.array([0, 2]))
    measured = Alignment(heads=HEADS).measured(found)
    assert measured.tolist() == [0, 1, 2, -2, -1, 0]
    assert Alignment(heads=HEADS).targets(measured).tolist() == [1, 1, 1, 0, 0, 1]
    two_tokens = Parts(np.array([1, 0, 2]), np.array([0, 2]), np.array([0, 1]))
    needed = Alignment().needed(Cells(two_tokens, *[None] * 5, 3, np.array([1, 0, 2])))  # type: ignore[arg-type]
    assert needed.tolist() == [2, 3]


def test_a_regret_becomes_a_label_by_hand() -> None:
    """σ(1) = 0.7311, ½ and 1 - σ(1)."""
    measured = np.array([-2, 0, 2], np.float32)
    np.testing.assert_allclose(Regret(temperature=2.0).targets(measured), [0.7311, 0.5, 0.2689], atol=1e-4)
    assert Regret(temperature=None).targets(measured).tolist() == [1, 1, 0]
    assert np.isfinite(Regret().targets(np.array([-1e9, 1e9], np.float32))).all()


# By a model


def test_tokens_are_aligned_with_what_a_session_attends_to(model: StreamingModel) -> None:
    data = TrainingData(EXAMPLES, model.prompt, DataConfig(), 0)
    pairs = [data.tokenize(example) for example in EXAMPLES]
    paths = [every_path(Parts.of(pair, model.prompt), len(pair.source), 1) for pair in pairs]
    for example, found in zip(EXAMPLES, cells_of(model, pairs, paths, HEADS), strict=True):
        session = model.session()
        for word in example.source.split():
            session.read(word)
        session.end_source()
        for token, aligned in zip(found.parts.tokens.tolist(), found.aligned.tolist(), strict=True):  # type: ignore[union-attr]
            assert session.attended(HEADS) == aligned
            session.write((token,))
    assert next(cells_of(model, pairs[:1], paths[:1])).aligned is None


def regrets(model: StreamingModel, batch_size: int | None = None, rows: int | None = None) -> list[Measured]:
    labels = Regret(width=1, quality="chrf", batch_size=batch_size)
    short = [Example("1", "a", "dog"), Example("2", "the cat", "a")]
    return list(labels.of_sentences(model, short, 2, 8, rows, random.Random(0)))


def test_regrets_are_the_same_in_batches_few_are_drawn_and_the_head_stays(model: StreamingModel) -> None:
    head = model.write_head
    alone, together = regrets(model, batch_size=1), regrets(model, batch_size=64)
    assert model.write_head is head
    assert len(alone) == len(together) == 2
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.measured, other.measured, atol=1e-4)
        np.testing.assert_allclose(one.states, other.states, atol=2e-3)
        for name in ("read", "written", "units"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert (one.written - one.read < 2).all() and (one.read - one.written <= 8).all()
    few = regrets(model, rows=1)
    assert 0 < sum(map(len, few)) < sum(map(len, alone))


def test_a_state_is_that_in_which_a_policy_is_asked_on_the_same_way(model: StreamingModel) -> None:
    limits = Limits(length_ratio=0, length_extra=3, bare=True)
    example, found = EXAMPLES[0], []
    explored = model.session().explore(example.source, limits, 2, lambda text: float(len(text)), judges=True, ahead=2)
    places = [place for place in explored.places if place.state is not None]
    assert places and all(len(place.shown) - place.read < 2 for place in places)
    for place in places[:: max(1, len(places) // 5)]:
        session = model.session()

        class Walks:
            def start(self, example: Example) -> Decide:
                left = iter(place.decisions)  # noqa: B023
                asked = False

                def decide(state: State) -> Action:
                    nonlocal asked
                    decision = next(left, None)
                    if decision is None and not asked:
                        asked = True
                        found.append(session.judged_state())  # noqa: B023
                    return WRITE if decision == "W" else READ

                return decide

        translate(session, example, Walks(), limits)
        np.testing.assert_allclose(found[-1], place.state, atol=1e-3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Oracle(rank=0), "labels.rank is 0"),
        (lambda: Oracle(beyond=-1), "labels.beyond is -1"),
        (lambda: Alignment(heads=[[1]]), "labels.heads are"),
        (lambda: Regret(trade=-1.0), "labels.trade is -1.0"),
        (lambda: Regret(width=0), "labels.width is 0"),
        (lambda: Regret(temperature=0.0), "labels.temperature is 0.0"),
        (lambda: Regret(quality="comet"), "score is 'comet'"),
        (lambda: Regret(lag="yaal"), "metric is 'yaal'"),
        (lambda: Regret(batch_size=0), "labels.batch_size is 0"),
    ],
)
def test_what_labels_do_not_take_is_one_clear_error(make: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match.replace(".", r"\.")):
        make()


def test_alignment_without_heads_is_one_clear_error(model: StreamingModel) -> None:
    with pytest.raises(ValueError, match="streamllm calibrate"):
        Alignment().attends(model)
