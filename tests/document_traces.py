"""Traces of made-up documents, and of their sentences alone: wait-k in each sentence, with a share of wrong words."""

import random
from collections.abc import Sequence

from streamllm.records import Event, Segment, Trace

WORDS = ["ein", "eine", "Hund", "Katze", "Mann", "läuft", "steht", "sitzt", "auf", "unter", "dem", "der", "Wiese"]


def pairs(lengths: Sequence[int], seed: int = 0) -> list[tuple[str, str]]:
    """Source and reference of sentences, with as many words on both sides."""
    draw = random.Random(seed)
    made = []
    for place, length in enumerate(lengths):
        source = " ".join(f"s{seed}-{place}-{n}" for n in range(length))
        made.append((source, " ".join([*(draw.choice(WORDS) for _ in range(length - 1)), "Ende."])))
    return made


def sentence_trace(name: str, source: str, reference: str, k: int = 2, noise: float = 0.0, seed: int = 0) -> Trace:
    draw = random.Random(f"{name} {seed}")
    units = tuple(draw.choice(WORDS) if draw.random() < noise else word for word in reference.split())
    count = len(source.split())
    delays = tuple(min(k + t, count) for t in range(len(units)))
    return Trace(name, source, reference, units, delays, (0.0,) * len(units), (), count, " ".join(units))


def document_trace(
    name: str, lengths: Sequence[int], k: int = 2, noise: float = 0.0, seed: int = 0, texts: int = 0, told: bool = True
) -> Trace:
    """A document of sentences of ``lengths`` words. ``texts`` is the seed of its texts; without ``told``, the system
    keeps no account of its sentences."""
    units: list[str] = []
    delays: list[int] = []
    events: list[Event] = []
    segments: list[Segment] = []
    read = 0
    for place, (source, reference) in enumerate(made := pairs(lengths, texts)):
        own = sentence_trace(f"{name} {place}", source, reference, k, noise, seed)
        words, here = source.split(), 0
        for unit, delay in zip(own.units, own.delays, strict=True):
            events += [Event("read", word) for word in words[here:delay]]
            here = delay
            events.append(Event("write", unit))
        events += [Event("read", word) for word in words[here:]]
        segments.append(Segment(read, len(words), source, reference))
        units += own.units
        delays += [delay + read for delay in own.delays]
        read += len(words)
        events += [Event("sentence", str(read))] * told
    return Trace(
        id=name,
        source=" ".join(source for source, _ in made),
        reference=" ".join(reference for _, reference in made),
        units=tuple(units),
        delays=tuple(delays),
        elapsed=(0.0,) * len(units),
        events=(*events, Event("stop", "end_token")),
        source_units=read,
        prediction=" ".join(units),
        segments=tuple(segments),
    )


def documents(count: int = 3, sentences: int = 4, **options: float) -> list[Trace]:
    """Documents of sentences of five to eight words."""
    lengths = [5 + place % 4 for place in range(sentences)]
    return [document_trace(f"d{n}", lengths, texts=n, **options) for n in range(count)]  # type: ignore[arg-type]


def alone(count: int = 3, sentences: int = 4, **options: float) -> list[Trace]:
    """The sentences of `documents`, one by one, with ids of their own."""
    lengths = [5 + place % 4 for place in range(sentences)]
    every = [pair for n in range(count) for pair in pairs(lengths, n)]
    return [sentence_trace(f"s{n}", *pair, **options) for n, pair in enumerate(every)]  # type: ignore[arg-type]
