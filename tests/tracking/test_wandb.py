"""W&B for real, against a server on this machine: what it is told, when and however late, and that it costs nothing."""

import errno
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
import pytest
import wandb
import yaml
from conftest import ROOT
from fake_wandb import FakeWandb, Received, serving
from shouting import CONFIG, EXAMPLES, run
from test_tracking import wandb_records

from streamllm.runs.folder import METRICS, PREDICTIONS
from streamllm.runs.load import load_runs
from streamllm.tracking import wandb_tracker as tracking
from streamllm.tracking.wandb_runs import load_wandb_runs
from streamllm.tracking.wandb_tracker import WandbTracker

PATH = os.pathsep.join([str(ROOT), str(ROOT / "tests")])


def clean(folder: Path, **more: str) -> dict[str, str]:
    """This process's environment without settings of W&B, and with its files in ``folder``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    places = {f"WANDB_{name}_DIR": str(folder / name) for name in ("DATA", "CACHE", "CONFIG")}
    return kept | places | {"NETRC": str(folder / "netrc"), "PYTHONPATH": PATH} | more


# --- offline, killed, and sent later

KILLED = """
import os, signal, subprocess, sys, time
from pathlib import Path
from shouting import run, shout
from streamllm.tracking import WandbTracker

root = Path(sys.argv[1])

def stored():
    return b"".join(path.read_bytes() for path in root.glob("wandb/offline-run-*-killed/*.wandb"))

def killed(examples):
    for number, trace in enumerate(shout(examples)):
        if number == 4:
            while b"running/bleu" not in stored():  # W&B writes it within a second
                time.sleep(0.05)
            children = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True)
            for child in children.stdout.split():
                try:
                    os.kill(int(child), signal.SIGKILL)
                except ProcessLookupError:  # pgrep itself
                    pass
            os.kill(os.getpid(), signal.SIGKILL)
        yield trace

run(root / "run-done", tracker=WandbTracker(tags=["a", "b"], group="k=2,3", pictures=2))
run(root / "run-killed", lambda: killed, tracker=WandbTracker())
"""


@dataclass(frozen=True)
class Sent:
    """What two offline runs left on disk, and what `wandb sync` sent of it."""

    root: Path
    runs: dict[str, Received]
    synced: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Sent:
    """A finished run, and one whose process and whose W&B were killed together: made once, they take seconds."""
    root, home = tmp_path_factory.mktemp("outputs"), tmp_path_factory.mktemp("home")
    code = [sys.executable, "-c", KILLED, str(root)]
    died = subprocess.run(code, cwd=home, env=clean(home), capture_output=True, text=True, timeout=120)
    assert died.returncode == -9, died.stderr
    with serving() as server:
        folders = sorted(str(path) for path in root.glob("wandb/offline-run-*"))
        command = [sys.executable, "-m", "wandb", "sync", *folders]
        environment = clean(home, **server.environment)
        synced = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=120)
    return Sent(root, server.runs, synced)


@pytest.mark.long
def test_killed_offline_run_can_be_read(sent: Sent):
    records = wandb_records(sent.root, "killed")
    steps = [record.history for record in records if record.HasField("history")]
    assert len(steps) >= 1
    (begun,) = [record.run for record in records if record.HasField("run")]
    config = {item.key: json.loads(item.value_json) for item in begun.config.update}
    assert config["policy"] == CONFIG["policy"]


def test_offline_runs_are_sent_later_the_killed_one_too(sent: Sent):
    assert sent.synced.returncode == 0, sent.synced.stderr
    assert sent.runs.keys() == {"done", "killed"}
    assert [line["_step"] for line in sent.runs["done"].history if "running/bleu" in line] == [1, 2, 3, 4, 5, 6]
    assert sent.runs["killed"].history[0]["_step"] == 1


def test_server_gets_configuration_name_group_tags_and_kind(sent: Sent):
    got = sent.runs["done"]
    assert {key: got.config[key] for key in CONFIG} == CONFIG
    told = {key: got.variables[key] for key in ("displayName", "groupName", "tags", "jobType", "project")}
    assert told == {
        "displayName": "run-done",
        "groupName": "k=2,3",
        "tags": ["a", "b"],
        "jobType": "evaluate",
        "project": "streamllm",
    }


def test_server_gets_every_metric_the_device_and_the_table(sent: Sent):
    summary = sent.runs["done"].summary
    metrics = json.loads((sent.root / "run-done" / METRICS).read_text())
    assert {key: summary.get(key) for key in metrics} == pytest.approx(metrics)
    assert summary["undefined"] == [key for key, value in metrics.items() if value is None]
    environment = json.loads((sent.root / "run-done" / "env.json").read_text())
    assert {key: summary["env"][key] for key in ("device", "commit", "versions")} == {
        key: environment[key] for key in ("device", "commit", "versions")
    }
    assert summary["sentence_table"]["nrows"] == len(EXAMPLES)
    assert "bleu" not in sent.runs["killed"].summary


# --- reading them back


class Api:
    """``wandb.Api`` with the runs that a server got; they have the attributes of ``wandb.apis.public.Run``."""

    def __init__(self, runs: Sequence[Received]):
        self.asked: dict[str, Any] = {}
        self._runs = [type("Run", (), {"config": run.config, "summary_metrics": run.summary}) for run in runs]

    def runs(self, path: str, **options: Any) -> list[Any]:
        self.asked = {"path": path, **options}
        return list(self._runs)


def test_runs_from_the_api_have_the_columns_and_values_of_folders(sent: Sent):
    api = Api(list(sent.runs.values()))
    online, local = load_wandb_runs("somebody/streamllm", api=api), load_runs(sent.root)
    assert len(local) == 1
    assert set(online.columns) == set(local.columns)
    pandas.testing.assert_frame_equal(online[local.columns], local, check_dtype=False)
    assert api.asked["path"] == "somebody/streamllm"


def test_api_is_asked_for_evaluations_with_their_whole_content(sent: Sent):
    api = Api([])
    assert load_wandb_runs("streamllm", {"group": "k=2,3"}, api=api).empty
    assert api.asked["filters"] == {"jobType": "evaluate", "group": "k=2,3"}
    assert api.asked["lazy"] is False  # else every run is a request


def test_of_one_configuration_the_first_of_the_answer_is_taken(sent: Sent):
    got = sent.runs["done"]
    older = Received(config=got.config, summary=got.summary | {"bleu": 1.0})
    api = Api([got, older])
    (row,) = load_wandb_runs("streamllm", api=api).to_dict("records")
    assert row["bleu"] == got.summary["bleu"]
    assert api.asked["order"] == "-created_at"


def test_real_api_has_what_is_asked_of_it():
    import inspect

    from wandb.apis.public import Run

    assert {"filters", "order", "per_page", "lazy"} <= set(inspect.signature(wandb.Api.runs).parameters)
    assert isinstance(Run.config, property)
    assert isinstance(Run.summary_metrics, property)


def test_without_a_key_the_error_says_what_to_do(service: pytest.MonkeyPatch):
    with pytest.raises(ConnectionError, match=r"'streamllm' cannot be read from W&B.*wandb login.*load_runs"):
        load_wandb_runs("streamllm")


# --- online, and what may go wrong


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """wandb as a process finds it that starts now: it reads its settings once."""
    wandb.teardown()
    for name in os.environ.keys() - clean(tmp_path).keys():
        monkeypatch.delenv(name)
    for name, value in clean(tmp_path).items():
        monkeypatch.setenv(name, value)
    yield monkeypatch
    wandb.teardown()


def online(monkeypatch: pytest.MonkeyPatch, server: FakeWandb, folder: Path) -> dict[str, Any]:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return run(folder, tracker=WandbTracker(mode="online"))


def test_online_run_arrives(service: pytest.MonkeyPatch, tmp_path: Path):
    with serving() as server:
        metrics = online(service, server, tmp_path / "run-1")
        wandb.teardown()
    assert server.runs["1"].summary["bleu"] == pytest.approx(metrics["bleu"])
    assert list(tmp_path.glob("wandb/run-*-1"))


@pytest.mark.long
@pytest.mark.parametrize("refusal", ["wrong key", "no answer", "no network"])
def test_run_that_w_and_b_does_not_take_is_recorded_offline(
    service: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, refusal: str
):
    service.setattr(tracking, "INIT_SECONDS", 1)
    with serving(401 if refusal == "wrong key" else 200) as server:
        if refusal == "no answer":
            server.silent.set()
        if refusal == "no network":
            server.environment["WANDB_BASE_URL"] = "http://127.0.0.1:9"
        assert online(service, server, tmp_path / "run-1")["bleu"] == pytest.approx(100)
        wandb.teardown()
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "cannot be reached" in warning.getMessage()
    (folder,) = tmp_path.glob("wandb/offline-run-*-1")
    assert warning.getMessage().endswith(f"wandb sync {folder}")
    summaries = [record.summary for record in wandb_records(tmp_path, "1") if record.HasField("summary")]
    assert any(item.key == "bleu" for summary in summaries for item in summary.update)


@pytest.mark.long
@pytest.mark.parametrize("last", ["summary", "table"])
def test_network_that_goes_away_during_a_run_does_not_hold_it(
    service: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, last: str
):
    service.setattr(tracking, "FINISH_SECONDS", 1)
    service.setattr(tracking, "GRACE_SECONDS", 5)
    service.setenv("WANDB_HTTP_TIMEOUT", "1")
    with serving() as server:
        method = getattr(WandbTracker, last)

        def going_away(self: WandbTracker, *arguments: Any, **options: Any) -> None:
            method(self, *arguments, **options)
            server.silent.set()

        service.setattr(WandbTracker, last, going_away)
        online(service, server, tmp_path / "run-1")
        wandb.teardown()
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    failed = "finish (TimeoutError" if last == "table" else "table ("
    assert f"WandbTracker failed in {failed}" in warning.getMessage()
    assert (tmp_path / "run-1" / METRICS).exists()


SILENT = """
import os, subprocess, sys
from pathlib import Path
from streamllm.tracking import wandb_tracker as tracking
from streamllm.tracking import RunInfo, WandbTracker

tracking.FINISH_SECONDS, tracking.GRACE_SECONDS = 1, 3
root = Path(sys.argv[1])
for name in ("given-up", "next"):
    tracker = WandbTracker()
    (root / name).mkdir()
    tracker.start(RunInfo(name, name, root / name, {}))
    tracker.log({"x": 1}, step=1)
    if name == "given-up":
        subprocess.run(["pkill", "-STOP", "-P", str(os.getpid()), "wandb-core"])
    try:
        tracker.finish()
        print(name, "finished")
    except TimeoutError as error:
        print(name, "timed out")
"""


@pytest.mark.long
def test_a_process_of_w_and_b_that_never_answers_is_given_up_and_the_next_run_has_another(tmp_path: Path):
    code = [sys.executable, "-c", SILENT, str(tmp_path)]
    done = subprocess.run(code, cwd=tmp_path, env=clean(tmp_path), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["given-up timed out", "next finished"]
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 2


def test_tracker_without_a_place_to_write_costs_no_result(
    service: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "wandb").write_text("a file where W&B wants a folder")
    run(tmp_path / "run-1", tracker=WandbTracker())
    assert (tmp_path / "run-1" / METRICS).exists()
    assert "WandbTracker failed in start" in caplog.text


def test_disk_that_fills_up_costs_no_result(
    service: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    service.setattr(wandb, "Table", full)
    run(tmp_path / "run-1", tracker=WandbTracker())
    assert (tmp_path / "run-1" / METRICS).exists()
    assert "WandbTracker failed in table (OSError: [Errno 28] No space left on device)" in caplog.text


FILLED = """
import resource, sys
from pathlib import Path
from shouting import run
from streamllm.tracking import WandbTracker

resource.setrlimit(resource.RLIMIT_FSIZE, (7168, 7168))
run(Path(sys.argv[1]), tracker=WandbTracker())
"""


def test_files_of_w_and_b_that_really_cannot_grow_cost_no_result(tmp_path: Path):
    """The kernel refuses every byte of a file beyond 7 KiB, to W&B's own process too: the files of the run stay below,
    the pictures of W&B's table do not."""
    code = [sys.executable, "-c", FILLED, str(tmp_path / "run-1")]
    # git, which env.json asks, must not be killed while it refreshes the index of the checkout.
    environment = clean(tmp_path, GIT_OPTIONAL_LOCKS="0")
    done = subprocess.run(code, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    run(tmp_path / "run-2")
    metrics = [json.loads((tmp_path / name / METRICS).read_text()) for name in ("run-1", "run-2")]
    assert metrics[0]["bleu"] == metrics[1]["bleu"]
    predictions = [(tmp_path / name / PREDICTIONS).read_bytes() for name in ("run-1", "run-2")]
    assert predictions[0] == predictions[1]
    assert "WandbTracker failed in table (OSError: [Errno 27] File too large)" in done.stderr
    assert done.stderr.count("WandbTracker failed") == 1


# --- a sweep of W&B

SWEEP = yaml.safe_load((ROOT / "conf" / "wandb_sweep.yaml").read_text("utf-8"))


def command_of_agent(template: Sequence[str], parameters: dict[str, Any]) -> list[str]:
    """What `wandb agent` runs for these values, made by its own functions."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    filled = create_sweep_command_args({"args": {key: {"value": value} for key, value in parameters.items()}})
    filled |= {"env": ["/usr/bin/env"], "interpreter": [sys.executable], "program": [SWEEP["program"]]}
    words: list[str] = []
    for word in create_sweep_command(list(template)):
        words += filled[word[2:-1]] if word.startswith("${") else [word]
    return words


@pytest.mark.long
def test_sweep_of_w_and_b_runs_a_point_and_reports_it(tmp_path: Path):
    """Twice: the second time the folder is there, and the sweep still gets its result."""
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "shouting.yaml").write_text("_target_: shouting.ShoutingModel\n")
    assert SWEEP["parameters"].keys() == {"k"}
    command = command_of_agent(SWEEP["command"], {"k": 3, "policy": "waitk"})
    command += [f"hydra.searchpath=[file://{tmp_path / 'conf'}]", "model=shouting", "batch_size=1", "dataset.limit=2"]
    command += [f"output.root={tmp_path / 'outputs'}"]
    (tmp_path / "given.yaml").write_text("wandb_version: 1\nk:\n  value: 3\npolicy:\n  value: waitk\n")
    agent = {"WANDB_SWEEP_ID": "sweep", "WANDB_SWEEP_PARAM_PATH": str(tmp_path / "given.yaml")}
    with serving() as server:
        for name in ("first", "second"):
            environment = clean(tmp_path, **server.environment, **agent, WANDB_RUN_ID=name)
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs").glob(f"*/{METRICS}")
    assert server.runs.keys() == {"first", "second"}
    for got in server.runs.values():
        assert got.summary[SWEEP["metric"]["name"]] == pytest.approx(json.loads(folder.read_text())["bleu"])
        assert got.variables["displayName"] == folder.parent.name
        # The sweep's word "waitk" hides what the policy was made of.
        assert (got.config["policy"], got.config["policy.k"], got.config["k"]) == ("waitk", 3, 3)
    both = load_wandb_runs("streamllm", api=Api(list(server.runs.values())))
    assert set(both.columns) == set(load_runs(tmp_path / "outputs").columns) | {"policy"}


def test_keys_of_the_sweep_are_keys_of_run_py():
    words = command_of_agent(SWEEP["command"], {key: item["values"][0] for key, item in SWEEP["parameters"].items()})
    assert words[:3] == ["/usr/bin/env", sys.executable, "run.py"]
    assert words[-1] == "k=1"
    assert "tracker.mode=online" in words
