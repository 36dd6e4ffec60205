"""A model that needs no weights: it writes in capitals what it has read. With the runs that tests make of it."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from streamllm.engine.loop import translate
from streamllm.engine.positions import Positions
from streamllm.evaluation.runner import Translate, complete
from streamllm.policies import WaitK
from streamllm.records import Emission, Example, Trace
from streamllm.runs.folder import RunFolder
from streamllm.tracking.tracker import NullTracker

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
EXAMPLES = [Example(str(n), " ".join(WORDS[: 3 + n]), " ".join(WORDS[: 3 + n]).upper()) for n in range(6)]
CONFIG = {"policy": {"k": 2}, "seed": 0}


class Shouting:
    """A session that writes in capitals what it has read, word for word."""

    forward_passes = source_tokens = fed_tokens = target_tokens = 0

    def __init__(self) -> None:
        self._read: list[str] = []
        self._written = 0
        self.notes: dict[str, Any] = {}

    def read(self, unit: str) -> None:
        self._read.append(unit)

    def end_source(self) -> None:
        pass

    def write(self) -> Emission:
        if self._written == len(self._read):
            return Emission(None)
        self._written += 1
        return Emission(self._read[self._written - 1].upper())


class ShoutingModel:
    """A model configuration whose model shouts; says whether it was loaded. With $STOP_AFTER, its process
    interrupts itself after so many sentences, or sends itself $STOP_BY."""

    loaded = False
    opened = 0
    positions = Positions("rotary", None)
    living_on = None

    def load(self, prompt: Any, source_unit: str, target_unit: str, paradigm: Any = None) -> Any:
        self.loaded = True
        self.prompt = SimpleNamespace(source_unit=source_unit, target_unit=target_unit)
        return self

    def session(self, seed: int, name: str) -> Shouting:
        if str(self.opened) == os.environ.get("STOP_AFTER"):
            os.kill(os.getpid(), getattr(signal, os.environ.get("STOP_BY", "SIGINT")))
        self.opened += 1
        return Shouting()


class Sentences:
    """A data set of given examples."""

    name, source_language, target_language, source_unit, target_unit = "sentences", "en", "en", "word", "word"

    def __init__(self, examples: Sequence[Example] = EXAMPLES):
        self._examples = list(examples)

    def load(self) -> list[Example]:
        return self._examples


def shout(examples: Sequence[Example]) -> Iterator[Trace]:
    for example in examples:
        yield translate(Shouting(), example, WaitK(2))


def make_shout() -> Translate:
    return shout


def never() -> Translate:
    raise AssertionError("the model was loaded")


def run(folder: Path, make: Callable[[], Translate] = make_shout, **options: Any) -> dict[str, Any]:
    examples = options.pop("examples", EXAMPLES)
    return complete(RunFolder(folder), examples, make, config=CONFIG, target_language="en", **options)


class Recorder(NullTracker):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.told: dict[str, Any] = {}

    def start(self, run: Any) -> None:
        self.told["id"] = run.id

    def log(self, values: Any, step: int) -> None:
        self.steps.append(step)
        self.told["running"] = values

    def table(self, name: str, columns: Any, rows: Any) -> None:
        self.told[name] = [dict(zip(columns, row, strict=True)) for row in rows]

    def summary(self, values: Any) -> None:
        self.told["summary"] = values

    def finish(self, exit_code: int = 0) -> None:
        self.told["exit_code"] = exit_code
