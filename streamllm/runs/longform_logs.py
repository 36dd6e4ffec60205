"""Runs over documents as logs of OmniSTEval 0.1.10 and simulstream 1.0.0, in the form that each reads back rightly, and
such logs read as documents.

Invariant: one source unit of text is one second in a log. As a millisecond, i / 1000 * 1000 would not be i from 1,001
on, and delays stand exactly on the ends that they are compared with.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from streamllm.checked import parse, parse_yaml
from streamllm.files import RunError, read_bytes, read_text, write_atomically
from streamllm.metrics.longform import Document, one_line
from streamllm.metrics.moses import moses_language
from streamllm.metrics.quality import tokenizer
from streamllm.records import Segment, Trace
from streamllm.units import Unit, check_unit, join, split

OMNISTEVAL_LOG, SIMULSTREAM_LOG = "omnisteval.jsonl", "simulstream.jsonl"
SEGMENTS, REFERENCES, SOURCES = "segments.yaml", "references.txt", "sources.txt"
SIMULSTREAM_CONFIG = "simulstream.yaml"

_TOOLS_UNIT = {"word": "word", "character": "char"}


@dataclass(frozen=True)
class Scale:
    """How the times of a log are measured.

    Args:
        seconds_per_unit: how long a source unit lasts in the log: 1 for words and characters, 0.001 where source units
            are milliseconds.
        units_per_second: how many source units arrive in a second of `Document.elapsed`: the rate of its clock. 1
            leaves times on the clock of the log.
    """

    seconds_per_unit: float = 1
    units_per_second: float = 1

    def seconds(self, units: float) -> float:
        return units * self.seconds_per_unit

    def milliseconds(self, units: float) -> float:
        return units if self.seconds_per_unit == 0.001 else units * self.seconds_per_unit * 1000

    def units(self, seconds: float) -> float:
        return _whole(seconds / self.seconds_per_unit)

    def of_milliseconds(self, milliseconds: float) -> float:
        return _whole(milliseconds if self.seconds_per_unit == 0.001 else milliseconds / 1000 / self.seconds_per_unit)


TEXT = Scale()


# --- writing


def write_omnisteval(
    folder: str | os.PathLike[str], documents: Sequence[Document], unit: Unit, scale: Scale = TEXT
) -> None:
    """Write `OMNISTEVAL_LOG`, `SEGMENTS`, `REFERENCES` and `SOURCES` into a folder (`omnisteval_command` scores them).

    One JSON line a document: ``source`` (a name without dots, by which the tool finds the segments), ``id``,
    ``prediction`` (characters without spaces), ``delays`` and, where all documents have times, ``elapsed`` (both in
    milliseconds, one for each unit), ``source_length``.

    Raises: ValueError: no documents, or an unknown unit.
    """
    names = _write_references(Path(folder), documents, unit, scale)
    timed = all(one.elapsed is not None for one in documents)
    rows = []
    for name, one in zip(names, documents, strict=True):
        row: dict[str, Any] = {"source": [name], "id": one.id, "prediction": join(one.units, unit)}
        row["delays"] = [scale.milliseconds(delay) for delay in one.delays]
        if timed:
            row["elapsed"] = [scale.milliseconds(time * scale.units_per_second) for time in one.elapsed or ()]
        rows.append(row | {"source_length": scale.milliseconds(one.end)})
    _write_lines(Path(folder) / OMNISTEVAL_LOG, map(_json, rows))


def omnisteval_command(
    folder: str | os.PathLike[str], target_language: str, unit: Unit, bleu_tokenizer: str | None = None
) -> list[str]:
    """The command that scores what `write_omnisteval` wrote as `longform` does."""
    check_unit(unit)
    files = {"speech_segmentation": SEGMENTS, "ref_sentences_file": REFERENCES, "hypothesis_file": OMNISTEVAL_LOG}
    paths = [part for name, file in files.items() for part in (f"--{name}", str(Path(folder) / file))]
    choices = [
        "--lang",
        moses_language(target_language),
        "--bleu_tokenizer",
        bleu_tokenizer or tokenizer(target_language),
    ]
    return ["omnisteval", "longform", *paths, f"--{_TOOLS_UNIT[unit]}_level", *choices]


def write_simulstream(
    folder: str | os.PathLike[str], documents: Sequence[Document], unit: Unit, scale: Scale = TEXT
) -> None:
    """Write `SIMULSTREAM_LOG`, `SIMULSTREAM_CONFIG`, `SEGMENTS`, `REFERENCES` and `SOURCES` into a folder.

    A line for each moment at which units were written, and one for the end of the source, which a document without
    output needs. ``computation_time`` is what the units came later than their source, because that is what simulstream
    adds to it; 0 without times. Units stand in their final form at the time when they were whole.

    Raises: ValueError: no documents, or an unknown unit.
    """
    names = _write_references(Path(folder), documents, unit, scale)
    rows: list[Mapping[str, Any]] = []
    for number, (name, one) in enumerate(zip(names, documents, strict=True)):
        rows.append({"id": number, "metadata": {"wav_name": name, "id": one.id}})
        seconds = [scale.seconds(delay) for delay in one.delays]
        aware = [scale.seconds(time * scale.units_per_second) for time in one.elapsed or ()] or seconds
        moments = [(there, time - there) for there, time in zip(seconds, aware, strict=True)]
        for (there, computed), units in groupby(zip(moments, one.units, strict=True), key=lambda pair: pair[0]):
            rows.append(_moment(number, there, computed, [unit for _, unit in units]))
        rows.append(_moment(number, scale.seconds(one.end), 0, []))
    _write_lines(Path(folder) / SIMULSTREAM_LOG, map(_json, rows))
    config = f"detokenizer_type: simuleval\nlatency_unit: {_TOOLS_UNIT[unit]}\n"
    write_atomically(Path(folder) / SIMULSTREAM_CONFIG, config)


def _moment(number: int, there: float, computed: float, units: Sequence[str]) -> dict[str, Any]:
    return {
        "id": number,
        "total_audio_processed": there,
        "computation_time": computed,
        "generated_tokens": list(units),
        "deleted_tokens": [],
    }


def _write_references(folder: Path, documents: Sequence[Document], unit: Unit, scale: Scale) -> list[str]:
    """The files that both tools read; returns the names of the documents."""
    check_unit(unit)
    if not documents:
        raise ValueError("0 documents; a log needs at least one")
    folder.mkdir(parents=True, exist_ok=True)
    names = _names([one.id for one in documents])
    segments = [(name, segment) for name, one in zip(names, documents, strict=True) for segment in one.segments]
    rows = (
        {"wav": name, "offset": scale.seconds(at.start), "duration": scale.seconds(at.units)} for name, at in segments
    )
    _write_lines(folder / SEGMENTS, (f"- {_json(row)}" for row in rows))
    _write_lines(folder / REFERENCES, (one_line(segment.reference) for _, segment in segments))
    _write_lines(folder / SOURCES, (one_line(segment.source) for _, segment in segments))
    return names


def _names(ids: Iterable[str]) -> list[str]:
    """Names of files without ends: both tools take what stands before the last dot, and what follows the last slash."""
    names: dict[str, None] = {}
    for identity in ids:
        name = plain = re.sub(r"[^A-Za-z0-9_-]", "_", identity) or "_"
        number = 2
        while name in names:
            name, number = f"{plain}-{number}", number + 1
        names[name] = None
    return list(names)


def _json(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    write_atomically(path, "".join(f"{line}\n" for line in lines))


# --- reading


def read_omnisteval(folder: str | os.PathLike[str], unit: Unit, scale: Scale = TEXT) -> list[Document]:
    """The documents of a log in OmniSTEval's form, in the order of their segments.

    Args:
        folder: has `OMNISTEVAL_LOG`, `SEGMENTS`, `REFERENCES` and, where sources are known, `SOURCES`.

    Returns: a document is called as its row's ``id`` says, else by its name.
    Raises: FileNotFoundError: a file is missing. RunError: a line is not as it should be, or files do not fit.
    """
    path = Path(folder) / OMNISTEVAL_LOG
    rows: dict[str, Mapping[str, Any]] = {}
    for number, row in _json_lines(path):
        with_source = row.get("source")
        name = with_source[0] if isinstance(with_source, list) and with_source else with_source
        if not isinstance(name, str) or not isinstance(row.get("prediction"), str):
            raise RunError(f"{path}, line {number} has no source or no prediction: give a log of OmniSTEval's form")
        if _stem(name) in rows:
            raise RunError(f"{path}, line {number} is a second one for {name!r}; give one line a document")
        rows[_stem(name)] = row

    def read(name: str, row: Mapping[str, Any], segments: Sequence[Segment]) -> Document:
        delays = [scale.of_milliseconds(delay) for delay in row.get("delays", ())]
        times = row.get("elapsed")
        elapsed = None if times is None else [scale.of_milliseconds(time) / scale.units_per_second for time in times]
        return Document(row.get("id", name), split(row["prediction"], unit), delays, segments, elapsed)

    return _documents(Path(folder), path, rows, read, scale)


def read_simulstream(folder: str | os.PathLike[str], unit: Unit, scale: Scale = TEXT) -> list[Document]:
    """The documents of a log in simulstream's form, in the order of their segments; tokens that were deleted are gone.

    Args:
        folder: has `SIMULSTREAM_LOG`, `SEGMENTS`, `REFERENCES` and, where sources are known, `SOURCES`. Tokens must be
            words or characters (``detokenizer_type: simuleval``).

    Returns, raises: as `read_omnisteval`.
    """
    path = Path(folder) / SIMULSTREAM_LOG
    rows: dict[str, dict[str, Any]] = {}
    names: dict[Any, str] = {}
    for number, row in _json_lines(path):
        try:
            if "metadata" in row:
                names[row["id"]] = _stem(row["metadata"]["wav_name"])
                rows.setdefault(names[row["id"]], {"tokens": [], **row["metadata"]})
            elif "id" in row:
                _take(rows[names[row["id"]]]["tokens"], row)
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path}, line {number} is not a line of simulstream's ({error!r:.100})") from error

    def read(name: str, row: Mapping[str, Any], segments: Sequence[Segment]) -> Document:
        units = [(part, there, time) for token, there, time in row["tokens"] for part in split(token, unit)]
        delays = [scale.units(there) for _, there, _ in units]
        elapsed = [scale.units(time) / scale.units_per_second for _, _, time in units]
        timed = any(time != there for _, there, time in units)
        return Document(
            row.get("id", name), [part for part, _, _ in units], delays, segments, elapsed if timed else None
        )

    return _documents(Path(folder), path, rows, read, scale)


def trace(document: Document, unit: Unit) -> Trace:
    """A document as a trace, for figures and pages: without events, its times being those of the log (zero without)."""
    return Trace(
        id=document.id,
        source=" ".join(filter(None, (segment.source for segment in document.segments))),
        reference=" ".join(filter(None, (segment.reference for segment in document.segments))),
        units=tuple(document.units),
        delays=tuple(int(delay) if delay == int(delay) else delay for delay in document.delays),  # type: ignore[misc]
        elapsed=tuple(document.elapsed if document.elapsed is not None else [0.0] * len(document.units)),
        events=(),
        source_units=int(document.end),
        prediction=join(document.units, unit),
        segments=tuple(document.segments),
    )


def _take(tokens: list[tuple[str, float, float]], row: Mapping[str, Any]) -> None:
    """One line of simulstream's on top of the tokens before it, each with its time without and with compute."""
    there = row["total_audio_processed"]
    deleted = row["deleted_tokens"]
    if deleted:
        if [token for token, _, _ in tokens[-len(deleted) :]] != deleted:
            raise ValueError(f"deletes {deleted}, which are not the last tokens")
        del tokens[-len(deleted) :]
    tokens += [(token, there, there + row["computation_time"]) for token in row["generated_tokens"]]


def _documents(
    folder: Path,
    log: Path,
    rows: Mapping[str, Mapping[str, Any]],
    read: Callable[[str, Mapping[str, Any], Sequence[Segment]], Document],
    scale: Scale,
) -> list[Document]:
    segments = _read_segments(folder, scale)
    if rows.keys() != segments.keys():
        odd = sorted(rows.keys() ^ segments.keys())
        raise RunError(
            f"{log} and {folder / SEGMENTS} do not name the same recordings: only one of them has {', '.join(odd[:5])}"
        )
    documents = []
    for name, of_document in segments.items():
        try:
            documents.append(read(name, rows[name], of_document))
        except (ValueError, TypeError) as error:
            raise RunError(f"{log}: {error}") from error
    return documents


def _read_segments(folder: Path, scale: Scale) -> dict[str, list[Segment]]:
    path = folder / SEGMENTS
    try:
        rows = parse_yaml(read_bytes(_existing(path)))
    except ValueError as error:
        raise RunError(f"{path} is no list of segments ({error})") from error
    references = _lines(folder / REFERENCES)
    sources = _lines(folder / SOURCES) if (folder / SOURCES).exists() else [""] * len(references)
    if not isinstance(rows, list) or not len(rows) == len(references) == len(sources):
        counts = f"{len(rows) if isinstance(rows, list) else 'no'} segments, {len(references)} references"
        raise RunError(f"{folder} has {counts} and {len(sources)} sources; give one of each for each sentence")
    found: dict[str, list[Segment]] = {}
    for row, reference, source in zip(rows, references, sources, strict=True):
        try:
            name, start, length = _stem(row["wav"]), scale.units(row["offset"]), scale.units(row["duration"])
        except (KeyError, TypeError) as error:
            raise RunError(f"{path}: {row!r:.80} has no wav, offset or duration ({error!r:.60})") from error
        found.setdefault(name, []).append(Segment(start, length, source, reference))  # type: ignore[arg-type]
    return found


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: a log of documents needs it")
    return path


def _lines(path: Path) -> list[str]:
    lines = read_text(_existing(path)).split("\n")
    return [line.strip() for line in (lines if lines[-1] else lines[:-1])]


def _json_lines(path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(read_bytes(_existing(path)).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = parse(line)
        except ValueError as error:
            raise RunError(f"{path}, line {number} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise RunError(f"{path}, line {number} is not a JSON object")
        yield number, row


def _stem(name: str) -> str:
    return Path(name).stem


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value
