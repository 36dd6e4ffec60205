"""The table of a paper: its numbers are those of the runs, it says how they were tested, and LaTeX takes it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from document_traces import documents
from test_commands import call, refused
from test_compare import make_run, sentences
from test_report import config, run

from streamllm.evaluation.rescore import rescore
from streamllm.metrics.asked import ChrF
from streamllm.metrics.other_units import InCharacters
from streamllm.metrics.scores import scores
from streamllm.report.paper import latex, markdown, table
from streamllm.report.signatures import signature
from streamllm.runs import bootstrap, paired_test
from streamllm.runs.folder import METRICS, RunFolder

ACL = "\\documentclass[twocolumn]{article}\\setlength{\\textwidth}{16cm}\\setlength{\\columnsep}{0.6cm}"
"""A page of two columns, each as wide as in ACL's style files."""
NASTY = ["50% & more", "a_b#1", "{x}~^\\y$", "<b>|*best*|", "wait-3 · … −1"]


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """wait-1 (bad), wait-3 (better) and full (best) over the same 40 sentences."""
    made = [run(tmp_path, sentences(40, noise, k, seed=k), config(k=k)) for k, noise in ((1, 0.7), (3, 0.3))]
    return [*made, run(tmp_path, sentences(40, 0.05, 6, seed=9), config("full", None))]


def test_numbers_intervals_and_marks_are_those_of_the_runs(runs: list[Path]):
    found = table(runs, samples=50, trials=200)
    assert list(found.rows) == ["waitk k=1", "waitk k=3", "full"]
    assert [score.key for score in found.columns] == ["bleu", "chrf", "laal", "al"]
    for path, cells in zip(runs, found.rows.values(), strict=True):
        metrics, intervals = RunFolder(path).metrics(), bootstrap(path, 50)
        tests = paired_test(runs[0], path, 50, trials=200)
        for score, cell in zip(found.columns, cells, strict=True):
            assert cell.value == metrics[score.key]
            assert (cell.low, cell.high) == (intervals[score.key].low, intervals[score.key].high)
            assert cell.mark == ("‡" if tests[score.key].p_value < 0.01 else "")
    assert [[cell.best for cell in cells] for cells in found.rows.values()] == [
        [False, False, True, True],
        [False, False, False, False],
        [True, True, False, False],
    ]


def test_what_prints_alike_is_best_together_and_where_all_do_nothing_is(tmp_path: Path):
    made = [make_run(tmp_path / f"{name}-1", sentences(30, 0.2, 3), config(k=k)) for name, k in (("a", 1), ("b", 2))]
    worse = make_run(tmp_path / "c-1", sentences(30, 0.6, 3), config(k=3))
    found = table([*made, worse], ["bleu"], samples=10, trials=10)
    assert [cells[0].best for cells in found.rows.values()] == [True, True, False]
    assert not any(cells[0].best for cells in table(made, ["bleu"], samples=10, trials=10).rows.values())


def test_caption_names_the_data_the_tests_and_the_baseline(runs: list[Path]):
    said = table(runs, samples=50, trials=200).caption
    assert said == (
        "40 sentences of sample, en to de. In brackets: 95% intervals by bootstrap over sentences (50 samples). "
        "† p < 0.05, ‡ p < 0.01 by approximate randomisation, two-sided (200 trials), each pair by itself: better or "
        "worse than waitk k=1. The best of a column is bold."
    )


def test_every_column_has_its_signature(runs: list[Path]):
    metrics = RunFolder(runs[0]).metrics()
    found = table(runs, ["bleu", "laal", "al", "length_ratio", "forced_reads"], samples=50, trials=200)
    drawn = "bs:50|ar:200|seed:12345"
    assert found.signatures == [
        ("BLEU", f"{metrics['bleu_signature']}|{drawn}"),
        ("LAAL, AL", f"{metrics['latency_signature']}|{drawn}"),
        ("length ratio", metrics["bleu_signature"]),
        ("forced reads", "source units read against the policy"),
    ]


def test_scores_in_other_units_and_of_documents_say_so_in_their_signatures(runs: list[Path], tmp_path: Path):
    for path in runs[:2]:
        rescore(path, [InCharacters("laal"), ChrF("de")])
    found = dict(table(runs[:2], ["laal", "laal_characters", "chrf_pp"], samples=5, trials=5).signatures)
    assert found["LAAL (characters)"].startswith("unit:character|space:no|len:ref|formulas:simuleval")
    assert "|nw:2|" in found["chrF++"]
    talks = [run(tmp_path / "talks", documents(2, k=k), config(k=k)) for k in (1, 4)]
    for path in talks:
        rescore(path, [ChrF("de")])
    found = dict(table(talks, ["bleu", "chrf_pp", "long_laal"], samples=5, trials=5).signatures)
    assert all("|segmenter:soft|lang:de" in text for text in found.values())
    assert found["BLEU"].startswith("nrefs:1|") and found["LongLAAL"].startswith("unit:word|")


def test_scores_cut_by_minimum_word_error_have_the_signature_of_that():
    found = {"documents": 2, "bleu_signature": "nrefs:1", "longform_signature": "unit:word|segmenter:soft|lang:de"}
    found |= {"stream_laal_signature": "unit:word|segmenter:mweralign.1"}
    known = scores(documents=True)
    said = {key: signature(known[key], found, None) for key in ("bleu", "bleu_word_error", "ca_stream_laal", "swf")}
    assert said == {
        "bleu": "nrefs:1|segmenter:soft|lang:de",
        "bleu_word_error": "nrefs:1|segmenter:mweralign.1",
        "ca_stream_laal": "unit:word|segmenter:mweralign.1",
        "swf": None,
    }


def test_signatures_that_differ_are_both_there(runs: list[Path]):
    path = runs[1] / METRICS
    path.write_text(path.read_text().replace("version:", "version:1."))
    lines = [signature for what, signature in table(runs, ["bleu"], samples=5, trials=5).signatures]
    assert ["version:1." in line for line in lines] == [False, True]


def test_markdown_has_the_best_in_bold_and_marks_and_intervals(runs: list[Path]):
    found = table(runs, ["bleu", "laal"], samples=50, trials=200)
    lines = markdown(found).splitlines()
    assert lines[2] == "| run | BLEU ↑ | LAAL ↓ |"
    number = r"\d+\.\d\d"
    between = rf"\[{number}, {number}\]"
    assert re.fullmatch(rf"\| waitk k=1 \| {number} {between} \| \*\*{number}\*\* {between} \|", lines[4])
    assert re.fullmatch(rf"\| full \| \*\*{number}\*\*‡ {between} \| {number}‡ {between} \|", lines[6])
    assert lines[8].startswith("- BLEU: `nrefs:1|")


def test_names_are_text_in_both_forms(runs: list[Path]):
    found = table(runs, ["bleu"], ["50% & more", "a_b#1", "_x_ <b>|"], samples=5, trials=5)
    assert r"50\% \& more & " in latex(found)
    assert r"a\_b\#1 & " in latex(found)
    assert "| 50% & more |" in markdown(found)
    assert r"| \_x\_ \<b>\| |" in markdown(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["comet"]}, "'comet' is no number of these runs; they have sentences, "),
        ({"metrics": ["al_ca"]}, r"these runs \(it needs runs with a clock: arrival.words_per_second=2.5\); they have"),
        ({"metrics": ["bleu_signature"]}, "'bleu_signature' is no number"),
        ({"names": ["a", "b"]}, "2 names for 3 runs: give one for each"),
        ({"names": ["a", "b", "a"]}, "two runs are called 'a'"),
    ],
)
def test_what_cannot_be_a_table_is_refused(runs: list[Path], options: dict[str, list[str]], message: str):
    with pytest.raises(ValueError, match=message):
        table(runs, samples=5, trials=5, **options)  # type: ignore[arg-type]


def test_compare_prints_the_table_and_writes_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runs: list[Path], tmp_path: Path
):
    few = ("--samples", 5, "--trials", 5, "--metrics", "bleu,laal", "-o", tmp_path / "table.tex")
    said = call(monkeypatch, capsys, "compare", *runs, "--latex", *few)
    assert said.startswith(r"\begin{table}") and said == (tmp_path / "table.tex").read_text()
    assert call(monkeypatch, capsys, "compare", *runs, *few).startswith("40 sentences"), "of more than two, Markdown"
    both = call(monkeypatch, capsys, "compare", *runs, "--latex", "--columns", 2, *few)
    assert both.startswith("\\begin{table*}") and both.endswith("\\end{table*}\n")
    assert "add --latex" in refused(monkeypatch, "compare", *runs, "--markdown", "--columns", 2)
    assert "give two or more" in refused(monkeypatch, "compare", runs[0])
    assert "add --markdown or --latex" in refused(monkeypatch, "compare", *runs[:2], "--metrics", "bleu")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no LaTeX (Debian: texlive-latex-base)")
@pytest.mark.parametrize("columns", [1, 2])
def test_latex_takes_the_table_of_five_runs(tmp_path: Path, columns: int):
    made = [run(tmp_path / "runs", sentences(40, 0.8 - k / 8, k, seed=k), config(k=k)) for k in range(1, 6)]
    names = [*NASTY[:4], "confidence threshold=0.8 max_lag=6"]  # the last one is of two lines
    found = latex(table(made, ["bleu", "chrf", "laal", "al", "dal"], names, samples=20, trials=20), columns)
    kind = r"\documentclass{article}" if columns == 1 else ACL
    page = [kind, r"\begin{document}", found, r"\end{document}", ""]
    (tmp_path / "page.tex").write_text("\n".join(page), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout, "a table is wider than its place"
    assert (tmp_path / "page.pdf").stat().st_size > 10_000
