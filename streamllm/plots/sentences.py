"""Figures of traces: the path of a sentence, the lags of runs, and two runs sentence by sentence."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from streamllm.metrics.latency import reference_length
from streamllm.plots.curves import run_titles
from streamllm.plots.documents import DOCUMENT_SIZE, document_lags, document_path
from streamllm.plots.fonts import word_fonts
from streamllm.plots.labels import OUTLINE
from streamllm.plots.style import (
    BLUE,
    FAINT,
    GREY,
    INK,
    SKY,
    VERMILLION,
    Look,
    finish,
    looks_in_order,
    make_axes,
    png,
    score_of,
    sizes,
    staircase,
)
from streamllm.records import Trace
from streamllm.runs.load import load_traces
from streamllm.units import split

if TYPE_CHECKING:
    import pandas

MARKS = "soD^vP"  # of the paths in one figure
WRITTEN: dict[str, Any] = {"linestyle": "", "markersize": 8, "markeredgecolor": "white"}
FORCED: dict[str, Any] = {"linestyle": "", "marker": ">", "markersize": 8, "mfc": "white", "markeredgewidth": 1.6}


def read_write_path(traces: Trace | Mapping[str, Trace], ax: Axes | None = None) -> Axes:
    """The way of one sentence through source (to the right) and target (downwards). That of a document is
    `streamllm.plots.documents.document_path`, which draws it.

    A step to the right is a READ; a mark in a word's row is its WRITE, in the column of the last unit read by then.
    With one trace, what each target unit could see is shaded, and the diagonal is dotted. With several, each has its
    colour, and its words stand in a column below its name.

    Args:
        traces: one, or several of the same sentence by name, e.g. of the policy.
        ax: where to draw; None makes a figure.

    Raises: ValueError: no trace, or traces of different sources.
    """
    named = {"": traces} if isinstance(traces, Trace) else dict(traces)
    if not named:
        raise ValueError("0 traces; give a trace, or traces of one sentence by name")
    if len(sources := {trace.source for trace in named.values()}) > 1:
        raise ValueError(f"traces of {len(sources)} sources ({', '.join(map(repr, sources))}); give those of one")
    if any(trace.segments for trace in named.values()):
        return document_path(named, ax)
    source = _source_units(next(iter(named.values())))
    width, height = max(1, len(source)), max(1, *(len(trace.units) for trace in named.values()))
    alone = len(named) == 1
    ax = make_axes(ax, _path_size(width, height, len(named)))
    colors = {name: look.color for name, look in looks_in_order(list(named)).items()}
    for place, (name, trace) in enumerate(named.items()):
        if alone:
            ax.plot([0, width], [0, len(trace.units)], color=GREY, linewidth=1, linestyle=(0, (1, 3)), zorder=1)
            ax.barh(np.arange(len(trace.delays)) + 0.5, trace.delays, 1, color=colors[name], alpha=0.13, zorder=1)
        mark = MARKS[place % len(MARKS)]
        _draw_path(ax, trace, name, colors[name], mark, place - (len(named) - 1) / 2, len(named))
    finish(ax, "", "", grid=None)
    ax.set(xlim=(0, width), ylim=(height, 0))
    turned: dict[str, Any] = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"}
    upright = all(len(unit) < 3 for unit in source)
    words: dict[str, Any] = {"family": word_fonts(" ".join(source)), "parse_math": False} | ({} if upright else turned)
    ax.set_xticks(np.arange(len(source)) + 0.5, source, **words)
    ax.set_yticks([])
    ax.tick_params(axis="x", top=False, bottom=False, labeltop=True, labelbottom=False, pad=1)
    ax.vlines(range(width + 1), 0, height, color=FAINT, linewidth=0.5, zorder=0)
    ax.hlines(range(height + 1), 0, width, color=FAINT, linewidth=0.5, zorder=0)
    ax.spines[:].set_visible(False)
    _write_targets(ax, named, colors)
    if any(event.kind == "forced_read" for trace in named.values() for event in trace.events):
        key = Line2D([], [], color=GREY, **FORCED, label="forced READ: the end token came too early")
        ax.legend(handles=[key], loc="upper left", bbox_to_anchor=(0, 0), frameon=False, fontsize=sizes().small)
    return ax


def _path_size(width: int, height: int, paths: int = 1) -> tuple[float, float]:
    """Inches for so many units of source and target."""
    return max(4.0, 0.6 + paths + 0.42 * width), max(3.0, 1.3 + 0.3 * height)


def path_png(trace: Trace) -> bytes:
    """`read_write_path` as a PNG, for programs: no window and no figure of pyplot is opened."""
    size = DOCUMENT_SIZE if trace.segments else _path_size(len(_source_units(trace)), len(trace.units))
    return png(size, lambda figure: read_write_path(trace, figure.subplots()))


def _draw_path(ax: Axes, trace: Trace, name: str, color: str, mark: str, place: float, paths: int) -> None:
    """The staircase, the writes on it and the forced reads. Paths that go the same way are kept apart, and their
    marks stand side by side in a cell: ``place`` is this path's among ``paths``, around 0."""
    shift, beside = 0.12 * place, min(0.28, 0.84 / paths) * place
    delays, rows = np.array(trace.delays, float), np.arange(len(trace.delays))
    xs, ys = staircase(trace)
    ax.plot(xs + shift, ys + shift, color=color, linewidth=2, zorder=3, clip_on=False, label=f"_path {name}")
    marks: dict[str, Any] = {"color": color, "clip_on": False}
    ax.plot(delays - 0.5 + beside, rows + 0.5, label=f"_write {name}", marker=mark, zorder=4, **marks, **WRITTEN)
    if forced := list(_forced_reads(trace)):
        ax.plot(*(np.array(forced).T + shift), label=f"_forced {name}", zorder=5, **marks, **FORCED)


def _forced_reads(trace: Trace) -> Iterator[tuple[float, float]]:
    """The middle of each step to the right that was taken because the end token came while source remained."""
    read = written = 0
    for event in trace.events:
        if event.kind == "forced_read":
            yield read + 0.5, written
        read += event.kind in ("read", "forced_read")
        written += event.kind == "write"


def _source_units(trace: Trace) -> list[str]:
    words = split(trace.source, "word")
    return words if len(words) == trace.source_units else split(trace.source, "character")


def _write_targets(ax: Axes, named: Mapping[str, Trace], colors: Mapping[str, str]) -> None:
    """The target's units left of their rows: a column for each trace with its name on top."""
    figure: Any = ax.get_figure(root=True)
    right = -6.0  # points from the left edge of the axes
    for name, trace in reversed(list(named.items())):
        color = INK if len(named) == 1 else Look(colors[name], "").text
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
        place |= {"color": color, "annotation_clip": False, "parse_math": False}
        words: dict[str, Any] = {"va": "center", "fontsize": sizes().text, "family": word_fonts(" ".join(trace.units))}
        cells = [
            ax.annotate(unit, (0, row + 0.5), (right, 0), **words, **place) for row, unit in enumerate(trace.units)
        ]
        if name:
            cells.append(ax.annotate(name, (0, 0), (right, 5), fontsize=sizes().text, fontweight="bold", **place))
        widest = max((cell.get_window_extent().width for cell in cells), default=0.0)
        right -= widest * 72 / figure.dpi + 10


# --- lags of a run


def delay_histogram(
    runs: "pandas.DataFrame | Mapping[str, Sequence[Trace]] | Sequence[Trace]", ax: Axes | None = None
) -> Axes:
    """How far behind each target unit was written: a row of bars for each run, and its mean. Rows, and the entries of a
    legend, are in the order of ``runs``.

    The lag of target unit t (from 0) is d_t - t * |x| / max(|y|, |reference|), which is what LAAL takes the mean
    of (Papi et al. 2022, arXiv 2206.05807); units after the one that has seen the whole source do not count. In
    documents it is how far the translation was behind what had been read (`document_lags`).

    Args:
        runs: rows of `streamllm.runs.load.load_runs` (traces are read from ``folder``), traces by the name of their
            run, or the traces of one run.

    Raises: ValueError: no traces, or none with output. FileNotFoundError: a folder is gone.
    """
    named = _named_traces(runs)
    lags = {name: np.array(list(_lags(traces))) for name, traces in named.items()}
    if empty := [name for name, values in lags.items() if not len(values)]:
        raise ValueError(f"no output to take lags of in: {', '.join(map(repr, empty))}")
    if not lags:
        raise ValueError("0 runs; give the traces of at least one")
    ends = np.array([np.quantile(values, [0.002, 0.998]) for values in lags.values()]).round()
    edges = np.arange(min(ends.min(), 0), ends.max() + 2) - 0.5
    shares = {name: np.histogram(values, edges)[0] / len(values) for name, values in lags.items()}
    scale = 0.86 / max(share.max() for share in shares.values())
    ax = make_axes(ax, (7.2, 1.4 + 0.62 * max(len(lags), 2)))
    for row, (name, share) in zip(reversed(range(len(shares))), shares.items(), strict=True):
        mean = float(lags[name].mean())
        ax.bar(edges[:-1] + 0.5, share * scale, width=0.92, bottom=row, color=SKY, zorder=2, label=name)
        ax.vlines(mean, row, row + 0.92, color=INK, linewidth=1.8, zorder=4)
        _beside(ax, row + 0.3, f"{mean:.1f}")
        ax.axhline(row, color=GREY, linewidth=0.8, zorder=3)
    _beside(ax, len(lags), "mean")
    finish(ax, "lag behind the ideal diagonal (source units)", "", grid="x")
    ax.set_title("share of the target units", fontsize=sizes().small, color=GREY, loc="left")
    ax.set(xlim=(edges[0], edges[-1]), ylim=(-0.02, len(lags)))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_yticks(np.arange(len(lags)) + 0.3, list(reversed(lags)), fontsize=sizes().text)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    return ax


def _beside(ax: Axes, height: float, text: str) -> None:
    ax.annotate(
        text,
        (1, height),
        (8, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        fontsize=sizes().text,
        color=INK,
        annotation_clip=False,
    )


def _named_traces(
    runs: "pandas.DataFrame | Mapping[str, Sequence[Trace]] | Sequence[Trace]",
) -> dict[str, Sequence[Trace]]:
    if isinstance(runs, Mapping):
        return dict(runs)
    if isinstance(runs, Sequence):
        return {"": runs}
    titles = run_titles(runs)
    return {title: load_traces(folder) for title, folder in zip(titles, runs["folder"], strict=True)}


def _lags(traces: Sequence[Trace]) -> Iterator[float]:
    unit = "word" if all(" ".join(trace.units) == trace.prediction for trace in traces) else "character"
    for trace in traces:
        if trace.segments:
            yield from document_lags(trace)
            continue
        length = max(len(trace.delays), reference_length(trace.reference, unit))
        for t, delay in enumerate(trace.delays):
            yield delay - t * trace.source_units / length
            if delay >= trace.source_units:
                break


# --- two runs, sentence by sentence


def sentence_comparison(
    table: "pandas.DataFrame",
    ax: Axes | None = None,
    *,
    latency: str = "laal",
    names: tuple[str, str] = ("A", "B"),
) -> Axes:
    """Where run B helps against run A: a dot for each sentence, and how many lie in each quarter.

    Args:
        table: of `streamllm.runs.compare.sentence_table`.
        latency: the latency of the x axis, one that the table has.
        names: what to call the two runs.

    Raises: ValueError: the table lacks a column, or has no sentence with both differences.
    """
    a, b = names
    x, y = f"{latency}_difference", "bleu_difference"
    for column in (x, y):
        if column not in table:
            raise ValueError(f"table has no column {column!r}: take that of streamllm.runs.compare.sentence_table")
    rows = table.dropna(subset=[x, y])
    if rows.empty:
        raise ValueError(f"none of the {len(table)} sentences has both {x!r} and {y!r}")
    ax = make_axes(ax, (6.4, 5.2))
    later, better = np.sign(rows[x].to_numpy()), np.sign(rows[y].to_numpy())
    for x_sign, y_sign in product((-1, 0, 1), (-1, 0, 1)):
        chosen = (later == x_sign) & (better == y_sign)
        color = _judged(x_sign, y_sign)
        ax.scatter(rows[x][chosen], rows[y][chosen], s=22, color=color, alpha=0.45, linewidth=0, zorder=3)
    score = score_of(latency)
    measure = f" ({score.measure})" if score.measure else ""
    finish(ax, f"{score.label} of {b} − {score.label} of {a}{measure}", f"BLEU of {b} − BLEU of {a}", grid="both")
    same = int(np.sum(better == 0))
    title = f"{b} against {a} in {len(rows)} sentences; in {same} of them BLEU is the same"
    ax.set_title(title, fontsize=sizes().small, color=GREY, loc="left")
    ax.axhline(0, color=INK, linewidth=1, zorder=2)
    ax.axvline(0, color=INK, linewidth=1, zorder=2)
    ax.set(xlim=_around_zero(rows[x]), ylim=_around_zero(rows[y]))
    for x_sign, y_sign in product((-1, 1), (-1, 1)):
        count = int(np.sum((later == x_sign) & (better == y_sign)))
        words = f"{'better' if y_sign > 0 else 'worse'}, {'later' if x_sign > 0 else 'earlier'}"
        ax.text(
            0.5 + 0.485 * x_sign,
            0.5 + 0.485 * y_sign,
            f"{count}\n{words}",
            transform=ax.transAxes,
            ha="right" if x_sign > 0 else "left",
            va="top" if y_sign > 0 else "bottom",
            multialignment="right" if x_sign > 0 else "left",
            fontsize=sizes().text,
            color=Look(_judged(x_sign, y_sign), "").text,
            path_effects=OUTLINE,
        )
    return ax


def _judged(later: int, better: int) -> str:
    """Blue where run B is better and earlier, red where it is worse and later."""
    return {(-1, 1): BLUE, (1, -1): VERMILLION}.get((later, better), GREY)


def _around_zero(values: "pandas.Series[float]") -> tuple[float, float]:
    """Limits that leave room for the words of a quarter on either side of zero."""
    low, high = max(0.0, -float(values.min())), max(0.0, float(values.max()))
    room = 0.4 * max(low, high) or 1.0
    return -1.2 * max(low, room), 1.2 * max(high, room)
