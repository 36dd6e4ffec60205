"""Trackers: what W&B is told, and that no failure of a tracker reaches a run."""

import io
import json
import logging
import threading
from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from streamllm.tracking import wandb_tracker as tracking
from streamllm.tracking.tracker import Guarded, NullTracker, Picture, RunInfo
from streamllm.tracking.wandb_runs import load_wandb_runs
from streamllm.tracking.wandb_tracker import WandbTracker


@pytest.fixture
def info(tmp_path: Path) -> RunInfo:
    (tmp_path / "sample-waitk-abc").mkdir()
    return RunInfo("abc", "sample-waitk-abc", tmp_path / "sample-waitk-abc", {"policy": {"k": 3}})


class Broken(NullTracker):
    """Fails in one method and notes which were called."""

    def __init__(self, method: str):
        self.calls: list[str] = []
        self._method = method

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or name == "calls":
            return super().__getattribute__(name)

        def call(*arguments: Any) -> None:
            self.calls.append(name)
            if name == self._method:
                raise OSError("disk full")

        return call


def use(tracker: Any, info: RunInfo) -> None:
    tracker.start(info)
    tracker.log({"running/bleu": 10.0}, step=1)
    tracker.log({"running/bleu": 20.0}, step=2)
    tracker.table("sentences", ["id", "al"], [["1", 2.5], ["2", float("nan")]])
    tracker.summary({"bleu": 20.0, "bleu_signature": "nrefs:1", "al": None})
    tracker.finish()


def wandb_records(folder: Path, run: str = "abc") -> list[Any]:
    """What an offline run has stored: protocol buffers in LevelDB's log format, after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob(f"wandb/offline-run-*/run-{run}.wandb")
    content, at, records, whole = path.read_bytes(), 7, [], b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # the rest of a block is padding
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        if at + 7 + length > len(content):
            break  # cut off by a kill
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a full record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            records.append(record)
            whole = b""
    return records


def values(items: Iterable[Any]) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def test_null_tracker_takes_everything(info: RunInfo):
    use(NullTracker(), info)


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """An offline W&B run, made once: starting wandb takes seconds."""
    import wandb

    folder = tmp_path_factory.mktemp("outputs")
    (folder / "sample-waitk-abc").mkdir()
    run = RunInfo("abc", "sample-waitk-abc", folder / "sample-waitk-abc", {"policy": {"k": 3}})
    use(WandbTracker(tags=["test"], group="curve"), run)
    wandb.teardown()  # its service writes the last of the file when it ends, as at the end of a process
    return folder, wandb_records(folder)


def test_wandb_run_has_the_digest_as_its_id(offline: tuple[Path, list[Any]]):
    (run,) = [record.run for record in offline[1] if record.HasField("run")]
    assert (run.run_id, run.display_name, run.project) == ("abc", "sample-waitk-abc", "streamllm")
    assert (run.run_group, list(run.tags), run.job_type) == ("curve", ["test"], "evaluate")


def test_wandb_run_has_the_configuration(offline: tuple[Path, list[Any]]):
    (run,) = [record.run for record in offline[1] if record.HasField("run")]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["policy"] == {"k": 3}


def test_wandb_run_has_the_steps_the_table_and_the_summary(offline: tuple[Path, list[Any]]):
    history = [values(record.history.item) for record in offline[1] if record.HasField("history")]
    assert [row["running/bleu"] for row in history if "running/bleu" in row] == [10.0, 20.0]
    assert [row["sentences.nrows"] for row in history if "sentences.nrows" in row] == [2]
    summary: dict[str, Any] = {}
    for record in offline[1]:
        if record.HasField("summary"):
            summary |= values(record.summary.update)
    assert (summary["bleu"], summary["bleu_signature"]) == (20.0, "nrefs:1")


def test_wandb_keeps_its_files_beside_the_run_folder(offline: tuple[Path, list[Any]]):
    assert list((offline[0] / "sample-waitk-abc").iterdir()) == []


def test_wandb_prints_nothing(info: RunInfo, capfd: pytest.CaptureFixture[str]):
    use(WandbTracker(), info)
    assert capfd.readouterr() == ("", "")


def test_wandb_mode_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"tracker\.mode is 'on'; accepted are online, offline, disabled"):
        WandbTracker(mode="on")


def test_fewer_than_no_pictures_are_refused():
    with pytest.raises(ValueError, match=r"tracker\.pictures is -1; it is the number of sentences to draw"):
        WandbTracker(pictures=-1)


def test_running_scores_are_told_closer_at_the_beginning_and_at_last(monkeypatch: pytest.MonkeyPatch, info: RunInfo):
    told: list[tuple[str, int]] = []
    run = SimpleNamespace(
        dir="wandb/run/files",
        config={},
        summary={},
        finish=lambda exit_code: None,
        log=lambda values, step: told.append((*values, step)),
    )
    monkeypatch.setattr("wandb.init", lambda **given: run)
    for end in ("summary", "finish"):
        told.clear()
        tracker = WandbTracker()
        tracker.start(RunInfo(info.id, info.name, info.folder, {}))
        for step in range(1, 2000):
            tracker.log({"running/bleu": float(step)}, step)
        tracker.log({"loss": 1.0}, 2000)
        tracker.log({"loss": 1.0}, 2001)
        tracker.log({"running/bleu": 2.0}, 2002)
        tracker.summary({}) if end == "summary" else tracker.finish()
        running, others = ([step for key, step in told if (key == "loss") is other] for other in (False, True))
        assert others == [2000, 2001]
        assert running[:100] == [*range(1, 101)]
        assert len(running) < 300
        assert all(later - earlier <= 1 + earlier / tracking.EVERY for earlier, later in pairwise(running))
        assert running[-1] == 2002


def test_only_the_first_pictures_are_drawn(monkeypatch: pytest.MonkeyPatch):
    import wandb

    drawn: list[int] = []
    content = io.BytesIO()
    Image.new("RGB", (2, 3)).save(content, format="png")

    def draw(number: int) -> bytes:
        drawn.append(number)
        return content.getvalue()

    logged: dict[str, Any] = {}
    tracker = WandbTracker(pictures=2)
    monkeypatch.setattr(tracker, "_run", type("Run", (), {"log": logged.update}))
    tracker.table("sentences", ["id", "path"], [[str(n), Picture(partial(draw, n))] for n in range(4)])
    cells = [row[1] for row in logged["sentences"].data]
    assert drawn == [0, 1]
    assert [isinstance(cell, wandb.Image) for cell in cells] == [True, True, False, False]
    assert (cells[0].image.size, cells[2]) == ((2, 3), None)


@pytest.mark.parametrize("method", ["start", "log", "table", "summary", "finish"])
def test_failing_tracker_gives_one_warning_and_no_error(info: RunInfo, caplog: pytest.LogCaptureFixture, method: str):
    use(Guarded(Broken(method)), info)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"Broken failed in {method} (OSError: disk full)" in record.getMessage()


def test_tracker_that_failed_is_only_told_to_finish(info: RunInfo):
    tracker = Broken("log")
    use(Guarded(tracker), info)
    assert tracker.calls == ["start", "log", "finish"]


def test_guard_hands_everything_on(info: RunInfo):
    tracker = Broken("none of them")
    use(Guarded(tracker), info)
    assert tracker.calls == ["start", "log", "log", "table", "summary", "finish"]


@pytest.mark.parametrize(
    ("summary", "config"),
    [
        ({"folder": 5, "bleu": 1.0}, {}),
        ({"folder": "outputs/a-1", "bleu": "x"}, {}),
        ({"folder": "outputs/a-1", "bleu": 1.0, "undefined": 5}, {}),
        ({"folder": "outputs/a-1", "bleu": 1.0, "undefined": [[]]}, {}),
        ({"folder": "outputs/a-1", "bleu": 1.0}, {"1": 2, 3: 4}),
        ({"folder": "outputs/a-1", "bleu": 1.0}, []),
    ],
)
def test_a_run_of_w_and_b_of_another_shape_is_left_out(
    caplog: pytest.LogCaptureFixture, summary: dict[str, Any], config: Any
):
    wrong = SimpleNamespace(id="wrong", summary_metrics=summary, config=config)
    right = SimpleNamespace(
        id="right", summary_metrics={"folder": "outputs/b-2", "bleu": 2.0, "note": "mine"}, config={"policy": {"k": 3}}
    )
    api = SimpleNamespace(runs=lambda *_, **__: [wrong, right])
    (row,) = load_wandb_runs("any", api=api).to_dict("records")
    assert (row["digest"], row["bleu"], row["policy.k"], row["note"]) == ("2", 2.0, 3, "mine")
    (said,) = caplog.messages
    assert said.startswith("left out: the run wrong of W&B is none of ours (")


def test_a_run_that_w_and_b_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch):
    """As its process does now and then when the network has gone away."""

    class Endless:
        dir = "wandb/run-1/files"

        def finish(self, exit_code: int) -> None:
            threading.Event().wait(60)

    import wandb

    killed: list[list[str]] = []
    monkeypatch.setattr(wandb, "teardown", lambda: None)
    monkeypatch.setattr(tracking.subprocess, "run", lambda command, **options: killed.append(command))
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 0.1)
    monkeypatch.setattr(tracking, "GRACE_SECONDS", 0.1)
    tracker = WandbTracker()
    tracker._run = Endless()
    with pytest.raises(TimeoutError, match="wandb sync wandb/run-1"):
        tracker.finish()
    tracker.finish()  # idempotent
    assert [command[-1] for command in killed] == ["wandb-core"]


@pytest.mark.parametrize(
    ("mode", "exit_code", "said"),
    [
        ("offline", 0, ["Weights & Biases: recorded offline; to send it: wandb sync 'my runs/wandb/offline-run-1'"]),
        ("offline", 130, []),  # the same command goes on
        ("online", 0, []),
        ("disabled", 0, []),
    ],
)
def test_an_offline_run_says_in_the_end_how_it_is_sent(
    mode: str,
    exit_code: int,
    said: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    class Ended:
        dir = str(tmp_path / "my runs" / "wandb" / "offline-run-1" / "files")

        def finish(self, exit_code: int) -> None:
            pass

    caplog.set_level(logging.INFO)
    monkeypatch.chdir(tmp_path)
    tracker = WandbTracker(mode)
    tracker._run = Ended()
    tracker.finish(exit_code)
    assert caplog.messages == said
