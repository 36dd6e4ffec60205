"""What a run was made with: commit, versions, device, command."""

import importlib.metadata
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """What a run was made with: code, versions, device and command. Imports mlx."""
    import mlx.core as mx

    import streamllm

    versions = {"python": platform.python_version(), "streamllm": streamllm.__version__}
    for package in ("mlx", "mlx-lm", "transformers", "tokenizers", "datasets", "sacrebleu"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    device = mx.default_device()
    details = mx.device_info() if hasattr(mx, "device_info") else {}
    return {
        **code(),
        "versions": versions,
        "device": "gpu" if device == mx.Device(mx.gpu) else "cpu",
        "device_name": str(details.get("device_name") or platform.processor() or platform.machine()),
        "platform": platform.platform(),
        "blas": streamllm.BLAS,
        "command": command(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def command() -> str:
    """What was typed: ``run.py k=3``, or ``streamllm run k=3``."""
    return shlex.join([*Path(sys.argv[0]).name.split(), *sys.argv[1:]])


@cache
def code() -> dict[str, Any]:
    """The ``commit`` of this checkout, and whether it is ``dirty``; None for an installed package. Asked once in a
    process: what it runs was loaded then."""
    return _commit(Path(__file__).parents[2])


CODE = (".py", ".yaml", ".yml", ".toml", ".so")
"""How names of files end that may change what a run does."""


def _commit(project: Path) -> dict[str, Any]:
    """As `code`; dirty is a checkout with changed files, or with new ones of `CODE` that git does not ignore. What a
    report has left, and studies with a ``conf/`` of their own, do not count."""
    unknown: dict[str, Any] = {"commit": None, "dirty": None}
    if not (project / ".git").exists():
        return unknown
    try:
        commit = _git(project, "rev-parse", "HEAD")
        changed = _git(project, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=normal").split("\0")
        dirty = any(_counts(project, entry) for entry in changed if entry)
    except (OSError, subprocess.SubprocessError):
        return unknown
    return {"commit": commit, "dirty": dirty}


def _counts(project: Path, entry: str) -> bool:
    """Whether an entry of ``git status`` makes a checkout another one than its commit."""
    state, path = entry[:2], entry[3:]
    if state != "??":
        return True
    if not path.endswith("/"):
        return path.endswith(CODE)
    if (project / path / "conf").is_dir():  # commands find what is in it when they are given there
        return False
    return any(
        name.endswith(CODE) for name in _git(project, "ls-files", "-z", "-o", "--exclude-standard", path).split("\0")
    )


def _git(project: Path, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(project), *arguments]  # a kill here would leave a lock behind
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.rstrip("\n")
