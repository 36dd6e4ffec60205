"""The base of all data sets. Making one only checks its arguments; ``load`` reads it and checks every pair.

Invariant: the ids of its `Example`s depend on neither ``shuffle`` nor ``limit``."""

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from streamllm.check import whole_number
from streamllm.data.joined import joined
from streamllm.data.lines import MAX_BYTES
from streamllm.records import Example
from streamllm.units import Unit, check_unit, unit_of

LANGUAGE_CODE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]+)*")


@dataclass(frozen=True, kw_only=True)
class Dataset(ABC):
    """What every dataset has.

    Args:
        source_language: its ISO code, e.g. "en", "zh", "pt-br".
        target_language: its ISO code, e.g. "de".
        name: for tables, and the beginning of the ids of data that has none.
        limit: how many pairs (or documents) to keep, after shuffling; all when None or when there are fewer.
        shuffle: whether to put the pairs (or documents) in an order drawn from ``seed`` instead of that of the data.
        seed: what the order is drawn from; ``limit`` does not change it.
        skip_empty: leave out pairs of which a side is empty, instead of raising.
        skip_long: leave out pairs whose source is too long for the model or for ``limits.source_tokens_per_unit``, and
            count them, instead of raising. Whoever translates does so, since it takes the model's tokenizer.
        source_unit: "word" or "character"; None: characters for languages written without spaces (Chinese, Japanese,
            Thai, …), else words. Never None once made.
        target_unit: "word" or "character"; None chooses by the target language likewise.
        sentences_per_document: how many sentences are joined to one document, in the order of the data; the last may
            have fewer. None leaves each alone. What is a document already is cut into such parts, and never joined.
        max_bytes: what a compressed file of the data may hold; 16 times its own size is always accepted. None is any
            size.
        bleu_tokenizer: a name of one of sacrebleu's tokenizers; None takes the one of the target language. Checked
            where BLEU is computed.

    Raises:
        ValueError: an argument is not as said.
    """

    source_language: str
    target_language: str
    name: str
    limit: int | None = None
    shuffle: bool = False
    seed: int = 0
    skip_empty: bool = False
    skip_long: bool = False
    source_unit: Unit = None  # type: ignore[assignment]
    target_unit: Unit = None  # type: ignore[assignment]
    max_bytes: int | None = MAX_BYTES
    bleu_tokenizer: str | None = None
    sentences_per_document: int | None = None

    def __post_init__(self) -> None:
        for side in ("source", "target"):
            language = getattr(self, f"{side}_language")
            if not isinstance(language, str) or not LANGUAGE_CODE.fullmatch(language):
                raise ValueError(
                    f"dataset.{side}_language is {language!r}; a code such as en, de, zh or pt-br is needed "
                    f"(quote 'no' in YAML)"
                )
            if getattr(self, f"{side}_unit") is None:
                object.__setattr__(self, f"{side}_unit", unit_of(language))
            check_unit(getattr(self, f"{side}_unit"))
        for key, null in (("limit", "for all"), ("sentences_per_document", "to leave them as they are")):
            value = getattr(self, key)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(
                    f"dataset.{key} is {value!r}; a whole number of at least 1 is accepted, or null {null}"
                )
        for key in ("shuffle", "skip_empty", "skip_long"):
            if type(getattr(self, key)) is not bool:
                raise ValueError(f"dataset.{key} is {getattr(self, key)!r}; true and false are accepted")
        whole_number("dataset.max_bytes", self.max_bytes, of="bytes", null="for any size")
        if type(self.seed) is not int:
            raise ValueError(f"dataset.seed is {self.seed!r}; a whole number is accepted")

    @abstractmethod
    def load(self) -> list[Example]:
        """Reads, checks, shuffles and cuts.

        Raises:
            OSError: a file is absent (FileNotFoundError) or the network is out of reach (ConnectionError).
            ValueError: the data is not what the arguments say, or a sentence is empty.
        """

    def load_lazily(self) -> Sequence[Example]:
        """As `load`; of much data, examples are made when they are asked for."""
        return self.load()

    def stream(self) -> Iterator[Example]:
        """The same pairs one by one, in the order of the data, without holding them; ids are the same up to leading
        zeros of numbers. What `load` would have raised at once is raised where it is reached.

        Raises:
            ValueError: ``shuffle`` is set, which needs all pairs at once.
        """
        if self.shuffle:
            raise ValueError(
                "dataset.shuffle needs all of the data at once; where it is streamed, data.buffer shuffles"
            )
        return islice(self._documents(self._stream()), self.limit)

    def _stream(self) -> Iterator[Example]:
        return iter(self.load())

    def files(self) -> list[Path]:
        """The local files that are read."""
        return []

    def _order(self, count: int) -> list[int]:
        order = list(range(count))
        if self.shuffle:
            random.Random(self.seed).shuffle(order)
        return order

    def _documents(self, examples: Iterable[Example]) -> Iterator[Example]:
        """The examples, joined as ``sentences_per_document`` says. Done twice, it is done once."""
        if self.sentences_per_document is None:
            return iter(examples)
        return joined(examples, self.sentences_per_document, self.name, self.source_unit, self.target_unit)

    def _select(self, examples: Sequence[Example]) -> list[Example]:
        if self.sentences_per_document is not None:
            examples = list(self._documents(examples))
        return [examples[index] for index in self._order(len(examples))[: self.limit]]

    def _refuse_one_language(self) -> None:
        if self.source_language == self.target_language:
            raise ValueError(
                f"dataset.source_language and dataset.target_language are both {self.source_language!r}; "
                f"the data is chosen by language, so they must differ"
            )
