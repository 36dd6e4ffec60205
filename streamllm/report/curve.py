"""The quality-latency curve as SVG, with the place of each run in it, so that the page can mark runs on it.

Deterministic: no dates, no random ids."""

import html
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

DATA = ("dataset.name", "dataset.split", "dataset.limit", "sentences")
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


def figures(table: "pandas.DataFrame") -> list[Figure]:
    """BLEU over LAAL, a figure for each data set; runs without one of the two are left out.

    Args:
        table: rows as `streamllm.runs.load.load_runs` gives them, numbered from 0, perhaps with ``bleu_low`` and
            ``bleu_high``.
    """
    rows = table.dropna(subset=["laal", "bleu"])
    columns = [column for column in DATA if column in rows]
    groups: dict[tuple[str, ...], list[Any]] = {}
    for index, values in zip(rows.index, rows[columns].astype(str).itertuples(index=False), strict=True):
        groups.setdefault(tuple(values), []).append(index)
    names = [str(rows.loc[group[0]].get("dataset.name", "all data")) for group in groups.values()]
    sizes = [f"{rows.loc[group[0]].get('sentences', 0):g} sentences" for group in groups.values()]
    titles = [name if names.count(name) == 1 else f"{name}, {size}" for name, size in zip(names, sizes, strict=True)]
    named = enumerate(zip(titles, groups.values(), strict=True))
    return [_figure(number, title, rows.loc[group]) for number, (title, group) in named]


def _figure(number: int, title: str, rows: "pandas.DataFrame") -> Figure:
    import matplotlib.pyplot as plt

    from streamllm.plots import quality_latency

    band = rows if "bleu_low" in rows else None
    with plt.rc_context({"svg.hashsalt": "streamllm", "svg.fonttype": "path"}):
        figure, ax = plt.subplots(figsize=(8.4, 4.4), layout="constrained")
        try:
            quality_latency(rows.assign(line=_lines(rows)), by="line", band=band, ax=ax, points=True)
            file = io.StringIO()
            nothing: Any = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            figure.savefig(file, format="svg", transparent=True, metadata=nothing)
            places = ax.transData.transform(rows[["laal", "bleu"]].to_numpy(float)) * 72 / figure.dpi
            width, height = (float(inches) * 72 for inches in figure.get_size_inches())
        finally:
            plt.close(figure)
    points = {int(index): (float(x), height - float(y)) for index, (x, y) in zip(rows.index, places, strict=True)}
    return Figure(title, _embeddable(number, title, file.getvalue()), (width, height), points)


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


def _embeddable(number: int, title: str, svg: str) -> str:
    """The svg element alone, described, as large as its place, and with ids of its own among several figures."""
    name = html.escape(f"BLEU over LAAL on {title}; the table has the numbers")
    head, _, rest = svg[svg.index("<svg") :].partition(">")
    view = head.partition('viewBox="')[2].partition('"')[0]
    rest = re.sub(r'( id="|"#|url\(#)', rf"\g<1>f{number}-", rest.strip())
    return f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{view}" role="img" aria-label="{name}">{rest}'
