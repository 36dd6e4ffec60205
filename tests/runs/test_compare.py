"""Statistics on runs: what is resampled, what sacrebleu says of the same, and which runs are refused."""

import dataclasses
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest

from streamllm.files import RunError
from streamllm.metrics.arrival import KEYS, ArrivalClock
from streamllm.metrics.latency import METRICS, latency
from streamllm.metrics.quality import sentence_bleu
from streamllm.metrics.summary import summarise
from streamllm.records import Event, Trace
from streamllm.runs import sums
from streamllm.runs.compare import (
    BOOTSTRAP,
    Difference,
    Interval,
    _p_of_bootstrap,
    bootstrap,
    intervals,
    paired_bootstrap,
    paired_test,
    sentence_table,
)
from streamllm.runs.folder import RunFolder
from streamllm.runs.load import load_runs
from streamllm.runs.randomisation import TIE, randomisation_p
from streamllm.runs.scored import Scored, Text, _natural
from streamllm.units import Unit, split

WORDS = ["ein", "eine", "Hund", "Katze", "Mann", "läuft", "steht", "sitzt", "auf", "unter", "dem", "der", "Wiese", "."]
CONFIG = {"dataset": {"target_language": "de", "target_unit": None}}


def trace(
    name: str,
    prediction: str,
    reference: str,
    delays: Sequence[int],
    source: str = "a b c d e f",
    unit: Unit = "word",
) -> Trace:
    units = tuple(split(prediction, unit))
    return Trace(
        id=name,
        source=source,
        reference=reference,
        units=units,
        delays=tuple(delays),
        elapsed=(0.0,) * len(delays),
        events=(),
        source_units=len(source.split()),
        prediction=prediction,
    )


def sentences(count: int, noise: float, lag: int, seed: int = 0) -> list[Trace]:
    """References that depend on ``count`` only, and predictions with a share of ``noise`` of other words."""
    words, errors = random.Random(count), random.Random(seed)
    traces = []
    for number in range(count):
        reference = [words.choice(WORDS) for _ in range(words.randint(4, 9))]
        prediction = [errors.choice(WORDS) if errors.random() < noise else word for word in reference]
        prediction = prediction[: errors.randint(3, 9)]
        delays = [min(lag + t + errors.randint(0, 1), 6) for t in range(len(prediction))]
        traces.append(trace(str(number), " ".join(prediction), " ".join(reference), sorted(delays)))
    return traces


def make_run(
    folder: Path,
    traces: Sequence[Trace],
    config: Mapping[str, Any] = CONFIG,
    unit: Any = "word",
    arrival: ArrivalClock | None = None,
) -> Path:
    run = RunFolder(folder)
    with run:
        run.begin(config, {})
        for one in traces:
            run.append(one)
        run.finish(summarise(traces, "de", unit, arrival), [one.id for one in traces])
    return folder


@pytest.fixture
def better(tmp_path: Path) -> Path:
    return make_run(tmp_path / "better-1", sentences(60, 0.2, 3, seed=1))


@pytest.fixture
def worse(tmp_path: Path) -> Path:
    return make_run(tmp_path / "worse-2", sentences(60, 0.7, 1, seed=2))


# --- one run


def test_values_are_to_the_last_digit_those_of_the_run(better: Path):
    found, metrics = bootstrap(better, samples=10), RunFolder(better).metrics()
    assert list(found) == ["bleu", "chrf", *METRICS]
    assert {name: interval.value for name, interval in found.items()} == {name: metrics[name] for name in found}


@pytest.mark.parametrize("seed", range(5))
def test_bleu_is_exactly_that_of_sacrebleu(tmp_path: Path, seed: int):
    traces = sentences(20 + seed, 0.5, 2, seed)
    value = bootstrap(make_run(tmp_path / "run-1", traces), samples=1, metrics=["bleu"])["bleu"].value
    assert value == BLEU().corpus_score([t.prediction for t in traces], [[t.reference for t in traces]]).score


def test_interval_of_bleu_is_made_of_corpus_scores_of_resampled_sentences(better: Path):
    traces = sentences(60, 0.2, 3, seed=1)
    draws = np.random.default_rng(12345).choice(60, size=(40, 60), replace=True)
    scores = [
        BLEU().corpus_score([traces[i].prediction for i in draw], [[traces[i].reference for i in draw]]).score
        for draw in draws
    ]
    low, high = np.quantile(scores, [0.025, 0.975])
    assert bootstrap(better, samples=40)["bleu"] == Interval("bleu", bootstrap(better, 1)["bleu"].value, low, high)


def test_interval_of_chrf_is_made_of_corpus_scores_of_resampled_sentences(better: Path):
    traces = sentences(60, 0.2, 3, seed=1)
    draws = np.random.default_rng(12345).choice(60, size=(40, 60), replace=True)
    texts = [([traces[i].prediction for i in draw], [[traces[i].reference for i in draw]]) for draw in draws]
    low, high = np.quantile([CHRF().corpus_score(*one).score for one in texts], [0.025, 0.975])
    assert bootstrap(better, samples=40)["chrf"] == Interval("chrf", RunFolder(better).metrics()["chrf"], low, high)


def on_a_clock(traces: Sequence[Trace]) -> list[Trace]:
    """The same with the events of a run, so that compute can be added."""
    found = []
    for one in traces:
        events: list[Event] = []
        read = 0
        for unit, delay in zip(one.units, one.delays, strict=True):
            events += [Event("read")] * (delay - read) + [Event("write", unit)]
            read = delay
        found.append(dataclasses.replace(one, events=tuple(events)))
    return found


def run_on_a_clock(folder: Path, traces: Sequence[Trace], rate: float = 2.5) -> Path:
    clock = {"words_per_second": rate, "seconds_per_read": 0.1, "seconds_per_write": 0.2}
    config = {**CONFIG, "arrival": {"_target_": "streamllm.metrics.arrival.arrival_clock", **clock}}
    return make_run(folder, on_a_clock(traces), config, arrival=ArrivalClock(**clock))


def test_run_with_a_clock_has_its_lags_in_seconds_too(tmp_path: Path):
    run = run_on_a_clock(tmp_path / "run-1", sentences(30, 0.2, 3))
    found, metrics = bootstrap(run, samples=10), RunFolder(run).metrics()
    assert list(found) == ["bleu", "chrf", *METRICS, *KEYS]
    assert {name: found[name].value for name in KEYS} == {name: metrics[name] for name in KEYS}
    assert metrics["al_ca"] > metrics["al_seconds"] > 0


def test_lags_in_seconds_are_compared_on_one_clock_only(tmp_path: Path, better: Path):
    traces = sentences(60, 0.2, 3, seed=1)
    slow, fast, late = (
        run_on_a_clock(tmp_path / f"{rate}-{seed}", sentences(60, 0.2, 3, seed), rate)
        for rate, seed in ((2.5, 1), (5, 1), (2.5, 7))
    )
    assert make_run(tmp_path / "plain-1", traces)
    assert [*paired_test(slow, late, 5, trials=5)] == ["bleu", "chrf", *METRICS, *KEYS]
    for other in (fast, tmp_path / "plain-1"):
        assert [*paired_test(slow, other, 5, trials=5)] == ["bleu", "chrf", *METRICS]
    with pytest.raises(RunError, match="have different clocks"):
        paired_test(slow, fast, 5, metrics=["al_ca"], trials=5)


def test_interval_of_a_latency_is_made_of_means_of_resampled_sentences(better: Path):
    lags = [latency(t.delays, t.source_units, t.reference, "word")["laal"] for t in sentences(60, 0.2, 3, seed=1)]
    draws = np.random.default_rng(12345).choice(60, size=(200, 60), replace=True)
    found = bootstrap(better, samples=200, metrics=["laal"])["laal"]
    assert (found.low, found.high) == pytest.approx(np.quantile(np.array(lags)[draws].mean(1), [0.025, 0.975]))
    assert found.low < found.value < found.high


def test_same_sentence_over_and_over_has_an_interval_without_width(tmp_path: Path):
    traces = [
        trace(str(n), "ein Hund läuft auf der Wiese", "ein Hund läuft auf dem Gras", range(1, 7)) for n in range(5)
    ]
    for interval in bootstrap(make_run(tmp_path / "run-1", traces), samples=50).values():
        assert interval.low == pytest.approx(interval.value)
        assert interval.high == pytest.approx(interval.value)


def test_samples_in_blocks_are_the_samples_drawn_at_once(better: Path, monkeypatch: pytest.MonkeyPatch):
    drawn = np.random.default_rng(5).choice(70, size=(50, 70), replace=True)
    counts = np.stack([np.bincount(row, minlength=70) for row in drawn])
    found = bootstrap(better, samples=50)
    monkeypatch.setattr(sums, "BLOCK", 70 * 16)
    assert [len(block) for block in sums.resampled(70, 50, 5)] == [16, 16, 16, 2]
    assert (sums.resample(70, 50, 5) == counts).all()
    for name, interval in bootstrap(better, samples=50).items():
        assert dataclasses.astuple(interval)[1:] == pytest.approx(dataclasses.astuple(found[name])[1:], rel=1e-12)


def test_intervals_are_repeatable_and_depend_on_the_seed(better: Path):
    assert bootstrap(better, 50) == bootstrap(better, 50)
    assert bootstrap(better, 50)["bleu"] != bootstrap(better, 50, seed=1)["bleu"]


def test_sentences_without_output_have_no_part_in_a_latency(tmp_path: Path):
    same = [trace(str(n), "ein Hund", "ein Hund", (2, 3)) for n in range(2)]
    traces = [*same, trace("2", "", "eine Katze", ())]
    found = bootstrap(make_run(tmp_path / "run-1", traces), samples=100)["laal"]
    assert found.value == found.low == found.high == latency((2, 3), 6, "ein Hund", "word")["laal"]


def test_one_sentence_gives_no_interval(tmp_path: Path):
    """All samples would hold it alone, and so an interval would have no width."""
    one = trace("0", "ein Hund", "ein Hund", (2, 3))
    for found in bootstrap(make_run(tmp_path / "run-1", [one]), samples=10).values():
        assert math.isnan(found.low) and math.isnan(found.high)
    laal = bootstrap(make_run(tmp_path / "run-2", [one, trace("1", "", "ein Hund", ())]), samples=10)["laal"]
    assert laal.value == 1.0 and math.isnan(laal.low)
    other = make_run(tmp_path / "run-3", [dataclasses.replace(one, delays=(3, 4))])
    found = paired_test(tmp_path / "run-1", other, samples=10)["laal"]
    assert (found.difference, found.p_value, math.isnan(found.low)) == (1, 1, True)


@pytest.mark.parametrize(("count", "warned"), [(29, True), (30, False)])
def test_few_sentences_are_warned_of_once(tmp_path: Path, caplog: Any, count: int, warned: bool):
    runs = [make_run(tmp_path / name, sentences(count, 0.3, 1, seed)) for seed, name in enumerate(("a-1", "b-2"))]
    for of_them in (
        lambda: bootstrap(runs[0], 5),
        lambda: paired_test(*runs, 5, trials=5),
        lambda: intervals(load_runs(tmp_path), 5),
    ):
        caplog.clear()
        of_them()
        assert ["has 29 sentences: below 30, intervals" in text for text in caplog.messages] == [True] * warned


def test_metric_that_no_sentence_defines_is_nan(tmp_path: Path):
    found = bootstrap(make_run(tmp_path / "run-1", [trace("0", "", "ein Hund", ())]), samples=5)
    assert math.isnan(found["al"].value) and math.isnan(found["al"].low) and math.isnan(found["al"].high)
    assert found["bleu"].value == 0


def test_language_of_the_target_may_be_known_to_the_data_set_only(tmp_path: Path):
    dataset = {
        "_target_": "streamllm.data.text.ParallelText",
        "source": "talk.en",
        "target": "talk.zh.gz",
        "source_language": None,
        "target_language": None,
    }
    traces = [
        trace("0", "一只狗跑", "一只猫跑", (1, 2, 3, 4), unit="character"),
        trace("1", "一只狗", "一只狗", (1, 2, 3), unit="character"),
    ]
    found = bootstrap(make_run(tmp_path / "run-1", traces, {"dataset": dataset}), samples=5)
    expected = BLEU(tokenize="zh").corpus_score([t.prediction for t in traces], [[t.reference for t in traces]])
    assert found["bleu"].value == expected.score > 0
    lags = [latency(t.delays, 6, t.reference, "character")["al"] for t in traces]
    assert found["al"].value == pytest.approx(sum(lags) / 2)


def test_intervals_of_many_runs_stand_beside_them(better: Path, worse: Path):
    runs = load_runs(better.parent).set_index(pandas.Index(["x", "y"]))
    found = intervals(runs, samples=20, metrics=["bleu", "laal"])
    assert list(found.columns) == ["bleu_low", "bleu_high", "laal_low", "laal_high"]
    assert list(found.index) == ["x", "y"]
    assert found.loc["y", "laal_high"] == bootstrap(worse, 20)["laal"].high


# --- two runs


@pytest.mark.parametrize("seed", range(3))
def test_p_value_of_the_bootstrap_of_bleu_is_that_of_sacrebleu(tmp_path: Path, seed: int):
    a, b = sentences(40, 0.5, 2, seed), sentences(40, 0.45, 2, seed + 10)
    test = PairedTest(
        [("a", [t.prediction for t in a]), ("b", [t.prediction for t in b])],
        {"BLEU": BLEU()},
        [[t.reference for t in a]],
        test_type="bs",
        n_samples=300,
    )
    baseline, system = test()[1]["BLEU"]
    found = paired_bootstrap(make_run(tmp_path / "a-1", a), make_run(tmp_path / "b-2", b), samples=300)["bleu"]
    assert (found.p_value, found.baseline, found.system) == (system.p_value, baseline.score, system.score)
    assert 1 / 301 < found.p_value < 1


def test_clear_difference_is_sure_and_has_its_sign(worse: Path, better: Path):
    found = paired_bootstrap(worse, better, samples=200)
    assert found["bleu"].p_value == found["laal"].p_value == 1 / 201
    assert 0 < found["bleu"].low < found["bleu"].difference < found["bleu"].high
    assert 0 < found["laal"].low < found["laal"].difference < found["laal"].high
    assert found["bleu"].difference == found["bleu"].system - found["bleu"].baseline
    swapped = paired_bootstrap(better, worse, samples=200)["bleu"]
    assert (swapped.difference, swapped.p_value) == (-found["bleu"].difference, found["bleu"].p_value)


def test_both_runs_are_drawn_alike(tmp_path: Path):
    """Lags that differ by one in each sentence differ by one in each sample, however much sentences vary."""
    a = [trace(str(n), "ein Hund", "ein Hund", (d, 6)) for n, d in enumerate((1, 2, 3, 4))]
    b = [dataclasses.replace(t, delays=(t.delays[0] + 2, 6)) for t in a]
    found = paired_test(make_run(tmp_path / "a-1", a), make_run(tmp_path / "b-2", b), 50, metrics=["cw_max"])
    assert found["cw_max"].low < found["cw_max"].high
    a = [dataclasses.replace(t, delays=t.delays[:1], units=t.units[:1], elapsed=t.elapsed[:1]) for t in a]
    b = [dataclasses.replace(t, delays=(t.delays[0] + 1,)) for t in a]
    found = paired_test(make_run(tmp_path / "c-1", a), make_run(tmp_path / "d-2", b), 50, metrics=["cw"])
    assert (found["cw"].low, found["cw"].high) == pytest.approx((1, 1))


def test_equal_runs_do_not_differ_for_sure(better: Path, tmp_path: Path):
    again = make_run(tmp_path / "again-3", sentences(60, 0.2, 3, seed=1))
    value = RunFolder(better).metrics()["laal"]
    for test, name in ((paired_test, "approximate randomisation"), (paired_bootstrap, BOOTSTRAP)):
        found = test(better, again, 50)
        assert found["laal"] == Difference("laal", value, value, 0.0, 0.0, 0.0, 1.0, name, 60)
        assert {one.p_value for one in found.values()} == {1.0}


def test_sentences_are_matched_by_id_in_any_order(worse: Path, better: Path, tmp_path: Path):
    turned = make_run(tmp_path / "turned-4", sentences(60, 0.2, 3, seed=1)[::-1])
    assert paired_test(worse, turned, 50) == paired_test(worse, better, 50)
    assert bootstrap(turned, 50) == bootstrap(better, 50)


@pytest.mark.parametrize("test", [paired_test, paired_bootstrap])
def test_a_against_b_is_b_against_a_whatever_the_order_of_the_files(tmp_path: Path, test: Any):
    traces = sentences(40, 0.5, 2, seed=1)
    random.Random(0).shuffle(traces)
    a, b = make_run(tmp_path / "a-1", sentences(40, 0.45, 2)), make_run(tmp_path / "b-2", traces)
    there, back = test(a, b, 50), test(b, a, 50)
    for name, found in there.items():
        assert (found.difference, found.low, found.high) == pytest.approx(
            (-back[name].difference, -back[name].high, -back[name].low), rel=1e-12
        )
        assert (found.p_value, found.sentences) == (back[name].p_value, back[name].sentences)


def test_numbers_in_ids_count_as_numbers():
    """So samples are those of sacrebleu, which takes sentences as they come in the data."""
    ids = ["s-2", "s-10", "s-1", "s-01", "t", "10", "9", "x9" + "9" * 5000]
    assert sorted(ids, key=_natural) == ["9", "10", "s-01", "s-1", "s-2", "s-10", "t", "x9" + "9" * 5000]


def test_a_difference_is_printed_as_the_documentation_writes_it():
    found = Difference("bleu", 30.0, 33.524, 3.524, 1.391, 5.66, 0.0021, "approximate randomisation", 180)
    assert str(found) == "+3.52 BLEU [+1.39, +5.66], p = 0.002 (approximate randomisation)"
    sure = dataclasses.replace(found, metric="laal_ca", p_value=1e-4, low=math.nan)
    assert str(sure) == "+3.52 LAAL-CA (s), p < 0.001 (approximate randomisation)"
    assert str(dataclasses.replace(found, metric="ap", difference=math.nan)) == "no AP in both runs"
    assert str(Interval("ap", 0.7041, 0.6, 0.8)) == "0.704 AP [0.600, 0.800]"


def test_differences_make_a_table(worse: Path, better: Path):
    table = pandas.DataFrame(paired_test(worse, better, 10, metrics=["bleu", "al"]).values())
    assert list(table["metric"]) == ["bleu", "al"]
    assert list(table.columns) == [
        "metric",
        "baseline",
        "system",
        "difference",
        "low",
        "high",
        "p_value",
        "test",
        "sentences",
    ]


def test_table_holds_each_sentence_of_both_runs(worse: Path, better: Path):
    table = sentence_table(worse, better)
    a, b = sentences(60, 0.7, 1, seed=2), sentences(60, 0.2, 3, seed=1)
    assert list(table["id"]) == [t.id for t in a]
    assert list(table["prediction_a"]) == [t.prediction for t in a]
    assert list(table["prediction_b"]) == [t.prediction for t in b]
    row = table.iloc[7]
    assert (row["source"], row["reference"]) == (a[7].source, a[7].reference)
    assert row["bleu_b"] == sentence_bleu(b[7].prediction, b[7].reference, "de")
    for name in ("al", "laal"):
        assert row[f"{name}_a"] == latency(a[7].delays, 6, a[7].reference, "word")[name]
    for name in ("bleu", "al", "laal"):
        assert row[f"{name}_difference"] == row[f"{name}_b"] - row[f"{name}_a"]


def test_table_takes_other_latencies(worse: Path, better: Path):
    assert "dal_difference" in sentence_table(worse, better, metrics=["dal"])


# --- randomisation


def changed(traces: Sequence[Trace], count: int, lag: int = 1) -> list[Trace]:
    """The first so many sentences are written later, and worse."""
    later = [
        dataclasses.replace(
            t,
            delays=tuple(min(d + lag, t.source_units) for d in t.delays),
            units=("falsch", *t.units[1:]),
            prediction=f"falsch {t.prediction}",
        )
        for t in traces[:count]
    ]
    return [*later, *traces[count:]]


@pytest.mark.parametrize(("differing", "p"), [(0, 1), (1, 1), (2, 0.5), (3, 0.25), (6, 2 / 2**6)])
def test_few_sentences_that_speak_for_one_run_have_the_exact_p(tmp_path: Path, differing: int, p: float):
    """sacrebleu counts larger differences only, and so prints p = 0.0001 here."""
    traces = sentences(30, 0.2, 1)
    a, b = make_run(tmp_path / "a-1", traces), make_run(tmp_path / "b-2", changed(traces, differing))
    found = paired_test(a, b, samples=5)
    assert (found["bleu"].p_value, found["dal"].p_value, found["al"].p_value) == (p, p, p)
    assert found["bleu"].test == "approximate randomisation"


def test_two_sentences_that_speak_against_each_other_have_p_1(tmp_path: Path):
    a = [trace(str(n), "ein Hund", "ein Hund", (2, 3)) for n in range(5)]
    b = [dataclasses.replace(a[0], delays=(1, 2)), dataclasses.replace(a[1], delays=(3, 4)), *a[2:]]
    found = paired_test(make_run(tmp_path / "a-1", a), make_run(tmp_path / "b-2", b), 5, metrics=["al", "bleu"])
    assert (found["al"].p_value, found["bleu"].p_value) == (1, 1)


def test_exact_p_of_bleu_is_that_of_all_assignments(tmp_path: Path):
    a = sentences(20, 0.3, 2, seed=1)
    b = [*sentences(20, 0.3, 2, seed=2)[:7], *a[7:]]

    def difference(one: Sequence[Trace], other: Sequence[Trace]) -> float:
        scores = [
            BLEU().corpus_score([t.prediction for t in some], [[t.reference for t in some]]).score
            for some in (one, other)
        ]
        return abs(scores[0] - scores[1])

    found = []
    for exchanged in itertools.product((False, True), repeat=7):
        pairs = [(y, x) if e else (x, y) for x, y, e in zip(a, b, [*exchanged, *[False] * 13], strict=True)]
        found.append(difference([x for x, _ in pairs], [y for _, y in pairs]))
    expected = np.mean(np.array(found) >= found[0] - 1e-9)
    runs = make_run(tmp_path / "a-1", a), make_run(tmp_path / "b-2", b)
    assert paired_test(*runs, samples=5, metrics=["bleu"])["bleu"].p_value == expected
    assert 0 < expected < 1


@pytest.mark.parametrize(("name", "theirs"), [("bleu", {"BLEU": BLEU()}), ("chrf", {"chrF2": CHRF()})])
@pytest.mark.parametrize("seed", range(3))
def test_where_there_are_no_ties_p_is_that_of_sacrebleu(
    tmp_path: Path, seed: int, name: str, theirs: dict[str, BLEU | CHRF]
):
    a, b = sentences(40, 0.5, 2, seed), sentences(40, 0.45, 2, seed + 10)
    test = PairedTest(
        [("a", [t.prediction for t in a]), ("b", [t.prediction for t in b])],
        theirs,
        [[t.reference for t in a]],
        test_type="ar",
        n_samples=300,
    )
    _, system = test()[1][next(iter(theirs))]
    runs = make_run(tmp_path / "a-1", a), make_run(tmp_path / "b-2", b)
    assert paired_test(*runs, samples=5, metrics=[name], trials=300)[name].p_value == system.p_value
    assert 1 / 301 < system.p_value < 1


def test_p_of_equally_good_systems_is_spread_evenly():
    generator = np.random.default_rng(0)
    found = []
    for seed in range(200):
        a, b = (np.stack([generator.normal(size=40), np.ones(40)], 1) for _ in range(2))
        found.append(randomisation_p(a, b, lambda sums: sums[:, 0] / sums[:, 1], trials=400, seed=seed))
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        assert np.mean(np.array(found) <= share) == pytest.approx(share, abs=0.1)


def test_sums_in_another_order_are_ties():
    """0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1 in floats: of four assignments, all have the difference of the first."""
    a, b = (np.array(values)[:, None] for values in ([0.1, 0.2, 0.3], [0.3, 0.2, 0.1]))
    assert randomisation_p(a, b, lambda sums: sums[:, 0]) == 1.0
    a, b = (np.array(values)[:, None] for values in ([0.1, 0.2, 0.7], [0.0, 0.0, 0.0]))
    assert randomisation_p(a, b, lambda sums: sums[:, 0]) == 0.25


def test_latencies_are_compared_over_the_sentences_that_both_runs_define(tmp_path: Path):
    """Runs that share half of their outputs, where the other half of B is empty, do not differ in latency."""
    a = [trace(str(n), "ein Hund", "ein Hund", (2, 3) if n % 2 else (5, 6)) for n in range(40)]
    b = [one if n % 2 else trace(str(n), "", "ein Hund", ()) for n, one in enumerate(a)]
    runs = make_run(tmp_path / "a-1", a), make_run(tmp_path / "b-2", b)
    for found in (paired_test(*runs, 50)["laal"], paired_bootstrap(*runs, 50)["laal"]):
        assert (found.difference, found.low, found.high, found.p_value, found.sentences) == (0, 0, 0, 1, 20)
        assert found.baseline == found.system == RunFolder(runs[1]).metrics()["laal"]
    assert paired_test(*runs, 50)["bleu"].sentences == 40


def test_differences_of_rounding_are_none(tmp_path: Path):
    """Lags of 0.1 + 0.2 and 0.3: the mean differs by 1e-17, and in every sample."""
    drawn = np.full(1000, 2e-16)
    assert _p_of_bootstrap(drawn, 2e-16, TIE) == 1.0
    assert _p_of_bootstrap(np.linspace(0.9, 1.1, 999), 1.0, TIE) == 1 / 1000


def test_documents_are_drawn_in_the_order_of_their_ids(tmp_path: Path):
    scored = Scored(
        tmp_path,
        "de",
        None,
        ["bleu"],
        [Text(f"{d}#{n}", "", "", "") for d in ("b", "a") for n in (2, 1)],
        np.array([0, 0, 1, 1]),
        np.arange(4)[:, None],
        {},
    )
    found = scored.by_id()
    assert [text.id for text in found.texts] == ["a#1", "a#2", "b#1", "b#2"]
    assert (found.of_document.tolist(), found.bleu[:, 0].tolist()) == ([0, 0, 1, 1], [3, 2, 1, 0])


def test_a_sentence_that_stands_twice_in_a_run_is_refused(better: Path):
    lines = better / "predictions.jsonl"
    lines.write_text(lines.read_text() + lines.read_text().splitlines()[3] + "\n")
    with pytest.raises(RunError, match="lines 4 and 61 both hold the sentence '3'"):
        bootstrap(better, 5)


# --- what is refused


def test_unfinished_run_is_refused(better: Path):
    (better / "metrics.json").unlink()
    with pytest.raises(RunError, match=r"metrics\.json.*start its command again"):
        bootstrap(better)


def test_folder_without_a_run_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="give the folder of one run"):
        bootstrap(tmp_path)


@pytest.mark.parametrize("metrics", [["bleu", "comet"], "laal", []])
def test_unknown_metrics_are_refused(better: Path, metrics: Any):
    with pytest.raises(ValueError, match="bleu, chrf, al, laal"):
        bootstrap(better, metrics=metrics)


def test_number_of_samples_must_be_positive(better: Path):
    with pytest.raises(ValueError, match="samples is 0"):
        bootstrap(better, samples=0)
    with pytest.raises(ValueError, match="trials is 0"):
        paired_test(better, better, trials=0)


def test_configuration_without_a_language_is_refused(tmp_path: Path):
    run = make_run(tmp_path / "run-1", sentences(3, 0.5, 1), {"policy": {"k": 3}})
    with pytest.raises(ValueError, match=r"add dataset\.target_language"):
        bootstrap(run)


def test_runs_over_other_sentences_are_refused(tmp_path: Path, better: Path):
    fewer = make_run(tmp_path / "fewer-5", sentences(60, 0.2, 3, seed=1)[:56])
    for pair in ((better, fewer), (fewer, better)):
        with pytest.raises(RunError, match=r"4 of the 60 sentences of .*better-1.* \(56, 57, 58 …\).* same data set"):
            paired_test(*pair)


def test_runs_whose_ids_mean_other_sentences_are_refused(tmp_path: Path, better: Path):
    traces = [dataclasses.replace(t, source="g h i j k l") for t in sentences(60, 0.2, 3, seed=1)]
    with pytest.raises(RunError, match="sentence '0' is 'a b c d e f'"):
        sentence_table(better, make_run(tmp_path / "other-6", traces))


def test_runs_into_other_languages_are_refused(tmp_path: Path, better: Path):
    other = make_run(tmp_path / "nl-7", sentences(60, 0.2, 3, seed=1), {"dataset": {"target_language": "nl"}})
    with pytest.raises(RunError, match="the target is 'de'"):
        paired_test(better, other)


def test_runs_without_folders_are_refused():
    with pytest.raises(ValueError, match="no column 'folder'"):
        intervals(pandas.DataFrame({"bleu": [1.0]}))
