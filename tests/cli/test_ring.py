"""A command in several processes that MLX's ring connects: started, ended together, and with their exit status."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from streamllm.cli import ring
from streamllm.cli.ring import processes_of, run_together, together_if_asked

SUM = """
import sys, mlx.core as mx
group = mx.distributed.init(strict=True, backend="ring")
total = mx.distributed.all_sum(mx.array(group.rank() + 1), group=group).item()
open(sys.argv[1] + f"/{group.rank()}", "w").write(f"{group.size()} {total}")
"""
WAITS = """
import os, signal, sys, time
def end(number, frame):
    open(sys.argv[1] + "/ended-" + os.environ["MLX_RANK"], "w").write(str(number))
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
open(sys.argv[1] + "/" + os.environ["MLX_RANK"], "w").close()
if sys.argv[2] == os.environ["MLX_RANK"]:
    sys.exit(3)
time.sleep(600)
"""


def python(text: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", text, *map(str, arguments)]


def test_the_processes_find_each_other(tmp_path: Path) -> None:
    assert run_together(2, python(SUM, tmp_path)) == 0
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["2 3", "2 3"]


def test_one_that_fails_ends_the_others_and_gives_its_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "PATIENCE", 0.5)
    began = time.monotonic()
    assert run_together(2, python(WAITS, tmp_path, 1)) == 3
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_what_ends_the_command_reaches_all_processes(tmp_path: Path, sent: signal.Signals) -> None:
    """Ctrl-C reaches the whole group of a terminal, SIGTERM the command alone."""
    command = "import sys; from streamllm.cli.ring import run_together; "
    command += f"sys.exit(run_together(2, {python(WAITS, tmp_path, 9)}))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(python(command), env=environment, start_new_session=True) as process:
        while not all((tmp_path / str(rank)).exists() for rank in range(2)):
            time.sleep(0.05)
            assert process.poll() is None
        (os.killpg if sent == signal.SIGINT else os.kill)(process.pid, sent)
        status = process.wait(timeout=60)
    if sent == signal.SIGTERM:
        assert status == 0
        assert all((tmp_path / f"ended-{rank}").exists() for rank in range(2))
    else:  # Python's KeyboardInterrupt in both
        assert status == 130


@pytest.mark.parametrize(
    ("words", "count", "rest"),
    [
        (["a=1"], 1, ["a=1"]),
        (["--processes", "2", "a=1"], 2, ["a=1"]),
        (["a=1", "--processes=3", "-m"], 3, ["a=1", "-m"]),
    ],
)
def test_the_number_is_taken_out_of_the_command_line(words: list[str], count: int, rest: list[str]) -> None:
    assert processes_of(words) == (count, rest)


@pytest.mark.parametrize("words", [["--processes"], ["--processes", "a=1"], ["--processes=0"], ["--processes=-1"]])
def test_what_is_no_number_is_one_line(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["streamllm train", *words])
    with pytest.raises(SystemExit, match=r"error: --processes .*: give a number of processes from 1 to 256"):
        together_if_asked("train")
