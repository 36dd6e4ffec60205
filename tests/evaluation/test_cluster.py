"""One run on a Ray cluster: what a run on one process leaves, and one error where something goes wrong."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from subprocess import DEVNULL, PIPE

import pytest
from conftest import ROOT

from streamllm.evaluation.cluster import _knock, on_cluster
from streamllm.runs.folder import METRICS, PREDICTIONS

KEYS = ["dataset.limit=6", "tracker=none", "batch_size=4"]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "tests" / "evaluation"]))}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, str(ROOT / "run.py"), *KEYS, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def predictions(folder: Path) -> list[str]:
    (found,) = folder.glob(f"*/{PREDICTIONS}")
    return sorted(found.read_text().splitlines())


def test_without_ray_the_error_says_how_it_is_installed() -> None:
    if find_spec("ray"):
        pytest.skip("Ray is installed")
    with pytest.raises(ValueError, match=r"^cluster=auto needs Ray, which is not installed: pip install .*ray"):
        on_cluster("auto")


HOLD = """
import ray
ray.init(num_cpus=2, include_dashboard=False)
print("begun", flush=True)
input()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One with two workers, which lives as long as a process that holds it."""
    pytest.importorskip("ray", reason="pip install -e '.[ray]'")
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    for _ in range(3):  # Ray gives up where the machine is busy
        command = [sys.executable, "-c", HOLD]
        with subprocess.Popen(command, env=environment, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, text=True) as holder:
            assert holder.stdout is not None
            if holder.stdout.readline():
                yield
                return
    pytest.skip("Ray does not begin on this machine: it gives up after 30 s, as where much else is running")


def ending(folder: Path, raises: bool) -> list[str]:
    """The keys of a policy that ends the process of one sentence."""
    (folder / "conf" / "policy").mkdir(parents=True)
    (folder / "conf" / "policy" / "ending.yaml").write_text(f"_target_: test_processes.Ending\nraises: {raises}\n")
    return ["processes=2", "policy=ending"]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_two_workers_leave_what_one_process_leaves(tmp_path: Path) -> None:
    one = run(tmp_path, "output.root=one")
    two = run(tmp_path, "output.root=two", "cluster=auto", "processes=2")
    assert (one.returncode, two.returncode) == (0, 0), two.stderr
    assert predictions(tmp_path / "one") == predictions(tmp_path / "two")
    assert len(predictions(tmp_path / "two")) == 6


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("raises", "error"), [(True, "no (debug"), (False, "a process that translates was ended (")])
@pytest.mark.usefixtures("cluster")
def test_what_ends_one_worker_ends_the_run_with_one_error(tmp_path: Path, raises: bool, error: str) -> None:
    failed = run(tmp_path, "cluster=auto", *ending(tmp_path, raises))
    assert failed.returncode == 1
    (said,) = (line for line in failed.stderr.splitlines() if line.startswith("error: "))
    assert said.startswith(f"error: {error}")
    assert not list(tmp_path.glob(f"outputs/*/{METRICS}"))


def test_nobody_waits_for_an_address_where_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        _knock(f"127.0.0.1:{port}")
        _knock(f"ray://127.0.0.1:{port}")
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(OSError, match="refused"):
            _knock(address)
    _knock("auto")


@pytest.mark.long
@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="pip install -e '.[ray]'")
    failed = run(tmp_path, "cluster=127.0.0.1:9", "processes=2")
    assert failed.returncode == 1
    assert "error: cluster is '127.0.0.1:9', and there is no Ray cluster" in failed.stderr
    assert "Traceback" not in failed.stderr
