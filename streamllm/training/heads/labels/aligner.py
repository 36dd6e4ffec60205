"""WRITE where a word aligner has linked the next word to source that has been read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from streamllm.check import text
from streamllm.contents import Contents, of_files, present
from streamllm.models.model import StreamingModel
from streamllm.prompt import PromptTokens
from streamllm.records import Example
from streamllm.training.heads.alignments import Numbers, by_eflomal, from_file
from streamllm.training.heads.cells import Cells
from streamllm.training.heads.labels.needed import Needed
from streamllm.units import pieces


@dataclass(frozen=True)
class Aligner(Needed):
    """WRITE is right iff the source words have been read that the next word, or one before it, is linked to. Links are
    those of the data's pairs, by eflomal or from a file; a word without one needs no source of its own. The end needs
    the whole source.

    Args:
        path: a file with the links of the training data, a line for each pair, such as "0-0 1-2" (Pharaoh format: words
            of the source and of the target, from 0); None aligns by eflomal, training and validation data apart.
        validation_path: a file with the links of the validation data.

    Raises:
        ValueError: as `Needed`; or one path is given without the other.
    """

    path: str | None = None
    validation_path: str | None = None

    every_lag = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("path", "validation_path"):
            text(f"labels.{name}", getattr(self, name), null="for eflomal")
        if (self.path is None) != (self.validation_path is None):
            given, lacks = ("path", "validation_path") if self.path is not None else ("validation_path", "path")
            raise ValueError(f"labels.{given} is given, and labels.{lacks} is null: training and validation need one")

    @property
    def measures(self) -> str:
        return "aligner"

    def contents(self) -> Contents:
        """The digests of the files."""
        files = [Path(path) for path in (self.path, self.validation_path) if path is not None]
        found = present(lambda: of_files(files))
        return {"alignments": found} if found else {}

    @property
    def of_validation(self) -> "Aligner":
        """These labels of the validation data."""
        return replace(self, path=self.validation_path)

    def attends(self, model: StreamingModel) -> None:
        return None

    def needs(
        self, examples: Sequence[Example], some: Sequence[int], prompt: PromptTokens, folder: Path
    ) -> list[Numbers]:
        """How many source words each target word needs, of those of the ``examples`` that are measured.

        Args:
            folder: where the links that eflomal gives are kept.

        Raises: ValueError: units are no words, or as `from_file` and `by_eflomal`.
        """
        if {prompt.source_unit, prompt.target_unit} != {"word"}:
            raise ValueError("labels=aligner links words, and a side of the data is in characters: take other labels")
        pairs = [(pieces(one.source, "word"), pieces(one.reference, "word")) for one in examples]
        if self.path is None:
            return by_eflomal([pairs[i] for i in some], folder)
        found = from_file(Path(self.path), pairs)
        return [found[i] for i in some]

    def needed(self, cells: Cells) -> Numbers:
        assert cells.needs is not None
        found: Numbers = np.append(cells.needs, cells.units)[cells.parts.units]
        return found
