"""What comes with the package: the sample corpus and the model that translates it."""

import json
from pathlib import Path

import pytest
from mlx.utils import tree_flatten

import streamllm
from streamllm.batching.scheduler import translate_many
from streamllm.data.sample import SAMPLE, Sample
from streamllm.engine.loop import translate
from streamllm.metrics.quality import quality
from streamllm.metrics.summary import summarise
from streamllm.models.loading import ASSETS, ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.policies import AlignAtt, Full, Learned, LocalAgreement, Oracle, WaitK, WaitToken
from streamllm.policies.bounded import bounded
from streamllm.records import Policy
from streamllm.runs.folder import RunFolder
from streamllm.runs.load import load_delays

FOLDER = ASSETS / "tiny-en-de"


@pytest.fixture(scope="module")
def model() -> StreamingModel:
    return ModelConfig("bundled:tiny-en-de").load()


def test_the_model_is_small_enough_to_come_along(model: StreamingModel) -> None:
    assert sum(array.size for _, array in tree_flatten(model.model.parameters())) <= 4_000_000
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 10_000_000


@pytest.mark.parametrize("name", ["tiny-en-de", "tiny-en-de-wait", "tiny-en-de-reward"])
def test_the_model_card_says_how_it_was_made(name: str) -> None:
    card = (ASSETS / name / "README.md").read_text(encoding="utf-8")
    for word in ("Data", "Command", "Seed", "Hardware", "BLEU", "Multi30k", "experiment=tiny_en_de", "train-head"):
        assert word in card


@pytest.mark.parametrize(("policy", "bleu"), [(WaitK(3), 20.0), (Full(), 22.0)])
def test_the_model_translates_the_sample(model: StreamingModel, policy: WaitK | Full, bleu: float) -> None:
    examples = Sample(limit=40).load()
    found = {trace.id: trace.prediction for trace in translate_many(model, examples, policy, batch_size=40)}
    scores = quality([found[example.id] for example in examples], [example.reference for example in examples], "de")
    assert float(scores["bleu"]) > bleu  # type: ignore[arg-type]


def test_its_head_reads_more_by_a_higher_threshold(model: StreamingModel) -> None:
    assert model.write_head is not None
    examples = Sample(limit=20).load()
    lags = []
    for threshold in (0.5, 0.8, 0.95):
        traces = [*translate_many(model, examples, Learned(threshold), batch_size=20)]
        lags.append(sum(sum(trace.delays) for trace in traces))
        assert len({trace.prediction for trace in traces}) > 15
    assert lags == sorted(set(lags))


def test_another_model_waits_as_it_is_asked_to() -> None:
    waiting = ModelConfig("bundled:tiny-en-de-wait").load()
    examples = Sample(limit=40).load()
    lags = []
    for latency in range(1, 6):
        traces = [*translate_many(waiting, examples, WaitToken(latency=latency), batch_size=40)]
        lags.append(float(summarise(traces, "de", "word")["laal"]))  # type: ignore[arg-type]
    assert lags == sorted(set(lags))
    scores = quality([trace.prediction for trace in traces], [trace.reference for trace in traces], "de")
    assert float(scores["bleu"]) > 20  # type: ignore[arg-type]
    assert waiting.write_head is not None


def test_one_that_learned_by_reward_is_earlier(model: StreamingModel) -> None:
    rewarded = ModelConfig("bundled:tiny-en-de-reward").load()
    examples = Sample(limit=60).load()
    found = []
    for each in (model, rewarded):
        policy = bounded(Learned(0.76), max_lag=3)
        traces = [*translate_many(each, examples, policy, batch_size=60)]
        scores = quality([trace.prediction for trace in traces], [trace.reference for trace in traces], "de")
        found.append((float(summarise(traces, "de", "word")["laal"]), float(scores["bleu"])))  # type: ignore[arg-type]
    (late, _), (early, bleu) = found
    assert early < late
    assert bleu > 25


def test_all_that_is_bundled_is_small() -> None:
    assert sum(file.stat().st_size for file in ASSETS.rglob("*") if file.is_file()) < 25_000_000


def test_the_sample_is_a_corpus_of_pairs() -> None:
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) >= 150
    assert len({row["id"] for row in rows}) == len({row["en"] for row in rows}) == len({row["de"] for row in rows})
    for row in rows:
        assert all(row[side] == " ".join(row[side].split()) and row[side] for side in ("en", "de"))


def test_the_package_names_its_blas() -> None:
    """None where nothing was found, or where mlx's own is used (on a Mac)."""
    assert streamllm.BLAS is None or "mkl" in streamllm.BLAS or "openblas" in streamllm.BLAS
    assert Path(streamllm.__file__).exists()


@pytest.mark.long
@pytest.mark.parametrize("policy", [WaitK(2), Full(), AlignAtt(2), LocalAgreement(2, step=2)])
def test_a_replayed_run_writes_the_same(model: StreamingModel, policy: Policy, tmp_path: Path) -> None:
    examples = Sample(limit=6).load()
    traces = [translate(model.session(), example, policy) for example in examples]
    run = RunFolder(tmp_path / "run-0")
    with run:
        run.begin({}, {})
        for trace in traces:
            run.append(trace)
    again = Oracle(load_delays(run.path))
    for example, trace in zip(examples, traces, strict=True):
        replayed = translate(model.session(), example, again)
        assert (replayed.units, replayed.delays) == (trace.units, trace.delays)
