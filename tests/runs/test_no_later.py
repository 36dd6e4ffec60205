"""Runs against the best of others that are no later: which that is, and p-values worked out by hand."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from test_compare import make_run, trace

from streamllm.records import Trace
from streamllm.runs.folder import RunFolder
from streamllm.runs.no_later import no_later_table

REFERENCE = "a b c d e f"


def traces(lag: int, right: int, of: int = 8) -> list[Trace]:
    """So many sentences of six words, of which the first ``right`` are as their references; the others lack the last
    two words. Each word is written ``lag`` units after its own, so the LAAL is ``lag`` or, at the end, less."""
    texts = [REFERENCE if number < right else "a b c d" for number in range(of)]
    delays = [tuple(min(lag + place, 6) for place in range(len(text.split()))) for text in texts]
    return [trace(str(number), text, REFERENCE, delays[number]) for number, text in enumerate(texts)]


def run(folder: Path, lag: int, right: int) -> str:
    return str(make_run(folder, traces(lag, right)))


def scores_of(folder: str, keys: Sequence[str] = ("laal", "bleu")) -> list[float]:
    return [RunFolder(folder).metrics()[key] for key in keys]


@pytest.fixture
def baselines(tmp_path: Path) -> dict[str, str]:
    """The best is late; of those that are early, the one between is the best, and one as good is later than it."""
    shapes = {"early": (1, 0), "between": (2, 3), "as good": (3, 3), "late": (5, 8)}
    return {name: run(tmp_path / f"{name.replace(' ', '-')}-1", *shape) for name, shape in shapes.items()}


def test_the_best_baseline_that_is_no_later_is_the_earliest_of_the_best(
    baselines: dict[str, str], tmp_path: Path
) -> None:
    systems = {"ours": run(tmp_path / "ours-1", 4, 6), "same lag": run(tmp_path / "same-1", 2, 5)}
    table = no_later_table(baselines, systems, samples=50).set_index("system")
    assert table["baseline"].to_dict() == {"ours": "between", "same lag": "between"}
    row = table.loc["ours"]
    assert [row["latency"], row["quality"]] == scores_of(systems["ours"])
    assert [row["baseline_latency"], row["baseline_quality"]] == scores_of(baselines["between"])
    assert row["difference"] == pytest.approx(row["quality"] - row["baseline_quality"])
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]


def test_p_is_that_of_all_assignments_of_the_sentences_that_differ(baselines: dict[str, str], tmp_path: Path) -> None:
    """Three sentences are better, and none is worse: of the eight assignments, the one found and its mirror image are
    as large, so p is 2 / 8; of two sentences it is 2 / 4."""
    systems = {"three": run(tmp_path / "three-1", 4, 6), "two": run(tmp_path / "two-1", 4, 5)}
    table = no_later_table(baselines, systems, samples=10).set_index("system")
    assert table["p_value"].to_dict() == {"three": 0.25, "two": 0.5}


def test_a_system_before_all_baselines_has_none(baselines: dict[str, str], tmp_path: Path) -> None:
    del baselines["early"]
    (row,) = no_later_table(baselines, {"first": run(tmp_path / "first-1", 1, 8)}, samples=10).to_dict("records")
    assert row["baseline"] == ""
    assert math.isnan(row["difference"]) and math.isnan(row["p_value"])
    assert row["quality"] == pytest.approx(100)


def test_other_scores_are_taken(tmp_path: Path) -> None:
    """By AL, which counts how many words there should be, a short output is earlier than by LAAL."""
    short = str(make_run(tmp_path / "short-1", [replace(one, id=one.id) for one in traces(2, 0)]))
    long = run(tmp_path / "long-1", 2, 8)
    (by_al,) = no_later_table({"short": short}, {"long": long}, "al", "chrf", samples=10).to_dict("records")
    assert [by_al["latency"], by_al["quality"]] == scores_of(long, ("al", "chrf"))
    assert by_al["baseline"] == "short"


def test_what_cannot_be_compared_is_refused(baselines: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="baselines has 0 runs"):
        no_later_table({}, baselines)
    with pytest.raises(ValueError, match="systems has 0 runs"):
        no_later_table(baselines, {})
    with pytest.raises(ValueError, match="samples is 0"):
        no_later_table(baselines, baselines, samples=0)
    with pytest.raises(ValueError, match="metrics: "):
        no_later_table(baselines, baselines, quality="blue")
