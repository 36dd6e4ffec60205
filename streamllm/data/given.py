"""Sentence pairs that are at hand, such as those of a notebook."""

from dataclasses import dataclass

from streamllm.data.dataset import Dataset
from streamllm.records import Example


@dataclass(frozen=True, kw_only=True)
class Given(Dataset):
    """Examples as they are given.

    Args:
        examples: each with an id of its own.
    """

    examples: tuple[Example, ...]
    name: str = "given"

    def load(self) -> list[Example]:
        return self._select(self.examples)
