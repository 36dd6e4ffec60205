"""Sentences joined to documents, and documents in sentences again. Invariant: the segments of a document follow each
other without a gap, and their units add up to those of its source."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count

from streamllm.records import Example, Segment
from streamllm.units import Unit, join_texts, split

AUDIO = re.compile(r"\.(wav|flac|mp3|m4a|ogg|opus|sph)$", re.IGNORECASE)


def document(id: str, pairs: Iterable[tuple[str, str]], source_unit: Unit, target_unit: Unit) -> Example:
    """One document of some pairs of source and reference, none of them blank."""
    segments: list[Segment] = []
    start = 0
    for source, reference in pairs:
        segments.append(Segment(start, len(split(source, source_unit)), source, reference))
        start += segments[-1].units
    source = join_texts((segment.source for segment in segments), source_unit)
    reference = join_texts((segment.reference for segment in segments), target_unit)
    return Example(id, source, reference, tuple(segments))


def document_id(name: str) -> str:
    """A name as the id of a document: ``doc_1`` for "doc.1", ``ted_1096`` for "ted_1096.wav".

    Tools that score long recordings know them by the stem of their name: doc.1 and doc.2 would be one.
    """
    return re.sub(r"[./\\\s]+", "_", AUDIO.sub("", name.strip())).strip("_")


def joined(
    examples: Iterable[Example], size: int, name: str, source_unit: Unit, target_unit: Unit
) -> Iterator[Example]:
    """Sentence pairs as documents of ``size`` sentences, in their order, with the ids ``<name>_<number>``.

    A document with more sentences is cut, into ``<id>_1``, ``<id>_2`` and so on. It is never joined with another.
    """
    numbers = count(1)
    waiting: list[tuple[str, str]] = []

    def finished() -> Iterator[Example]:
        if waiting:
            yield document(f"{document_id(name)}_{next(numbers)}", waiting, source_unit, target_unit)
            waiting.clear()

    for example in examples:
        if not example.segments:
            waiting.append((example.source, example.reference))
            if len(waiting) == size:
                yield from finished()
            continue
        yield from finished()
        if len(example.segments) <= size:
            yield example
            continue
        pairs = [(segment.source, segment.reference) for segment in example.segments]
        for number, first in enumerate(range(0, len(pairs), size), start=1):
            yield document(f"{example.id}_{number}", pairs[first : first + size], source_unit, target_unit)
    yield from finished()


def sentence_pairs(examples: Iterable[Example]) -> Iterator[Example]:
    """The sentence pairs of documents, ``<id>_1`` and so on, each with its own segment of its document; an example
    that is no document as it is."""
    for example in examples:
        if len(example.segments) < 2:
            yield example
        else:
            for number, segment in enumerate(example.segments, start=1):
                yield Example(f"{example.id}_{number}", segment.source, segment.reference, (segment,))


def each_alone(examples: Iterable[Example]) -> Iterator[Example]:
    """The pairs of `sentence_pairs`, to be translated each by itself: nothing says that there was a document."""
    return (replace(pair, segments=()) if pair.segments else pair for pair in sentence_pairs(examples))
