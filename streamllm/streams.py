"""Sentence pairs one by one, for corpora that memory does not hold. What `pairs` and `tables` find wrong before
anything is computed is found here when it is reached, so that nothing is read twice."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

from streamllm import tables
from streamllm.pairs import FilePath, existing_file
from streamllm.records import Example

Row = dict[str, Any]


def lines(path: FilePath, newline: str = "\n") -> Iterator[str]:
    """The lines of a UTF-8 text file, plain or .gz, with their ends; see `pairs.read_lines` for what a line is.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not UTF-8, or not whole gzip (with the line).
    """
    file = existing_file(path)
    number = 0
    opened: Any = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8-sig", newline=newline) as handle:
            for line in handle:
                number += 1
                yield line
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read after line {number}: {error}") from error


def parallel(source: FilePath, target: FilePath, *, name: str, skip_empty: bool = False) -> Iterator[Example]:
    """The pairs of two text files; ids are ``<name>-<line>``.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: the files differ in their number of lines, or a line is blank.
    """
    for number, pair in enumerate(zip_longest(lines(source), lines(target)), start=1):
        if None in pair:
            short, long = (source, target) if pair[0] is None else (target, source)
            raise ValueError(
                f"parallel files differ in length: {short} ends before line {number} and {long} goes on; line i of "
                "one must translate line i of the other"
            )
        yield from _example((pair[0].strip(), pair[1].strip()), f"{name}-{number}", (source, target), skip_empty)


def table(
    rows: Iterable[Row],
    *,
    place: str,
    languages: tuple[str, str],
    columns: tuple[str | None, str | None],
    id_column: str | None,
    name: str,
    skip_empty: bool = False,
) -> Iterator[Example]:
    """The pairs of some rows; the first row says which columns there are. Arguments as for `tables.read_columns`.

    Raises:
        ValueError: a column is absent, a cell is no text, or empty.
    """
    for number, row in enumerate(rows, start=1):
        if number == 1:
            known = [name for column, cell in row.items() for name in _names(column, cell)]
            chosen = [
                tables.find_column(column, language, side, known, place)
                for column, language, side in zip(columns, languages, ("source", "target"), strict=True)
            ]
            if id_column is None and "id" in known:
                id_column = "id"
        cells = [_cell(row, column) for column in chosen]
        for column, cell in zip(chosen, cells, strict=True):
            if not isinstance(cell, str | None):
                raise ValueError(f"column {column!r} of {place} holds {type(cell).__name__}, not text (row {number})")
        id = f"{name}-{number}" if id_column is None else str(_cell(row, id_column))
        pair = ((cells[0] or "").strip(), (cells[1] or "").strip())
        yield from _example(pair, id, (f"row {number} of {place}",) * 2, skip_empty)


def rows_of(paths: Sequence[FilePath]) -> Iterator[Row]:
    """The rows of local files of one format. JSON Lines, CSV, TSV and Parquet are read bit by bit, .json whole."""
    suffix = tables.file_format(paths[0])
    if suffix == ".json":
        yield from tables.load_files(paths)
        return
    for path in paths:
        if suffix == ".parquet":
            from pyarrow import parquet

            for batch in parquet.ParquetFile(existing_file(path)).iter_batches(batch_size=1024):
                yield from batch.to_pylist()
        elif tables.FORMATS[suffix] == "csv":
            yield from _csv_rows(path, tables.dialect_of(suffix))
        else:
            for number, line in enumerate(lines(path), start=1):
                if line.strip():
                    yield _json_row(line, path, number)


def _csv_rows(path: FilePath, dialect: type[csv.Dialect]) -> Iterator[Row]:
    reader = csv.reader(lines(path, newline=""), dialect)
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
    except ValueError as error:
        raise ValueError(f"line {number} of {path} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"line {number} of {path} is a {type(row).__name__}, not an object with named columns")
    return row


def _names(column: str, cell: Any) -> list[str]:
    return [f"{column}.{key}" for key in cell] if isinstance(cell, dict) else [column]


def _cell(row: Row, column: str) -> Any:
    if column in row:
        return row[column]
    outer, _, key = column.partition(".")
    return (row.get(outer) or {}).get(key)


def _example(pair: tuple[str, str], id: str, places: Sequence[FilePath], skip_empty: bool) -> Iterator[Example]:
    if all(pair):
        yield Example(id, *pair)
    elif not skip_empty:
        side = 1 if pair[0] else 0
        raise ValueError(
            f"an empty {('source', 'reference')[side]} in {places[side]} ({id}): correct the data, or set "
            "dataset.skip_empty=true to leave such pairs out"
        )
