"""Scores of sentences in files beside the runs, such as comet.jsonl: tested in pairs, and what is wrong with a file."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_compare import make_run, sentences

from streamllm.cli.compare import comparison
from streamllm.files import RunError
from streamllm.metrics.scores import own_score
from streamllm.report.paper import table
from streamllm.runs.compare import bootstrap, paired_test, sentence_table
from streamllm.runs.folder import RunFolder
from streamllm.runs.randomisation import randomisation_p
from streamllm.runs.scored import Scored
from streamllm.runs.scores import rewrite
from streamllm.runs.sums import mean_of_sums, mean_statistics

COUNT = 40


COMET = own_score("comet", "COMET", 4, True)


def scored(folder: Path, scores: Mapping[str, float | None], key: str = "comet", in_metrics: bool = True) -> Path:
    run = make_run(folder, sentences(COUNT, 0.3, 2, seed=len(folder.name)))
    write(run, scores, key)
    if in_metrics:
        mean = float(np.mean([score for score in scores.values() if score is not None]))
        rewrite(RunFolder(run), {**RunFolder(run).metrics(), key: mean}, [COMET])
    return run


def write(run: Path, scores: Mapping[str, Any], key: str = "comet") -> None:
    lines = (json.dumps({"id": id, "score": score}) + "\n" for id, score in scores.items())
    (run / f"{key}.jsonl").write_text("".join(lines))


def made_up(seed: int, shift: float = 0.0) -> dict[str, float | None]:
    drawn = np.random.default_rng(seed).normal(0.8 + shift, 0.1, COUNT)
    return {str(place): float(score) for place, score in enumerate(drawn)}


def test_a_paired_test_over_them_is_the_one_over_their_numbers(tmp_path: Path):
    old, new = made_up(0), made_up(1, 0.05)
    shuffled = dict(sorted(new.items(), reverse=True))
    runs = scored(tmp_path / "a-1", old), scored(tmp_path / "bb-2", shuffled)
    found = paired_test(*runs, samples=50, trials=300)["comet"]
    a, b = (mean_statistics(np.array([one[str(place)] for place in range(COUNT)], float)) for one in (old, new))
    assert found.difference == pytest.approx(np.mean([*new.values()]) - np.mean([*old.values()]))
    assert found.p_value == randomisation_p(a, b, mean_of_sums, 300, 12345)
    assert found.low < found.difference < found.high and found.sentences == COUNT
    assert str(found).startswith(f"{found.difference:+.4f} comet [")


def test_they_are_in_the_comparison_the_table_and_the_interval(tmp_path: Path):
    runs = [scored(tmp_path / "a-1", made_up(0)), scored(tmp_path / "bb-2", made_up(1, 0.3))]
    (line,) = [line for line in comparison(*runs, samples=50, trials=200).splitlines() if line.startswith("COMET")]
    assert "[+0." in line and line.endswith("p = 0.005")
    found = table(runs, ["comet", "bleu"], ["one", "two"], samples=50, trials=200)
    first, second = (cells[0] for cells in found.rows.values())
    assert (first.mark, second.mark, second.best) == ("", "‡", True)
    interval = bootstrap(runs[1], 50, metrics=["comet"])["comet"]
    assert (second.low, second.high) == (interval.low, interval.high)
    assert found.signatures[0] == ("COMET", "metrics.json:comet|bs:50|ar:200|seed:12345")
    assert sentence_table(*runs, metrics=["comet"])["comet_a"].tolist() == [*made_up(0).values()]


def test_a_file_that_metrics_json_says_nothing_of_goes_by_its_name(tmp_path: Path):
    runs = [scored(tmp_path / f"{'a' * n}-1", made_up(n, n / 10), "human", in_metrics=False) for n in (1, 2)]
    (line,) = [line for line in comparison(*runs, samples=50, trials=200).splitlines() if line.startswith("human")]
    assert "p = 0.0" in line
    assert table(runs, ["human"], ["one", "two"], samples=50, trials=200).rows["two"][0].mark
    assert "human" in bootstrap(runs[0], 5)


def test_sentences_without_a_score_count_in_neither_run(tmp_path: Path):
    old, new = made_up(0), made_up(1)
    old["3"] = new["5"] = None
    runs = scored(tmp_path / "a-1", old), scored(tmp_path / "bb-2", new)
    found = paired_test(*runs, samples=50, trials=50, metrics=["comet"])["comet"]
    kept = [str(place) for place in range(COUNT) if place not in (3, 5)]
    assert found.sentences == COUNT - 2
    assert found.baseline == pytest.approx(math.fsum(old[id] or 0 for id in kept) / len(kept))


def test_a_score_that_one_run_lacks_is_not_compared(tmp_path: Path):
    runs = scored(tmp_path / "a-1", made_up(0)), make_run(tmp_path / "b-2", sentences(COUNT, 0.3, 2))
    assert "comet" not in paired_test(*runs, samples=5, trials=5)
    with pytest.raises(ValueError, match=r"metrics: \['comet'\]; .*b-2 has bleu, chrf"):
        paired_test(*runs, samples=5, trials=5, metrics=["comet"])


def test_a_file_that_is_not_what_the_metrics_were_made_of_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run = scored(tmp_path / "a-1", made_up(0))
    write(run, made_up(1))
    assert "comet" not in bootstrap(run, 5)
    assert "it is left out; `streamllm score` writes both anew" in caplog.text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"id": "0", "score": 0.1}\n', "has no score for 1, 2, 3 … (39 in all)"),
        ("LINES" + '{"id": "x", "score": 0.1}\n', "has scores for what the run does not hold: x (1 in all)"),
        ("LINES" + '{"id": "3", "score": 0.1}\n', "line 41: '3' has a score already"),
        ('{"id": "0", "score": "high"}\n', "line 1: score is 'high'; it should be a finite number or null"),
        ('{"id": "0", "score": NaN}\n', "it should be a finite number or null"),
        ('{"id": "0", "score": true}\n', "it should be a finite number or null"),
        ('{"id": "0", "score": 0.1}\n{"id": ', "line 2 is '{\"id\": '; it should be like"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_error(tmp_path: Path, content: str, said: str):
    run = make_run(tmp_path / "a-1", sentences(COUNT, 0.3, 2))
    lines = "".join(json.dumps({"id": id, "score": 0.5}) + "\n" for id in made_up(0))
    (run / "human.jsonl").write_text(content.replace("LINES", lines))
    with pytest.raises(RunError) as caught:
        bootstrap(run, 5)
    assert said in str(caught.value)
    assert Scored.of(run, ["bleu"]).names == ["bleu"]  # what was not asked for stops nobody


def test_other_files_are_let_be_and_names_of_ours_are_refused(tmp_path: Path):
    run = make_run(tmp_path / "a-1", sentences(COUNT, 0.3, 2))
    (run / "notes.jsonl").write_text('{"note": "as before"}\n')
    (run / "empty.jsonl").write_text("")
    (run / "Human-1.jsonl").write_text('{"id": "0", "score": 0.1}\n')
    assert {"notes", "empty"}.isdisjoint(bootstrap(run, 5))
    write(run, made_up(0), "bleu")
    with pytest.raises(RunError, match=r"bleu is a score that runs have anyway; give the file another name"):
        bootstrap(run, 5)
