"""The files that hold documents, read one document at a time: its name, and its sentences as they stand, empty sides
included. Invariant: a document comes once, with all of its sentences, and has at least one."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from streamllm.checked import parse_yaml
from streamllm.data.lines import MAX_BYTES, FilePath, listed, paired_lines, read_text, stream_lines

WANTED = '{"id": …, "sentences": [{"source": …, "reference": …}, …]}'
SEGMENT = "{duration: …, offset: …, speaker_id: …, wav: …}"


@dataclass(frozen=True)
class Sentence:
    """One sentence of a file, and where its source and its reference stand."""

    source: str
    reference: str
    places: tuple[str, str]

    @property
    def pair(self) -> tuple[str, str]:
        return self.source, self.reference


Read = tuple[str, list[Sentence]]


def by_blank_lines(source: FilePath, target: FilePath, name: str, max_bytes: int | None = MAX_BYTES) -> Iterator[Read]:
    """Documents of two text files, ``<name>_1`` and so on: a line that is blank in both files ends one.

    Raises:
        ValueError: the files differ in length, or a document between two such lines has no sentence.
    """
    number, sentences, blank = 1, list[Sentence](), 0
    for line, sentence in enumerate(_lines(source, target, max_bytes), start=1):
        if any(sentence.pair):
            if blank:
                raise ValueError(
                    f"line {blank} of {source} and of {target} ends a document that has no sentences: documents are "
                    "divided by one line that is blank in both files, and none stands before the first"
                )
            sentences.append(sentence)
        elif sentences:
            yield f"{name}_{number}", sentences
            number, sentences = number + 1, []
        else:
            blank = blank or line  # harmless at the end of the files
    if sentences:
        yield f"{name}_{number}", sentences


def by_id(source: FilePath, target: FilePath, ids: FilePath, max_bytes: int | None = MAX_BYTES) -> Iterator[Read]:
    """Documents of two text files, by a third that has the id of each line's document.

    Raises:
        ValueError: the files differ in length, a line has no id, or an id comes back after another one.
    """
    return _runs(_lines(source, target, max_bytes), source, ids, _ids(ids, max_bytes), "line")


def by_recording(
    source: FilePath, target: FilePath, segments: FilePath, max_bytes: int | None = MAX_BYTES
) -> Iterator[Read]:
    """Documents of two text files, by the recordings (``wav``) of their segments, as MuST-C and IWSLT have them:
    a list of ``{duration: …, offset: …, speaker_id: …, wav: …}``. Times only have to be in order.

    Raises:
        ValueError: the YAML is something else, has not one segment for each line, or a recording comes back.
    """
    return _runs(_lines(source, target, max_bytes), source, segments, _recordings(segments, max_bytes), "segment")


def from_json_lines(
    path: FilePath, languages: tuple[str, str], name: str, max_bytes: int | None = MAX_BYTES
) -> Iterator[Read]:
    """Documents of a file of JSON Lines, one a line: ``{"id": …, "sentences": [{"source": …, "reference": …}, …]}``.

    The codes of the ``languages`` may stand for "source" and "reference". Without "id", a document is called after its
    line, ``<name>_<line>``.

    Raises:
        ValueError: a line is something else, or has no sentences.
    """
    for line, text in enumerate(stream_lines(path, max_bytes=max_bytes), start=1):
        if not text.strip():
            continue
        place = f"line {line} of {path}"
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{place} is not JSON ({error}); a line is one document: {WANTED}") from error
        rows = row.get("sentences") if isinstance(row, dict) else None
        if not isinstance(rows, list) or not all(isinstance(one, dict) for one in rows):
            has = f"has the keys {listed(list(row))}" if isinstance(row, dict) else f"is a {type(row).__name__}"
            raise ValueError(f"{place} {has} and no list of sentences; a line is one document: {WANTED}")
        if not rows:
            raise ValueError(f"{place} is a document without sentences: take it out, or give it some")
        id = row.get("id", f"{name}_{line}")
        if not isinstance(id, str | int) or isinstance(id, bool):
            raise ValueError(f"{place} has the id {id!r}; text or a whole number is accepted")
        sentences = []
        for number, one in enumerate(rows, start=1):
            where = f"sentence {number} in {place}"
            both = [_text(one, keys, where) for keys in zip(("source", "reference"), languages, strict=True)]
            sentences.append(Sentence(both[0], both[1], (where, where)))
        yield str(id), sentences


def _text(sentence: dict[str, Any], keys: tuple[str, str], place: str) -> str:
    key = next((key for key in keys if key in sentence), None)
    if key is None:
        raise ValueError(f"{place} has the keys {listed(list(sentence))}; {keys[0]!r} (or {keys[1]!r}) is needed")
    value = sentence[key]
    if not isinstance(value, str | None):
        raise ValueError(f"{place} has {key!r} as {type(value).__name__}; text is needed")
    return (value or "").strip()


def _lines(source: FilePath, target: FilePath, max_bytes: int | None) -> Iterator[Sentence]:
    for line, (one, other) in enumerate(paired_lines(source, target, max_bytes, ", blank lines included"), start=1):
        yield Sentence(one, other, (f"line {line} of {source}", f"line {line} of {target}"))


def _runs(
    sentences: Iterable[Sentence], source: FilePath, beside: FilePath, rows: Iterable[tuple[str, str]], what: str
) -> Iterator[Read]:
    """Sentences of ``source`` that stand together under one name. ``rows`` are the names and their places, for errors,
    which ``beside`` has."""
    ended: dict[str, str] = {}  # the place of a name's last row
    name = place = ""
    run: list[Sentence] = []
    for number, (sentence, row) in enumerate(zip_longest(sentences, rows), start=1):
        if sentence is None or row is None:
            short, long = (source, beside) if sentence is None else (beside, source)
            raise ValueError(
                f"{short} ends before {what} {number} and {long} goes on: {beside} needs one {what} for each line of "
                f"{source}"
            )
        if row[0] != name:
            if run:
                yield name, run
                ended[name], run = place, []
            name = row[0]
            if name in ended:
                raise ValueError(
                    f"{row[1]} comes back to document {name!r}, which ended with {ended[name]}: the sentences of a "
                    "document must stand together, in their order"
                )
        place = row[1]
        run.append(sentence)
    if run:
        yield name, run


def _ids(path: FilePath, max_bytes: int | None) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(stream_lines(path, max_bytes=max_bytes), start=1):
        place = f"line {number} of {path}"
        if not (id := line.strip()):
            raise ValueError(f"{place} is blank: it must be the id of the document that the line belongs to")
        yield id, place


def _recordings(path: FilePath, max_bytes: int | None) -> Iterator[tuple[str, str]]:
    text = read_text(path, max_bytes)
    try:
        loaded = parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(loaded, list):
        raise ValueError(f"{path} is a {type(loaded).__name__}; a list of segments is needed, each {SEGMENT}")
    before: tuple[Any, float] | None = None
    for number, segment in enumerate(loaded, start=1):
        place = f"segment {number} of {path}"
        wav = segment.get("wav") if isinstance(segment, dict) else None
        if not isinstance(wav, str) or not wav.strip():
            has = f"has the keys {listed(list(segment))}" if isinstance(segment, dict) else f"is {segment!r}"
            raise ValueError(f"{place} {has}, and no name of a recording: {SEGMENT} is needed")
        offset = segment.get("offset")
        if isinstance(offset, int | float):
            if before is not None and before[0] == wav and offset < before[1]:
                raise ValueError(
                    f"{place} begins at {offset} s, before the one above it ({before[1]} s): the segments of a "
                    "recording must be in order, and the lines of text with them"
                )
            before = wav, offset
        yield wav.strip(), place
