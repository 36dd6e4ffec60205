"""A data set that is written down in code."""

from dataclasses import dataclass

from streamllm.data.dataset import Dataset
from streamllm.records import Example


@dataclass(frozen=True, kw_only=True)
class Greetings(Dataset):
    """Two sentences."""

    def load(self) -> list[Example]:
        pairs = [
            ("Good morning everybody .", "Guten Morgen allerseits ."),
            ("A dog barks .", "Ein Hund bellt ."),
        ]
        return self._select([Example(f"greeting-{number}", *pair) for number, pair in enumerate(pairs)])
