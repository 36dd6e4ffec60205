"""Columns of text as sentence pairs, from rows that are all there or that come one by one."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streamllm.data.dataset import Dataset
from streamllm.data.lines import listed
from streamllm.data.pairs import checked_example, to_examples
from streamllm.records import Example

Row = dict[str, Any]


def examples_of(
    rows: Iterable[Row],
    *,
    place: str,
    languages: tuple[str, str],
    columns: tuple[str | None, str | None],
    id_column: str | None,
    name: str,
    skip_empty: bool = False,
) -> Iterator[Example]:
    """The pairs of some rows; the first row says which columns there are. Arguments as for `read_columns`.

    Raises:
        ValueError: a column is absent, a cell is no text, or empty.
    """
    for number, row in enumerate(rows, start=1):
        if number == 1:
            known = [name for column, cell in row.items() for name in _names(column, cell)]
            chosen = [
                find_column(column, language, side, known, place)
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
        yield from checked_example(pair, id, (f"row {number} of {place}",) * 2, skip_empty)


def _names(column: str, cell: Any) -> list[str]:
    return [f"{column}.{key}" for key in cell] if isinstance(cell, dict) else [column]


def _cell(row: Row, column: str) -> Any:
    if column in row:
        return row[column]
    outer, _, key = column.partition(".")
    return (row.get(outer) or {}).get(key)


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


@dataclass(frozen=True, kw_only=True)
class RowDataset(Dataset):
    """What data sets of rows with columns share.

    Args:
        source_column: the column of the source, ``a.b`` for key b of a column of dicts; None: the column
            named by the source language, else ``translation.<source language>``.
        target_column: the column of the reference, in the same way; None: that of the target language.
        id_column: the column of ids; None: ``id`` if there is one, else ids are made from the row numbers.
    """

    source_column: str | None = None
    target_column: str | None = None
    id_column: str | None = None

    def _examples(self, rows: Any, place: str) -> list[Example]:
        """The examples of a ``datasets.Dataset``; with a limit, only the rows that are taken are read."""
        # Whether a cell is empty is known only once it has been read; documents are cut and shuffled as a whole.
        whole = self.limit is None or self.skip_empty or self.sentences_per_document is not None
        cells = read_columns(
            rows,
            place=place,
            languages=(self.source_language, self.target_language),
            columns=(self.source_column, self.target_column),
            id_column=self.id_column,
            choose=lambda count: list(range(count)) if whole else self._order(count)[: self.limit],
        )
        examples = to_examples(
            list(zip(cells.sources, cells.references, strict=True)),
            name=self.name,
            places=cells.places,
            ids=cells.ids,
            numbers=cells.numbers,
            total=len(rows),
            unit="row",
            skip_empty=self.skip_empty,
        )
        return self._select(examples) if whole else examples

    def _example_stream(self, rows: Iterable[Row], place: str) -> Iterator[Example]:
        return examples_of(
            rows,
            place=place,
            languages=(self.source_language, self.target_language),
            columns=(self.source_column, self.target_column),
            id_column=self.id_column,
            name=self.name,
            skip_empty=self.skip_empty,
        )
