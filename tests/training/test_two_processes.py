"""Real processes that reach the same run folder: one writes, the others are told, and nothing is written twice."""

import json
import subprocess
import sys
from pathlib import Path

from conftest import ROOT
from shouting import EXAMPLES, run

from streamllm.runs.folder import INSTANCES, METRICS, PREDICTIONS, TIMINGS
from streamllm.runs.load import load_traces

# Each process says when it could start, waits for its turn, and prints how many sentences it has translated itself.
WRITER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from streamllm.runs.environment import environment
from streamllm.runs import RunInUse
from shouting import run, shout

environment()  # imports what takes long
folder, mode = Path(sys.argv[1]), sys.argv[2]
translated = refused = 0

def counting(examples):
    global translated
    for trace in shout(examples):
        if mode == "stops" and translated == 2:
            print("in the middle", flush=True)
            sys.stdin.readline()
        translated += 1
        yield trace

print("ready", flush=True)
sys.stdin.readline()
while True:
    try:
        run(folder, lambda: counting)
        break
    except RunInUse as error:
        if mode == "once":
            sys.exit(str(error))
        refused += 1
        time.sleep(0.001)
print("translated", translated, "refused", refused)
"""


class Writer:
    def __init__(self, folder: Path, mode: str) -> None:
        command = [sys.executable, "-c", WRITER.format(tests=str(ROOT / "tests")), str(folder), mode]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self.wait_for("ready")

    def wait_for(self, line: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == line

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> tuple[int, str, str]:
        output, errors = self.process.communicate(timeout=300)
        return self.process.returncode, output, errors


def assert_whole(folder: Path, straight: Path) -> None:
    for name in (PREDICTIONS, INSTANCES, "run.yaml"):
        assert (folder / name).read_bytes() == (straight / name).read_bytes(), name
    assert [trace.id for trace in load_traces(folder)] == [example.id for example in EXAMPLES]
    assert len((folder / TIMINGS).read_text().splitlines()) == len(EXAMPLES)
    json.loads((folder / METRICS).read_text())
    assert not list(folder.glob("*.part"))
    assert not (folder / ".lock").exists()


def test_second_process_is_told_and_the_first_goes_on_undisturbed(tmp_path: Path) -> None:
    folder = tmp_path / "run-1"
    first, second = Writer(folder, "stops"), Writer(folder, "once")
    first.go()
    first.wait_for("in the middle")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    second.go()
    code, _, errors = second.end()
    assert code == 1
    assert f"is being written by another process (id {first.process.pid})" in errors
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    first.go()
    code, output, errors = first.end()
    assert code == 0, errors
    assert f"translated {len(EXAMPLES)} " in output
    run(tmp_path / "straight-1")
    assert_whole(folder, tmp_path / "straight-1")


def test_processes_that_race_translate_every_sentence_once(tmp_path: Path) -> None:
    run(tmp_path / "straight-1")
    writers = [Writer(tmp_path / "run-1", "retries") for _ in range(4)]
    for writer in writers:
        writer.go()
    ends = [writer.end() for writer in writers]
    assert [code for code, _, _ in ends] == [0] * len(writers), [errors for _, _, errors in ends]
    translated = [int(output.split("translated ")[1].split()[0]) for _, output, _ in ends]
    assert sorted(translated) == [0] * (len(writers) - 1) + [len(EXAMPLES)]
    assert_whole(tmp_path / "run-1", tmp_path / "straight-1")
