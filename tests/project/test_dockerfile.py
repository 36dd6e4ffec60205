"""The Dockerfile, as far as that shows without Docker: what it copies is there and is not ignored, and the command that
it starts is one that listens beyond this machine only with a token."""

import re
import shlex
import subprocess
import sys

import pytest
from conftest import ROOT

LINES = (ROOT / "Dockerfile").read_text().splitlines()


def copied() -> list[str]:
    return [name for line in LINES if line.startswith("COPY ") for name in shlex.split(line)[1:-1]]


def test_what_is_copied_is_there_and_is_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied()
    assert set(copied()) == kept
    assert all((ROOT / name).exists() for name in copied())


def test_all_that_a_wheel_is_made_of_is_copied() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    (only,) = re.findall(r"only-include = \[(.+)\]", project)
    needed = {
        *re.findall(r'"(.+?)"', only),
        *re.findall(r'^(?:readme|license-files) = \[?"(.+?)"', project, re.MULTILINE),
    }
    assert needed <= set(copied())


def test_without_a_token_the_container_says_what_is_missing() -> None:
    for package in ("starlette", "uvicorn", "websockets"):
        pytest.importorskip(package, reason="the extra serve is not installed")
    (line,) = [line for line in LINES if line.startswith("ENTRYPOINT")]
    command = re.findall(r'"(.+?)"', line)
    assert command[0] == "streamllm"
    environment = {"PATH": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", *command, "policy=waitk", "k=3", "port=0"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "STREAMLLM_TOKEN" in done.stderr
