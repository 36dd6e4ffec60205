"""SimulEval's ``instances.log`` read as traces, to be scored like runs of ours."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamllm.checked import fit, parse
from streamllm.files import RunError, read_bytes
from streamllm.records import Trace
from streamllm.runs.folder import INSTANCES
from streamllm.units import Unit, split


def read_instances(path: str | os.PathLike[str], unit: Unit) -> list[Trace]:
    """The traces of an ``instances.log``, or of the one in a folder, in the order of their indices.

    Delays and the length of the source are in what the log has: units for text, milliseconds for speech. There are no
    events. Times are zero where the log has no ``elapsed``, as ours.

    Args:
        unit: of the target.

    Raises: FileNotFoundError: there is no such file. RunError: a line is not SimulEval's.
    """
    file = Path(path) / INSTANCES if Path(path).is_dir() else Path(path)
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist: give run folders, or {INSTANCES} of SimulEval")
    rows = _rows(file)
    if not rows:
        raise RunError(f"{file} is empty: nothing was translated")
    return [_trace(row, unit) for row in sorted(rows, key=lambda row: row.index)]


def is_speech(path: str | os.PathLike[str]) -> bool:
    """Whether the source of an ``instances.log`` is sound: SimulEval then writes a list of facts about it, not text."""
    file = Path(path) / INSTANCES if Path(path).is_dir() else Path(path)
    rows = _rows(file)
    return bool(rows) and not isinstance(rows[0].source, str)


@dataclass(frozen=True)
class _Instance:
    """What is read of a line of SimulEval's.

    Raises: ValueError: its numbers do not fit each other.
    """

    index: int
    prediction: str
    reference: str
    source: str | list[Any]
    source_length: int | float
    delays: tuple[int | float, ...]
    elapsed: tuple[int | float, ...] | None = None

    def __post_init__(self) -> None:
        times = (*self.delays, *(self.elapsed or ()), self.source_length)
        if not all(0 <= value < math.inf for value in times):
            raise ValueError("delays, elapsed and source_length are finite numbers, at least 0")
        if self.elapsed is not None and len(self.elapsed) != len(self.delays):
            raise ValueError(f"it has {len(self.delays)} delays and {len(self.elapsed)} times in elapsed")


def _rows(file: Path) -> list[_Instance]:
    found = []
    for number, line in enumerate(read_bytes(file).splitlines(), start=1):  # whether or not the last one ends
        try:
            found.append(fit(parse(line), _Instance))
        except ValueError as error:
            raise RunError(f"{file}, line {number} is not a line of SimulEval's ({error})") from error
    return found


def _trace(row: _Instance, unit: Unit) -> Trace:
    return Trace(
        id=str(row.index),
        source=row.source if isinstance(row.source, str) else " ".join(map(str, row.source)),
        reference=row.reference,
        units=tuple(split(row.prediction, unit)),
        delays=row.delays,  # type: ignore[arg-type]  # milliseconds for speech
        elapsed=tuple(value / 1000 for value in row.elapsed or [0] * len(row.delays)),
        events=(),
        source_units=row.source_length,  # type: ignore[arg-type]
        prediction=row.prediction,
    )
