"""The sentence pairs that come with the project."""

import json
from dataclasses import dataclass
from pathlib import Path

from streamllm.data.dataset import Dataset
from streamllm.data.lines import listed, read_lines
from streamllm.data.pairs import to_examples
from streamllm.records import Example

SAMPLE = Path(__file__).parent / "assets" / "sample.en-de.jsonl"


@dataclass(frozen=True, kw_only=True)
class Sample(Dataset):
    """The sentence pairs that come with the project, English and German, in either direction."""

    source_language: str = "en"
    target_language: str = "de"
    name: str = "sample"

    def files(self) -> list[Path]:
        return [SAMPLE]

    def load(self) -> list[Example]:
        self._refuse_one_language()
        rows = [json.loads(line) for line in read_lines(SAMPLE)]
        known = [key for key in rows[0] if key != "id"]
        for side in ("source", "target"):
            language = getattr(self, f"{side}_language")
            if language not in known:
                raise ValueError(
                    f"dataset.{side}_language is {language!r}, and the sample has {listed(known)}; for other "
                    f"languages take dataset=files or dataset=multi30k"
                )
        return self._select(
            to_examples(
                [(row[self.source_language].strip(), row[self.target_language].strip()) for row in rows],
                ids=[row["id"] for row in rows],
                name=self.name,
                places=(SAMPLE.name, SAMPLE.name),
                skip_empty=self.skip_empty,
            )
        )
