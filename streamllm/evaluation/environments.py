"""Environments of their own for programs whose packages do not go with ours: made once, in the user's cache folder.

Invariant: an environment that was left half made is made anew, and one is never changed afterwards."""

import hashlib
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

log = logging.getLogger(__name__)

PROGRAMS = Path(__file__).parent / "programs"
READY = "streamllm-ready"
VERSIONS = ("3.12", "3.11")
"""Of Python, the best first: those for which all that is pinned has wheels."""


def cache_folder() -> Path:
    """Where streamllm keeps what can be made anew: ``STREAMLLM_CACHE``, else a folder of the user's."""
    if chosen := os.environ.get("STREAMLLM_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "streamllm"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamllm"


def python_of(name: str, package: str) -> Path:
    """The Python of the environment of a program, which is made if it is not there.

    Args:
        name: of the program; ``programs/<name>.txt`` pins its packages.
        package: the one of them that says whether an environment that somebody made by hand is whole: "foo==1.2".

    Raises: ValueError: it cannot be made, with the commands that would make it.
    """
    pins = PROGRAMS / f"{name}.txt"
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()[:8]
    folder = cache_folder() / "environments" / f"{name}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    with FileLock(f"{folder}.lock"):
        if not (folder / READY).exists() and not _has(folder, package):
            _make(folder, python, pins, name)
            (folder / READY).touch()
    return python


def _has(folder: Path, package: str) -> bool:
    distribution = package.replace("-", "_").replace("==", "-")
    return any(folder.glob(f"lib/python*/site-packages/{distribution}.dist-info"))


def _make(folder: Path, python: Path, pins: Path, name: str) -> None:
    base = _interpreter()
    log.info("making an environment for %s, once: %s (some gigabytes, some minutes)", name, folder)
    shutil.rmtree(folder, ignore_errors=True)
    commands = [
        [base, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--disable-pip-version-check", "-r", str(pins)],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, env=own_environment(), check=False)
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            by_hand = "\n".join(f"  {' '.join(command)}" for command in commands)
            raise ValueError(
                f"{name} needs an environment of its own, which cannot be made ({last_line(done.stderr)}). Is this "
                "machine offline? Where there is a network, these two commands make it, and then the same command goes "
                f"on:\n"
                f"{by_hand}"
            )


def _interpreter() -> str:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here in VERSIONS:
        return sys.executable
    for version in VERSIONS:
        if found := shutil.which(f"python{version}"):
            return found
    raise ValueError(
        f"this is Python {here}, for which not all packages have wheels: install one of {', '.join(VERSIONS)} beside "
        "it, such as python3.12 on the PATH"
    )


def own_environment() -> dict[str, str]:
    """The variables of this process, without those that would lead a program to packages of ours."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONWARNINGS")
    return {key: value for key, value in os.environ.items() if key not in ours} | {"PYTHONNOUSERSITE": "1"}


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it says nothing")[:300]
