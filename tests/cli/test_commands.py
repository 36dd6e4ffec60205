"""The commands that read runs, configurations and prompts: what they print, and that wrong input is one line."""

import importlib
import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from test_compare import make_run, sentences

from streamllm.cli.arguments import composed
from streamllm.cli.conf import CONF
from streamllm.cli.list import GROUPS, choices, first_sentence, sentence_of
from streamllm.cli.main import COMMANDS
from streamllm.cli.sweep import Point, table
from streamllm.metrics.latency import METRICS as LATENCIES
from streamllm.metrics.scores import described, own_score
from streamllm.runs.folder import INSTANCES, METRICS, RunFolder
from streamllm.runs.instances import read_instances
from streamllm.runs.load import load_traces
from streamllm.runs.scores import name_own

CONFIG = {
    "dataset": {"target_language": "de", "target_unit": None},
    "limits": {"_target_": "streamllm.engine.limits.Limits"},
}


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, *words: object) -> str:
    """What ``streamllm NAME WORDS`` prints."""
    monkeypatch.setattr("sys.argv", [f"streamllm {name}", *map(str, words)])
    importlib.import_module(f"streamllm.cli.{name}").command()
    return capsys.readouterr().out


def refused(monkeypatch: pytest.MonkeyPatch, name: str, *words: object) -> str:
    """The one line of an error."""
    monkeypatch.setattr("sys.argv", [f"streamllm {name}", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(f"streamllm.cli.{name}").command()
    message = str(caught.value.code)
    assert message.startswith("error: ")
    assert "\n" not in message
    return message


@pytest.fixture
def better(tmp_path: Path) -> Path:
    return make_run(tmp_path / "better-1", sentences(30, 0.2, 3, seed=1), CONFIG)


@pytest.fixture
def worse(tmp_path: Path) -> Path:
    return make_run(tmp_path / "worse-2", sentences(30, 0.7, 1, seed=2), CONFIG)


@pytest.mark.parametrize("name", ["report", "compare", "score", "list", "prompt"])
def test_every_command_has_a_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str):
    with pytest.raises(SystemExit) as caught:
        call(monkeypatch, capsys, name, "--help")
    assert caught.value.code == 0
    assert f"usage: streamllm {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_program_of_its_own_module_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
):
    """`python -m streamllm.cli.compare A B` would do nothing, and end well."""
    monkeypatch.setattr("sys.argv", ["", "--help"])
    monkeypatch.setattr("streamllm.cli.main.main", lambda: print(" ".join(sys.argv)))
    module = f"streamllm.cli.{name.replace('-', '_')}"
    monkeypatch.delitem(sys.modules, module, raising=False)
    runpy.run_module(module, run_name="__main__")
    assert capsys.readouterr().out == f"streamllm {name} --help\n"


@pytest.mark.parametrize("name", ["run", "train", "train_head", "live", "serve", "distill", "calibrate"])
def test_help_of_hydras_programs_begins_with_what_they_do(name: str):
    header = composed_help(name)
    assert header.splitlines()[0].count(f"streamllm {name.replace('_', '-')}") == 1


def composed_help(config: str) -> str:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return str(compose(config, return_hydra_config=True).hydra.help.header)


def training(folder: Path) -> Path:
    """What `streamllm train` leaves, as far as it can be taken for a run."""
    with RunFolder(folder) as found:
        found.begin({"training": {"epochs": 1}, "dataset": {"target_language": "de"}}, {}, traces=False)
    (folder / METRICS).write_text('{"steps": 3, "best_bleu": 1.5}')
    return folder


@pytest.mark.parametrize("name", ["report", "compare", "score"])
def test_a_training_is_no_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, better: Path, name: str):
    found = training(tmp_path / "train-3")
    words = [better, found] if name == "compare" else [found]
    assert f"{found} is a training, which has no sentences: give" in refused(monkeypatch, name, *words)


def test_score_of_a_folder_takes_no_training_in_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], better: Path
):
    training(better.with_name("train-3"))
    assert call(monkeypatch, capsys, "score", better.parent).startswith(str(better))


# --- compare


def test_compare_shows_both_values_the_difference_and_how_sure_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], worse: Path, better: Path
):
    a, b = (RunFolder(run).metrics() for run in (worse, better))
    lines = call(monkeypatch, capsys, "compare", worse, better, "--samples", 50).splitlines()
    found = {line.split("  ")[0].strip(): line for line in lines}
    number = r"[+-]\d+\.\d\d"
    shown = (
        rf"A +{a['bleu']:.2f}  B +{b['bleu']:.2f} +\{b['bleu'] - a['bleu']:+.2f} +\[{number}, {number}\]  p < 0\.001"
    )
    assert lines[3].endswith("p by approximate randomisation")
    assert re.search(shown, found["BLEU"])
    assert re.search(rf"A +{a['chrf']:.2f}  B +{b['chrf']:.2f} +{number} +\[{number}, {number}\]  p < ", found["chrF"])
    assert {"AL", "LAAL", "AP", "DAL"} <= found.keys()


def test_scores_over_other_references_are_not_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], worse: Path, better: Path
):
    for run, ter, references in ((worse, 50.0, 1), (better, 20.0, 2)):
        metrics = json.loads((run / "metrics.json").read_text())
        signature = f"nrefs:{references}|case:lc|version:2.{references}"
        (run / "metrics.json").write_text(json.dumps(metrics | {"ter": ter, "ter_signature": signature}))
        name_own(run, [own_score("ter", "TER", 2, False)])
    text = call(monkeypatch, capsys, "compare", worse, better, "--samples", 20)
    assert re.search(r"\nTER +A +50\.00  B +20\.00 +not compared: nrefs:1 and nrefs:2", text)
    message = refused(monkeypatch, "compare", worse, better, "--markdown", "--metrics", "bleu,ter")
    assert "TER of these runs does not compare (nrefs:1 and nrefs:2)" in message and "metric=ter" in message


def test_compare_says_what_both_are_set_to_otherwise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    policy = {"_target_": "streamllm.policies.waitk.WaitK"}
    settings = {**CONFIG, "tracker": {"mode": "offline"}, "model": {"path": "a"}, "k": 1, "policy": {**policy, "k": 1}}
    others = {**settings, "tracker": None, "model": {"path": "b", "dtype": "x"}, "k": 3, "policy": {**policy, "k": 3}}
    old, new = (make_run(tmp_path / f"r-{n}", sentences(5, 0.3, 2), c) for n, c in enumerate((settings, others)))
    said = call(monkeypatch, capsys, "compare", old, new, "--samples", 5, "--trials", 5)
    assert said.splitlines()[2] == "they differ in k 1 and 3; model.path a and b; model.dtype null and x"
    same = make_run(tmp_path / "r-2", sentences(5, 0.3, 2), settings)
    assert "they are set alike" in call(monkeypatch, capsys, "compare", old, same, "--samples", 5, "--trials", 5)


def test_compare_shows_a_latency_that_is_new(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], worse: Path, better: Path
):
    monkeypatch.setitem(LATENCIES, "first", lambda delays, x, y: float(delays[0]))
    assert "\nFIRST " in call(monkeypatch, capsys, "compare", worse, better, "--samples", 10)


def test_compare_of_curves_tells_areas_points_and_losses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    from test_curves import make_runs

    make_runs(tmp_path)
    text = call(monkeypatch, capsys, "compare", "--curves", tmp_path, "--samples", 20)
    interval = r"\[[+-]?\d+\.\d+, [+-]?\d+\.\d+\]"
    assert text.startswith("set: BLEU over LAAL")
    assert re.search(rf"\nstride  2 points  mean \d+\.\d+ {interval}  NoSE 0\.\d+ {interval}  above waitk [+-]\d", text)
    assert "\nagainst waitk at equal latency\nstride  LAAL " in text
    assert re.search(rf"\nstride  LAAL .*{interval}, p [=<] \d", text) or "waitk does not reach it" in text
    assert re.search(rf"\nwaitk k=3   LAAL .*loss -?\d+\.\d\d {interval} +-?\d+\.\d {interval} in percent", text)
    by_hand = call(monkeypatch, capsys, "compare", "--curves", tmp_path, "--samples", 2, "--bounds", 2, 2.5)
    assert "from LAAL 2.00 to 2.50" in by_hand
    assert "not all curves cover" in refused(monkeypatch, "compare", "--curves", tmp_path, "--bounds", 0, 9)
    assert "'comet' is no score" in refused(monkeypatch, "compare", "--curves", tmp_path, "--quality", "comet")


def test_full_with_a_bound_is_no_full_sentence_translation_and_a_set_without_a_curve_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    from test_curves import config_of, lagged, make_runs

    make_runs(tmp_path)
    before = call(monkeypatch, capsys, "compare", "--curves", tmp_path, "--samples", 20)
    bounded = config_of("full.Full", None, 0) | {"max_lag": 2}
    make_run(tmp_path / "full-8", lagged(2, 0.5), bounded)
    text = call(monkeypatch, capsys, "compare", "--curves", tmp_path, "--samples", 20)
    nose = re.findall(r"NoSE .*", before)
    assert nose and re.findall(r"NoSE .*", text) == nose
    make_run(tmp_path / "other-1", lagged(3, 0.4), config_of("waitk.WaitK", 3, 0, "another"))
    both = call(monkeypatch, capsys, "compare", "--curves", tmp_path, "--samples", 20)
    assert "another: left out, no curve has two points or more (waitk)" in both
    assert re.findall(r"NoSE .*", both) == nose


def test_compare_refuses_what_is_no_run(monkeypatch: pytest.MonkeyPatch, worse: Path, tmp_path: Path):
    assert "predictions.jsonl" in refused(monkeypatch, "compare", worse, Path(__file__).parent)


def test_compare_of_a_folder_of_runs_asks_for_two_of_them(
    monkeypatch: pytest.MonkeyPatch, better: Path, worse: Path, tmp_path: Path
):
    assert better.parent == worse.parent
    said = refused(monkeypatch, "compare", better.parent, better)
    assert "holds runs, and is none: give two of them, as in streamllm compare " in said
    assert "absent does not exist: give run folders" in refused(monkeypatch, "compare", better, tmp_path / "absent")


# --- score


def test_score_of_a_folder_scores_every_finished_run_in_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], better: Path, worse: Path
):
    begun = worse.parent / "begun-0"
    begun.mkdir()
    (begun / "run.yaml").write_bytes((better / "run.yaml").read_bytes())
    printed = call(monkeypatch, capsys, "score", better.parent)
    assert sorted(line.partition(": ")[0] for line in printed.splitlines() if ": " in line) == sorted(
        map(str, (better, worse))
    )


def test_score_writes_an_own_metric_of_a_run_that_is_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], better: Path
):
    before = json.loads((better / METRICS).read_text())
    printed = call(monkeypatch, capsys, "score", better, "metric=[ter]")
    after = json.loads((better / METRICS).read_text())
    assert after.pop("ter") > 0
    assert after.pop("ter_signature").startswith("nrefs:1|case:lc|tok:tercom")
    assert after == {**before, "early_ends": 0}
    assert re.search(r"own      TER \d", printed)


def test_score_reads_simulevals_log_and_writes_nothing_beside_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], better: Path, tmp_path: Path
):
    folder = tmp_path / "simuleval"
    folder.mkdir()
    (folder / INSTANCES).write_bytes((better / INSTANCES).read_bytes())
    output = tmp_path / "found.json"
    call(monkeypatch, capsys, "score", folder, "--language", "de", "metric=ter", "--output", output)
    found, ours = json.loads(output.read_text()), RunFolder(better).metrics()
    assert [path.name for path in folder.iterdir()] == [INSTANCES]
    for key in ("sentences", "bleu", "chrf", *LATENCIES):
        assert found[key] == ours[key]
    assert found["ter"] > 0


def test_traces_of_simulevals_log_are_those_of_the_run(better: Path):
    for read, stored in zip(read_instances(better, "word"), load_traces(better), strict=True):
        assert (read.source, read.reference, read.prediction) == (stored.source, stored.reference, stored.prediction)
        assert (read.units, read.delays, read.source_units) == (stored.units, stored.delays, stored.source_units)


def test_score_of_speech_gives_no_atd_whose_rule_is_for_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    row = {"index": 0, "prediction": "ein Hund", "delays": [900, 1200], "elapsed": [950, 1300], "prediction_length": 2}
    row |= {"reference": "ein Hund", "source": ["a.wav", "samplerate: 16000"], "source_length": 1500.0}
    (tmp_path / INSTANCES).write_text(json.dumps(row) + "\n")
    call(monkeypatch, capsys, "score", tmp_path, "--language", "de", "-o", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["atd"], found["al"]) == (None, 675.0)  # (900 + 1200 - 750) / 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["k=3"], "no run is given"),
        (["absent"], "absent does not exist"),
        (["{empty}"], "holds no finished run, and no instances.log"),
        (["{log}"], "add --language de"),
        (["{run}", "k=3"], "k=3 changes nothing"),
        (["{run}", "metric=absent"], "accepted are bleu_lower, "),
        (["{broken}", "--language", "de"], "line 1 is not a line of SimulEval's"),
        (["{run}", "--absent"], "--absent"),
    ],
)
def test_score_refuses_in_one_line(
    monkeypatch: pytest.MonkeyPatch, better: Path, tmp_path: Path, words: list[str], message: str
):
    (tmp_path / "broken.log").write_text('{"index": 0}\n')
    places = {"log": better / INSTANCES, "run": better, "broken": tmp_path / "broken.log", "empty": tmp_path / "empty"}
    (tmp_path / "empty").mkdir()
    assert message in refused(monkeypatch, "score", *(word.format(**places) for word in words))


# --- list


@pytest.mark.parametrize("kind", GROUPS)
def test_list_says_a_sentence_of_everything_that_can_be_chosen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
):
    listed = call(monkeypatch, capsys, "list", kind).splitlines()
    names = {line.split()[0] for line in listed}
    assert set(choices(GROUPS[kind])) <= names
    assert all(len(line.split()) > 1 for line in listed)


@pytest.mark.parametrize("word", ["policy", "objective", "experiment"])
def test_list_takes_the_name_of_the_group_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str
):
    kind = next(kind for kind, group in GROUPS.items() if group == word)
    assert call(monkeypatch, capsys, "list", word) == call(monkeypatch, capsys, "list", kind)


def test_list_of_another_word_offers_the_closest(monkeypatch: pytest.MonkeyPatch):
    assert "there is no kind 'polices'; did you mean policies?" in refused(monkeypatch, "list", "polices")


def test_a_module_that_cannot_be_read_does_not_spoil_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "unreadable.py").write_text("class A(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own.yaml").write_text("_target_: unreadable.A\n")
    assert sentence_of(tmp_path / "own.yaml") == ""


def test_list_names_the_paper(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    listed = call(monkeypatch, capsys, "list", "policies")
    assert re.search(
        r"^waitk +Wait for k source units, .* \(Ma et al\. 2019, arXiv 1810\.08398\)$", listed, re.MULTILINE
    )


def test_list_of_metrics_has_those_of_every_run_and_those_to_be_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    listed = call(monkeypatch, capsys, "list", "metrics")
    assert re.search(r"^laal +LAAL \(source units\): Length-Adaptive", listed, re.MULTILINE)
    assert re.search(r"^ter .*\[metric=ter\]$", listed, re.MULTILINE)


def test_earlier_folders_count_before_later_ones(tmp_path: Path):
    for folder, text in (("mine", "Mine"), ("ours", "Ours")):
        (tmp_path / folder / "policy").mkdir(parents=True)
        (tmp_path / folder / "policy" / "a.yaml").write_text(f"# {text}. More.\n_target_: a.B\n")
    assert choices("policy", [tmp_path / "mine", tmp_path / "ours"]) == {"a": "Mine"}


def test_file_without_a_comment_is_told_by_the_class_that_it_names(tmp_path: Path):
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "a.yaml").write_text("_target_: streamllm.policies.full.Full\n")
    assert choices("policy", [tmp_path]) == {"a": "Read the whole source, then write"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One thing. Another.", "One thing"),
        (" Of Ma et al. 2019, at 2.5 words:\n   python run.py a=b", "Of Ma et al. 2019, at 2.5 words"),
        ("A rule. Known (Ma et al. 2019, arXiv 1).", "A rule (Ma et al. 2019, arXiv 1)"),
        ("Over\ntwo lines\n\nNext", "Over two lines"),
        ("", ""),
    ],
)
def test_first_sentence_ends_where_it_does(text: str, sentence: str):
    assert first_sentence(text) == sentence


# --- prompt


def test_prompt_shows_the_text_and_each_token_of_each_part(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    whole, _, *lines = call(monkeypatch, capsys, "prompt", "--show", "a man rides").splitlines()
    assert whole == "<|source|> a man rides<|end|><|target|>"
    assert lines[0].split() == ["source", "header", "<|source|>/0"]
    assert re.fullmatch(r"unit 2 +␣man/\d+", lines[2])
    assert [line.split("  ")[0] for line in lines[4:6]] == ["source footer", "target header"]


def test_prompt_takes_the_overrides_of_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    printed = call(monkeypatch, capsys, "prompt", "prompt=few-shot-en-de")
    assert (
        "German: Der Bäcker trägt frisches Brot in den Laden.\n\nEnglish: a man is riding a bicycle\nGerman:" in printed
    )
    assert "a token with '\\n'" in printed


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model=absent", "model=absent does not exist; accepted are"),
        ("model.path=absent", "there is no such folder"),
        ("prompt=chat", "has no chat template"),
        ("k=1,3", "k=1,3"),
        ("dataset=files", "dataset.source is missing"),
        ("two dogs", "'two dogs' is no override; a sentence is given by --show 'two dogs'"),
    ],
)
def test_prompt_refuses_in_one_line(monkeypatch: pytest.MonkeyPatch, word: str, message: str):
    assert message in refused(monkeypatch, "prompt", word)


# --- own metrics in the configuration and in a sweep


@pytest.mark.parametrize("word", ["metric=ter", "metric=[ter]"])
def test_metric_is_chosen_by_name_or_in_a_list(word: str):
    cfg = composed([word])
    assert cfg.metrics.ter.language == "de"
    assert not composed([]).metrics


def test_table_of_a_sweep_has_a_column_for_an_own_metric():
    metrics = {"bleu": 13.6, "laal": 1.25, "al": 1.0, "mine": 0.125}
    points = [
        Point(0, "waitk", {}, "outputs/a", metrics, own=[described(own_score("mine", "Mine", 3, True))]),
        Point(1, "full", {}, "outputs/b", {"bleu": 14.0, "laal": 9.0, "al": 9.0}),
    ]
    _, names, first, second = table(points).splitlines()
    assert names.split() == ["policy", "BLEU", "LAAL", "AL", "Mine", "folder"]
    assert first.split() == ["waitk", "13.60", "1.25", "1.00", "0.125", "outputs/a"]
    assert second.split() == ["full", "14.00", "9.00", "9.00", "-", "outputs/b"]
