"""Replays forward passes and losses that the reference implementation recorded (EIT-NLP/StreamingLLM)."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from streamllm.cache.dual import DualStreamingCache
from streamllm.engine.loop import translate
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.policies import WaitK
from streamllm.prompt import Prompt
from streamllm.records import Example

TIE = 1e-3  # top-2 margin below which greedy may flip in float32
GENERATION = "generation_tiny-trained_causal_first_write.json"


@pytest.fixture(scope="module")
def goldens(shared: Path) -> Path:
    return shared / "goldens"


@pytest.fixture(scope="module")
def model(goldens: Path) -> StreamingModel:
    pieces = json.loads((goldens / GENERATION).read_text())["instruct"]
    prompt = Prompt(
        source_header=pieces["Instruct"] + pieces["user_Instruct"],
        source_footer=pieces["end_Instruct"],
        target_header=pieces["assistant_Instruct"],
    )
    return ModelConfig(str(goldens / "tiny-trained"), target_start=0).load(prompt)


@pytest.fixture(scope="module")
def cases(goldens: Path) -> list[dict]:
    return json.loads((goldens / GENERATION).read_text())["cases"]


def test_every_recorded_forward_pass_is_repeated(model: StreamingModel, cases: list[dict], goldens: Path) -> None:
    """Ids, positions, cache lengths, prediction, top logit and margin of each step; whole logits where kept."""
    recorded = mx.load(str(goldens / "generation_tiny-trained_logits.safetensors"))
    compared = 0
    for case in cases:
        caches = [DualStreamingCache(case["phi"]) for _ in model.model.layers]
        logits_of_writes = []
        for step in case["steps"]:
            tokens = mx.array([step["input_ids"]])
            views = [cache.source if step["action"] == "read" else cache.target for cache in caches]
            start = step["position_ids"][0]
            if step["action"] == "write":  # what the reference removed after an earlier step is trimmed here
                for cache in caches:
                    cache.trim_target(cache.target.offset - start)
                assert caches[0].source_offset == step["source_cache_len"]
            assert views[0].offset == start
            assert step["position_ids"] == list(range(start, start + tokens.shape[1]))
            logits = model.model(tokens, cache=views)[0, -1]
            if step["action"] == "read":
                assert caches[0].source_offset == step["source_cache_len_after"]
                continue
            assert caches[0].offset == step["merged_cache_len_after"]
            values = np.array(logits)
            top, second = np.sort(values)[-1], np.sort(values)[-2]
            assert abs(top - step["top_logit"]) < 1e-3
            assert abs((top - second) - step["margin"]) < 2e-3
            if step["margin"] > TIE:
                assert values.argmax() == step["predicted_id"], (case["id"], step)
            logits_of_writes.append(values)
            compared += 1
        if f"{case['id']}.write_logits" in recorded:
            expected = np.array(recorded[f"{case['id']}.write_logits"])
            np.testing.assert_allclose(np.array(logits_of_writes), expected, atol=2e-4, rtol=0)
    assert compared > 500


def test_words_are_tokenised_as_the_reference_did(model: StreamingModel, cases: list[dict]) -> None:
    for case in cases:
        prompt = model.prompt
        words = [prompt.source_tokens(word, i == 0) for i, word in enumerate(case["source_words"])]
        ids = [*prompt.source_header, *(token for word in words for token in word), *prompt.source_footer]
        assert ids == case["source_ids"]
        assert [len(prompt.source_header), *map(len, words), len(prompt.source_footer)] == case["source_seg_len"]
        assert prompt.target_header == case["assistant_ids"]


def test_sentences_are_translated_as_recorded(model: StreamingModel, cases: list[dict]) -> None:
    """Where the reference translated to the end, words and delays agree. It counts the footer as a word, and
    in 8 of the 32 cases an end token predicted from stale context ended its sentence; ours reads on."""
    whole = [case for case in cases if case["source_exhausted"]]
    assert len(whole) == 24
    for case in whole:
        trace = translate(model.session(), Example(case["id"], case["source_text"], ""), WaitK(case["wait_k"]))
        assert list(trace.units) == case["words"], case["id"]
        lagging = [min(delay, trace.source_units) for delay in case["wait_lagging"]]
        if len(case["wait_lagging"]) >= len(trace.units):  # no entry for words that ended without a boundary
            assert list(trace.delays) == lagging[: len(trace.delays)], case["id"]


def test_stale_end_tokens_do_not_end_a_sentence(model: StreamingModel, cases: list[dict]) -> None:
    stopped = [case for case in cases if not case["source_exhausted"]]
    for case in stopped:
        trace = translate(model.session(), Example(case["id"], case["source_text"], ""), WaitK(case["wait_k"]))
        assert len(trace.units) > len(case["words"]), case["id"]
        assert sum(event.kind in ("read", "forced_read") for event in trace.events) == trace.source_units
