"""Tables: JSON, JSON Lines, CSV, TSV and Parquet files. Whole ones but JSON are read through the `datasets` library,
which is imported when a function here is called and not before: it takes a second."""

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamllm.data.columns import Row, RowDataset
from streamllm.data.lines import (
    MAX_BYTES,
    FilePath,
    allowed_bytes,
    existing_file,
    listed,
    read_text,
    stem,
    stream_lines,
    too_large,
)
from streamllm.data.outside import innermost, quiet_datasets
from streamllm.records import Example


@dataclass(frozen=True, kw_only=True)
class Table(RowDataset):
    """A local JSON, JSON Lines, CSV, TSV or Parquet file, or several of one kind, one pair a row.

    All but Parquet may be .gz. Cells of CSV and TSV are text as they stand ("NA" and "007" too); fields of
    TSV are not quoted. With ``limit``, only the rows that are taken are checked.

    Args:
        path: the file or files.
    """

    path: FilePath | Sequence[FilePath]
    name: str = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError(f"dataset.path is {self.path!r}; give dataset.path=FILE")
        if len({file_format(path) for path in self._paths()}) > 1:
            raise ValueError(f"dataset.path has files of several formats: {listed(self._paths())}; give one kind")
        if self.name is None:
            object.__setattr__(self, "name", stem(self._paths()[0]))
        super().__post_init__()

    def _paths(self) -> list[FilePath]:
        return [self.path] if isinstance(self.path, (str, os.PathLike)) else list(self.path)

    def load(self) -> list[Example]:
        return self._examples(load_files(self._paths(), self.max_bytes), listed(self._paths()))

    def _stream(self) -> Iterator[Example]:
        return self._example_stream(rows_of(self._paths(), self.max_bytes), listed(self._paths()))

    def files(self) -> list[Path]:
        return [existing_file(path) for path in self._paths()]


def rows_of(paths: Sequence[FilePath], max_bytes: int | None = MAX_BYTES) -> Iterator[Row]:
    """The rows of local files of one format. JSON Lines, CSV, TSV and Parquet are read bit by bit, .json whole.

    Args:
        max_bytes: what each file may hold, if it is compressed (`streamllm.data.lines.allowed_bytes`).
    """
    suffix = file_format(paths[0])
    if suffix == ".json":
        yield from load_files(paths, max_bytes)
        return
    for path in paths:
        if suffix == ".parquet":
            for batch in _parquet_batches(path, max_bytes):
                yield from batch.to_pylist()
        elif FORMATS[suffix] == "csv":
            yield from _csv_rows(path, dialect_of(suffix), max_bytes)
        else:
            for number, line in enumerate(stream_lines(path, max_bytes=max_bytes), start=1):
                if line.strip():
                    yield _json_row(line, path, number)


def _parquet_batches(path: FilePath, max_bytes: int | None) -> Iterator[Any]:
    """Some rows at a time, until there is more than the file may hold: pages of Parquet are compressed."""
    from pyarrow import parquet

    file = existing_file(path)
    opened, bound, size = parquet.ParquetFile(file), allowed_bytes(file, max_bytes), 0
    groups = (opened.metadata.row_group(number) for number in range(opened.num_row_groups))
    if bound is not None and sum(group.total_byte_size for group in groups) > bound:
        raise ValueError(too_large(path, bound))
    for batch in opened.iter_batches(batch_size=1024):
        size += batch.nbytes
        if bound is not None and size > bound:
            raise ValueError(too_large(path, bound))
        yield batch


def _csv_rows(path: FilePath, dialect: type[csv.Dialect], max_bytes: int | None) -> Iterator[Row]:
    reader = csv.reader(stream_lines(path, newline="", max_bytes=max_bytes), dialect)
    header = next(reader, None)
    if header is None:
        raise ValueError(f"{path} holds no sentences: it is empty")
    for number, cells in enumerate((cells for cells in reader if cells), start=1):
        if len(cells) != len(header):
            raise ValueError(
                f"row {number} of {path} has {len(cells)} cells, and the first line names {len(header)} columns"
            )
        yield dict(zip(header, cells, strict=True))


def _json_row(line: str, path: FilePath, number: int) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"line {number} of {path} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"line {number} of {path} is a {type(row).__name__}, not an object with named columns")
    return row


FORMATS = {
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}


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


@dataclass(frozen=True)
class JSONRows:
    """Rows of JSON as they stand in the file, in the shape of a ``datasets.Dataset``, which would take texts that all
    look like dates for dates, and cannot name the keys of dicts that differ from row to row."""

    rows: Sequence[Row]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, numbers: Sequence[int]) -> dict[str, list[Any]]:
        """The columns of some rows."""
        return {column: [self.rows[number].get(column) for number in numbers] for column in self.features}

    @property
    def features(self) -> dict[str, Any]:
        """The columns that some row has; one of dicts with the keys that some row has in it."""
        found: dict[str, Any] = {}
        for row in self.rows:
            for column, cell in row.items():
                known = found.setdefault(column, None)
                if isinstance(cell, dict):
                    found[column] = {**(known or {}), **dict.fromkeys(cell)}
        return found


def _json_rows(path: FilePath, text: str, suffix: str) -> list[Row]:
    """JSON is a list of rows, or columns by name; JSON Lines has a row a line, and so may a file that is called .json.

    Raises: ValueError: it is none of these.
    """
    if suffix == ".json":
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):  # lines, or nothing
            content = None
        if isinstance(content, list) and all(isinstance(row, dict) for row in content):
            return content
        if isinstance(content, dict) and content and all(isinstance(column, list) for column in content.values()):
            return [dict(zip(content, cells, strict=True)) for cells in zip(*content.values(), strict=True)]
        if content is not None and not isinstance(content, dict):
            raise ValueError(f"{path} cannot be read as JSON: give a list of objects with named columns")
    try:
        rows = [_json_row(line, path, n) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as {suffix[1:].upper()}: {error}") from error
    return rows


def load_files(paths: Sequence[FilePath], max_bytes: int | None = MAX_BYTES) -> Any:
    """The rows (a ``datasets.Dataset``, of JSON `JSONRows`) of local files of one format. Arguments as for `rows_of`.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: a file cannot be read as what its name says (with the line, where it is text), or holds too much.
    """
    suffix = file_format(paths[0])
    options: dict[str, Any] = {}
    of_json: list[Row] = []
    for path in paths:
        existing_file(path)
        if suffix == ".parquet":
            _check_parquet(path, max_bytes)
            continue
        text = read_text(path, max_bytes)
        if not text.strip():
            raise ValueError(f"{path} holds no sentences: it is empty")
        if FORMATS[suffix] == "csv":
            options = _csv_options(path, text, dialect_of(suffix))
        else:
            of_json += _json_rows(path, text, suffix)
    if FORMATS[suffix] == "json":
        if not of_json:
            raise ValueError(f"{listed(paths)} holds no sentences: it has no rows")
        return JSONRows(of_json)
    files = [str(existing_file(path).resolve()) for path in paths]
    with quiet_datasets() as datasets:
        try:
            return datasets.load_dataset(FORMATS[suffix], data_files={"rows": files}, split="rows", **options)
        except (datasets.exceptions.DatasetsError, ValueError, OSError) as error:
            if "corresponds to no data" in str(error):
                raise ValueError(f"{listed(paths)} holds no sentences: it has no rows") from error
            raise ValueError(f"{listed(paths)} cannot be read as {suffix[1:].upper()}: {innermost(error)}") from error


def _check_parquet(path: FilePath, max_bytes: int | None) -> None:
    """Raises: ValueError: the file is not Parquet, or holds too much."""
    from pyarrow import ArrowException

    try:
        for _ in _parquet_batches(path, max_bytes):
            pass
    except ArrowException as error:
        raise ValueError(f"{path} cannot be read as PARQUET: {innermost(error)}") from error


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
