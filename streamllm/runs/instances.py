"""SimulEval's ``instances.log`` read as traces, to be scored like runs of ours."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamllm.files import RunError, open_to_read, read_text
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
    rows = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        try:
            row = json.loads(line)
            rows.append((int(row["index"]), _trace(row, unit)))
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(f"{file}, line {number} is not a line of SimulEval's ({error!r:.100})") from error
    if not rows:
        raise RunError(f"{file} is empty: nothing was translated")
    return [trace for _, trace in sorted(rows, key=lambda row: row[0])]


def is_speech(path: str | os.PathLike[str]) -> bool:
    """Whether the source of an ``instances.log`` is sound: SimulEval then writes a list of facts about it, not text."""
    file = Path(path) / INSTANCES if Path(path).is_dir() else Path(path)
    with open_to_read(file) as lines:
        return not isinstance(json.loads(next(lines)).get("source"), str)


def _trace(row: Mapping[str, Any], unit: Unit) -> Trace:
    source, prediction = row["source"], row["prediction"]
    return Trace(
        id=str(row["index"]),
        source=source if isinstance(source, str) else " ".join(map(str, source)),
        reference=row["reference"],
        units=tuple(split(prediction, unit)),
        delays=tuple(row["delays"]),
        elapsed=tuple(value / 1000 for value in row.get("elapsed", [0] * len(row["delays"]))),
        events=(),
        source_units=row["source_length"],
        prediction=prediction,
    )
