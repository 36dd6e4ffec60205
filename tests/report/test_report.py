"""The report without a browser: what the page holds, that text of runs stays text, and what is refused."""

import base64
import hashlib
import json
import math
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import pytest

matplotlib.use("Agg")

from conftest import ROOT
from document_traces import alone, documents
from screenshot import number_of
from test_compare import make_run, sentences, trace

from streamllm.cli.report import main
from streamllm.evaluation.rescore import rescore
from streamllm.files import RunError
from streamllm.metrics.latency import METRICS as LATENCIES
from streamllm.metrics.other_units import InCharacters
from streamllm.metrics.quality import sentence_bleu
from streamllm.metrics.scores import own_score
from streamllm.records import Event, Trace
from streamllm.report import render, write_report
from streamllm.report.curve import _lines, _names, drifts
from streamllm.report.gather import gather
from streamllm.runs.folder import METRICS, RunFolder
from streamllm.runs.scores import rewrite

TARGETS = {"waitk": "streamllm.policies.waitk.WaitK", "full": "streamllm.policies.full.Full"}
NASTY = """</script ></script><b>"fett"</b> & 'so' {{css}} &lt; <!--<script> \u2028"""


def config(policy: str = "waitk", k: int | None = 3, dataset: str = "sample", **more: Any) -> dict[str, Any]:
    """What run.py writes, in short."""
    given = {"_target_": TARGETS.get(policy, policy)} | ({} if k is None else {"k": k})
    languages = {"source_language": "en", "target_language": "de", "target_unit": None}
    return {
        "model": {"path": "bundled:tiny-en-de", "adapter_path": None},
        **({} if k is None else {"k": k}),
        "policy": given,
        "dataset": {"name": dataset, **languages},
        "output": {"root": f"out-{k}"},
        "name": f"sample-{policy}",
        **more,
    }


def run(root: Path, traces: Sequence[Trace], settings: Mapping[str, Any], unit: str = "word") -> Path:
    folder = RunFolder.of(settings, str(settings["name"]).rpartition(".")[2], root).path
    return make_run(folder, traces, settings, unit)


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """wait-1, wait-3 and full over the same 30 sentences."""
    root = tmp_path / "outputs"
    for k, noise in ((1, 0.7), (3, 0.3)):
        run(root, sentences(30, noise, k, seed=k), config(k=k))
    run(root, sentences(30, 0.2, 6, seed=9), config("full", None))
    return root


def page(*paths: Path, samples: int = 20) -> str:
    return render(gather(paths, samples))


class Reader(HTMLParser):
    """Rows of tables by their id, the text, the data, and every attribute of the page."""

    def __init__(self, text: str):
        super().__init__()
        self.tables: dict[str | None, list[list[str]]] = {}
        self.attributes: list[tuple[str, str, str | None]] = []
        self.tags: list[str] = []
        self.texts: dict[str, str] = {}
        self._path: list[tuple[str, str | None]] = []
        self._table: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self._path.append((tag, found.get("id") or found.get("class")))
        if tag == "table":
            self._table = found.get("id") or found.get("class")
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._path and self._path.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        open_tags = [tag for tag, _ in self._path]
        name = f"{self._path[-1][0]}#{self._path[-1][1]}" if self._path else ""
        self.texts[name] = self.texts.get(name, "") + data
        if "td" in open_tags or "th" in open_tags:
            self.tables[self._table][-1][-1] += data

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.texts["script#data"])
        return found


def rows(text: str) -> list[dict[str, str]]:
    head, *body = Reader(text).tables["runs"]
    return [dict(zip(head, (cell.strip() for cell in row), strict=True)) for row in body]


# --- the table


def test_table_has_a_row_for_each_run_with_its_scores_and_interval(outputs: Path):
    found = rows(page(outputs))
    assert [(row["Policy"], row["Setting"]) for row in found] == [("full", ""), ("waitk", "k=1"), ("waitk", "k=3")]
    (waitk_3,) = outputs.glob(f"*-{RunFolder.of(config(k=3), 'x').digest}")
    metrics = RunFolder(waitk_3).metrics()
    score, interval = found[2]["BLEU"].split()
    assert score == f"{metrics['bleu']:.2f}"
    low, high = map(float, interval.split("–"))
    assert low < metrics["bleu"] < high
    for key, name, decimals in (("chrf", "chrF", 2), ("al", "AL", 2), ("laal", "LAAL", 2), ("ap", "AP", 3)):
        assert found[2][name] == f"{metrics[key]:.{decimals}f}"


def test_intervals_are_left_out_when_no_samples_are_wanted(outputs: Path):
    assert "–" not in rows(page(outputs, samples=0))[0]["BLEU"]


def test_keys_that_differ_have_columns_and_bookkeeping_has_none(tmp_path: Path):
    for seed, path in ((0, "a"), (1, "b")):
        more = {"seed": seed, "model": {"path": path}, "limits": {"seed": seed}, "tracker": {"mode": path}}
        run(tmp_path, sentences(5, 0.3, 2), config(**more))
    found = rows(page(tmp_path))
    assert [(row["model"], row["seed"]) for row in found] == [("a", "0"), ("b", "1")]
    assert list(found[0])[:5] == ["Show", "Policy", "Setting", "model", "seed"]
    assert list(found[0])[5] == "BLEU"


def test_keys_that_say_the_same_of_a_data_set_are_one_column(tmp_path: Path):
    for name, split, k in (("talks", "a", 1), ("news", "b", 1), ("talks", "a", 3)):
        settings = config(k=k, dataset=name)
        settings["dataset"] |= {"split": split, "limit": k}
        run(tmp_path, sentences(5, 0.3, k), settings)
    text = page(tmp_path)
    assert list(rows(text)[0])[:5] == ["Show", "Policy", "Setting", "limit", "dataset"]
    assert 'title="dataset.name, and with it dataset.split"' in text
    assert '<td class="key" data-value="news" title="dataset.split=b">' in text


def test_what_happened_in_runs_is_told_below_the_table(tmp_path: Path):
    run(tmp_path, [*sentences(4, 0.3, 2), trace("9", "", "x", [])], config())
    run(tmp_path, sentences(4, 0.3, 2), config(k=5))
    found = Reader(page(tmp_path)).tables["notes"]
    assert found == [["waitk k=3", "sentences without output, and so without latency: 1"]]
    run(tmp_path / "more", sentences(4, 0.3, 2), config(k=5))
    assert "notes" not in Reader(page(tmp_path / "more")).tables


def test_lengths_are_called_what_they_are_counted_in(tmp_path: Path):
    traces = [trace("1", "ein Hund", "ein Hund", [1, 1], source="犬")]
    settings = config()
    settings["dataset"]["source_language"] = "ja"
    run(tmp_path / "ja", traces, settings)
    assert Reader(page(tmp_path / "ja")).data["units"] == "Characters"
    run(tmp_path / "en", traces, config())
    assert Reader(page(tmp_path / "en")).data["units"] == "Words"


def test_titles_tell_runs_apart_by_the_least_that_does(tmp_path: Path):
    for seed in (0, 1):
        run(tmp_path, sentences(5, 0.3, 2), config(seed=seed, z_longer=f"{seed}!"))
    run(tmp_path, sentences(5, 0.3, 2), config("full", None, seed=0))
    assert [one.title for one in gather([tmp_path], 0).runs] == ["full", "waitk k=3 · seed=0", "waitk k=3 · seed=1"]


def test_runs_that_only_their_folder_tells_apart_are_named_by_digest(tmp_path: Path):
    for name in ("a-111", "a-222"):
        make_run(tmp_path / name, sentences(5, 0.3, 2), config())
    assert [one.title for one in gather([tmp_path], 0).runs] == ["waitk k=3 · 111", "waitk k=3 · 222"]


def test_setting_that_would_fill_the_page_is_cut(tmp_path: Path):
    settings = config() | {"policy": {"_target_": "my.Oracle", "delays": "1," * 1000}}
    run(tmp_path, sentences(5, 0.3, 2), settings)
    assert len(rows(page(tmp_path))[0]["Setting"]) == 40


def test_value_that_a_run_does_not_have_is_a_dash(tmp_path: Path):
    run(tmp_path, [trace("1", "", "ein Hund", [])], config())
    run(tmp_path, [trace("1", "ein Hund", "ein Hund", [2, 3])], config(k=1))
    assert [row["AL"] for row in rows(page(tmp_path))] == ["1.00", "–"]


# --- sentences


def test_sentences_carry_delays_scores_and_why_they_ended():
    one = trace("7", "Ja doch", "Ja klar", [1, 3], source="a b c d")
    kinds = ["read", "write", "forced_read", "forced_read", "write", "read", "stop"]
    events = tuple(Event(kind, "max_units" if kind == "stop" else "") for kind in kinds)
    with_events = Trace(**{**one.__dict__, "events": events})
    data = Reader(_page_of([with_events])).data
    (found,) = data["runs"]
    assert data["sentences"] == {"id": ["7"], "source": ["a b c d"], "reference": ["Ja klar"], "units": [0]}
    assert (found["prediction"], found["delays"], found["read"]) == (["Ja doch"], [[1, 3]], [4])
    assert found["forced"] == [[[1, 1], [2, 1]]]
    assert found["stop"] == ["cut at the length limit"]
    endless = Trace(**{**one.__dict__, "events": (*events[:-1], Event("stop", "max_tokens"))})
    assert Reader(_page_of([endless])).data["runs"][0]["stop"] == ["cut at the limit of tokens"]
    assert found["bleu"] == [round(sentence_bleu("Ja doch", "Ja klar", "de"), 3)]
    assert found["al"] == [pytest.approx((1 + 3 - 2) / 2)]


def test_units_that_spaces_do_not_divide_are_written_out():
    chinese = Trace("1", "我 爱你", "ich", ("Ich", "mag  dich"), (1, 3), (0.0, 0.0), (), 3, "Ich mag  dich")
    data = Reader(_page_of([chinese])).data
    assert data["sentences"]["units"] == [["我", "爱", "你"]]
    assert data["runs"][0]["units"] == [["Ich", "mag  dich"]]


def test_sentence_without_output_has_no_lag():
    data = Reader(_page_of([trace("1", "", "ein Hund", []), trace("2", "ein", "ein", [1])])).data
    assert data["runs"][0]["al"][0] is None
    assert data["runs"][0]["units"][0] == []


def test_runs_over_part_of_the_sentences_share_them_with_the_others(tmp_path: Path):
    traces = sentences(6, 0.3, 2)
    run(tmp_path, traces, config(k=1))
    run(tmp_path, traces[4:], config(k=3))
    report = gather([tmp_path], 0)
    assert len(report.sentences) == 6
    assert sorted(len(one.results) for one in report.runs) == [2, 6]
    (short,) = [one for one in report.runs if len(one.results) == 2]
    assert [report.sentences[number].id for number in short.results] == ["4", "5"]


def test_sentence_with_another_reference_is_another_sentence(tmp_path: Path):
    run(tmp_path, [trace("1", "a", "a", [1])], config(k=1))
    run(tmp_path, [trace("1", "a", "b", [1])], config(k=3))
    assert len(gather([tmp_path], 0).sentences) == 2


def test_first_shown_are_the_earliest_run_and_the_best_over_the_same_sentences(tmp_path: Path, outputs: Path):
    run(outputs, [trace("x", "ein Hund läuft auf", "ein Hund läuft auf", [5, 6, 6, 6])], config("full", None, "other"))
    report = gather([outputs], 0)
    data = Reader(render(report)).data
    first, best = (report.runs[number] for number in data["shown"])
    same = [one for one in report.runs if one.config["dataset.name"] == "sample"]
    assert first.metrics["laal"] == min(one.metrics["laal"] for one in report.runs)
    assert best.metrics["bleu"] == max(one.metrics["bleu"] for one in same)


# --- the curve


def test_there_is_a_curve_for_each_data_set_with_the_points_of_its_runs(outputs: Path):
    run(outputs, sentences(5, 0.3, 2), config(dataset="other"))
    text = page(outputs)
    report = gather([outputs], 0)
    names = [
        sorted(report.runs[number].config["dataset.name"] for number, *_ in c) for c in Reader(text).data["curves"]
    ]
    assert sorted(names) == [
        ["other"],
        ["other"],
        ["sample"] * 3,
        ["sample"] * 3,
    ]  # for a wide window, and a narrow one
    assert text.count('aria-label="BLEU over LAAL on ') == 4


def test_areas_under_curves_stand_below_them(tmp_path: Path):
    for k, noise in ((1, 0.6), (3, 0.4), (5, 0.3)):
        run(tmp_path, sentences(30, noise, k), config("waitk", k))
    assert gather([tmp_path], samples=20).curves == []  # one curve, and nothing to compare it with
    run(tmp_path, sentences(30, 0.2, 6), config("full", None))
    (facts,) = gather([tmp_path], samples=20).curves
    (row,) = facts.rows
    page = render(gather([tmp_path], samples=20))
    assert (facts.baseline, row["points"]) == (None, 3)
    assert f"mean BLEU, LAAL {row['from']:.2f} to {row['to']:.2f}" in page
    assert f"{row['nose']:.3f} [{row['nose_low']:.3f}, {row['nose_high']:.3f}]" in page
    assert gather([tmp_path], samples=0).curves == []


def test_points_lie_where_matplotlib_has_drawn_the_markers(outputs: Path):
    text = page(outputs, samples=0)
    drawn = {(float(x), float(y)) for x, y in re.findall(r'<use [^>]*?x="([\d.]+)" y="([\d.]+)"', text)}
    for _, x, y in [point for drawing in Reader(text).data["curves"] for point in drawing]:
        assert any(math.hypot(x - left, y - top) < 0.2 for left, top in drawn)


def test_policies_on_two_models_are_lines_of_their_own(tmp_path: Path):
    for path in ("a/small", "b/large"):
        for k in (1, 3):
            run(tmp_path, sentences(8, 0.3, k), config(k=k) | {"model": {"path": path}})
    curve, _ = Reader(page(tmp_path)).data["curves"]
    assert len(curve) == 4


def test_run_without_output_is_in_no_curve(tmp_path: Path):
    run(tmp_path, [trace("1", "", "ein Hund", [])], config())
    text = page(tmp_path)
    assert Reader(text).data["curves"] == []
    assert "No run has both BLEU and LAAL." in text


# --- text of runs is text, and nothing is loaded


@pytest.mark.parametrize("text", [NASTY, "שלום עולם!", "مرحبا، يا عالم", "我爱你。", "👩‍👩‍👧 🇩🇪 z̈", "a\tb\\u003c \x00"])
def test_text_arrives_as_it_was(text: str):
    one = trace("1", text, text, [1] * len(text.split()), source=text)
    data = Reader(_page_of([one])).data
    assert data["sentences"]["source"] == data["sentences"]["reference"] == [text]
    assert data["runs"][0]["prediction"] == [text]


def test_markup_in_runs_makes_no_elements(tmp_path: Path):
    plain, nasty = tmp_path / "plain", tmp_path / "nasty"
    for root, text, key in ((plain, "x", "seed"), (nasty, NASTY, "<img>")):
        for number in (0, 1):
            one = trace(text, text, text, [1] * len(text.split()), source=text)
            more = {key: f"{text}{number}", "policy": {"_target_": f"my.{text}", "name": text}}
            settings = config(dataset=text) | more
            make_run(root / f"run-{number}", [one], settings)
            (root / f"run-{number}" / "env.json").write_text(json.dumps({"command": text, "device": text}))
    expected, found = (Reader(page(root)) for root in (plain, nasty))
    outside = [[tag for tag in reader.tags if tag not in SVG] for reader in (expected, found)]
    assert outside[1] == outside[0]
    assert NASTY.replace("\u2028", "") in found.tables["plain"][1][2].replace("\u2028", "")


SVG = {"svg", "g", "path", "defs", "use", "style", "clippath", "rect"}


def test_page_holds_all_it_needs_and_forbids_the_rest(outputs: Path):
    reader = Reader(page(outputs))
    loading = {"src", "srcset", "href", "action", "data", "poster", "xlink:href"}
    assert {value for _, name, value in reader.attributes if name in loading and not str(value).startswith("#")} == {
        "data:,"
    }
    (policy,) = [value for tag, _, value in reader.attributes if tag == "meta" and "default-src" in str(value)]
    script = re.search(r"<script>(.*?)</script>", page(outputs), re.S)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert str(policy).split("; ") == [
        "default-src 'none'",
        f"script-src 'sha256-{digest}'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_ids_of_several_curves_are_unique_and_those_referred_to_exist(outputs: Path):
    run(outputs, sentences(5, 0.3, 2), config(dataset="other"))
    text = page(outputs)
    ids = [value for _, name, value in Reader(text).attributes if name == "id"]
    referred = set(re.findall(r'"#([^"]+)"|url\(#([^)]+)\)', text.partition("<script")[0]))
    assert len(set(ids)) == len(ids)
    assert {one or other for one, other in referred} <= set(ids)
    assert referred


def test_same_runs_give_the_same_bytes(outputs: Path):
    assert page(outputs) == page(outputs)


def test_page_is_small_for_what_it_shows(tmp_path: Path):
    for k in (1, 3):
        run(tmp_path, sentences(200, 0.3, k), config(k=k))
    assert len(page(tmp_path, samples=0).encode()) < 100_000 + 2 * 200 * 250


# --- which runs


def test_runs_are_named_by_folder_or_by_the_folder_that_holds_them_in_any_mix(outputs: Path, tmp_path: Path):
    alone = run(tmp_path / "elsewhere", sentences(5, 0.3, 2), config(k=7))
    one, *_ = sorted(outputs.iterdir())
    assert len(gather([one], 0).runs) == 1
    assert len(gather([alone, outputs, one], 0).runs) == 4


def test_runs_that_lie_deeper_are_found_where_none_lies_in_the_folder_itself(
    outputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    run(tmp_path / "all" / "b" / "c", sentences(5, 0.3, 2), config(k=7))
    outputs.rename(tmp_path / "all" / "a")
    run(tmp_path / "all" / ".hidden", sentences(5, 0.3, 2), config(k=8))
    assert len(gather([tmp_path / "all"], 0).runs) == 4
    assert "deeper" not in caplog.text and "below" not in caplog.text
    run(tmp_path / "all", sentences(5, 0.3, 2), config(k=9))
    assert len(gather([tmp_path / "all"], 0).runs) == 1
    assert f"4 runs in folders below it ({tmp_path / 'all' / 'a'}, {tmp_path / 'all' / 'b' / 'c'})" in caplog.text


def test_current_folder_can_be_a_run(outputs: Path, monkeypatch: pytest.MonkeyPatch):
    one, *_ = sorted(outputs.iterdir())
    monkeypatch.chdir(one)
    assert [found.folder for found in gather(["."], 0).runs] == [one.name]


def test_run_on_its_way_is_left_out_and_said_so(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    unfinished(outputs / "half-123")
    main([str(outputs), "-o", str(tmp_path / "page.html"), "--samples", "10"])
    said = capsys.readouterr()
    assert said.err == f"left out: {outputs / 'half-123'} has not finished\n"
    assert said.out == f"{tmp_path / 'page.html'}: 3 runs, 30 sentences\n"


def test_trainings_are_left_out_and_said_so(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("train-1", "train-2"):
        with RunFolder(outputs / name) as training:
            training.begin({"training": {"epochs": 1}}, {}, traces=False)
    (outputs / "train-1" / METRICS).write_text('{"best_bleu": 1.5}')  # the other goes on
    main([str(outputs), "-o", str(tmp_path / "page.html"), "--samples", "10"])
    said = capsys.readouterr()
    assert said.err.splitlines() == [f"left out: {outputs / name} is a training" for name in ("train-1", "train-2")]
    assert said.out == f"{tmp_path / 'page.html'}: 3 runs, 30 sentences\n"


def test_run_that_is_named_must_have_finished(tmp_path: Path):
    with pytest.raises(RunError, match="the run has not finished; start its command again"):
        gather([unfinished(tmp_path / "half-123")])


def test_folder_needs_a_run_that_can_be_read(tmp_path: Path):
    (run(tmp_path, sentences(3, 0.3, 2), config()) / METRICS).write_text("{")
    with pytest.raises(FileNotFoundError, match="can be read"):
        page(tmp_path)


def test_folder_needs_a_finished_run(tmp_path: Path):
    unfinished(tmp_path / "half-123")
    with pytest.raises(FileNotFoundError, match="holds no finished run, and 1 unfinished: give a folder"):
        gather([tmp_path])


def test_folder_needs_a_run(tmp_path: Path, outputs: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty holds no run: give a folder with finished runs"):
        gather([outputs, tmp_path / "empty"])


def test_path_must_be_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="absent is not a folder: give run folders"):
        gather([tmp_path / "absent"])


def test_run_without_the_scores_by_which_runs_are_ordered_says_how_they_are_computed(tmp_path: Path):
    run(tmp_path, sentences(5, 0.3, 2), config())
    (path,) = tmp_path.glob("*/metrics.json")
    path.write_text('{"bleu": 3.0}')
    with pytest.raises(RunError, match=r"metrics\.json has no laal: `streamllm score` computes it"):
        gather([tmp_path])


def test_run_must_tell_its_policy(tmp_path: Path):
    settings = {key: value for key, value in config().items() if key != "policy"}
    run(tmp_path, sentences(5, 0.3, 2), settings)
    with pytest.raises(RunError, match="does not tell the policy"):
        gather([tmp_path])


def test_samples_cannot_be_negative(outputs: Path):
    with pytest.raises(ValueError, match="samples is -1; give a number"):
        gather([outputs], -1)


# --- a picture of it


def test_run_is_found_for_a_picture_by_all_that_tables_call_it():
    titles = ["waitk k=1", "waitk k=10", "full · multi30k"]
    folders = ["sample-waitk-0a1", "sample-waitk-0a2", "multi30k-full-0b3"]
    names = {"waitk k=1": 0, "waitk k=10": 1, "full": 2, "sample-waitk-0a2": 1, "outputs/sample-waitk-0a2": 1, "0b3": 2}
    assert {name: number_of(name, titles, folders) for name in names} == names
    with pytest.raises(
        ValueError, match=r"'waitk' means several runs; the page has 'waitk k=1' \(sample-waitk-0a1\), "
    ):
        number_of("waitk", titles, folders)
    with pytest.raises(ValueError, match="'k=1' means no run; the page has"):
        number_of("k=1", titles, folders)


# --- the file


def test_page_is_written_whole_or_not_at_all(outputs: Path, tmp_path: Path):
    file = tmp_path / "page.html"
    file.write_text("before")
    with pytest.raises(FileNotFoundError):
        write_report([tmp_path / "absent"], file)
    assert file.read_text() == "before"
    write_report([outputs], file, samples=10)
    assert file.read_text(encoding="utf-8") == page(outputs, samples=10)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["page.html"]


@pytest.mark.parametrize("output", ["", "absent/page.html"])
def test_output_that_cannot_be_written_is_said_before_the_work(tmp_path: Path, output: str):
    with pytest.raises(FileNotFoundError, match="cannot be written: give the name of a file"):
        write_report([tmp_path / "absent"], tmp_path / output)


def test_command_line_says_errors_in_one_line(tmp_path: Path):
    command = [sys.executable, "-m", "streamllm.report", str(tmp_path)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 1
    assert found.stderr.startswith("error: ") and found.stderr.count("\n") == 1


def unfinished(path: Path) -> Path:
    folder = RunFolder(path)
    with folder:
        folder.begin(config(), {})
        folder.append(trace("1", "ein", "ein", [1]))
    return path


def _page_of(traces: Sequence[Trace]) -> str:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return page(run(Path(folder), traces, config()))


# --- own metrics


def test_own_metric_has_a_column_under_its_own_name_and_sorts_the_better_way_first(tmp_path: Path):
    with_one = run(tmp_path, sentences(5, 0.3, 2), config(k=1))
    run(tmp_path, sentences(5, 0.3, 2), config(k=2))
    folder = RunFolder(with_one)
    rewrite(folder, {**folder.metrics(), "nice": 0.12345}, [own_score("nice", "Niceness", 3, True, "how nice")])
    text = page(tmp_path)
    assert [row["Niceness"] for row in rows(text)] == ["0.123", "–"]
    assert 'title="how nice"' in text
    assert 'data-key="nice" data-first="descending"' in text


def test_every_score_of_the_table_that_has_a_signature_shows_it(tmp_path: Path):
    one = run(tmp_path, sentences(5, 0.3, 2), config(k=1))
    rescore(one, [InCharacters("laal")])
    metrics, text = RunFolder(one).metrics(), page(tmp_path)
    assert f"BLEU: <code>{metrics['bleu_signature']}</code>" in text
    assert f"LAAL, AL, AP, DAL: <code>{metrics['latency_signature']}</code>" in text
    assert "LAAL (characters): <code>unit:character|space:no|len:ref|" in text


def test_latency_that_is_new_is_a_column_and_a_latency_of_sentences(outputs: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(LATENCIES, "first", lambda delays, x, y: float(delays[0]) if delays else math.nan)
    data = Reader(page(outputs)).data
    assert data["latencies"] == {"al": "AL", "laal": "LAAL", "first": "FIRST"}
    assert data["runs"][0]["first"][0] == data["runs"][0]["delays"][0][0]


# --- documents


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    """wait-1 and wait-4 over the same two documents."""
    root = tmp_path / "talks"
    for k in (1, 4):
        run(root, documents(2, k=k, noise=0.3), config(k=k))
    return root


def test_document_carries_its_sentences_with_what_was_written_for_each(talks: Path):
    data = Reader(page(talks)).data
    assert data["sentences"]["id"] == ["d0", "d1"]
    assert [segment[:2] for segment in data["sentences"]["segments"][0]] == [[0, 5], [5, 6], [11, 7], [18, 8]]
    one = data["runs"][0]
    assert one["ends"][0] == [[5, 5], [11, 11], [18, 18], [26, 26]]
    assert one["told"] == [True, True]
    texts = " ".join(written for written, _, _ in one["cut"][0])
    assert texts == one["prediction"][0]
    assert list(data["latencies"]) == ["long_yaal", "long_laal"] and "laal" not in one
    assert one["long_laal"][0] == pytest.approx(sum(lag for _, _, lag in one["cut"][0]) / 4, abs=0.01)


def test_runs_over_documents_have_their_latencies_a_curve_and_a_figure_of_positions(talks: Path):
    text = page(talks)
    assert [row["LongYAAL"] != "–" for row in rows(text)] == [True, True]
    assert "LAAL" not in rows(text)[0]
    assert "BLEU over LongYAAL on sample" in text
    assert "BLEU and LongLAAL by position in 2 documents of 8 sentences" in text
    assert len(Reader(text).data["curves"][0]) == 2


def test_documents_and_sentences_stand_in_one_report(talks: Path, outputs: Path):
    report = gather([talks, outputs], 0)
    assert report.size == "5 runs, 2 documents of 8 sentences, 30 sentences"
    data = Reader(render(report)).data
    assert [bool(segments) for segments in data["sentences"]["segments"]] == [False] * 30 + [True] * 2
    assert len(data["curves"]) == 4
    assert list(data["latencies"]) == ["laal", "al", "long_yaal", "long_laal"], "the first is shown"
    assert {("laal" in one, "long_yaal" in one) for one in data["runs"]} == {(True, False), (False, True)}


def test_sentences_alone_are_drawn_by_position_where_they_are_those_of_the_documents(talks: Path):
    run(talks, alone(2, k=1), config(k=2))
    run(talks, alone(1, k=1), config(k=3))
    (figure,) = drifts(gather([talks], 0))
    assert figure.title == "2 documents of 8 sentences"
    assert "4 of" not in figure.title


def test_of_many_runs_some_are_drawn_from_early_to_late(tmp_path: Path):
    for k in range(1, 9):
        run(tmp_path, documents(1, 2, k=k), config(k=k))
    (figure,) = drifts(gather([tmp_path], 0))
    assert figure.title == "1 document of 2 sentences, 6 of 8 runs"


def test_runs_over_documents_are_called_alike_in_table_list_curve_and_figure_of_positions(tmp_path: Path):
    of = "streamllm.engine.paradigms"
    kinds = [{"_target_": f"{of}.sentences.Sentences", "context": n} for n in (0, 1)]
    kinds.append({"_target_": f"{of}.continuous.Continuous"})
    for kind in kinds:
        run(tmp_path, documents(2, noise=0.3), config(paradigm=kind))
    report = gather([tmp_path], 0)
    titles = sorted(one.title for one in report.runs)
    assert titles == [
        "waitk k=3 · continuous",
        "waitk k=3 · sentences · context=0",
        "waitk k=3 · sentences · context=1",
    ]
    assert sorted(set(_lines(report.table))) == [title.replace(" k=3", "") for title in titles]
    assert sorted(_names(report.runs)) == titles
    assert {row["paradigm"] for row in rows(render(report))} == {"continuous", "sentences"}


def test_class_is_called_as_on_the_command_line(tmp_path: Path):
    for kind in ("a.very.long.path.to.the.module.of.Sentences", "another.module.Group"):
        run(tmp_path, sentences(5, 0.3, 2), config(paradigm={"_target_": kind}))
    assert sorted(one.title for one in gather([tmp_path], 0).runs) == ["waitk k=3 · group", "waitk k=3 · sentences"]
