"""Chat templates rendered within bounds. A template is a program that came with a model: a sandbox keeps it from files
and functions, and a process of its own from more time, memory and text than `Bounds` says."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PROCESS = Path(__file__).with_name("template_process.py")
WAIT = 60
"""Seconds on the wall after which a rendering is given up, beyond those that it may compute: machines are busy."""


class TemplateError(ValueError):
    """A chat template cannot be rendered; the message says why."""


@dataclass(frozen=True)
class Bounds:
    """What rendering a chat template may take: seconds of computing, bytes of memory, characters written."""

    seconds: float = 10.0
    memory: int = 1 << 30
    length: int = 200_000


def render(
    template: str, variables: Sequence[Mapping[str, Any]], bounds: Bounds = Bounds()
) -> tuple[str | TemplateError, ...]:
    """The texts of a chat template, as transformers renders it: for each of the variables one, or what it raises there.

    Args:
        variables: what the template sees, in values that JSON has.

    Raises:
        TemplateError: the template takes more than ``bounds``, in all.
    """
    return _render(template, json.dumps([*map(dict, variables)], default=str), bounds)


@lru_cache(maxsize=64)  # headers are asked for again whenever a model is loaded
def _render(template: str, variables: str, bounds: Bounds) -> tuple[str | TemplateError, ...]:
    task = {"template": template, "variables": json.loads(variables), "path": _places(), **asdict(bounds)}
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(PROCESS)],
            input=json.dumps(task).encode(),
            capture_output=True,
            timeout=bounds.seconds + WAIT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TemplateError(f"it takes more than {error.timeout:g} seconds") from error
    except OSError as error:
        raise TemplateError(f"no process can be started for it ({error.strerror})") from error
    if done.returncode == -signal.SIGPROF:
        raise TemplateError(f"it takes more than {bounds.seconds:g} seconds of computing")
    try:
        answers: list[dict[str, str]] = json.loads(done.stdout)
    except ValueError as error:
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise TemplateError(f"its process ended with {last or done.returncode}") from error
    return tuple(
        answer["text"] if "text" in answer else TemplateError(" ".join(answer["error"].split())) for answer in answers
    )


def _places() -> Sequence[str]:
    """The folders of the packages that render; the process knows none."""
    found = []
    for name in ("jinja2", "markupsafe"):
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise TemplateError(f"the package {name} is not there: pip install {name}")
        found.append(str(Path(spec.origin).parents[1]))
    return found
