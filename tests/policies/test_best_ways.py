"""policy=frontier: the same in batches, what it says it has found, and what it refuses."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from sessions import PROMPT, varied_models

from streamllm.batching.scheduler import translate_many
from streamllm.batching.trial import batching
from streamllm.cpu.decoder import Decoder
from streamllm.engine.limits import Limits
from streamllm.engine.loop import translate
from streamllm.engine.paradigms.documents import Sentences
from streamllm.metrics.of_one import SentenceLag, SentenceQuality
from streamllm.models.model import StreamingModel
from streamllm.policies import Frontier, WaitK
from streamllm.policies.bounded import bounded
from streamllm.policies.frontier import front_of
from streamllm.prompt import PromptTokens
from streamllm.records import Example, Segment, Trace, Way
from streamllm.runs.lines import PredictionLine, from_lines, to_prediction
from streamllm.runs.load import load_fronts

FEW = Limits(length_ratio=0.5, length_extra=1, tokens_per_unit=4)
EXAMPLES = [
    Example("1", "a cat, the", "the dog a"),
    Example("2", "the runs", "cat, dog"),
    Example("3", "Größe:", "dog"),
]


def frontier(trade: float = 1.0, **options: Any) -> Frontier:
    return Frontier(trade, SentenceQuality("chrf"), SentenceLag("dal"), **{"width": 2, **options})


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> StreamingModel:
    return StreamingModel(varied_models(tokenizer)[1], PromptTokens(PROMPT, tokenizer), tokenizer)


def translated(model: StreamingModel, policy: Any, limits: Limits = FEW, batch_size: int = 1) -> dict[str, Trace]:
    return {trace.id: trace for trace in translate_many(model, EXAMPLES, policy, limits, batch_size)}


@pytest.mark.parametrize("plain", [False, True], ids=["numpy", "MLX"])
def test_batches_of_64_find_what_one_at_a_time_finds(
    tokenizer: Any, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if plain:
        monkeypatch.setattr(Decoder, "serves", staticmethod(lambda model: False))
    inside = tiny.random_model(3, len(tokenizer))
    model = StreamingModel(inside, PromptTokens(PROMPT, tokenizer), tokenizer, target_start="after_source")
    limits = replace(FEW, bare=True)
    assert batching(model).why_not is None
    alone = {example.id: translate(model.session(), example, frontier(), limits) for example in EXAMPLES}
    together = translated(model, frontier(), limits, 64)
    for id, trace in alone.items():
        other = together[id]
        assert (trace.prediction, trace.delays, trace.notes) == (other.prediction, other.delays, other.notes)
        assert trace.stats["fed_tokens"] == other.stats["fed_tokens"]


def test_a_trace_is_the_way_that_was_worth_most_and_notes_all_that_no_other_beats(model: StreamingModel) -> None:
    quality, lag = SentenceQuality("chrf"), SentenceLag("dal")
    for trade in (0.0, 20.0):
        for trace in translated(model, frontier(trade)).values():
            front = trace.notes["front"]
            assert (front["units"], front["target_unit"]) == (trace.source_units, "word")
            worth = [
                way["quality"] - trade * lag(way["delays"], trace.source_units, trace.reference, "word")
                for way in front["ways"]
            ]
            own = lag(trace.delays, trace.source_units, trace.reference, "word")
            assert quality(trace.prediction, trace.reference) - trade * own == pytest.approx(max(worth))
            taken = front["ways"][worth.index(max(worth))]["decisions"]
            assert len(trace.notes["regrets"]) == len(taken)
            # What was taken is best at each place of it that both actions were tried at.
            for decision, regret in zip(taken, trace.notes["regrets"], strict=True):
                assert regret is None or (regret >= 0 if decision == "R" else regret <= 0)


def test_it_is_no_worse_than_another_policy_at_the_same_trade(model: StreamingModel) -> None:
    """With room for all."""
    quality, lag = SentenceQuality("chrf"), SentenceLag("dal")

    def worth(trace: Trace) -> float:
        found = lag(trace.delays, trace.source_units, trace.reference, "word")
        return -math.inf if math.isnan(found) else quality(trace.prediction, trace.reference) - 5 * found

    best = translated(model, frontier(5.0, width=1000))
    for k in (1, 2, 3):
        for id, trace in translated(model, WaitK(k)).items():
            assert worth(best[id]) >= worth(trace) - 1e-9


def test_another_run_chooses_from_what_one_has_found(model: StreamingModel, tmp_path: Path) -> None:
    traces = translated(model, frontier(0.0))
    lines = [json.dumps(to_prediction(trace)) for trace in traces.values()]
    (tmp_path / "predictions.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (tmp_path / "run.yaml").write_text("policy: {}\n")
    found = load_fronts(tmp_path)
    for trade in (0.0, 9.0):
        again, anew = translated(model, frontier(trade, found=found)), translated(model, frontier(trade))
        for id, trace in anew.items():
            assert (again[id].prediction, again[id].delays) == (trace.prediction, trace.delays)
    assert load_fronts(None) is None
    assert frontier(found=found).contents() != frontier(found={}).contents()
    with pytest.raises(ValueError, match="there is no front of sentence '1'"):
        translated(model, frontier(found={}))


def test_notes_are_kept_in_the_line_of_a_trace(model: StreamingModel) -> None:
    trace = translated(model, frontier())["1"]
    line = to_prediction(trace)
    assert line["notes"] == trace.notes
    assert "notes" not in to_prediction(translated(model, WaitK(1))["1"])
    fields = {name: line[name] for name in ("id", "source", "reference", "prediction", "source_units", "notes")}
    read = PredictionLine(**fields, delays=trace.delays, elapsed=trace.elapsed, units=trace.units, events=trace.events)
    assert from_lines(read, None).notes == trace.notes


def test_a_run_of_another_policy_has_no_fronts(model: StreamingModel, tmp_path: Path) -> None:
    lines = [json.dumps(to_prediction(trace)) for trace in translated(model, WaitK(1)).values()]
    (tmp_path / "predictions.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (tmp_path / "run.yaml").write_text("policy: {}\n")
    with pytest.raises(ValueError, match="give a run of policy=frontier"):
        load_fronts(tmp_path)


def test_a_front_holds_what_no_other_beats_in_both() -> None:
    def way(quality: float, decisions: str = "") -> Way:
        return Way(decisions, "", (), quality)

    ways = [way(5), way(9), way(7), way(9, "later"), way(1)]
    lags = [1.0, 4.0, 5.0, 4.5, math.nan]
    assert front_of(ways, lags) == [(ways[0], 1.0), (ways[1], 4.0)]
    assert [each for each, _ in front_of(ways[4:], lags[4:])] == ways[4:]  # nothing else to show


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: frontier(-1.0), "trade is -1.0"),
        (lambda: frontier(math.nan), "trade is nan"),
        (lambda: frontier(width=0), "width is 0"),
        (lambda: Frontier(1.0, "bleu", SentenceLag()), "quality is 'bleu'"),  # type: ignore[arg-type]
        (lambda: SentenceQuality("comet"), "score is 'comet'; accepted are bleu, chrf"),
        (lambda: SentenceLag("yaal"), "metric is 'yaal'; accepted are al, laal"),
        (lambda: bounded(frontier(), 1, None), "leave min_lag and max_lag at null"),
        (lambda: frontier().start(Example("7", "a", "")), "sentence '7' has none"),
        (lambda: frontier().start(Example("7", "a", "b", (Segment(0, 1, "a", "b"),))), "single sentences"),
    ],
)
def test_what_it_does_not_take_is_one_clear_error(make: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize("batch_size", [1, 2])
def test_memories_that_forget_are_refused(tokenizer: Any, batch_size: int) -> None:
    inside = varied_models(tokenizer)[0]
    forgets = StreamingModel(inside, PromptTokens(PROMPT, tokenizer), tokenizer, paradigm=Sentences())
    with pytest.raises(ValueError, match="choose paradigm=group"):
        translated(forgets, frontier(), FEW, batch_size)


def test_quality_of_one_sentence() -> None:
    """By hand: all of it is 100; of six letters for three, chrF is e times less."""
    for score in ("bleu", "chrf"):
        assert SentenceQuality(score)("the dog runs home", "the dog runs home") == pytest.approx(100)
        assert SentenceQuality(score)("", "the dog") == 0
    once = SentenceQuality("chrf")("dog dog", "dog")
    from sacrebleu import sentence_chrf

    assert once == pytest.approx(sentence_chrf("dog dog", ["dog"]).score / math.e)
    assert math.isnan(SentenceLag("dal")([], 3, "a b", "word"))
    assert SentenceLag("laal")([1, 2, 3], 3, "a b c", "word") == 1.0
