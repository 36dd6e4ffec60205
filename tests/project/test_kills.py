"""The script that kills at random: that it holds, and that it would see a byte that differs."""

import importlib.util
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def kills() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_kills", ROOT / "scripts" / "check_kills.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
def test_kills_at_random_change_no_byte() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "check_kills.py"), "--kills", "2", "--only", "run"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kills (seed 0)" in done.stdout
    assert done.stdout.endswith("the same bytes each time\n")


def test_kills_are_shared_among_the_jobs(kills: ModuleType) -> None:
    lives = kills.shares(200, random.Random(0), kills.JOBS)
    assert sum(count for _, count in lives) == 200
    assert {job.name for job, _ in lives} == {"run", "sweep", "documents", "continuous", "train"}
    assert max(count for _, count in lives) == kills.KILLS_IN_A_ROW


def test_a_line_that_the_unkilled_run_lacks_is_seen_right_after_a_kill(kills: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "run-1").mkdir()
    (tmp_path / "run-1" / "train.jsonl").write_bytes(b'{"step": 1}\n{"step"')
    assert [line for _, line in kills.stored_lines(tmp_path)] == [b'{"step": 1}']


def test_times_alone_may_differ(kills: ModuleType) -> None:
    times = ["seconds_per_sentence", "target_tokens_per_second", "tokens_per_second", "al_ca", "laal_seconds"]
    assert all(kills.is_time(key) for key in times)
    assert not any(kills.is_time(key) for key in ("bleu", "al", "laal", "forward_passes", "loss", "sentences"))
