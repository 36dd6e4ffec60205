"""Checks sentence pairs and makes examples of them, before any compute is spent: all at once, or one by one where
memory does not hold the corpus. Then a fault is found when its pair is reached."""

from collections.abc import Iterator, Sequence

from streamllm.data.lines import FilePath, listed
from streamllm.records import Example


def to_examples(
    pairs: Sequence[tuple[str, str]],
    *,
    name: str,
    places: tuple[str, str],
    ids: Sequence[str] | None = None,
    numbers: Sequence[int] | None = None,
    total: int | None = None,
    unit: str = "line",
    skip_empty: bool = False,
) -> list[Example]:
    """Checks pairs of source and reference and makes examples of them.

    Args:
        pairs: source and reference, already stripped.
        name: what ids start with when the data has none.
        places: where sources and references came from, for errors.
        ids: the ids of the data; ``<name>-<number>`` when None.
        numbers: the place of each pair in its corpus, from 0; 0, 1, 2, … when None.
        total: the size of that corpus, which sets how many digits an id has; ``len(pairs)`` when None.
        unit: "line" or "row", for errors.
        skip_empty: leave out pairs of which a side is blank, instead of raising.

    Raises:
        ValueError: there are no pairs, a side is blank (an empty reference too: it has no length, so no
            lagging can be computed for it), or an id is empty or given twice.
    """
    numbers = range(len(pairs)) if numbers is None else numbers
    if not pairs:
        raise ValueError(f"no sentence pairs are left: {places[0]} holds no sentences, or none that was asked for")
    if not skip_empty:
        _refuse_blank(pairs, numbers, places, unit)
    if ids is None:
        digits = len(str(len(pairs) if total is None else total))
        ids = [f"{name}-{number + 1:0{digits}}" for number in numbers]
    else:
        _refuse_bad_ids(ids, numbers, places[0], unit)
    examples = [
        Example(id, source, reference)
        for id, (source, reference) in zip(ids, pairs, strict=True)
        if source and reference
    ]
    if not examples:
        raise ValueError(f"{places[0]} holds no sentences: in each of its {len(pairs)} pairs a side is empty")
    return examples


def _refuse_blank(pairs: Sequence[tuple[str, str]], numbers: Sequence[int], places: tuple[str, str], unit: str) -> None:
    found = []
    for side, kind in enumerate(("source", "reference")):
        blank = sorted(number + 1 for number, pair in zip(numbers, pairs, strict=True) if not pair[side])
        if blank:
            s = "" if len(blank) == 1 else "s"
            found.append(f"{len(blank)} empty {kind} {unit}{s} in {places[side]} ({unit}{s} {listed(blank)})")
    if found:
        raise ValueError(
            f"{' and '.join(found)}: correct the data, or set dataset.skip_empty=true to leave such pairs out"
        )


def _refuse_bad_ids(ids: Sequence[str], numbers: Sequence[int], place: str, unit: str) -> None:
    without = [number + 1 for number, id in zip(numbers, ids, strict=True) if not id]
    if without:
        raise ValueError(f"{place} has {len(without)} {unit}s without id ({unit} {listed(without)})")
    if len(set(ids)) == len(ids):
        return
    first: dict[str, int] = {}
    for id, number in zip(ids, numbers, strict=True):
        if id in first:
            raise ValueError(
                f"{place} has {len(ids) - len(set(ids))} repeated ids, first {id!r} in {unit}s "
                f"{first[id] + 1} and {number + 1}: every sentence needs an id of its own"
            )
        first[id] = number


def checked_example(pair: tuple[str, str], id: str, places: Sequence[FilePath], skip_empty: bool) -> Iterator[Example]:
    if all(pair):
        yield Example(id, *pair)
    elif not skip_empty:
        side = 1 if pair[0] else 0
        raise ValueError(
            f"an empty {('source', 'reference')[side]} in {places[side]} ({id}): correct the data, or set "
            "dataset.skip_empty=true to leave such pairs out"
        )
