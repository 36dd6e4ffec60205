"""Rows of JSON, CSV and Parquet files and of the hub, read through the ``datasets`` library, which is imported
when a function here is called and not before: it takes a second. Nothing here waits for an absent network."""

import csv
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamllm.pairs import FilePath, existing_file, listed, read_text

FORMATS = {
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
CONNECT_SECONDS = 5.0


def file_format(path: FilePath) -> str:
    """A key of ``FORMATS``: the ending of a table's name, before .gz.

    Raises:
        ValueError: it is none of them.
    """
    name = Path(path).name
    suffix = Path(name.removesuffix(".gz")).suffix.lower()
    if suffix not in FORMATS or (suffix == ".parquet" and name.endswith(".gz")):
        raise ValueError(
            f"the format of {path} is not known by its ending; accepted are {', '.join(FORMATS)} (.gz "
            f"after all but .parquet); for plain text take dataset=files"
        )
    return suffix


def load_files(paths: Sequence[FilePath]) -> Any:
    """The rows (a ``datasets.Dataset``) of local files of one format.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: a file cannot be read as what its name says (with the line, where it is text).
    """
    suffix = file_format(paths[0])
    options: dict[str, Any] = {}
    for path in paths:
        existing_file(path)
        if suffix == ".parquet":
            continue
        text = read_text(path)
        if not text.strip():
            raise ValueError(f"{path} holds no sentences: it is empty")
        if FORMATS[suffix] == "csv":
            options = _csv_options(path, text, dialect_of(suffix))
        elif suffix != ".json":
            _check_json_lines(path, text)
    files = [str(existing_file(path).resolve()) for path in paths]
    with _quiet_datasets() as datasets:
        try:
            return datasets.load_dataset(FORMATS[suffix], data_files={"rows": files}, split="rows", **options)
        except (datasets.exceptions.DatasetsError, ValueError, OSError) as error:
            if "corresponds to no data" in str(error):
                raise ValueError(f"{listed(paths)} holds no sentences: it has no rows") from error
            raise ValueError(f"{listed(paths)} cannot be read as {suffix[1:].upper()}: {innermost(error)}") from error


class _Tabs(csv.excel_tab):
    quoting = csv.QUOTE_NONE


def dialect_of(suffix: str) -> type[csv.Dialect]:
    return _Tabs if suffix == ".tsv" else csv.excel


def _csv_options(path: FilePath, text: str, dialect: type[csv.Dialect]) -> dict[str, Any]:
    """How to read CSV so that every cell stays the text it is. Refuses rows that are longer or shorter than the
    first, which pandas would shift or fill."""
    from datasets import Features, Value

    rows = csv.reader(io.StringIO(text, newline=""), dialect)
    try:
        header = next(rows)
        if len(set(header)) != len(header):
            raise ValueError(f"the first line of {path} must name the columns, each once; it has {listed(header)}")
        for number, row in enumerate((row for row in rows if row), start=1):
            if len(row) != len(header):
                raise ValueError(
                    f"row {number} of {path} has {len(row)} cells, and the first line names {len(header)} columns "
                    f"({listed(header)}): quote cells that hold a {'tab' if dialect is _Tabs else 'comma'}, or "
                    f"take another separator (.csv or .tsv)"
                )
    except csv.Error as error:
        raise ValueError(f"{path} cannot be read: {error} (line {rows.line_num})") from error
    features = Features({column: Value("string") for column in header})
    return {"sep": dialect.delimiter, "quoting": dialect.quoting, "keep_default_na": False, "features": features}


def _check_json_lines(path: FilePath, text: str) -> None:
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            row = json.loads(line) if line.strip() else {}
        except ValueError as error:
            raise ValueError(f"line {number} of {path} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} of {path} is a {type(row).__name__}, not an object with named columns")


def load_hub(
    path: str,
    subset: str | None,
    split: str,
    revision: str | None,
    folder: str | None,
    otherwise: str,
    streaming: bool = False,
) -> Any:
    """The rows (a ``datasets.Dataset``) of one split of a dataset of the hub, or of a folder.

    With ``streaming`` they come one by one (a ``datasets.IterableDataset``), and of a dataset on the hub no copy is
    made or found.

    Without a network, ``datasets``' own copy of an earlier download is read. ``otherwise`` says, for the
    error, what to do when there is none.

    Raises:
        ConnectionError: the hub is out of reach, within seconds.
        ValueError: the hub has no such dataset, subset or split.
    """
    with _quiet_datasets() as datasets:
        unreachable = None if Path(path).is_dir() else _why_unreachable(datasets.config.HF_ENDPOINT)
        try:
            with _offline() if unreachable else nullcontext():
                if folder is None:
                    return datasets.load_dataset(path, subset, revision=revision, split=split, streaming=streaming)
                return datasets.load_dataset(_fetched_folder(path, revision, folder), split=split, streaming=streaming)
        except (datasets.exceptions.DatasetsError, ValueError, OSError, RuntimeError) as error:
            if unreachable:
                raise ConnectionError(
                    f"split {split!r} of dataset {path} is not on this machine and the hub is out of reach "
                    f"({unreachable}): {otherwise}"
                ) from error
            raise ValueError(
                f"dataset {path} (subset {subset!r}, split {split!r}) cannot be read: {innermost(error)}; "
                f"see dataset.path, dataset.subset and dataset.split"
            ) from error


def _fetched_folder(path: str, revision: str | None, folder: str) -> str:
    # `datasets` could read a folder of a repository itself, but would not find its copy again without a network.
    import huggingface_hub

    root = huggingface_hub.snapshot_download(path, repo_type="dataset", revision=revision, allow_patterns=f"{folder}/*")
    if not (Path(root) / folder).is_dir():
        raise FileNotFoundError(f"it has no folder {folder} (revision {revision or 'main'})")
    return str(Path(root) / folder)


@dataclass(frozen=True)
class Cells:
    """The texts of some rows, stripped, in the order asked for; an absent text is empty."""

    sources: list[str]
    references: list[str]
    ids: list[str] | None
    numbers: list[int]  # of the rows, from 0
    places: tuple[str, str]  # where sources and references came from, for errors


def read_columns(
    rows: Any,
    *,
    place: str,
    languages: tuple[str, str],
    columns: tuple[str | None, str | None] = (None, None),
    id_column: str | None = None,
    choose: Callable[[int], list[int]],
) -> Cells:
    """Reads two columns of text, and ids, of some rows.

    Args:
        rows: a ``datasets.Dataset``.
        place: what it is, for errors.
        languages: of source and reference; they name the columns (or the keys of a column ``translation``)
            that ``columns`` does not.
        columns: of source and reference, ``a.b`` for key b of a column of dicts.
        id_column: the column of ids; ``id`` if there is one when None.
        choose: from the number of rows to the numbers of those to read.

    Raises:
        ValueError: a column is absent (with those there are), or holds something other than text.
    """
    known = _column_names(rows.features)
    source = find_column(columns[0], languages[0], "source", known, place)
    target = find_column(columns[1], languages[1], "target", known, place)
    if source == target:
        raise ValueError(f"source and target are both column {source!r} of {place}, which has {listed(known)}")
    if id_column is None and "id" in known:
        id_column = "id"
    if id_column is not None and id_column not in known:
        raise ValueError(f"dataset.id_column is {id_column!r}, and {place} has the columns {listed(known)}")

    numbers = choose(len(rows))
    table = rows[numbers]

    def cells(column: str) -> list[Any]:
        if column in table:
            return list(table[column])
        outer, _, key = column.partition(".")
        return [None if cell is None else cell.get(key) for cell in table[outer]]

    def texts(column: str) -> list[str]:
        values = cells(column)
        for number, value in zip(numbers, values, strict=True):
            if not isinstance(value, str | None):
                raise ValueError(
                    f"column {column!r} of {place} holds {type(value).__name__}, not text (row "
                    f"{number + 1}); its columns are {listed(known)}"
                )
        return [(value or "").strip() for value in values]

    return Cells(
        sources=texts(source),
        references=texts(target),
        ids=None if id_column is None else ["" if value is None else str(value) for value in cells(id_column)],
        numbers=numbers,
        places=(f"column {source!r} of {place}", f"column {target!r} of {place}"),
    )


def _column_names(features: Mapping[str, Any]) -> list[str]:
    """All columns; a column of dicts is named once for each of its keys, as ``column.key``."""
    names = []
    for column, kind in features.items():
        keys = list(kind) if isinstance(kind, dict) else getattr(kind, "languages", None)
        names += [f"{column}.{key}" for key in keys] if keys else [column]
    return names


def find_column(explicit: str | None, language: str, side: str, known: Sequence[str], place: str) -> str:
    """The name, of those ``known``, of the column of a side ("source" or "target").

    Raises:
        ValueError: there is no such column.
    """
    if explicit is not None and explicit not in known:
        raise ValueError(f"dataset.{side}_column is {explicit!r}, and {place} has the columns {listed(known)}")
    for name in (explicit, language, f"translation.{language}"):
        if name is not None and name in known:
            return name
    raise ValueError(
        f"{place} has no column for {language!r}; its columns are {listed(known)}: set dataset.{side}_column "
        f"or dataset.{side}_language"
    )


def innermost(error: BaseException) -> str:
    """The message of the error that began it, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _quiet_datasets() -> Iterator[Any]:
    """The ``datasets`` module, without progress bars and warnings meanwhile."""
    import datasets
    import huggingface_hub

    bars = [library for library in (datasets, huggingface_hub.utils) if not library.are_progress_bars_disabled()]
    loggers = (datasets.logging, huggingface_hub.logging)
    verbosities = [logger.get_verbosity() for logger in loggers]
    for library in bars:
        library.disable_progress_bars()
    for logger in loggers:
        logger.set_verbosity(logging.CRITICAL)  # what goes wrong is raised, so logging it too says it twice
    try:
        yield datasets
    finally:
        for library in bars:
            library.enable_progress_bars()
        for logger, verbosity in zip(loggers, verbosities, strict=True):
            logger.set_verbosity(verbosity)


def _why_unreachable(endpoint: str) -> str | None:
    """Why the hub cannot be asked, or None. One try of seconds; ``datasets`` would take half a minute."""
    import datasets
    import huggingface_hub

    if datasets.config.HF_HUB_OFFLINE:
        return "offline: HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set"
    try:
        huggingface_hub.get_session().head(endpoint, timeout=CONNECT_SECONDS)
    except Exception as error:  # which kind depends on huggingface_hub's HTTP library (requests or httpx)
        return f"offline: {endpoint} does not answer, {innermost(error)}"
    return None


@contextmanager
def _offline() -> Iterator[None]:
    """``datasets`` and ``huggingface_hub`` read only their caches meanwhile."""
    import datasets
    import huggingface_hub

    places = (datasets.config, huggingface_hub.constants)
    before = [place.HF_HUB_OFFLINE for place in places]
    for place in places:
        place.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value
