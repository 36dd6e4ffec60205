"""Latency in subwords, by the tokenizer of a model or by a SentencePiece file: metric=subwords."""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from streamllm.contents import of_file, of_files
from streamllm.metrics.other_units import Ends, InCharacters

TOKENIZER, SENTENCEPIECE = "tokenizer.json", "tokenizer.model"


class InSubwords(InCharacters):
    """A latency in subwords of the source.

    Args:
        latency: as for `InCharacters`.
        tokenizer: the ``path`` of a model, whose tokenizer it is; a file of SentencePiece (``.model``), or a
            ``tokenizer.json``.
        language: as for `InCharacters`.

    Raises: ValueError: no such latency, or no tokenizer.
    """

    of = "subwords"

    def __init__(self, latency: str = "laal", tokenizer: str | None = None, language: str | None = None):
        super().__init__(latency, language)
        if not tokenizer:
            raise ValueError("metric=subwords needs a tokenizer: a model's path, or a file such as spm.model")
        self._tokenizer = tokenizer

    @cached_property
    def _file(self) -> Path:
        if (file := Path(self._tokenizer).expanduser()).is_file():
            return file
        if Path(self._tokenizer).suffix in (".model", ".json"):
            raise FileNotFoundError(f"tokenizer is {self._tokenizer!r}, and there is no such file")
        from streamllm.models.loading import find_model

        folder = find_model(self._tokenizer)
        for name in (TOKENIZER, SENTENCEPIECE):
            if (folder / name).is_file():
                return folder / name
        raise ValueError(
            f"{folder} has neither {TOKENIZER} nor {SENTENCEPIECE}: give metrics.laal_subwords.tokenizer=FILE"
        )

    @cached_property
    def _ends(self) -> Ends:
        file = self._file
        try:
            if file.suffix == ".model":
                return _by_sentencepiece(file)
            from tokenizers import Tokenizer

            found = Tokenizer.from_file(str(file))
        except Exception as error:  # of Rust and of C++, with all kinds
            raise ValueError(f"{file} is no tokenizer that can be read ({str(error)[:80]})") from error
        return lambda text: [end for _, end in found.encode(text, add_special_tokens=False).offsets]

    @property
    def units(self) -> str:
        """The tokenizer by its name, and by the beginning of a digest of its file."""
        given = Path(self._tokenizer).expanduser()
        name = given.name if given.exists() else self._tokenizer
        return f"unit:subword|tokenizer:{name}@{of_file(self._file)[:8]}"

    def ends(self, text: str) -> Sequence[int]:
        return self._ends(text)

    def contents(self) -> dict[str, str]:
        """A digest of the file, so that a run whose tokenizer has changed is scored anew."""
        return of_files([self._file])


def _by_sentencepiece(file: Path) -> Ends:
    from sentencepiece import SentencePieceProcessor

    found: Any = SentencePieceProcessor(model_file=str(file))

    def ends(text: str) -> list[int]:
        try:
            pieces = found.encode(text, return_type="proto").pieces
        except TypeError:  # before sentencepiece 0.2.3
            pieces = found.encode(text, out_type="immutable_proto").pieces
        return list(accumulate(len(piece.surface) for piece in pieces))  # ``end`` counts bytes, or characters before

    return ends
