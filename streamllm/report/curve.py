"""The quality-latency curve as SVG, with the place of each run in it, so that the page can mark runs on it.

Deterministic: no dates, no random ids."""

import html
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from streamllm.report.gather import Report, Run
from streamllm.report.names import said

if TYPE_CHECKING:
    import pandas

DATA = ("dataset.name", "dataset.split", "dataset.limit", "sentences", "documents")
"""Columns that runs in one figure share: scores over different sentences are no curve."""

LINES = ("paradigm._target_", "model.path", "model.adapter_path")
"""Columns that make another line of a policy, with all others of the paradigm."""


@dataclass(frozen=True)
class Drawing:
    """A drawing in SVG units: its ``size``, and for each of its runs (by number) the place of its point."""

    svg: str
    size: tuple[float, float]
    points: dict[int, tuple[float, float]]


@dataclass(frozen=True)
class Figure:
    """A figure drawn twice: for a wide window, and for a narrow one, where type would be too small to read."""

    title: str
    wide: Drawing
    narrow: Drawing


WIDE, NARROW = (8.4, 4.4), (4.5, 4.2)  # inches of the curve; those of scores by position:
WIDE_DRIFT, NARROW_DRIFT = (7.6, 5.4), (4.5, 5.4)


LONGEST_NAME = 34  # characters
MOST_LINES = 6
"""So many runs a figure of positions has; of more, some from early to late."""


def figures(table: "pandas.DataFrame") -> list[Figure]:
    """BLEU over LAAL, of documents over LongYAAL, a figure for each data set; runs without one of the two are left out.

    Args:
        table: rows as `streamllm.runs.load.load_runs` gives them, numbered from 0, perhaps with ``bleu_low`` and
            ``bleu_high``.
    """
    lags = [key for key in ("laal", "long_yaal") if key in table]
    rows = table[table["bleu"].notna() & table[lags].notna().any(axis=1)]
    columns = [column for column in DATA if column in rows]
    groups: dict[tuple[str, ...], list[Any]] = {}
    for index, values in zip(rows.index, rows[columns].astype(str).itertuples(index=False), strict=True):
        groups.setdefault(tuple(values), []).append(index)
    names = [str(rows.loc[group[0]].get("dataset.name", "all data")) for group in groups.values()]
    sizes = [_size(rows.loc[group[0]]) for group in groups.values()]
    titles = [name if names.count(name) == 1 else f"{name}, {size}" for name, size in zip(names, sizes, strict=True)]
    named = enumerate(zip(titles, groups.values(), strict=True))
    return [_figure(number, title, rows.loc[group]) for number, (title, group) in named]


def _size(row: Any) -> str:
    sentences = f"{row.get('sentences', 0):g} sentences"
    if not row.get("documents", math.nan) > 0:
        return sentences
    return f"{row['documents']:g} document{'s' if row['documents'] != 1 else ''} of {sentences}"


def _figure(number: int, title: str, rows: "pandas.DataFrame") -> Figure:
    from streamllm.plots import quality_latency

    lag = "laal" if rows["laal"].notna().any() else "long_yaal"
    band = rows if "bleu_low" in rows else None
    named = rows.assign(line=_lines(rows))
    described = f"BLEU over {'LAAL' if lag == 'laal' else 'LongYAAL'} on {title}; the table has the numbers"

    def draw(figure: Any) -> Any:
        return quality_latency(named, lag, by="line", band=band, ax=figure.subplots(), points=True).transData

    def drawing(kind: str, size: tuple[float, float]) -> Drawing:
        svg, place, size = _drawn(size, draw)
        points = place(rows[[lag, "bleu"]].to_numpy(float))
        return Drawing(_embeddable(f"{kind}{number}", described, svg), size, dict(zip(rows.index, points, strict=True)))

    return Figure(title, drawing("f", WIDE), drawing("n", NARROW))


def _drawn(
    size: tuple[float, float], draw: Callable[[Any], Any]
) -> tuple[str, Callable[[Any], Any], tuple[float, float]]:
    """What ``draw`` draws in a new figure (inches), as SVG; with the places in it, (n, 2), of points, (n, 2), in the
    coordinates that ``draw`` returns; and its size in SVG units."""
    import matplotlib.pyplot as plt

    with plt.rc_context({"svg.hashsalt": "streamllm", "svg.fonttype": "path"}):
        figure = plt.figure(figsize=size, layout="constrained")
        try:
            coordinates = draw(figure)
            file = io.StringIO()
            nothing: Any = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            figure.savefig(file, format="svg", transparent=True, metadata=nothing)
            width, height = (float(inches) * 72 for inches in figure.get_size_inches())
            scale = 72 / figure.dpi
        finally:
            plt.close(figure)

    def place(points: Any) -> list[tuple[float, float]]:
        return [(float(x) * scale, height - float(y) * scale) for x, y in coordinates.transform(points)]

    return file.getvalue(), place, (width, height)


def drifts(report: Report) -> list[Figure]:
    """Scores by position in the document, a figure for each set of documents. Of runs over single sentences, those are
    in it that hold all sentences of the documents."""
    from streamllm.runs.documents import drift_table

    texts = {
        n: {(s.source, s.reference) for s in one.segments} or {(one.source, one.reference)}
        for n, one in enumerate(report.sentences)
    }
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, run in enumerate(report.runs):
        if run.is_over_documents:
            groups.setdefault(tuple(sorted(run.results)), []).append(place)
    figures = []
    for number, (documents, members) in enumerate(groups.items()):
        wanted = set().union(*(texts[n] for n in documents))
        alone = [
            place
            for place, run in enumerate(report.runs)
            if not run.is_over_documents and wanted <= set().union(*(texts[n] for n in run.results))
        ]
        shown = [*_some(members, MOST_LINES - bool(alone)), *_some(alone, 1)]
        names = _names([report.runs[place] for place in shown])
        folders = dict(zip(names, report.table["folder"][shown], strict=True))
        table = drift_table(folders, samples=report.samples)
        title = _size(report.table.iloc[members[0]])
        if len(shown) < len(members) + len(alone):
            title += f", {len(shown)} of {len(members) + len(alone)} runs"
        described = f"BLEU and LongLAAL by position in {title}"
        drawings = []
        for kind, size in (("d", WIDE_DRIFT), ("e", NARROW_DRIFT)):
            svg, _, drawn = _drawn(size, partial(_draw_drift, table))
            drawings.append(Drawing(_embeddable(f"{kind}{number}", described, svg), drawn, {}))
        figures.append(Figure(title, *drawings))
    return figures


def _names(runs: Sequence[Run]) -> list[str]:
    """What the page calls them, short enough for a figure: the digest tells apart those that would be the same."""
    names = [f"{run.title}{'' if run.is_over_documents else ', by sentence'}" for run in runs]
    names = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in names]
    digests = [run.folder.rpartition("-")[2][:6] for run in runs]
    return [f"{n} {d}" if names.count(n) > 1 else n for n, d in zip(names, digests, strict=True)]


def _some(places: Sequence[int], most: int) -> list[int]:
    """At most so many, from the first to the last at equal distances."""
    if len(places) <= most:
        return list(places)
    return [places[round(n * (len(places) - 1) / max(1, most - 1))] for n in range(most)]


def _draw_drift(table: "pandas.DataFrame", figure: Any) -> Any:
    from streamllm.plots.documents import drift

    return drift(table, list(figure.subplots(2, 1, sharex=True)))[0].transData


def _lines(rows: "pandas.DataFrame") -> list[str]:
    """The policy, with what else tells a line from another."""
    from streamllm.plots import policy_name
    from streamllm.plots.style import short
    from streamllm.runs.load import curve_name

    bounds = rows.get("max_lag", [None] * len(rows))
    names = [curve_name(policy_name(of), most) for of, most in zip(rows["policy._target_"], bounds, strict=True)]
    for column in LINES:
        values = [str(value) if isinstance(value, str) else "" for value in rows.get(column, [""] * len(rows))]
        if len(set(values)) == 1:
            continue
        last = [policy_name(v) if column.endswith("._target_") else v.rstrip("/").rpartition("/")[2] for v in values]
        chosen = last if len(set(last)) == len(set(values)) else values
        names = [f"{name} · {value}" if value else name for name, value in zip(names, chosen, strict=True)]
    for column in [str(column) for column in rows if str(column).startswith("paradigm.") and column not in LINES]:
        texts = [said(column, short(value)) for value in rows[column]]
        found = {name: {text for other, text in zip(names, texts, strict=True) if other == name} for name in names}
        names = [f"{n} · {text}" if len(found[n]) > 1 else n for n, text in zip(names, texts, strict=True)]
    return names


def _embeddable(prefix: str, description: str, svg: str) -> str:
    """The svg element alone, described, as large as its place, and with ids of its own among several figures."""
    name = html.escape(description)
    head, _, rest = svg[svg.index("<svg") :].partition(">")
    view = head.partition('viewBox="')[2].partition('"')[0]
    rest = re.sub(r'( id="|"#|url\(#)', rf"\g<1>{prefix}-", rest.strip())
    return f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{view}" role="img" aria-label="{name}">{rest}'
