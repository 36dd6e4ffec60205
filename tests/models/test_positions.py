"""Positions beyond those of a model: an error for a learned table, before anything is computed; a warning else."""

import logging
import re
from collections import deque
from typing import Any

import mlx.core as mx
import pytest
import tiny
from families import FAMILIES, Family
from mlx_lm.models import gpt2 as gpt2_family
from reference import build

from streamllm.batching.pool import Pool
from streamllm.batching.scheduler import translate_many
from streamllm.engine.limits import Limits
from streamllm.engine.loop import stream
from streamllm.engine.paradigms.group import Group
from streamllm.engine.paradigms.interleaved import Interleaved
from streamllm.engine.paradigms.memory import Paradigm, TargetStart
from streamllm.engine.paradigms.reencoded import Batch
from streamllm.engine.positions import PositionError, Positions, table
from streamllm.engine.session import Session
from streamllm.models.model import StreamingModel
from streamllm.policies import Full, WaitK
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import Example

LEARNED = {"gpt2", "gpt_bigcode"}
ROWS = 64  # of the table, in tests/families.py
PROMPT = Prompt(source_header="a <", source_footer=" =>", target_header="German:")
GPT2 = next(family.config for family in FAMILIES if family.model_type == "gpt2")
LIMITS = Limits(length_ratio=0, length_extra=2, tokens_per_unit=4)


def with_table(tokenizer: Any, rows: int) -> Any:
    config = GPT2 | {"vocab_size": len(tokenizer), "n_positions": rows}
    model = gpt2_family.Model(gpt2_family.ModelArgs.from_dict(config))
    mx.eval(model.parameters())
    return model


@pytest.fixture(scope="module")
def gpt2(tokenizer: Any) -> Any:
    return with_table(tokenizer, ROWS)


def streaming(
    model: Any,
    tokenizer: Any,
    start: TargetStart = 0,
    paradigm: Paradigm = Group(),
    positions: Positions | None = None,
) -> StreamingModel:
    prompt = PromptTokens(PROMPT, tokenizer)
    return StreamingModel(model, prompt, tokenizer, start, paradigm=paradigm, positions=positions)


def sentence(words: int, id: str = "s") -> Example:
    return Example(id, " ".join(["cat"] * words), "")


@pytest.mark.parametrize("family", FAMILIES, ids=[family.name for family in FAMILIES])
def test_the_tables_of_all_families_are_known(family: Family) -> None:
    assert table(build(family)) == (ROWS if family.model_type in LEARNED else None)


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"max_position_embeddings": 512}, 512),
        ({"n_positions": 2048}, 2048),
        ({"text_config": {"max_position_embeddings": 99}}, 99),
        ({"max_position_embeddings": 100, "rope_scaling": None}, 100),
        (
            {"max_position_embeddings": 100, "rope_scaling": {"factor": 4, "original_max_position_embeddings": 100}},
            400,
        ),
        ({"hidden_size": 512}, None),
    ],
)
def test_the_positions_of_a_rotary_model_are_those_that_it_was_trained_on(config: Any, limit: int | None) -> None:
    assert Positions.of(object(), config) == Positions("rotary", limit)


# Sentences of a data set


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_source_beyond_a_learned_table_is_refused_before_anything_is_computed(
    gpt2: Any, tokenizer: Any, batch_size: int
) -> None:
    model = streaming(gpt2, tokenizer)
    tokens = len(model.prompt.source_header) + len(model.prompt.source_footer)
    tokens += sum(len(model.prompt.source_tokens("cat", first=i == 0)) for i in range(80))
    examples = [sentence(2, "short"), sentence(80, "long"), sentence(70, "too")]
    expected = (
        rf"^sentence 'long' takes {tokens} positions with its {tokens} source tokens.* 64 \(2 of 3 sentences pass"
    )
    with pytest.raises(PositionError, match=expected):
        translate_many(model, examples, WaitK(2), LIMITS, batch_size)


@pytest.mark.parametrize("start", [0, 30, "after_source"])
def test_limits_that_let_the_target_pass_the_table_are_refused_and_what_the_error_says_fits(
    gpt2: Any, tokenizer: Any, start: TargetStart
) -> None:
    def check(tokens_per_unit: float) -> None:
        limits = Limits(length_ratio=0, length_extra=10, tokens_per_unit=tokens_per_unit)
        translate_many(model, [sentence(3)], WaitK(2), limits)

    model = streaming(with_table(tokenizer, 256), tokenizer, start)
    with pytest.raises(PositionError, match=r"'s' may take .* has 256: set limits.tokens_per_unit=") as error:
        check(30)
    fits = float(re.findall(r"tokens_per_unit=([\d.]+)", str(error.value))[0])
    check(fits)
    with pytest.raises(PositionError):
        check(fits + 0.2)


# Live input


def session(model: Any, tokenizer: Any, start: TargetStart, paradigm: Paradigm, pooled: bool) -> Session:
    streaming_model = streaming(model, tokenizer, start, paradigm)
    return streaming_model.session(memory=Pool(model, 1, start).open() if pooled else None)


WAYS = [
    (0, Group(), False),
    (0, Group(), True),
    ("after_source", Group(), False),
    ("after_source", Group(), True),
    (0, Interleaved(), False),
    ("after_source", Batch(), False),
]


@pytest.mark.parametrize(("start", "paradigm", "pooled"), WAYS)
def test_the_read_that_would_pass_the_table_is_refused(
    gpt2: Any, tokenizer: Any, start: TargetStart, paradigm: Paradigm, pooled: bool
) -> None:
    one = session(gpt2, tokenizer, start, paradigm, pooled)
    with pytest.raises(PositionError, match=r"position 6[5-9].*learned, has 64"):
        deque(map(one.read, ["cat"] * 80))
    assert 60 <= one.source_tokens <= 64


@pytest.mark.parametrize(("start", "paradigm", "pooled"), WAYS)
def test_the_write_that_would_pass_the_table_is_refused(
    gpt2: Any, tokenizer: Any, start: TargetStart, paradigm: Paradigm, pooled: bool
) -> None:
    one = session(gpt2, tokenizer, start, paradigm, pooled)
    for _ in range(5):
        one.read("cat")
    taken = one.source_tokens if start == "after_source" or isinstance(paradigm, Interleaved) else 0
    (cat,) = one.prompt.source_tokens("cat", first=False)
    taken += len(one.prompt.target_header)
    for _ in range(64 - taken):
        one.write((cat,))
    one.predict()
    one.write((cat,))
    with pytest.raises(PositionError, match="position 65"):
        one.predict()


@pytest.mark.parametrize("pooled", [False, True])
def test_a_beam_ends_at_the_table_too(gpt2: Any, tokenizer: Any, pooled: bool) -> None:
    one = session(gpt2, tokenizer, 50, Group(), pooled)
    one.read("cat")
    with pytest.raises(PositionError):
        one.beam(2, 30)


def test_live_input_of_a_stream_is_refused_where_it_passes_the_table(gpt2: Any, tokenizer: Any) -> None:
    one = streaming(gpt2, tokenizer).session()
    with pytest.raises(PositionError):
        deque(stream(one, ["cat"] * 80, Full().start(sentence(80)), LIMITS))
    assert 60 <= one.source_tokens <= 64


# Rotary positions


def test_one_warning_says_how_many_sentences_pass_the_positions_of_the_training(
    tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rotary = streaming(tiny.random_model(0, len(tokenizer)), tokenizer, positions=Positions("rotary", 10))
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        list(translate_many(rotary, [sentence(2, "a"), sentence(9, "b"), sentence(12, "c")], WaitK(2), LIMITS))
    (record,) = caplog.records
    assert re.search(r"^2 of 3 sentences take more than the 10 positions .* up to \d+:", record.getMessage())


def test_what_passes_in_writing_only_is_said_at_the_end(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    bias = tiny.sentence_bias(tokenizer, -9)
    model = tiny.Biased(tiny.random_model(0, len(tokenizer)), bias)
    rotary = streaming(model, tokenizer, start="after_source", positions=Positions("rotary", 12))
    caplog.set_level(logging.WARNING)
    traces = translate_many(rotary, [sentence(1)], WaitK(2), Limits(length_extra=12))
    assert not caplog.records
    list(traces)
    assert "1 of 1 sentences take more than the 12 positions" in caplog.text


@pytest.mark.parametrize("missing", [0, 1])
def test_a_sentence_that_takes_the_last_position_fits(
    tokenizer: Any, caplog: pytest.LogCaptureFixture, missing: int
) -> None:
    """No token is fed after the one that predicts the end, so that none needs a position more."""
    caplog.set_level(logging.WARNING)
    model = tiny.random_model(0, len(tokenizer))
    plain = streaming(model, tokenizer)
    (trace,) = translate_many(plain, [sentence(20)], WaitK(2), LIMITS)
    target = len(plain.prompt.target_header) + int(trace.stats["target_tokens"])
    taken = max(int(trace.stats["source_tokens"]), target)
    rotary = streaming(model, tokenizer, positions=Positions("rotary", taken - missing))
    list(translate_many(rotary, [sentence(20)], WaitK(2), LIMITS))
    assert len(caplog.records) == missing
