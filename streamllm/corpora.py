"""The datasets of conf/dataset. Making one only checks its arguments; ``load`` reads it, checks every pair
that it returns and gives `Example`s whose ids depend on neither ``shuffle`` nor ``limit``."""

import difflib
import json
import os
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from streamllm import streams, tables
from streamllm.pairs import FilePath, existing_file, listed, read_lines, read_parallel, stem, to_examples
from streamllm.records import Example
from streamllm.segment import Unit, check_unit

SAMPLE = Path(__file__).parent / "assets" / "sample.en-de.jsonl"
CHARACTER_LANGUAGES = frozenset({"zh", "zho", "cmn", "yue", "ja", "jpn"})
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]+)*")


def unit_of(language: str) -> Unit:
    """The unit of a language, by its code: "character" for Chinese and Japanese, else "word"."""
    return "character" if re.split("[-_]", language)[0].lower() in CHARACTER_LANGUAGES else "word"


@dataclass(frozen=True, kw_only=True)
class Dataset(ABC):
    """What every dataset has.

    Args:
        source_language: an ISO code, e.g. "en", "zh", "pt-br".
        target_language: as well.
        name: for tables, and the beginning of the ids of data that has none.
        limit: how many pairs to keep, after shuffling; all when None or when there are fewer.
        shuffle: whether to put the pairs in an order drawn from ``seed`` instead of that of the data.
        seed: of the order; the first n pairs of an order are the same for every ``limit``.
        skip_empty: leave out pairs of which a side is empty, instead of raising.
        source_unit: "word" or "character"; None: as `unit_of` says. Never None once made.
        target_unit: as well, for the target.

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
    source_unit: Unit = None  # type: ignore[assignment]
    target_unit: Unit = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for side in ("source", "target"):
            language = getattr(self, f"{side}_language")
            if not isinstance(language, str) or not _LANGUAGE.fullmatch(language):
                raise ValueError(
                    f"dataset.{side}_language is {language!r}; a code such as en, de, zh or pt-br is needed "
                    f"(quote 'no' in YAML)"
                )
            if getattr(self, f"{side}_unit") is None:
                object.__setattr__(self, f"{side}_unit", unit_of(language))
            check_unit(getattr(self, f"{side}_unit"))
        if self.limit is not None and (type(self.limit) is not int or self.limit < 1):
            raise ValueError(
                f"dataset.limit is {self.limit!r}; a whole number of at least 1 is accepted, or null for all"
            )
        for key in ("shuffle", "skip_empty"):
            if type(getattr(self, key)) is not bool:
                raise ValueError(f"dataset.{key} is {getattr(self, key)!r}; true and false are accepted")
        if type(self.seed) is not int:
            raise ValueError(f"dataset.seed is {self.seed!r}; a whole number is accepted")

    @abstractmethod
    def load(self) -> list[Example]:
        """Reads, checks, shuffles and cuts.

        Raises:
            OSError: a file is absent (FileNotFoundError) or the network is out of reach (ConnectionError).
            ValueError: the data is not what the arguments say, or a sentence is empty.
        """

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
        return islice(self._stream(), self.limit)

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

    def _select(self, examples: Sequence[Example]) -> list[Example]:
        return [examples[index] for index in self._order(len(examples))[: self.limit]]

    def _refuse_one_language(self) -> None:
        if self.source_language == self.target_language:
            raise ValueError(
                f"dataset.source_language and dataset.target_language are both {self.source_language!r}; "
                f"the data is chosen by language, so they must differ"
            )


@dataclass(frozen=True, kw_only=True)
class Sample(Dataset):
    """The sentence pairs that come with the project, English and German, in either direction."""

    source_language: str = "en"
    target_language: str = "de"
    name: str = "sample"

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


@dataclass(frozen=True, kw_only=True)
class ParallelText(Dataset):
    """Two text files, line by line, plain or .gz (see `read_parallel`).

    A language that is None is taken from the end of the file's name if that is two letters (``val.en.gz``).

    Args:
        source: the file of the source language.
        target: the file of the target language.
    """

    source: FilePath
    target: FilePath
    source_language: str = None  # type: ignore[assignment]
    target_language: str = None  # type: ignore[assignment]
    name: str = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for side in ("source", "target"):
            path = getattr(self, side)
            if not path:
                raise ValueError(f"dataset.{side} is {path!r}; give dataset.source=FILE dataset.target=FILE")
            if getattr(self, f"{side}_language") is None:
                ending = Path(Path(path).name.removesuffix(".gz")).suffix[1:]
                if not re.fullmatch("[a-z]{2}", ending):
                    raise ValueError(
                        f"the language of {path} is not known, as its name does not end in a code like "
                        f".en or .de.gz: add dataset.{side}_language=CODE"
                    )
                object.__setattr__(self, f"{side}_language", ending)
        if self.name is None:
            object.__setattr__(self, "name", stem(self.source))
        super().__post_init__()

    def load(self) -> list[Example]:
        return self._select(read_parallel(self.source, self.target, name=self.name, skip_empty=self.skip_empty))

    def _stream(self) -> Iterator[Example]:
        return streams.parallel(self.source, self.target, name=self.name, skip_empty=self.skip_empty)

    def files(self) -> list[Path]:
        return [existing_file(self.source), existing_file(self.target)]


@dataclass(frozen=True, kw_only=True)
class Table(Dataset):
    """A local JSON, JSON Lines, CSV, TSV or Parquet file, or several of one kind, one pair a row.

    All but Parquet may be .gz. Cells of CSV and TSV are text as they stand ("NA" and "007" too); fields of
    TSV are not quoted. With ``limit``, only the rows that are taken are checked.

    Args:
        path: the file or files.
        source_column: the column of the source, ``a.b`` for key b of a column of dicts; None: the column
            named by the source language, else ``translation.<source language>``.
        target_column: as well, for the reference.
        id_column: the column of ids; None: ``id`` if there is one, else ids are made from the row numbers.
    """

    path: FilePath | Sequence[FilePath]
    source_column: str | None = None
    target_column: str | None = None
    id_column: str | None = None
    name: str = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError(f"dataset.path is {self.path!r}; give dataset.path=FILE")
        if len({tables.file_format(path) for path in self._paths()}) > 1:
            raise ValueError(f"dataset.path has files of several formats: {listed(self._paths())}; give one kind")
        if self.name is None:
            object.__setattr__(self, "name", stem(self._paths()[0]))
        super().__post_init__()

    def _paths(self) -> list[FilePath]:
        return [self.path] if isinstance(self.path, (str, os.PathLike)) else list(self.path)

    def load(self) -> list[Example]:
        return _from_rows(self, tables.load_files(self._paths()), listed(self._paths()))

    def _stream(self) -> Iterator[Example]:
        return _stream_rows(self, streams.rows_of(self._paths()), listed(self._paths()))

    def files(self) -> list[Path]:
        return [existing_file(path) for path in self._paths()]


@dataclass(frozen=True, kw_only=True)
class HubDataset(Dataset):
    """A dataset of the Hugging Face hub, or a folder of text files in its place.

    Without a network a copy in the cache of ``datasets`` is used if there is one.

    Args:
        path: the hub id, or a local folder that ``datasets`` can read.
        subset: what the hub calls a configuration, e.g. "iwslt2017-en-de".
        split: the split, e.g. "test"; slices such as "train[:1%]" are for the hub only.
        hub_splits: names of splits that are called otherwise on the hub.
        revision: branch, tag or commit of the hub's repository.
        folder: the folder of the hub's repository that holds the splits, where it has no subsets.
        data_dir: a folder with text files ``<split>.<language>`` or ``<split>.<language>.gz``, read instead.
        source_column: as for `Table`.
        target_column: as for `Table`.
        id_column: as for `Table`.
    """

    path: str
    split: str
    subset: str | None = None
    hub_splits: Mapping[str, str] = field(default_factory=dict)
    revision: str | None = None
    folder: str | None = None
    data_dir: FilePath | None = None
    source_column: str | None = None
    target_column: str | None = None
    id_column: str | None = None
    name: str = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for key in ("path", "split"):
            if not isinstance(getattr(self, key), str) or not getattr(self, key):
                raise ValueError(f"dataset.{key} is {getattr(self, key)!r}; a name is needed")
        if self.name is None:
            object.__setattr__(self, "name", f"{self.path.split('/')[-1]}-{self.split}")
        super().__post_init__()

    def load(self) -> list[Example]:
        if self.data_dir is not None:
            source, target = self.files()
            return self._select(read_parallel(source, target, name=self.name, skip_empty=self.skip_empty))
        return _from_rows(self, self._rows(), self.path)

    def _stream(self) -> Iterator[Example]:
        if self.data_dir is not None:
            source, target = self.files()
            return streams.parallel(source, target, name=self.name, skip_empty=self.skip_empty)
        return _stream_rows(self, self._rows(streaming=True), self.path)

    def files(self) -> list[Path]:
        if self.data_dir is None:
            return []
        self._refuse_one_language()
        return _files_of_split(self.data_dir, self.split, self.source_language, self.target_language)

    def _rows(self, streaming: bool = False) -> Any:
        return tables.load_hub(
            self.path,
            self.subset,
            self.hub_splits.get(self.split, self.split),
            self.revision,
            self.folder,
            otherwise=(
                f"give dataset.data_dir=FOLDER with files {self.split}.{self.source_language} and "
                f"{self.split}.{self.target_language} (or .gz), or dataset=files dataset.source=FILE "
                f"dataset.target=FILE"
            ),
            streaming=streaming,
        )


@dataclass(frozen=True, kw_only=True)
class SacrebleuTestSet(Dataset):
    """A test set that sacrebleu knows and downloads (WMT, IWSLT 2017, …), with its first reference.

    Args:
        testset: the name in sacrebleu, e.g. "wmt14/full".
    """

    testset: str
    name: str = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if not isinstance(self.testset, str) or not self.testset:
            raise ValueError(f"dataset.testset is {self.testset!r}; a name such as wmt14/full is needed")
        if self.name is None:
            object.__setattr__(self, "name", self.testset.replace("/", "-"))
        super().__post_init__()

    def load(self) -> list[Example]:
        from sacrebleu.dataset import DATASETS

        if self.testset not in DATASETS:
            near = difflib.get_close_matches(self.testset, DATASETS, n=5) or list(DATASETS)
            raise ValueError(
                f"dataset.testset is {self.testset!r}, which sacrebleu does not have; it has "
                f"{', '.join(near)} (all: sacrebleu --list)"
            )
        pair = f"{self.source_language}-{self.target_language}"
        if pair not in DATASETS[self.testset].langpairs:
            raise ValueError(
                f"{self.testset} has no {pair}; it has {', '.join(DATASETS[self.testset].langpairs)}: "
                f"set dataset.source_language and dataset.target_language"
            )
        source, *references = _downloaded(self.testset, pair)
        if not references:
            raise ValueError(f"sacrebleu has no reference for {self.testset} {pair}: take another dataset.testset")
        return self._select(read_parallel(source, references[0], name=self.name, skip_empty=self.skip_empty))


def _downloaded(testset: str, pair: str) -> list[str]:
    """The files of a test set of sacrebleu: source, then references."""
    import socket

    from sacrebleu.utils import SACREBLEU_DIR, get_reference_files, get_source_file

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(tables.CONNECT_SECONDS)  # sacrebleu itself would wait without end
    try:
        return [get_source_file(testset, pair), *get_reference_files(testset, pair)]
    except OSError as error:
        raise ConnectionError(
            f"test set {testset} {pair} is not in {SACREBLEU_DIR} and cannot be downloaded "
            f"({tables.innermost(error)}): connect once, or use dataset=files dataset.source=FILE dataset.target=FILE"
        ) from error
    except SystemExit as error:  # what sacrebleu does when a checksum differs
        raise ConnectionError(
            f"the download of test set {testset} is damaged: delete {SACREBLEU_DIR}/{testset} and try again"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _files_of_split(folder: FilePath, split: str, source_language: str, target_language: str) -> list[Path]:
    """The files ``<split>.<language>`` or ``<split>.<language>.gz`` of a folder, of both languages."""
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"dataset.data_dir is {folder}, which is not a folder (from {Path.cwd()})")
    found: dict[str, dict[str, Path]] = {}
    for file in sorted(root.iterdir(), reverse=True):  # so that x.en comes after x.en.gz and takes its place
        stemmed, _, language = file.name.removesuffix(".gz").rpartition(".")
        if stemmed and _LANGUAGE.fullmatch(language) and file.is_file():
            found.setdefault(stemmed, {})[language] = file
    if split not in found:
        whole = sorted(name for name, files in found.items() if len(files) > 1)
        if not whole:
            pair = f"{split}.{source_language} and {split}.{target_language}"
            raise ValueError(f"dataset.data_dir is {folder}, which has no {pair}: give the folder that has them")
        raise ValueError(
            f"dataset.split is {split!r}, and {folder} has {listed(whole)}; set dataset.split to one of them"
        )
    missing = [language for language in (source_language, target_language) if language not in found[split]]
    if missing:
        raise ValueError(
            f"{folder} has no {split}.{missing[0]}: the languages of {split} are "
            f"{listed(sorted(found[split]))}; set dataset.source_language and dataset.target_language"
        )
    return [found[split][source_language], found[split][target_language]]


def _from_rows(dataset: Table | HubDataset, rows: Any, place: str) -> list[Example]:
    """The examples of a ``datasets.Dataset``; with a limit, only the rows that are taken are read."""
    whole = dataset.limit is None or dataset.skip_empty  # what is empty is known only when it was read
    cells = tables.read_columns(
        rows,
        place=place,
        languages=(dataset.source_language, dataset.target_language),
        columns=(dataset.source_column, dataset.target_column),
        id_column=dataset.id_column,
        choose=lambda count: list(range(count)) if whole else dataset._order(count)[: dataset.limit],
    )
    examples = to_examples(
        list(zip(cells.sources, cells.references, strict=True)),
        name=dataset.name,
        places=cells.places,
        ids=cells.ids,
        numbers=cells.numbers,
        total=len(rows),
        unit="row",
        skip_empty=dataset.skip_empty,
    )
    return dataset._select(examples) if whole else examples


def _stream_rows(dataset: Table | HubDataset, rows: Iterable[streams.Row], place: str) -> Iterator[Example]:
    return streams.table(
        rows,
        place=place,
        languages=(dataset.source_language, dataset.target_language),
        columns=(dataset.source_column, dataset.target_column),
        id_column=dataset.id_column,
        name=dataset.name,
        skip_empty=dataset.skip_empty,
    )
