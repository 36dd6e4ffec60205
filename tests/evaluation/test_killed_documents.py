"""A run over documents that was killed in the middle of one ends with the same bytes, whatever it was doing there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from streamllm.runs.folder import CONTENTS, INSTANCES, PREDICTIONS
from streamllm.runs.load import load_traces

RUN = """
import os, signal, sys
import streamllm
from streamllm.engine.stream import Stream

take, taken = Stream.take, 0

def killing(self, *args, **options):
    global taken
    taken += 1
    if taken == {reads}:
        os.kill(os.getpid(), signal.SIGKILL)
    return take(self, *args, **options)

Stream.take = killing
from streamllm.cli.main import main
main()
"""


def run(root: Path, paradigm: str, batch_size: int, reads: int = -1) -> int:
    """The exit status of a run over three documents, that is killed before so many reads."""
    words = ["run", f"paradigm={paradigm}", "policy=waitk", "k=3", "dataset.sentences_per_document=4"]
    words += ["dataset.limit=3", f"batch_size={batch_size}", "tracker=none", f"output.root={root}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "STREAMLLM_THREADS": "1"}
    command = [sys.executable, "-c", RUN.format(reads=reads), *words]
    return subprocess.run(command, cwd=root.parent, env=environment, capture_output=True).returncode


@pytest.mark.long
@pytest.mark.parametrize(
    ("paradigm", "batch_size", "reads"),
    [("sentences", 1, 70), ("continuous", 1, 70), ("sentences", 2, 120)],
    ids=["sentences", "continuous", "in a batch"],
)
def test_a_run_killed_in_the_middle_of_a_document_ends_with_the_same_bytes(
    paradigm: str, batch_size: int, reads: int, tmp_path: Path
) -> None:
    root, straight = tmp_path / "killed", tmp_path / "straight"
    assert run(root, paradigm, batch_size, reads) == -9
    (folder,) = root.iterdir()
    assert 1 <= len(load_traces(folder)) < 3, "it was to be killed in the second or third document"
    assert run(root, paradigm, batch_size) == run(straight, paradigm, batch_size) == 0
    (other,) = straight.iterdir()
    for file in (PREDICTIONS, INSTANCES, CONTENTS):
        assert (folder / file).read_bytes() == (other / file).read_bytes()
