"""Where the sentence pairs of a training come from: memory, a stream, or tokens on disk. Each gives an epoch in blocks,
of which one is held at a time; which pairs a block has follows from (seed, epoch, block)."""

import hashlib
import json
import logging
import random
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from streamllm import contents
from streamllm.checked import fit, parse
from streamllm.files import check_lock_file, new_folder, open_to_write, read_bytes, write_atomically, writing
from streamllm.records import Example
from streamllm.units import Unit

log = logging.getLogger(__name__)

DIGESTS = "digests.json"
FORMAT = 3  # of the folders of `TokenFiles`; since 2 they have digests, since 3 they know where documents begin


class Corpus(Protocol):
    """What a training needs of a data set of `streamllm.data`."""

    source_unit: Unit
    target_unit: Unit
    source_language: str
    target_language: str

    def load(self) -> list[Example]: ...

    def stream(self) -> Iterator[Example]: ...

    def files(self) -> list[Path]: ...


@dataclass(frozen=True)
class Tokenized:
    """The tokens of each unit of both sides of a sentence pair, without headers, footer and end token; and whether the
    pair is the first of its document."""

    source: list[list[int]]
    target: list[list[int]]
    begins_document: bool = False


def begins_document(pair: Example | Tokenized) -> bool:
    """Whether a pair of `data.joined.sentence_pairs` is the first of its document; False where there is none."""
    if isinstance(pair, Tokenized):
        return pair.begins_document
    return bool(pair.segments) and pair.segments[0].start == 0


class Source(Protocol):
    """``count``: how many blocks an epoch has; None where nothing knows before its end. ``digest``: of the data, None
    where nothing knows it before it was read."""

    @property
    def count(self) -> int | None: ...

    @property
    def digest(self) -> str | None: ...

    def blocks(self, epoch: int, start: int) -> Iterator[Sequence[Example | Tokenized]]:
        """The blocks of an epoch in order, from number ``start`` on."""
        ...


@dataclass(frozen=True)
class Whole:
    """All pairs are one block."""

    pairs: Sequence[Example]
    count = 1

    @cached_property
    def digest(self) -> str:
        digest = hashlib.sha256()
        for pair in self.pairs:
            begins = "\n" if begins_document(pair) else ""
            digest.update(f"{begins}{pair.source}\n{pair.reference}\n".encode())
        return digest.hexdigest()[:16]

    def blocks(self, epoch: int, start: int) -> Iterator[Sequence[Example]]:
        if start == 0:
            yield self.pairs


@dataclass(frozen=True)
class Buffered:
    """Pairs in the order of a stream, ``buffer`` at a time. In every epoch but the first the borders of the blocks lie
    elsewhere, so that other pairs meet.

    Args:
        open: begins the stream anew; to go on within an epoch, what comes before is read over.
    """

    open: Callable[[], Iterator[Example]]
    buffer: int
    seed: int
    count = None
    digest = None

    def blocks(self, epoch: int, start: int) -> Iterator[Sequence[Example]]:
        first = self.buffer
        if epoch:
            first -= random.Random(f"{self.seed}/{epoch}/borders").randrange(self.buffer)
        pairs = islice(self.open(), first + (start - 1) * self.buffer if start else 0, None)
        size = self.buffer if start else first
        while block := list(islice(pairs, size)):
            yield block
            size = self.buffer


class TokenFiles:
    """Pairs in tokens, in files that are mapped into memory: any pair is had without the others.

    ``tokens.bin`` (int32) has the tokens of all units, ``lengths.bin`` (int32) how many each unit has, ``pairs.bin``
    (int64, five a pair) where a pair begins in both, how many source and target units it has, and whether it is the
    first of its document.

    Args:
        buffer: pairs of a block, drawn from all; None gives all in one block, in the order of the data.
        kept: draw documents instead, each in its order; what is not in documents is one.

    Raises:
        ValueError: the files are not what was written, see `DIGESTS`.
    """

    FILES = ("tokens", "lengths", "pairs")

    def __init__(self, folder: Path, buffer: int | None, seed: int, kept: bool = False):
        _check_whole(folder)
        self._tokens, self._lengths = (np.memmap(folder / f"{name}.bin", np.int32, "r") for name in self.FILES[:2])
        self._pairs = np.memmap(folder / "pairs.bin", np.int64, "r").reshape(-1, 5)
        self.buffer, self.seed = buffer or len(self), seed
        self._shuffled, self._kept = buffer is not None, kept

    @cached_property
    def digest(self) -> str:
        """Of the content, not of its files' times; of a part, since there may be gigabytes."""
        begin = zlib.crc32(self._tokens[: 1 << 20].tobytes())
        begins = np.flatnonzero(self._pairs[:, 4])
        documents = f"-{zlib.crc32(begins.tobytes())}" if begins.size else ""
        return f"{len(self)}-{self._lengths.size}-{self._tokens.size}-{begin}{documents}"

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def count(self) -> int:
        return -(-len(self) // self.buffer)

    def __getitem__(self, index: int) -> Tokenized:
        at, unit, source, target, begins = (int(number) for number in self._pairs[index])
        units = []
        for length in self._lengths[unit : unit + source + target].tolist():
            units.append(self._tokens[at : at + length].tolist())
            at += length
        return Tokenized(units[:source], units[source:], bool(begins))

    def blocks(self, epoch: int, start: int) -> Iterator[Sequence[Tokenized]]:
        order = np.arange(len(self))
        if self._shuffled:
            rng = np.random.default_rng(zlib.crc32(f"{self.seed}/{epoch}".encode()))
            if self._kept:
                documents = np.split(order, np.flatnonzero(self._pairs[1:, 4]) + 1)
                order = np.concatenate([documents[index] for index in rng.permutation(len(documents))])
            else:
                rng.shuffle(order)
        for first in range(start * self.buffer, len(self), self.buffer):
            yield [self[index] for index in order[first : first + self.buffer].tolist()]


def token_files(
    root: Path,
    key: Mapping[str, Any],
    pairs: Callable[[], Iterable[Example]],
    tokenize: Callable[[Example], Tokenized],
) -> Path:
    """The folder of `TokenFiles` below ``root`` that ``key`` names, made if it is not there, whole or not at all.

    Args:
        key: all that the tokens depend on, fit for JSON.
    """
    text = json.dumps({"format": FORMAT} | dict(key), sort_keys=True, ensure_ascii=False, default=str)
    folder = root / hashlib.sha256(text.encode()).hexdigest()[:16]
    if folder.exists():  # it may not be ours to write
        log.info("tokens are in %s already", folder)
        return folder
    from filelock import FileLock

    lock = folder.with_suffix(".lock")
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
    check_lock_file(lock)
    with FileLock(lock):  # others wait, and find what the first has made
        if not folder.exists():
            with new_folder(folder) as part:
                count = _write_tokens(part, text, pairs, tokenize)
            log.info("tokens of %d sentence pairs are in %s", count, folder)
    return folder


def _write_tokens(
    folder: Path, key: str, pairs: Callable[[], Iterable[Example]], tokenize: Callable[[Example], Tokenized]
) -> int:
    """Fill the folder of `TokenFiles`; returns the number of pairs."""
    write_atomically(folder / "key.json", key + "\n")
    count = at = unit = 0
    with ExitStack() as stack:
        tokens, lengths, places = (
            stack.enter_context(open_to_write(folder / f"{name}.bin", "wb")) for name in TokenFiles.FILES
        )
        for pair in map(tokenize, pairs()):
            units = [*pair.source, *pair.target]
            flat = [token for one in units for token in one]
            tokens.write(np.array(flat, np.int32).tobytes())
            lengths.write(np.array([len(one) for one in units], np.int32).tobytes())
            place = (at, unit, len(pair.source), len(pair.target), pair.begins_document)
            places.write(np.array(place, np.int64).tobytes())
            at, unit, count = at + len(flat), unit + len(units), count + 1
    if not count:
        raise ValueError("the data set has no sentence pairs")
    write_atomically(folder / DIGESTS, json.dumps(_digests(folder)) + "\n")
    return count


def _digests(folder: Path) -> dict[str, str]:
    return contents.of_folder(folder, [f"{name}.bin" for name in TokenFiles.FILES])


def _check_whole(folder: Path) -> None:
    """Raises: ValueError: a file is not as it was written: half, say, after a copy or a crash."""
    path = folder / DIGESTS
    try:
        written = fit(parse(read_bytes(path)), dict[str, str])
    except (OSError, ValueError):
        written = {}
    found = _digests(folder)
    names = [f"{name}.bin" for name in TokenFiles.FILES]
    if damaged := [name for name in names if written.get(name, "") != found.get(name)]:
        raise ValueError(
            f"the tokens in {folder} are damaged ({contents.listed(damaged)}): delete that folder, and the same "
            "command makes them anew"
        )
