"""What comes with the package: the sample corpus and the model that translates it."""

import json
from pathlib import Path

import pytest
from mlx.utils import tree_flatten

import streamllm
from streamllm.data.sample import SAMPLE, Sample
from streamllm.engine.loop import translate
from streamllm.metrics.quality import quality
from streamllm.models.loading import ASSETS, ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.policies import AlignAtt, Full, LocalAgreement, Oracle, WaitK
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


def test_the_model_card_says_how_it_was_made() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for word in ("Data", "Command", "Seed", "Hardware", "BLEU", "Multi30k", "streamllm train experiment=tiny_en_de"):
        assert word in card


@pytest.mark.parametrize(("policy", "bleu"), [(WaitK(3), 20.0), pytest.param(Full(), 22.0, marks=pytest.mark.long)])
def test_the_model_translates_the_sample(model: StreamingModel, policy: WaitK | Full, bleu: float) -> None:
    examples = Sample(limit=40).load()
    traces = [translate(model.session(), example, policy) for example in examples]
    scores = quality([trace.prediction for trace in traces], [example.reference for example in examples], "de")
    assert float(scores["bleu"]) > bleu  # type: ignore[arg-type]


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
