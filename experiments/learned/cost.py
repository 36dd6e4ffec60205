"""CPU time and forwards per target token of a few lines, one sentence at a time:

    python -m experiments.learned.cost FILE TURNS [dataset…] --line NAME [override…] --line …

The lines take turns, after a round that does not count (unless there is only one turn). What is written to FILE is, for
each, the median over the turns, with the smallest and the largest. A FILE of the same words is left as it is.
"""

import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

import streamllm  # noqa: F401  (loads the BLAS before mlx)
from experiments.study import ROOT
from streamllm.batching.scheduler import translate_many
from streamllm.files import write_atomically
from streamllm.policies.bounded import bounded


def parts(words: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """What stands before the first ``--line``, and each line by its name."""
    shared: list[str] = []
    lines: dict[str, list[str]] = {}
    rest, now = iter(words), shared
    for word in rest:
        if word == "--line":
            now = lines.setdefault(next(rest), [])
        else:
            now.append(word)
    return shared, lines


def measured(file: Path, arguments: Sequence[str]) -> bool:
    """Whether a file holds what these words ask for."""
    return file.exists() and json.loads(file.read_text(encoding="utf-8"))["of"] == list(arguments)


class Timed:
    """A line that can be translated again and again; ``models`` keeps those that are loaded."""

    def __init__(self, overrides: Sequence[str], models: dict[str, Any]) -> None:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            cfg = compose("run", [*overrides, "tracker=none"])
        made = {
            key: instantiate(cfg[key], _convert_="all") for key in ("model", "prompt", "dataset", "policy", "limits")
        }
        self.policy = bounded(made["policy"], cfg.min_lag, cfg.max_lag)
        self.limits = made["limits"]
        self.examples = made["dataset"].load()
        key = str((cfg.model, cfg.prompt))
        if key not in models:
            models[key] = made["model"].load(made["prompt"], made["dataset"].source_unit, made["dataset"].target_unit)
        self.model = models[key]
        self.milliseconds: list[float] = []
        self.forwards = 0.0

    def turn(self, counted: bool) -> None:
        start = time.process_time()
        traces = list(translate_many(self.model, self.examples, self.policy, self.limits, batch_size=1))
        spent = time.process_time() - start
        tokens = sum(trace.stats["target_tokens"] for trace in traces)
        self.forwards = sum(trace.stats["forward_passes"] for trace in traces) / tokens
        if counted:
            self.milliseconds.append(1000 * spent / tokens)


def main(arguments: Sequence[str]) -> None:
    file, turns, *words = arguments
    if measured(Path(file), arguments):
        print(f"{file} has these times already: remove it to take them anew")
        return
    shared, lines = parts(words)
    models: dict[str, Any] = {}
    timed = {name: Timed([*line, *shared], models) for name, line in lines.items()}
    rounds = [True] * int(turns)
    for counted in rounds if len(rounds) == 1 else [False, *rounds]:
        for one in timed.values():
            one.turn(counted)
    rows = [
        {
            "line": name,
            "cpu_ms": statistics.median(one.milliseconds),
            "low": min(one.milliseconds),
            "high": max(one.milliseconds),
            "forwards": one.forwards,
            "sentences": len(one.examples),
            "turns": len(one.milliseconds),
        }
        for name, one in timed.items()
    ]
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(Path(file), json.dumps({"of": list(arguments), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
