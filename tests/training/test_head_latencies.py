"""A write head that is asked for a latency: its cells are measured under a tag, and its labels are those of the tag."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny

from streamllm.batching.scheduler import translate_many
from streamllm.check import check_model
from streamllm.engine.limits import Limits
from streamllm.engine.lookahead import logprobs
from streamllm.engine.write_head import WriteHead
from streamllm.models import write_heads
from streamllm.models.model import StreamingModel
from streamllm.models.settings import SETTINGS, read_settings
from streamllm.policies import Learned
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import READ, WRITE_BARE, Example, State
from streamllm.runs.naming import digest
from streamllm.training.data import DataConfig, TrainingData
from streamllm.training.heads.cells import Parts, cells_of, every_path
from streamllm.training.heads.labels.agreement import Agreement
from streamllm.training.heads.labels.divergence import Divergence
from streamllm.training.heads.labels.labels import targets
from streamllm.training.heads.labels.needed import Oracle
from streamllm.training.heads.labels.regret import Regret
from streamllm.training.heads.measured import CellConfig, measure

PAIRS = [Example("1", "the dog runs", "dog, cat the end."), Example("2", "a", "the dog"), Example("3", "a b", "a: b")]
TAGS = ("1", "2", "7")
MARK = 3  # "<mark>"


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> StreamingModel:
    """One with a wait token, which no prediction may count."""
    inside = tiny.random_model(4, len(tokenizer))
    prompt = Prompt("a <", " =>", "German{latency}:", latency="2", wait_token="<mark>")
    tokens = PromptTokens(prompt, tokenizer, latencies=TAGS)
    return StreamingModel(inside, tokens, tokenizer, write_head=tiny.write_head(2))


def tokenized(model: StreamingModel) -> list[Any]:
    data = TrainingData(PAIRS, model.prompt, DataConfig(), 0)
    return [data.tokenize(pair) for pair in PAIRS]


def test_cells_under_a_tag_are_what_a_session_predicts_that_is_asked_for_it(model: StreamingModel) -> None:
    pairs = tokenized(model)
    paths = [every_path(Parts.of(pair, model.prompt), len(pair.source), 1) for pair in pairs]
    headers = [model.prompt.header_asking(tag) for tag in TAGS]
    found = [*cells_of(model, pairs, paths, headers=headers)]
    for pair, cells, path, tag in zip(PAIRS, found, paths, TAGS, strict=True):
        parts, place, words = cells.parts, 0, pair.source.split()
        for row in path:
            session, read = model.session(), 0
            for part in np.flatnonzero(row <= len(words)):
                while read < max(1, row[part]):
                    session.read(words[read])
                    read += 1
                if row[part] >= 1:
                    logit = model.write_head(cells.states[place : place + 1])[0]  # type: ignore[misc]
                    assert session.write_logit(tag) == pytest.approx(logit, abs=2e-3)
                    predicted = session.prediction()
                    logits = logprobs(cells.logits[cells.starts[place]])
                    for token in range(0, len(logits), 7):
                        expected = predicted.probability(token)
                        assert np.exp(logits[token]) == pytest.approx(expected, abs=1e-5)
                    assert cells.logits[cells.starts[place], MARK] == -np.inf == cells.whole[0, MARK]
                    place += 1
                session.ask_for(tag)
                for token in parts.tokens[parts.starts[part] :][: parts.sizes[part]].tolist():
                    session.predict()
                    session.write((token,))
        assert place == len(cells.read)
    plain = next(cells_of(model, pairs, paths))
    assert np.abs(plain.states - found[0].states).max() > 1e-2, "the tag is seen"


def measured_by(model: StreamingModel, folder: Path, latencies: Any, labels: Any = Divergence(), **config: Any) -> Any:
    return measure(model, PAIRS * 8, labels, CellConfig(rows=2, latencies=latencies, **config), folder, "weights")


@pytest.mark.parametrize("labels", [Divergence(), Oracle()], ids=lambda labels: type(labels).__name__)
def test_each_pair_asks_for_a_tag_that_is_drawn(model: StreamingModel, tmp_path: Path, labels: Any) -> None:
    found = measured_by(model, tmp_path, "all", labels)
    assert set(found.latency.tolist()) == {0, 1, 2}
    again = measured_by(model, tmp_path, [1, 2, 7], labels)  # the same, and read back
    np.testing.assert_array_equal(found.latency, again.latency)
    assert len([*tmp_path.iterdir()]) == 1
    other = measured_by(model, tmp_path, ["7", "1"], labels)
    assert set(other.latency.tolist()) == {0, 1}
    own = measured_by(model, tmp_path, None, labels)
    assert set(own.latency.tolist()) == {-1}
    assert len([*tmp_path.iterdir()]) == 3


def test_the_state_and_the_label_are_those_of_the_drawn_tag(model: StreamingModel, tmp_path: Path) -> None:
    """One tag for all is what the prompt of that tag gives."""
    asked = measured_by(model, tmp_path / "a", ["7"])
    prompt = Prompt("a <", " =>", "German{latency}:", latency="7", wait_token="<mark>")
    own = StreamingModel(model.model, PromptTokens(prompt, model.tokenizer), model.tokenizer)
    data = TrainingData(PAIRS, own.prompt, DataConfig(), 0)
    pairs = [data.tokenize(pair) for pair in PAIRS]
    paths = [every_path(Parts.of(pair, own.prompt), len(pair.source), 1) for pair in pairs]
    headers = [model.prompt.header_asking("7")] * len(pairs)
    for here, there in zip(cells_of(model, pairs, paths, headers=headers), cells_of(own, pairs, paths), strict=True):
        np.testing.assert_array_equal(here.states, there.states)
        np.testing.assert_array_equal(Divergence().measured(here), Divergence().measured(there))
    assert set(asked.latency.tolist()) == {0}


def test_labels_are_judged_by_the_value_of_their_latency() -> None:
    from streamllm.training.heads.cells import Measured

    zeros = np.zeros(6, np.int32)
    latency = np.array([0, 1, 2, 0, 1, 2], np.int32)
    distances = Measured(np.zeros((6, 1)), np.array([0.5, 0.5, 0.5, 0.2, 0.2, 0.2]), zeros, zeros, zeros, latency)
    assert targets(Divergence(threshold=[0.6, 0.3, 0.1]), distances).tolist() == [1, 0, 0, 1, 1, 0]
    assert targets(Divergence(threshold=0.3), distances).tolist() == [0, 0, 0, 1, 1, 1]
    assert targets(Divergence(threshold=[None, 0.3, 0.1]), distances)[:2].tolist() == [0.5, 0]
    lags = Measured(np.zeros((6, 1)), np.array([0, 0, 0, 2, 2, 2]), zeros, zeros, zeros, latency)
    assert targets(Oracle(beyond=[0, 1, 3]), lags).tolist() == [1, 0, 0, 1, 1, 0]
    ranks = Measured(np.zeros((6, 1)), np.array([3, 3, 3, 1, 1, 1]), zeros, zeros, zeros, latency)
    assert targets(Agreement([3, 2, 1]), ranks).tolist() == [1, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("latencies", "labels", "message"),
    [
        (None, Divergence(threshold=[0.3, 0.1]), "labels.threshold has 2 values, one for each latency, and cells."),
        ("all", Divergence(threshold=[0.3, 0.1]), "labels.threshold has 2 values, one for each latency, and cells."),
        ("all", Regret(), "cells.latencies are 1, 2, 7, and labels of Regret do not depend on a latency"),
        (["1", "9"], Divergence(), "cells.latencies is '9'; the tags that the model is trained with are 1, 2, 7"),
        (["1", None], Divergence(), "cells.latencies is ['1', None]; accepted is a list of tags, such as [low,medium"),
        ("low", Divergence(), "cells.latencies is 'low'; accepted is a list of tags"),
    ],
)
def test_labels_and_tags_that_do_not_fit_are_an_error(
    model: StreamingModel, tmp_path: Path, latencies: Any, labels: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        measured_by(model, tmp_path, latencies, labels)
    assert not [*tmp_path.iterdir()]


def test_a_model_that_names_no_tags_cannot_be_asked_for_all(model: StreamingModel, tmp_path: Path) -> None:
    plain = StreamingModel(model.model, PromptTokens(model.prompt.text, model.tokenizer), model.tokenizer)
    with pytest.raises(ValueError, match=r"cells\.latencies is 'all', and the model names no tags .*: list them"):
        measured_by(plain, tmp_path, "all")
    assert set(measured_by(plain, tmp_path, ["1", "9"]).latency.tolist()) == {0, 1}


def test_files_of_before_are_read(model: StreamingModel, tmp_path: Path) -> None:
    found = measured_by(model, tmp_path, None)
    (file,) = tmp_path.glob("*/*.safetensors")
    arrays: Any = {name: mx.array(np.array(array)) for name, array in mx.load(str(file)).items()}  # type: ignore[union-attr]
    del arrays["latency"]
    mx.save_safetensors(str(file), arrays)
    again = measured_by(model, tmp_path, None)
    np.testing.assert_array_equal(again.latency, found.latency)


@pytest.mark.parametrize("key", ["policy", "cells"])
def test_without_a_latency_runs_and_heads_keep_their_names(key: str) -> None:
    part = {"policy": {"_target_": "streamllm.policies.learned.Learned", "threshold": 0.5}, "cells": {"rows": 6}}[key]
    name = {"policy": "latency", "cells": "latencies"}[key]
    assert digest({key: part}) == digest({key: {**part, name: None}}) != digest({key: {**part, name: "3"}})


class Says:
    def __init__(self) -> None:
        self.asked: list[str | None] = []

    def write_logit(self, latency: str | None = None) -> float:
        self.asked.append(latency)
        return 0.0


def test_the_policy_asks_for_its_latency() -> None:
    model: Any = Says()
    assert Learned(0.5, latency=3).start(PAIRS[0])(State(1, 0, False, model)) == WRITE_BARE
    assert Learned(0.6).start(PAIRS[0])(State(1, 0, False, model)) == READ
    assert model.asked == ["3", None]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_another_latency_is_as_if_the_prompt_had_asked_for_it(model: StreamingModel, batch_size: int) -> None:
    prompt = Prompt("a <", " =>", "German{latency}:", latency="7", wait_token="<mark>")
    own = StreamingModel(
        model.model, PromptTokens(prompt, model.tokenizer), model.tokenizer, write_head=model.write_head
    )
    found, expected, others = (
        {t.id: (t.units, t.delays) for t in translate_many(one, PAIRS, policy, Limits(), batch_size)}
        for one, policy in ((model, Learned(0.5, 7)), (own, Learned(0.5)), (model, Learned(0.5, "1")))
    )
    assert found == expected != others


def test_a_head_that_was_trained_with_tags_is_asked_for_no_other(model: StreamingModel, tmp_path: Path) -> None:
    write_heads.write(tmp_path, tiny.write_head(2), "weights", {"latencies": ["1", "7"]})
    assert read_settings(tmp_path).write_head == {"trained_on": "weights", "latencies": ["1", "7"]}
    head = write_heads._of(tmp_path, read_settings(tmp_path).write_head or {})
    assert head.latencies == ("1", "7")
    asked = StreamingModel(model.model, model.prompt, model.tokenizer, write_head=head)
    check_model(Learned(0.5, 7), asked)
    check_model(Learned(0.5), model)  # one that says nothing
    with pytest.raises(ValueError, match=r"the latency asked for is '2', and the write head was trained with 1, 7"):
        check_model(Learned(0.5), asked)  # which is the prompt's own
    with pytest.raises(
        ValueError, match=r"policy\.latency is '5'; the tags that the model is trained with are 1, 2, 7"
    ):
        check_model(Learned(0.5, 5), asked)
    (tmp_path / SETTINGS).write_text(json.dumps({"write_head": {"trained_on": "x", "latencies": [1]}}))
    with pytest.raises(ValueError, match=r"write_head\.latencies is .*; it is a list of tags in quotes"):
        read_settings(tmp_path)


def test_tags_are_drawn_about_as_often_as_each_other(model: StreamingModel, tmp_path: Path) -> None:
    found = measured_by(model, tmp_path, "all")
    counts = Counter(found.latency.tolist())
    assert min(counts.values()) > 0.1 * len(found)
    assert isinstance(model.write_head, WriteHead)
