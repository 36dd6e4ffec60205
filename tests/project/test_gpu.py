"""scripts/check_gpu.sh runs all its steps on a CPU; on a GPU it has not been run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SCRIPT = ROOT / "scripts" / "check_gpu.sh"


def check(*words: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    return subprocess.run(["bash", str(SCRIPT), *words], env=environment, capture_output=True, text=True)


@pytest.mark.long
def test_a_dry_run_on_the_cpu_passes_every_step() -> None:
    done = check("--cpu", "--installed")
    assert done.returncode == 0, done.stdout
    rows = [line.split(" | ") for line in done.stdout.splitlines() if " | passed | " in line]
    assert [row[0].strip("| ") for row in rows] == [
        *("device", "main job", "main job, latency", "tests", "bench decode", "bench evaluation"),
    ]
    assert "BLEU" in rows[1][3]
    assert "| context (tokens) |" in done.stdout
    assert "| policy | batch size |" in done.stdout


def test_without_a_gpu_it_says_so_and_stops() -> None:
    pytest.importorskip("mlx.core")
    import mlx.core as mx

    if mx.is_available(mx.gpu):  # type: ignore[arg-type]
        pytest.skip("there is a GPU")
    done = check("--installed")
    assert done.returncode == 1
    assert "| device | failed (1) |" in done.stdout
    assert "MLX does not compute on a GPU here: see docs/gpu.md" in done.stdout
    assert "main job" not in done.stdout


def test_an_unknown_word_is_refused() -> None:
    done = check("--gpu")
    assert done.returncode == 2
    assert done.stderr == "error: --gpu: accepted are --cpu and --installed\n"
