"""The quality-latency curve as SVG, with the place of each run in it, so that the page can mark runs on it.

Deterministic: no dates, no random ids."""

import html
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamllm.report.gather import Report, Run

if TYPE_CHECKING:
    import pandas

DATA = ("dataset.name", "dataset.split", "dataset.limit", "sentences", "documents")
"""Columns that runs in one figure share: scores over different sentences are no curve."""

LINES = ("model.path", "model.adapter_path", "paradigm._target_")
"""Columns that make another line of a policy."""


@dataclass(frozen=True)
class Figure:
    """A figure in SVG units: its ``size``, and for each of its runs (by number) the place of its point."""

    title: str
    svg: str
    size: tuple[float, float]
    points: dict[int, tuple[float, float]]


LONGEST_NAME = 26  # characters
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
    import matplotlib.pyplot as plt

    from streamllm.plots import quality_latency

    lag = "laal" if rows["laal"].notna().any() else "long_yaal"
    band = rows if "bleu_low" in rows else None
    with plt.rc_context({"svg.hashsalt": "streamllm", "svg.fonttype": "path"}):
        figure, ax = plt.subplots(figsize=(8.4, 4.4), layout="constrained")
        try:
            quality_latency(rows.assign(line=_lines(rows)), lag, by="line", band=band, ax=ax, points=True)
            svg = _svg(figure)
            places = ax.transData.transform(rows[[lag, "bleu"]].to_numpy(float)) * 72 / figure.dpi
            width, height = (float(inches) * 72 for inches in figure.get_size_inches())
        finally:
            plt.close(figure)
    points = {int(index): (float(x), height - float(y)) for index, (x, y) in zip(rows.index, places, strict=True)}
    described = f"BLEU over {'LAAL' if lag == 'laal' else 'LongYAAL'} on {title}; the table has the numbers"
    return Figure(title, _embeddable(f"f{number}", described, svg), (width, height), points)


def drifts(report: Report) -> list[Figure]:
    """Scores by position in the document, a figure for each set of documents. Of runs over single sentences, those are
    in it that hold all sentences of the documents."""
    import matplotlib.pyplot as plt

    from streamllm.plots.documents import DRIFT_SIZE, drift
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
        with plt.rc_context({"svg.hashsalt": "streamllm", "svg.fonttype": "path"}):
            figure, axes = plt.subplots(2, 1, figsize=DRIFT_SIZE, sharex=True, layout="constrained")
            try:
                drift(table, list(axes))
                svg = _svg(figure)
                width, height = (float(inches) * 72 for inches in figure.get_size_inches())
            finally:
                plt.close(figure)
        title = _size(report.table.iloc[members[0]])
        if len(shown) < len(members) + len(alone):
            title += f", {len(shown)} of {len(members) + len(alone)} runs"
        described = f"BLEU and LongLAAL by position in {title}"
        figures.append(Figure(title, _embeddable(f"d{number}", described, svg), (width, height), {}))
    return figures


def _names(runs: Sequence[Run]) -> list[str]:
    """Names that are short enough for a figure; the digest tells apart those that would be the same."""
    names = [f"{run.policy} {run.setting}{'' if run.is_over_documents else ', by sentence'}" for run in runs]
    names = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in names]
    digests = [run.folder.rpartition("-")[2][:6] for run in runs]
    return [f"{n} {d}" if names.count(n) > 1 else n for n, d in zip(names, digests, strict=True)]


def _some(places: Sequence[int], most: int) -> list[int]:
    """At most so many, from the first to the last at equal distances."""
    if len(places) <= most:
        return list(places)
    return [places[round(n * (len(places) - 1) / max(1, most - 1))] for n in range(most)]


def _svg(figure: Any) -> str:
    file = io.StringIO()
    nothing: Any = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return file.getvalue()


def _lines(rows: "pandas.DataFrame") -> list[str]:
    """The policy, with what else tells a line from another."""
    from streamllm.plots import policy_name

    names = [policy_name(target) for target in rows["policy._target_"]]
    for column in LINES:
        values = [str(value) if isinstance(value, str) else "" for value in rows.get(column, [""] * len(rows))]
        if len(set(values)) == 1:
            continue
        last = [policy_name(v) if column.endswith("._target_") else v.rstrip("/").rpartition("/")[2] for v in values]
        chosen = last if len(set(last)) == len(set(values)) else values
        names = [f"{name} {value}".strip() for name, value in zip(names, chosen, strict=True)]
    return names


def _embeddable(prefix: str, description: str, svg: str) -> str:
    """The svg element alone, described, as large as its place, and with ids of its own among several figures."""
    name = html.escape(description)
    head, _, rest = svg[svg.index("<svg") :].partition(">")
    view = head.partition('viewBox="')[2].partition('"')[0]
    rest = re.sub(r'( id="|"#|url\(#)', rf"\g<1>{prefix}-", rest.strip())
    return f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{view}" role="img" aria-label="{name}">{rest}'
