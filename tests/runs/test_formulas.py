"""Corpus scores that are no means (TER, chrF++, WER, CER, BLEU on changed texts) and lags in other units: intervals and
tests are those of scores computed anew."""

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from document_traces import documents
from test_compare import make_run, sentences, trace

from streamllm.cli.compare import comparison
from streamllm.evaluation.rescore import rescore
from streamllm.evaluation.subwords import InSubwords
from streamllm.files import RunError
from streamllm.metrics.asked import Bleu, ChrF, ErrorRate
from streamllm.metrics.other_units import InCharacters
from streamllm.metrics.ter import TER
from streamllm.records import Trace
from streamllm.report.paper import table
from streamllm.runs.compare import bootstrap, paired_bootstrap, paired_test, sentence_table
from streamllm.runs.documents import FEW
from streamllm.runs.folder import RunFolder
from streamllm.runs.sums import percentiles, resample

COUNT, SAMPLES, SEED = 12, 8, 12345

METRICS: dict[str, Callable[[], Any]] = {
    "ter": lambda: TER("de"),
    "chrf_pp": lambda: ChrF("de"),
    "wer": lambda: ErrorRate("de"),
    "cer": lambda: ErrorRate("de", "characters"),
    "bleu_lower": lambda: Bleu("de", lowercase=True),
    "laal_characters": lambda: InCharacters("laal"),
    "al_subwords": lambda: InSubwords("al", "bundled:tiny-en-de"),
}
each_metric = pytest.mark.parametrize("key", METRICS)


def made(key: str) -> Any:
    if key in ("wer", "cer"):
        pytest.importorskip("jiwer")
    return METRICS[key]()


def scored(folder: Path, traces: Sequence[Trace], *metrics: Any) -> Path:
    run = make_run(folder, traces)
    rescore(run, metrics)
    return run


def drawn(traces: Sequence[Trace], counts: Sequence[float]) -> list[Trace]:
    return [one for one, count in zip(traces, counts, strict=True) for _ in range(int(count))]


@each_metric
def test_an_interval_is_of_the_scores_of_the_samples_computed_anew(tmp_path: Path, key: str):
    metric, traces = made(key), sentences(COUNT, 0.4, 2)
    run = scored(tmp_path / "a-1", traces, metric)
    found = bootstrap(run, SAMPLES, SEED, [key])[key]
    assert found.value == pytest.approx(RunFolder(run).metrics()[key], abs=1e-9)
    again = np.array([metric(drawn(traces, counts)) for counts in resample(COUNT, SAMPLES, SEED)])
    assert (found.low, found.high) == pytest.approx(percentiles(again), abs=1e-9)


@each_metric
def test_p_is_of_all_exchanges_computed_anew(tmp_path: Path, key: str):
    """Five sentences differ, so 32 assignments are all there are."""
    metric, old = made(key), sentences(COUNT, 0.4, 2)
    new = [*sentences(COUNT, 0.6, 3, seed=7)[:5], *old[5:]]
    runs = scored(tmp_path / "a-1", old, metric), scored(tmp_path / "b-2", new, metric)
    found = paired_test(*runs, samples=SAMPLES, metrics=[key], trials=100)[key]
    sizes = []
    for exchanged in itertools.product([False, True], repeat=5):
        first, second = list(old), list(new)
        for place, here in enumerate(exchanged):
            if here:
                first[place], second[place] = second[place], first[place]
        sizes.append(abs(metric(second) - metric(first)))
    least = abs(metric(new) - metric(old)) - 1e-9
    assert found.difference == pytest.approx(metric(new) - metric(old), abs=1e-9)
    assert found.p_value == np.mean([size >= least for size in sizes])
    counts = resample(COUNT, SAMPLES, SEED)
    again = np.array([metric(drawn(new, one)) - metric(drawn(old, one)) for one in counts])
    assert (found.low, found.high) == pytest.approx(percentiles(again), abs=1e-9)
    assert paired_bootstrap(*runs, samples=SAMPLES, metrics=[key])[key].low == found.low


def test_the_order_of_a_file_changes_nothing(tmp_path: Path):
    old, new = sentences(COUNT, 0.4, 2), sentences(COUNT, 0.6, 3, seed=7)
    first = scored(tmp_path / "a-1", old, TER("de"))
    in_order, turned = scored(tmp_path / "b-2", new, TER("de")), scored(tmp_path / "c-3", new[::-1], TER("de"))
    found = [paired_test(first, run, SAMPLES, metrics=["ter"], trials=50)["ter"] for run in (in_order, turned)]
    assert found[0] == found[1]
    table = [sentence_table(first, run, metrics=["ter"]) for run in (in_order, turned)]
    assert table[0].equals(table[1])


def test_compare_and_the_table_have_their_intervals(tmp_path: Path):
    metrics = [TER("de"), ChrF("de"), InCharacters("laal")]
    worse, better = (
        scored(tmp_path / name, sentences(60, noise, lag, seed=lag), *metrics)
        for name, noise, lag in (("a-1", 0.8, 1), ("b-2", 0.1, 4))
    )
    lines = {line.split("  ")[0]: line for line in comparison(worse, better, 50, trials=200).splitlines()}
    for name in ("TER", "chrF++", "LAAL (characters)"):
        assert "[" in lines[name] and lines[name].endswith("p = 0.005"), lines
    found = table([worse, better], ["ter", "chrf_pp", "laal_characters"], ["a", "b"], 50, trials=200)
    assert [(cell.mark, cell.low is not None) for cell in found.rows["b"]] == [("‡", True)] * 3


def test_scores_of_single_sentences_stand_in_their_table(tmp_path: Path):
    traces = [trace("0", "ein Hund", "ein Hund läuft auf", [1, 2]), trace("1", "eine Katze", "eine Katze", [1, 2])]
    run = scored(tmp_path / "a-1", traces, TER("de"), Bleu("de", key="bleu_again", label="again"))
    found = sentence_table(run, run, metrics=["ter", "bleu_again"])
    assert found["ter_a"].tolist() == [50, 0]
    assert found["bleu_again_a"].tolist() == pytest.approx(found["bleu_a"].tolist())
    lines = [json.loads(line) for line in (run / "ter.jsonl").read_text().splitlines()]
    assert lines[0] == {"id": "0", "score": 50.0, "ratio": [2, 4.0]}


def test_a_sentence_without_output_is_left_out_of_lags_in_characters_in_both_runs(tmp_path: Path):
    old = sentences(COUNT, 0.3, 1)
    new = sentences(COUNT, 0.3, 3)
    new[2] = trace(new[2].id, "", new[2].reference, [])
    metric = InCharacters("laal")
    runs = scored(tmp_path / "a-1", old, metric), scored(tmp_path / "b-2", new, metric)
    found = paired_test(*runs, samples=SAMPLES, metrics=[metric.key], trials=20)[metric.key]
    both = [place for place in range(COUNT) if place != 2]
    assert found.sentences == COUNT - 1
    assert found.baseline == pytest.approx(metric([old[place] for place in both]))
    assert found.system == pytest.approx(metric([new[place] for place in both]))


def test_scores_of_documents_are_drawn_by_documents(tmp_path: Path):
    metrics = [TER("de"), InCharacters("laal", "de")]
    runs = [scored(tmp_path / f"{k}-{k}", documents(FEW, 2, k=k, noise=k / 8, seed=k), *metrics) for k in (1, 4)]
    found = paired_test(*runs, samples=SAMPLES, metrics=["ter", "laal_characters"], trials=1000)
    for key, one in found.items():
        assert one.test == "approximate randomisation of documents"
        assert one.baseline == pytest.approx(RunFolder(runs[0]).metrics()[key], abs=1e-9)
    assert found["ter"].p_value == 2 / 2**FEW, "all documents speak for the first"


def test_scores_that_were_computed_otherwise_are_not_compared(tmp_path: Path):
    traces = sentences(COUNT, 0.3, 2)
    runs = scored(tmp_path / "a-1", traces, TER("de")), scored(tmp_path / "b-2", traces, TER("de", case_sensitive=True))
    assert "ter" not in paired_test(*runs, samples=5, trials=5)
    (line,) = [line for line in comparison(*runs, 5, trials=5).splitlines() if line.startswith("TER")]
    assert "not compared: case:lc and case:mixed" in line
    with pytest.raises(RunError, match=r"does not compare \(case:lc and case:mixed\): score both alike"):
        paired_test(*runs, samples=5, trials=5, metrics=["bleu", "ter"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"id": "1", "score": 1.0}, "ratio should be a list of 2 numbers: score the run anew"),
        ({"id": "1", "score": 1.0, "ratio": [1]}, "ratio should be a list of 2 numbers"),
        ({"id": "1", "score": 1.0, "ratio": [1, "a"]}, "ratio should be a list of 2 numbers"),
    ],
)
def test_what_is_wrong_with_the_numbers_of_a_sentence_is_one_error(tmp_path: Path, line: Any, said: str):
    run = make_run(tmp_path / "a-1", sentences(2, 0.3, 2))
    first = {"id": "0", "score": 50.0, "ratio": [1, 2]}
    (run / "mine.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(line)}\n")
    with pytest.raises(RunError) as caught:
        bootstrap(run, 5)
    assert said in str(caught.value)


def test_a_file_that_does_not_come_to_the_score_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run = scored(tmp_path / "a-1", sentences(COUNT, 0.3, 2), TER("de"))
    lines = (run / "ter.jsonl").read_text().replace('"ratio": [', '"ratio": [1')
    (run / "ter.jsonl").write_text(lines)
    assert "ter" not in bootstrap(run, 5)
    assert "it is left out" in caplog.text
