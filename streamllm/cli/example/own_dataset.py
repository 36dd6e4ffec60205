"""A data set: sentence pairs from a text file, a pair a line."""

from dataclasses import dataclass
from pathlib import Path

from streamllm.data.dataset import Dataset
from streamllm.records import Example


@dataclass(frozen=True, kw_only=True)
class Phrases(Dataset):
    """The lines ``source = reference`` of a file."""

    path: str

    def load(self) -> list[Example]:
        examples = []
        for number, line in enumerate(Path(self.path).read_text(encoding="utf-8").splitlines(), start=1):
            source, equals, reference = line.partition(" = ")
            if not equals:
                raise ValueError(f"line {number} of {self.path} is {line!r}; a line is: source = reference")
            examples.append(Example(f"{self.name}-{number}", source, reference))
        return self._select(examples)

    def files(self) -> list[Path]:
        return [Path(self.path)]
