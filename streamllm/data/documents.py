"""Documents from files: parallel text with blank lines, ids or timed segments beside it, or JSON Lines.

Invariant: no sentence of a document is without source or reference."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamllm.data.dataset import Dataset
from streamllm.data.document_files import Sentence, by_blank_lines, by_id, by_recording, from_json_lines
from streamllm.data.joined import document, document_id
from streamllm.data.lines import FilePath, existing_file, listed, stem
from streamllm.data.text import language_of
from streamllm.records import Example
from streamllm.units import join_texts

log = logging.getLogger(__name__)

NEAR = 3
"""Lines between two that may be one boundary, shifted."""


@dataclass(frozen=True, kw_only=True)
class DocumentDataset(Dataset):
    """Documents of sentences, each an example with its sentences as ``segments``. ``limit`` and ``shuffle`` count
    documents. All files may be .gz.

    Two text files, line by line, in which a line that is blank in both ends a document; or with ``documents`` or
    ``segments`` beside them, where no line ends one; or one file of JSON Lines (``path``).

    Args:
        source: the file of the source language, one sentence a line.
        target: the file of the target language.
        documents: a file with the id of each line's document.
        segments: a YAML file of segments as MuST-C and IWSLT have it; ``wav`` names each line's document.
        path: a file of JSON Lines, one document a line: ``{"id": …, "sentences": [{"source": …, "reference": …}, …]}``.
        skip_empty: leave out sentences without source or reference.
        merge_empty: join sentences without source or reference with the sentence before them, at the beginning of a
            document with the one after them.
    """

    source: FilePath | None = None
    target: FilePath | None = None
    documents: FilePath | None = None
    segments: FilePath | None = None
    path: FilePath | None = None
    merge_empty: bool = False
    source_language: str = None  # type: ignore[assignment]
    target_language: str = None  # type: ignore[assignment]
    name: str = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self._check_files()
        if type(self.merge_empty) is not bool or (self.merge_empty and self.skip_empty):
            raise ValueError(
                f"dataset.merge_empty is {self.merge_empty!r} and dataset.skip_empty {self.skip_empty!r}; true and "
                "false are accepted, and true for one of them only"
            )
        for side in ("source", "target"):
            if getattr(self, f"{side}_language") is None:
                if self.path:
                    raise ValueError(
                        f"the {side} language of {self.path} is not known: add dataset.{side}_language=CODE"
                    )
                object.__setattr__(self, f"{side}_language", language_of(getattr(self, side), side))
        if self.name is None:
            object.__setattr__(self, "name", stem(self.path or self.source or ""))
        super().__post_init__()

    def _check_files(self) -> None:
        given = [key for key in ("path", "source", "target", "documents", "segments") if getattr(self, key)]
        if given not in (
            ["path"],
            ["source", "target"],
            ["source", "target", "documents"],
            ["source", "target", "segments"],
        ):
            has = f"has {listed([f'dataset.{key}' for key in given])}" if given else "names no file"
            raise ValueError(
                f"dataset=documents {has}; accepted are dataset.path=FILE.jsonl, or dataset.source=FILE "
                "dataset.target=FILE, alone (blank lines between documents) or with dataset.documents=FILE (an id a "
                "line) or dataset.segments=FILE.yaml"
            )

    def load(self) -> list[Example]:
        return self._select(list(self._stream()))

    def _stream(self) -> Iterator[Example]:
        found: dict[str, str] = {}  # names by id
        any_left = False
        for name, sentences in self._read():
            id = document_id(name)
            if not id or id in found:
                wrong = f"twice, of {found[id]!r} and {name!r}" if id else f"the empty one, of {name!r}"
                raise ValueError(
                    f"{self._place()} has the document id {id!r} {wrong}: give every document a name of its own (a "
                    "point, a slash and white space count as _)"
                )
            found[id] = name
            if pairs := self._whole(name, sentences):
                any_left = True
                yield document(id, pairs, self.source_unit, self.target_unit)
        if not any_left:
            why = "in each pair a side is empty" if found else "it is empty"
            raise ValueError(f"{self._place()} holds no sentences: {why}")

    def _read(self) -> Iterator[tuple[str, list[Sentence]]]:
        if self.path:
            languages = self.source_language, self.target_language
            return from_json_lines(self.path, languages, self.name, self.max_bytes)
        source, target = self.source or "", self.target or ""  # both are there: `_check_files`
        if self.documents:
            return by_id(source, target, self.documents, self.max_bytes)
        if self.segments:
            return by_recording(source, target, self.segments, self.max_bytes)
        return by_blank_lines(source, target, self.name, self.max_bytes)

    def _place(self) -> str:
        return str(self.path or self.documents or self.segments or self.source)

    def _whole(self, name: str, sentences: list[Sentence]) -> list[tuple[str, str]]:
        """The pairs of a document, none with an empty side."""
        pairs = [(sentence.source, sentence.reference) for sentence in sentences]
        empty = [(sentence, side) for sentence in sentences for side in (0, 1) if not sentence.pair[side]]
        if not empty:
            return pairs
        boundary = self._shifted(sentences)
        if boundary and (self.skip_empty or self.merge_empty):
            log.warning("document %r: %s, and is lost: two documents may be one here", name, boundary)
        if self.skip_empty:
            return [pair for pair in pairs if all(pair)]
        if self.merge_empty:
            return self._merged(name, pairs)
        sides = {0: "source", 1: "reference"}
        found = [f"an empty {sides[side]} in {sentence.places[side]}" for sentence, side in empty]
        blank = "" if self.path or self.documents or self.segments else " (lines blank in both files end a document)"
        blank += f"; {boundary}: then move it in one of the files" * bool(boundary)
        raise ValueError(
            f"document {name!r} has {listed(found)}{blank}: correct the data, or give dataset.merge_empty=true to join "
            "such a sentence with its neighbour, or dataset.skip_empty=true to leave it out"
        )

    def _shifted(self, sentences: Sequence[Sentence]) -> str:
        """What to say of a line that is blank in the one file and has a near one that is blank in the other: it may
        have ended a document, before the files were shifted against each other. Nothing where blank lines end none."""
        if self.path or self.documents or self.segments:
            return ""
        blank = [[n for n, one in enumerate(sentences) if not one.pair[side]] for side in (0, 1)]
        near = [(a, b) for a in blank[0] for b in blank[1] if abs(a - b) <= NEAR]
        if not near:
            return ""
        places = " and ".join(sentences[n].places[side] for side, n in enumerate(near[0]))
        return f"{places} may be one boundary between documents that is shifted"

    def _merged(self, name: str, pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        whole: list[tuple[str, str]] = []
        begun = ("", "")  # at the beginning of a document, until both sides are there
        for pair in pairs:
            if whole and not all(pair):
                whole[-1] = self._both(whole[-1], pair)
            elif all(begun := self._both(begun, pair)):
                whole.append(begun)
                begun = ("", "")
        if any(begun):
            raise ValueError(f"document {name!r} of {self._place()} has text in one language only: correct the data")
        return whole

    def _both(self, first: tuple[str, str], second: tuple[str, str]) -> tuple[str, str]:
        source, reference = zip(first, second, strict=True)
        return join_texts(source, self.source_unit), join_texts(reference, self.target_unit)

    def files(self) -> list[Path]:
        paths = (self.path, self.source, self.target, self.documents, self.segments)
        return [existing_file(path) for path in paths if path]
