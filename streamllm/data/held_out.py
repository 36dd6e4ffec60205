"""Two text files divided for a training: every n-th pair is held out for validation, and the others are learned from.

Invariant: which pair is where depends on its line and on the number of lines alone, so the two parts share none."""

from collections.abc import Iterator
from dataclasses import dataclass

from streamllm.check import whole_number
from streamllm.data.lines import count_lines
from streamllm.data.text import ParallelText
from streamllm.records import Example


@dataclass(frozen=True, kw_only=True)
class Divided(ParallelText):
    """Args:
    every: of so many pairs the last is held out; more of them where ``most`` would be passed.
    most: so many pairs are held out at most.
    """

    every: int = 20
    most: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("dataset.every", self.every, 2, of="pairs")
        whole_number("dataset.most", self.most, of="pairs")
        if self.sentences_per_document is not None:
            raise ValueError(
                "dataset.sentences_per_document is set, and documents are not divided into training and validation: "
                "give dataset@validation=files validation.source=FILE validation.target=FILE"
            )

    def _is_held_out(self, example: Example) -> bool:
        """By the line number that its id ends in."""
        number = int(example.id.rpartition("-")[2])
        return number % self._step == 0

    @property
    def _step(self) -> int:
        if "step" not in self.__dict__:  # counted once; the record is frozen
            lines = count_lines(self.source, self.max_bytes)
            object.__setattr__(self, "step", max(2, min(max(self.every, -(-lines // self.most)), lines)))
        return int(self.__dict__["step"])


class HeldOut(Divided):
    """The pairs of two text files that are held out for validation."""

    def load(self) -> list[Example]:
        return [example for example in super().load() if self._is_held_out(example)]

    def stream(self) -> Iterator[Example]:
        return (example for example in super().stream() if self._is_held_out(example))


class Remaining(Divided):
    """The pairs of two text files that `HeldOut` leaves for training."""

    def load(self) -> list[Example]:
        return [example for example in super().load() if not self._is_held_out(example)]

    def stream(self) -> Iterator[Example]:
        return (example for example in super().stream() if not self._is_held_out(example))
