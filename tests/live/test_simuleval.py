"""SimulEval and OmniSTEval themselves agree with what is written and served (scripts/check_simuleval.py).

STREAMLLM_SIMULEVAL names a folder for their virtual environment, to be kept; without it, each test run installs them.
"""

import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT

SCRIPT = ROOT / "scripts" / "check_simuleval.py"


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_simuleval", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_simuleval"] = module  # dataclasses look for their module
    spec.loader.exec_module(module)
    return module


@pytest.mark.simuleval
@pytest.mark.slow
def test_the_tools_print_what_we_print(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if "simuleval" not in request.config.option.markexpr and "STREAMLLM_SIMULEVAL" not in os.environ:
        pytest.skip("installs packages: pytest -m simuleval")
    done = check("--limit=8", f"--venv={os.environ.get('STREAMLLM_SIMULEVAL', tmp_path / 'venv')}")
    if done.returncode == 2 and "cannot install" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no difference" in done.stdout
    for policy in ("policy=waitk k=3", "policy=full", "policy=confidence"):
        for name in ("score-only", "omnisteval", "remote"):
            assert f"{policy:<20} {name:<12}" in done.stdout


def test_what_cannot_be_installed_is_said_and_told_from_a_difference(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = check(f"--venv={tmp_path / 'file' / 'venv'}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot install simuleval==1.1.4 and omnisteval==0.1.10 in ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("ours", "theirs", "difference"),
    [
        (2.51249, 2.512, 0.0),
        (2.5126, 2.512, -0.001),
        (math.nan, math.nan, 0.0),
        (2.5, math.nan, None),
        (math.nan, 0, None),
    ],
)
def test_a_difference_is_one_of_printed_digits(
    script: ModuleType, ours: float, theirs: float, difference: float | None
) -> None:
    row = script.Row("policy=full", "score-only", "AL", ours, theirs, 3)
    assert (row.difference == 0) == (difference == 0)
    if difference is not None:
        assert row.difference == difference
