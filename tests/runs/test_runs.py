"""Run folders: what they hold, how they are named, and that no kill changes what they end with."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT
from full_disk import full_disk
from hypothesis import given
from hypothesis import strategies as st

from streamllm.checked import fit
from streamllm.files import RunError
from streamllm.records import KINDS, Event, Trace
from streamllm.runs.environment import _commit, environment
from streamllm.runs.folder import METRICS, PREDICTIONS, TIMINGS, RunFolder, RunInUse
from streamllm.runs.lines import PredictionLine, TimingLine, from_lines, to_instance, to_prediction, to_timing
from streamllm.runs.load import flat_config, flatten, load_delays, load_runs, load_traces, read_config
from streamllm.runs.naming import digest

CONFIG = {"policy": {"k": 3}, "k": 3, "seed": 0, "tracker": {"mode": "offline"}, "output": {"root": "outputs"}}


def trace(name: str, seconds: float = 0.25) -> Trace:
    return Trace(
        id=name,
        source="ein Hund",
        reference="a dog",
        units=("a", "dog"),
        delays=(1, 2),
        elapsed=(seconds, 2 * seconds),
        events=(
            Event("read", "ein", seconds / 2),
            Event("write", "a", seconds),
            Event("read", "Hund", 1.5 * seconds),
            Event("write", "dog", 2 * seconds),
            Event("end", "", 2.5 * seconds),
            Event("stop", "end_token", 3 * seconds),
        ),
        source_units=2,
        prediction="a dog",
        stats={"seconds": 3 * seconds, "forward_passes": 6},
    )


# --- names


@pytest.mark.parametrize("key", ["hydra", "tracker", "output", "name", "experiment", "debug"])
def test_digest_ignores_where_and_how_a_run_is_recorded(key: str):
    assert digest({**CONFIG, key: "something else"}) == digest(CONFIG)


@pytest.mark.parametrize("change", [{"seed": 1}, {"policy": {"k": 5}}, {"new": None}])
def test_digest_depends_on_everything_else(change: dict):
    assert digest({**CONFIG, **change}) != digest(CONFIG)


def test_digest_does_not_depend_on_the_order_of_keys():
    assert digest(dict(reversed(CONFIG.items()))) == digest(CONFIG)


def test_digest_takes_zero_typed_as_integer_and_as_float_for_the_same():
    assert digest({"temperature": 0}) == digest({"temperature": 0.0}) != digest({"temperature": 0.5})


def test_digest_leaves_out_a_later_key_where_it_means_as_before():
    usual, own = ({"_target_": name} for name in ("streamllm.training.objectives.cross_entropy.CrossEntropy", "my.Own"))
    assert digest({**CONFIG, "objective": usual}) == digest(CONFIG)
    assert len({digest({**CONFIG, "objective": value}) for value in (usual, own, {**usual, "weight": 2})}) == 3


@pytest.mark.parametrize("part", ["dataset", "validation"])
def test_digest_leaves_out_documents_where_there_are_none(part: str):
    digests = {digest({**CONFIG, part: {"name": "x", "sentences_per_document": value}}) for value in (None, 10, 20)}
    assert len(digests) == 3
    assert digest({**CONFIG, part: {"name": "x"}}) in digests


def test_digest_never_changes_between_versions():
    """Finished runs would not be found again."""
    assert digest({"policy": {"k": 3}, "names": ["é", 1.5, None, True]}) == "9bdc6ace8d83"


def test_folder_is_named_by_name_and_digest(tmp_path: Path):
    folder = RunFolder.of(CONFIG, "sample-waitk", tmp_path)
    assert folder.path == tmp_path / f"sample-waitk-{digest(CONFIG)}"
    assert folder.digest == digest(CONFIG)
    assert not folder.path.exists()


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "a b"])
def test_name_that_is_no_folder_name_is_refused(name: str):
    with pytest.raises(RunError, match="name is"):
        RunFolder.of(CONFIG, name)


# --- one trace


seconds = st.floats(min_value=0, max_value=1e6)
stats = st.fixed_dictionaries({"seconds": seconds, "forward_passes": st.integers()})


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    units, source_units = draw(st.lists(st.text(), max_size=4)), draw(st.integers(0, 99))
    others = st.sampled_from([kind for kind in KINDS if kind != "write"])
    happened = draw(st.permutations(["write"] * len(units) + draw(st.lists(others, max_size=4))))
    return Trace(
        id=draw(st.text()),
        source=draw(st.text()),
        reference=draw(st.text()),
        units=tuple(units),
        delays=tuple(sorted(draw(st.integers(0, source_units)) for _ in units)),
        elapsed=tuple(draw(seconds) for _ in units),
        events=tuple(Event(kind, draw(st.text()), draw(seconds)) for kind in happened),
        source_units=source_units,
        prediction=draw(st.text()),
        stats=draw(stats),
    )


@given(traces())
def test_trace_survives_its_two_lines_exactly(trace: Trace):
    prediction, timing = (json.loads(json.dumps(line)) for line in (to_prediction(trace), to_timing(trace)))
    found = from_lines(fit(prediction, PredictionLine), fit(timing, TimingLine))
    assert found == trace
    assert json.dumps(to_prediction(found)) == json.dumps(to_prediction(trace)), "the bytes stay, too"


def test_prediction_line_is_the_same_whatever_the_clock_says():
    assert to_prediction(trace("1", seconds=0.1)) == to_prediction(trace("1", seconds=7.0))


def test_prediction_line_has_the_promised_keys():
    assert to_prediction(trace("1")).keys() >= {
        *("id", "source", "reference", "prediction", "delays", "elapsed", "events")
    }


def test_trace_without_times_has_zeros():
    loaded = from_lines(fit(json.loads(json.dumps(to_prediction(trace("1")))), PredictionLine), None)
    assert loaded.elapsed == (0.0, 0.0)
    assert {event.seconds for event in loaded.events} == {0.0}
    assert loaded.stats == {"forward_passes": 6}


def test_instances_are_the_rows_that_simuleval_writes_without_its_zeros_for_times(shared: Path):
    cases = json.loads((shared / "goldens" / "simuleval_latency.json").read_text())["cases"]
    text_cases = [case for case in cases if case["mode"] == "text"]
    assert text_cases
    for case in text_cases:
        units = case["prediction"].split() if case["unit"] == "word" else list(case["prediction"])
        recorded = Trace(
            id=case["id"],
            source=case["source"],
            reference=case["reference"],
            units=tuple(units),
            delays=tuple(case["delays"]),
            elapsed=tuple(0.5 for _ in units),
            events=(),
            source_units=len(case["source"].split()),
            prediction=case["prediction"],
        )
        assert case["row"].pop("elapsed") == [0] * len(units)
        assert to_instance(0, recorded) == case["row"]


# --- writing and reading back


def write_run(folder: RunFolder, names: list[str], order: list[str] | None = None) -> None:
    with folder:
        folder.begin(CONFIG, {"device": "cpu"})
        for name in names:
            folder.append(trace(name))
        if order is not None:
            folder.finish({"bleu": 30.5, "al": 2.5}, order)


def test_finished_run_holds_every_file(tmp_path: Path):
    folder = RunFolder(tmp_path / "run-1")
    write_run(folder, ["1", "2"], order=["1", "2"])
    assert sorted(path.name for path in folder.path.iterdir()) == [
        *("env.json", "instances.log", "metrics.json", "predictions.jsonl", "run.yaml", "timings.jsonl")
    ]
    assert folder.finished
    assert folder.metrics() == {"bleu": 30.5, "al": 2.5}
    assert load_traces(folder.path) == [trace("1"), trace("2")]


def test_run_without_metrics_is_not_finished(tmp_path: Path):
    folder = RunFolder(tmp_path / "run-1")
    write_run(folder, ["1", "2"])
    assert not folder.finished
    with pytest.raises(RunError, match="has not finished"):
        folder.metrics()


def test_traces_that_finished_out_of_order_are_stored_in_the_order_of_the_data(tmp_path: Path):
    late, straight = RunFolder(tmp_path / "late-1"), RunFolder(tmp_path / "straight-1")
    write_run(late, ["3", "1", "2"], order=["1", "2", "3"])
    write_run(straight, ["1", "2", "3"], order=["1", "2", "3"])
    for name in (PREDICTIONS, TIMINGS, "instances.log"):
        assert (late.path / name).read_bytes() == (straight.path / name).read_bytes()


def test_stored_traces_are_those_of_the_run_in_any_order_and_after_it_has_ended(tmp_path: Path):
    folder = RunFolder(tmp_path / "run-1")
    with folder:
        folder.begin(CONFIG, {})
        for name in ("3", "1", "2"):
            folder.append(trace(name))
        stored = folder.stored_traces()
        assert (list(stored), len(stored)) == ([trace("3"), trace("1"), trace("2")], 3)
        assert (stored[-1], list(stored[1:])) == (trace("2"), [trace("1"), trace("2")])
        assert list(stored.ordered(["1", "3"])) == [trace("1"), trace("3")]
        assert list(folder.finish({}, ["1", "2", "3"])) == [trace(name) for name in "123"]
        assert folder.count() == 3
    assert list(folder.stored_traces()) == [trace(name) for name in "123"]


def test_lines_are_looked_up_once_while_the_folder_is_held(tmp_path: Path):
    write_run(RunFolder(tmp_path / "run-1"), ["1", "2"])
    seen: list[str] = []
    with RunFolder(tmp_path / "run-1") as folder:
        for _ in range(2):
            assert folder.stored_traces(lambda line: seen.append(line.id)).ids == ["1", "2"]
        folder.begin(CONFIG, {})
        folder.append(trace("3"))
        assert folder.stored_traces()[2] == trace("3")
    assert seen == ["1", "2"]


@pytest.mark.parametrize("names", [["1"], ["1", "2", "2"], ["1", "3"]])
def test_run_that_does_not_hold_the_data_once_each_cannot_finish(tmp_path: Path, names: list[str]):
    folder = RunFolder(tmp_path / "run-1")
    with pytest.raises(RunError, match="once each"):
        write_run(folder, names, order=["1", "2"])
    assert not folder.finished


@pytest.mark.parametrize("cut", [1, 5, 100])
def test_half_written_last_line_is_cut_off_when_the_run_goes_on(tmp_path: Path, cut: int):
    cut_off, whole = RunFolder(tmp_path / "cut-1"), RunFolder(tmp_path / "whole-1")
    write_run(whole, ["1", "2"], order=["1", "2"])
    write_run(cut_off, ["1", "2"])
    content = (cut_off.path / PREDICTIONS).read_bytes()
    (cut_off.path / PREDICTIONS).write_bytes(content[:-cut])
    assert cut_off.traces() == [trace("1")]
    write_run(cut_off, ["2"], order=["1", "2"])
    assert (cut_off.path / PREDICTIONS).read_bytes() == (whole.path / PREDICTIONS).read_bytes()
    assert load_traces(cut_off.path) == [trace("1"), trace("2")]


def test_trace_whose_time_was_lost_still_loads(tmp_path: Path):
    folder = RunFolder(tmp_path / "run-1")
    write_run(folder, ["1", "2"])
    (folder.path / TIMINGS).write_bytes((folder.path / TIMINGS).read_bytes()[:-10])
    first, second = folder.traces()
    assert first == trace("1")
    assert (second.prediction, second.elapsed) == ("a dog", (0.0, 0.0))


def test_output_that_was_revised_is_replayed_as_it_was_final(tmp_path: Path):
    """Not as it was written, which is when its sentence has ended."""
    shown = ("read", "shown", "read", "shown", "end", "shown", "write", "write", "stop")
    folder = RunFolder(tmp_path / "run-1")
    with folder:
        folder.begin(CONFIG, {"device": "cpu"})
        folder.append(dataclasses.replace(trace("1"), events=tuple(Event(kind) for kind in shown)))
    assert load_delays(folder.path) == {"1": [1, 2]}


def test_time_whose_trace_was_lost_is_gone_when_the_run_has_ended(tmp_path: Path):
    folder = RunFolder(tmp_path / "run-1")
    write_run(folder, ["1", "2"])
    lines = (folder.path / PREDICTIONS).read_bytes().splitlines(keepends=True)
    (folder.path / PREDICTIONS).write_bytes(lines[0])
    write_run(folder, ["2"], order=["1", "2"])
    assert [json.loads(line)["id"] for line in (folder.path / TIMINGS).read_text().splitlines()] == ["1", "2"]


def test_a_full_disk_names_the_file_and_what_was_stored_is_gone_on_from(tmp_path: Path):
    def write(size: int) -> None:
        with full_disk(size), RunFolder(tmp_path / "run-1") as folder:
            folder.begin({}, {})
            for number in range(len(folder.traces()), 40):
                folder.append(trace(str(number)))

    stopped = rf"^cannot write {tmp_path}/run-1/(predictions|timings)\.jsonl .* the same command goes on$"
    with pytest.raises(OSError, match=stopped):
        write(4000)
    stored = len(RunFolder(tmp_path / "run-1").traces())
    assert 0 < stored < 40
    write(10**6)
    assert [one.id for one in RunFolder(tmp_path / "run-1").traces()] == [str(number) for number in range(40)]


def full(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_is_full_only_when_a_file_is_synced_or_renamed_gives_the_lock_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
):
    """A lock that stayed would end the rest of a sweep. Here the folder is taken again by this very process."""
    folder = RunFolder(tmp_path / "run-1")
    write_run(folder, ["1"])
    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(
            OSError, match=rf"^cannot write {folder.path}/\S+ \(No space left on device\): make room, and"
        ):
            write_run(folder, ["2"], order=["1", "2"])
    write_run(folder, [name for name in "12" if name not in [one.id for one in folder.traces()]], order=["1", "2"])
    assert folder.finished


def test_what_cannot_be_written_when_the_files_are_closed_hides_no_error_and_gives_the_lock_back(tmp_path: Path):
    folder = RunFolder(tmp_path / "run-1")

    def interrupted() -> None:
        with full_disk(500), folder:
            folder.begin(CONFIG, {})
            folder._timings.write(bytes(1000))  # type: ignore[union-attr]  # held back, and then too much
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    write_run(folder, ["1"], order=["1"])
    assert folder.finished


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("name", [PREDICTIONS, TIMINGS, METRICS, "env.json", "contents.json", "run.yaml", ".lock"])
def test_what_is_no_file_in_a_run_folder_is_refused_at_once_by_name(
    tmp_path: Path, name: str, make: Callable[[Path], None], caplog: pytest.LogCaptureFixture
):
    folder = RunFolder(tmp_path / "run-1")
    folder.path.mkdir()
    make(folder.path / name)
    attempts = [
        *(folder.metrics, folder.environment, folder.contents, folder.traces, lambda: read_config(folder.path)),
        lambda: write_run(folder, ["1"], order=["1"]),
    ]
    said = []
    for attempt in attempts:
        try:
            attempt()
        except (OSError, RunError) as error:
            said.append(str(error))
    said += caplog.messages  # of a damaged env.json, which costs no run
    assert any(name in text and ("FIFO" in text or "folder" in text or "directory" in text) for text in said)
    if name != ".lock":
        with folder:  # it was given back
            pass


@pytest.mark.parametrize("part", ["elapsed", "events"])
def test_times_of_another_number_of_units_or_events_are_left_out(tmp_path: Path, part: str):
    """Somebody has edited the file."""
    folder = RunFolder(tmp_path / "run-1")
    write_run(folder, ["1", "2"])
    lines = [json.loads(line) for line in (folder.path / TIMINGS).read_text().splitlines()]
    lines[0][part].append(9.0)
    (folder.path / TIMINGS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = folder.traces()
    assert first.elapsed == (0.0, 0.0)
    assert [event.seconds for event in first.events] == [0.0] * 6
    assert second == trace("2")


def test_damaged_line_in_the_middle_is_named(tmp_path: Path):
    folder = RunFolder(tmp_path / "run-1")
    write_run(folder, ["1", "2"])
    content = (folder.path / PREDICTIONS).read_bytes()
    (folder.path / PREDICTIONS).write_bytes(b"{half\n" + content)
    with pytest.raises(RunError, match="line 1 is damaged"):
        folder.traces()


def test_line_separators_inside_a_sentence_do_not_end_its_line(tmp_path: Path):
    folder = RunFolder(tmp_path / "run-1")
    odd = Trace("1", "a\u2028b\x85c", "r\n", ("x",), (1,), (0.0,), (), 1, "x")
    with folder:
        folder.begin(CONFIG, {})
        folder.append(odd)
    assert folder.traces() == [odd]


def test_each_trace_can_be_read_as_soon_as_it_is_appended(tmp_path: Path):
    folder = RunFolder(tmp_path / "run-1")
    with folder:
        folder.begin(CONFIG, {})
        folder.append(trace("1"))
        assert load_traces(folder.path) == [trace("1")]


@pytest.fixture
def synchronised(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Files that were forced onto the disk, and their sizes then."""
    synchronised: list[tuple[int, int]] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        status = os.fstat(descriptor)
        synchronised.append((status.st_ino, status.st_size))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    return synchronised


def test_a_trace_is_on_the_disk_when_it_is_stored(
    tmp_path: Path, synchronised: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
):
    """Where sentences take their time: the file is synchronised with the whole line in it."""
    monkeypatch.setattr("streamllm.runs.folder.SYNCED", 0)
    folder = RunFolder(tmp_path / "run-1")
    with folder:
        folder.begin(CONFIG, {})
        for name in ("1", "2"):
            folder.append(trace(name))
            status = (folder.path / PREDICTIONS).stat()
            assert (status.st_ino, status.st_size) in synchronised
            assert len((folder.path / PREDICTIONS).read_text().splitlines()) == int(name)


@pytest.mark.parametrize("finishes", [True, False])
def test_traces_that_follow_fast_are_on_the_disk_when_the_folder_is_left(
    finishes: bool, tmp_path: Path, synchronised: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("streamllm.runs.folder.SYNCED", 3600)
    folder = RunFolder(tmp_path / "run-1")
    with folder:
        folder.begin(CONFIG, {})
        synchronised.clear()
        for name in ("1", "2", "3"):
            folder.append(trace(name))
            assert len((folder.path / PREDICTIONS).read_text().splitlines()) == int(name)  # a kill loses none
        assert len(synchronised) == 1
        if finishes:
            folder.finish({}, ["1", "2", "3"])
            assert synchronised[1][1] == (folder.path / PREDICTIONS).stat().st_size  # before the metrics
    status = (folder.path / PREDICTIONS).stat()
    assert (status.st_ino, status.st_size) in synchronised


def test_load_traces_of_a_folder_without_a_run_says_what_to_give(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="folder of one run"):
        load_traces(tmp_path)


# --- several processes


def test_folder_that_is_being_written_is_refused_with_the_id_of_the_writer(tmp_path: Path):
    second = RunFolder(tmp_path / "run-1")
    message = rf"another process \(id {os.getpid()}\)"
    with RunFolder(tmp_path / "run-1"), pytest.raises(RunInUse, match=message), second:
        pass


def test_folder_is_free_again_afterwards_and_absent_if_nothing_was_written(tmp_path: Path):
    with RunFolder(tmp_path / "run-1"):
        pass
    assert not (tmp_path / "run-1").exists()
    with RunFolder(tmp_path / "run-1"):
        pass


def test_killed_writer_leaves_the_folder_free(tmp_path: Path):
    code = (
        "import os, signal, sys; from streamllm.runs import RunFolder\n"
        "with RunFolder(sys.argv[1]): os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run-1")], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "run-1" / ".lock").exists()
    write_run(RunFolder(tmp_path / "run-1"), ["1"], order=["1"])


def test_lock_that_is_a_symbolic_link_is_not_followed(tmp_path: Path):
    precious, folder = tmp_path / "precious", tmp_path / "run-1"
    precious.write_text("mine")
    folder.mkdir()
    (folder / ".lock").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic link"), RunFolder(folder):
        pass
    assert precious.read_text() == "mine"


def test_run_without_traces_has_no_files_for_them(tmp_path: Path):
    folder = RunFolder(tmp_path / "run-1")
    with folder:
        folder.begin(CONFIG, {}, traces=False)
    assert sorted(path.name for path in folder.path.iterdir()) == ["env.json", "run.yaml"]


def test_writing_without_holding_the_folder_is_an_error(tmp_path: Path):
    with pytest.raises(RuntimeError, match="with folder"):
        RunFolder(tmp_path / "run-1").begin(CONFIG, {})


# --- many runs


def test_load_runs_gives_configuration_and_metrics_of_finished_runs(tmp_path: Path):
    write_run(RunFolder(tmp_path / "sample-waitk-abc"), ["1"], order=["1"])
    write_run(RunFolder(tmp_path / "sample-full-def"), ["1"])  # not finished
    (tmp_path / "wandb").mkdir()
    (row,) = load_runs(tmp_path).to_dict("records")
    assert row["name"] == "sample-waitk"
    assert row["digest"] == "abc"
    assert row["folder"] == str(tmp_path / "sample-waitk-abc")
    assert (row["policy.k"], row["bleu"], row["al"]) == (3, 30.5, 2.5)


@pytest.mark.parametrize("content", ['{"bleu": 30.5', "3"])
def test_load_runs_leaves_out_a_run_with_damaged_metrics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
):
    write_run(RunFolder(tmp_path / "sample-waitk-abc"), ["1"], order=["1"])
    write_run(RunFolder(tmp_path / "sample-waitk-def"), ["1"], order=["1"])
    damaged = tmp_path / "sample-waitk-abc" / METRICS
    damaged.write_text(content)
    assert list(load_runs(tmp_path)["digest"]) == ["def"]
    (said,) = caplog.messages
    assert f"{damaged} is damaged" in said and "delete that file, and the same command finishes the run" in said
    with pytest.raises(RunError, match="delete that file"):
        RunFolder(damaged.parent).metrics()


def test_load_runs_tells_trainings_from_runs(tmp_path: Path):
    write_run(RunFolder(tmp_path / "sample-waitk-abc"), ["1"], order=["1"])
    with RunFolder(tmp_path / "train-def") as training:
        training.begin({"training": {"epochs": 1}}, {}, traces=False)
    (tmp_path / "train-def" / METRICS).write_text('{"best_bleu": 1.5}')
    assert list(load_runs(tmp_path)["digest"]) == ["abc"]
    assert list(load_runs(tmp_path, kind="training")["best_bleu"]) == [1.5]
    with pytest.raises(ValueError, match="kind is 'model'; accepted are 'run' and 'training'"):
        load_runs(tmp_path, kind="model")


def test_load_runs_of_a_missing_folder_says_so(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"output\.root"):
        load_runs(tmp_path / "absent")


@pytest.mark.parametrize(("name", "found"), [(None, "talk"), ("mine", "mine")])
def test_files_without_a_name_are_called_as_the_source_is(name: str | None, found: str):
    flat = flat_config({"dataset": {"name": name, "source": "data/talk.en.gz", "target": "talk.x", "limit": None}})
    assert (flat["dataset.name"], flat["dataset.source_language"]) == (found, "en")
    assert "dataset.target_language" not in flat


def test_flatten_joins_keys_with_dots_and_keeps_lists():
    assert flatten({"a": {"b": {"c": 1}}, "d": [1, {"e": 2}]}) == {"a.b.c": 1, "d": [1, {"e": 2}]}


def committed(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run([*git, *words], check=True)


def test_new_files_make_a_checkout_dirty_unless_git_ignores_them(tmp_path: Path):
    committed(tmp_path, ".gitignore", "outputs/\n")
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "a").write_text("a")
    assert _commit(tmp_path)["dirty"] is False
    (tmp_path / "policy.py").write_text("a")
    assert _commit(tmp_path)["dirty"] is True


@pytest.mark.parametrize(
    ("new", "dirty"),
    [
        ("report.html", False),
        ("curve.png", False),
        ("figures/a b/ä.pdf", False),
        ("my-study/conf/policy/hesitant.yaml", False),  # of a study of its own
        ("conf/policy/hesitant.yaml", True),
        ("helpers/words.py", True),
        ("figures/draw.py", True),
    ],
)
def test_new_files_that_are_no_code_of_this_checkout_leave_it_clean(tmp_path: Path, new: str, dirty: bool):
    committed(tmp_path, "run.py", "a")
    (tmp_path / new).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / new).write_text("a")
    assert _commit(tmp_path)["dirty"] is dirty


def test_a_changed_file_makes_a_checkout_dirty_whatever_it_is(tmp_path: Path):
    committed(tmp_path, "README.md", "a")
    (tmp_path / "README.md").write_text("b")
    assert _commit(tmp_path)["dirty"] is True


def test_asking_for_the_commit_locks_no_checkout(tmp_path: Path):
    """With a full disk, `git status` would leave its lock behind, and no commit could be made any more."""
    committed(tmp_path, "file", "content")
    os.utime(tmp_path / "file", (1, 1))  # so that git would note anew what the file is like
    with full_disk(0):
        assert _commit(tmp_path)["dirty"] is False
    assert not (tmp_path / ".git" / "index.lock").exists()


def test_environment_says_what_made_the_run():
    env = environment()
    assert env.keys() >= {"commit", "dirty", "versions", "device", "blas", "command", "platform"}
    assert env["versions"].keys() >= {"python", "streamllm", "mlx", "mlx-lm"}
    json.dumps(env)
