"""Parallel text that is not made into examples before they are wanted: two files as bytes in memory, checked as whole
arrays. A million lines take a third of a second and hardly more memory than the files."""

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

from streamllm.data.lines import FilePath, read_bytes
from streamllm.records import Example

BLOCK = 1 << 16
"""Lines that are checked at a time."""

WHITE = np.zeros(256, dtype=bool)
"""Bytes at which `str.split` divides; it divides at other letters of Unicode as well."""
WHITE[[*range(9, 14), *range(28, 33)]] = True
INK = np.zeros(256, dtype=bool)
"""Bytes that no blank line has. A line without them may have letters beyond ASCII."""
INK[33:127] = True


class PairsAsBytes(Sequence[Example]):
    """The pairs of two files, line by line, in their order, with the ids that `to_examples` gives them.

    Attributes:
        longest_word: in bytes, or more.
    """

    def __init__(self, name: str, sources: bytes, references: bytes):
        """Raises: ValueError: the files differ in length, are no UTF-8, or hold a blank line: read them as lists, and
        the error has words."""
        self._name, self._texts = name, (sources, references)
        self._ends = tuple(_ends(text) for text in self._texts)
        if len(self._ends[0]) != len(self._ends[1]) or not len(self._ends[0]):
            raise ValueError("the files differ in length, or are empty")
        self.longest_word = max(_check(text, ends) for text, ends in zip(self._texts, self._ends, strict=True))
        self._digits = len(str(len(self)))

    def __len__(self) -> int:
        return len(self._ends[0])

    @overload
    def __getitem__(self, place: int) -> Example: ...

    @overload
    def __getitem__(self, place: slice) -> list[Example]: ...

    def __getitem__(self, place: int | slice) -> Example | list[Example]:
        if isinstance(place, slice):
            return [self._example(number) for number in range(len(self))[place]]
        return self._example(range(len(self))[place])

    def __iter__(self) -> Iterator[Example]:
        return map(self._example, range(len(self)))

    def _example(self, number: int) -> Example:
        id = f"{self._name}-{number + 1:0{self._digits}}"
        return Example(id, self._line(0, number), self._line(1, number))

    def _line(self, side: int, number: int) -> str:
        ends = self._ends[side]
        begin = ends[number - 1] + 1 if number else 0
        return self._texts[side][begin : ends[number]].decode().strip()


def pairs_as_bytes(source: FilePath, target: FilePath, name: str, max_bytes: int | None) -> PairsAsBytes | None:
    """None where anything is wrong with the lines, for whoever tells it.

    Raises: OSError, ValueError: as `read_lines`, of the file as a whole.
    """
    texts = (read_bytes(path, max_bytes).removeprefix(b"\xef\xbb\xbf") for path in (source, target))
    try:
        return PairsAsBytes(name, *texts)
    except ValueError:
        return None


def _ends(text: bytes) -> Any:
    """Where the lines end: int64, (lines)."""
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == 10)
    return ends if not text or text.endswith(b"\n") else np.append(ends, len(text))


def _check(text: bytes, ends: Any) -> int:
    """Check the lines, and find the longest word, in bytes."""
    longest, values = 0, np.frombuffer(text, np.uint8)
    starts = np.concatenate([[0], ends[:-1] + 1])
    for first in range(0, len(ends), BLOCK):
        these = starts[first : first + BLOCK]
        begin, end = these[0], ends[min(first + BLOCK, len(ends)) - 1]
        text[begin:end].decode()
        block = values[begin : end + 1]
        inked = np.logical_or.reduceat(INK[block], np.minimum(these - begin, len(block) - 1))
        for line in first + np.flatnonzero(~inked):
            if not text[starts[line] : ends[line]].decode().strip():
                raise ValueError("a blank line")
        white = np.flatnonzero(WHITE[block])
        longest = max(longest, int(np.diff(white, prepend=-1, append=len(block)).max()) - 1)
    return longest
