"""Figures of documents: the path of one with its lag over time, and scores by position in the document."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from streamllm.metrics.behaviour import lags_of_document, sentence_ends
from streamllm.metrics.longform import document, resegment
from streamllm.plots.curves import NARROW, explain, handle, run_titles
from streamllm.plots.style import (
    FAINT,
    GREY,
    INK,
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
from streamllm.runs.documents import Groups, drift_table
from streamllm.units import Unit

if TYPE_CHECKING:
    import pandas

Ends = list[tuple[int, int]]
"""Where sentences end, in source and target units."""

DOCUMENT_SIZE = (8.4, 6.6)  # inches
DRIFT_SIZE = (7.6, 5.4)
HEIGHTS = (2.6, 1)  # of path and lag
MOST_LINES, MOST_NUMBERS = 60, 24  # boundaries, and numbers of sentences, that a figure shows
LEAST_GAP = 0.035  # of the width, between two numbers
MANY = 600  # units: beyond, the lag has a line for its mean over neighbours


def document_path(traces: Trace | Mapping[str, Trace], ax: Axes | None = None) -> Axes:
    """The way of a document through source (to the right) and target (downwards), and below it the lag over time.

    Faint lines are the beginnings of sentences in the reference, which are numbered on top. A dot is where the system
    says that a sentence has ended: after so much source, and so much target. It is hollow where the reference has no
    boundary. The dotted line through the dots is what has been translated by then; the lag is how far the path, which
    is what has been read, lies right of it. Of many sentences, some lines and numbers only are shown.

    Where the system keeps no account of its sentences, there are no dots, and re-segmentation tells what has been
    translated.

    Args:
        traces: one of a document, or several of the same document by name, e.g. of the policy.
        ax: where to draw; the lower part of its place is for the lag. None makes a figure.

    Returns: the axes of the path. Those of the lag, which share their x, are the last of the figure.
    Raises: ValueError: no trace, one that is of no document, or traces of different sources.
    """
    named = {"": traces} if isinstance(traces, Trace) else dict(traces)
    if not named:
        raise ValueError("0 traces; give that of a document, or several of one document by name")
    if len({trace.source for trace in named.values()}) > 1:
        ids = ", ".join(trace.id for trace in named.values())
        raise ValueError(f"traces of different documents ({ids}); give those of one")
    if without := [trace.id for trace in named.values() if not trace.segments]:
        raise ValueError(f"{without[0]!r} is no document: it has no segments; read_write_path draws sentences")
    ax = make_axes(ax, DOCUMENT_SIZE)
    room = _shrunk(ax)
    first = next(iter(named.values()))
    width, height = max(1, first.source_units), max(1, *(len(trace.units) for trace in named.values()))
    colors = {name: look.color for name, look in looks_in_order(list(named)).items()}
    finish(ax, "", "target units", grid=None)
    finish(room, "source units read", "lag (source units)", grid="y")
    ax.set(xlim=(0, width), ylim=(height, 0))
    for name, trace in named.items():
        ends, told = ends_of_document(trace)
        _draw_way(ax, trace, name, colors[name], ends, told)
        _draw_lag(room, trace, name, colors[name], ends)
    _number_sentences(ax, room, first)
    for axis in (ax.yaxis, room.xaxis, room.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=8 if axis is room.xaxis else 5, integer=True))
    _explain(ax, named, colors)
    return ax


def document_lags(trace: Trace) -> list[float]:
    """How far behind the source each target unit of a document was written: source units between what had been read
    and what had been translated (`streamllm.metrics.behaviour.lags_of_document`)."""
    return lags_of_document(trace, ends_of_document(trace)[0])


def ends_of_document(trace: Trace) -> tuple[Ends, bool]:
    """Where sentences end, in source and target units, and whether the system itself says so."""
    if found := sentence_ends(trace):
        return found, True
    unit: Unit = "word" if " ".join(trace.units) == trace.prediction else "character"
    sentences = resegment([document(trace, unit)], "en", unit)  # the language decides of little more than marks
    written = accumulate((min(max(one.places, default=-1) + 1, len(trace.units)) for one in sentences), max)
    ends = [int(one.segment.start + one.segment.units) for one in sentences]
    return list(zip(ends, written, strict=True))[:-1], False


def _shrunk(ax: Axes) -> Axes:
    """Axes for the lag in the lower part of the place of ``ax``, which keeps the upper one."""
    figure: Any = ax.figure
    if place := ax.get_subplotspec():
        parts = place.subgridspec(2, 1, height_ratios=HEIGHTS)
        ax.set_subplotspec(parts[0])
        room: Axes = figure.add_subplot(parts[1], sharex=ax)
    else:
        left, low, width, height = ax.get_position().bounds
        share = HEIGHTS[1] / sum(HEIGHTS)
        ax.set_position((left, low + share * height, width, height * (1 - share)))
        room = figure.add_axes((left, low, width, 0.85 * share * height), sharex=ax)
    ax.tick_params(labelbottom=False)
    return room


def _draw_way(ax: Axes, trace: Trace, name: str, color: str, ends: Ends, told: bool) -> None:
    """The way, what is translated by then, and where sentences ended, if the system has ``told``."""
    xs, ys = staircase(trace)
    corners = np.array([(0, 0), *ends, (trace.source_units, len(trace.units))], float)
    ax.plot(*corners.T, color=color, linewidth=1.2, linestyle=(0, (1, 2)), zorder=2, label=f"_translated {name}")
    ax.plot(xs, ys, color=color, linewidth=1.6, zorder=3, clip_on=False, label=f"_path {name}")
    starts = {segment.start for segment in trace.segments} | {trace.source_units}
    if not told:
        return
    dots: dict[str, Any] = {"linestyle": "", "marker": "o", "color": color, "clip_on": False}
    right, wrong = ([end for end in ends if (end[0] in starts) == agrees] for agrees in (True, False))
    every = _step(len(right), MOST_LINES)
    kinds: tuple[tuple[Any, str, dict[str, Any]], ...] = (
        (right[every - 1 :: every], "ends", {"markersize": 6.5, "mec": "white", "markeredgewidth": 0.8, "zorder": 4}),
        (wrong, "elsewhere", {"markersize": 5, "mfc": "white", "markeredgewidth": 1.4, "zorder": 5}),
    )
    for at, kind, own in kinds:
        if at:  # an empty line that is not clipped lies at the corner of the figure, for layouts
            ax.plot(*np.array(at, float).T, label=f"_{kind} {name}", **dots, **own)


def _draw_lag(room: Axes, trace: Trace, name: str, color: str, ends: Ends) -> None:
    lags = np.array(lags_of_document(trace, ends))
    if not len(lags):
        return
    read = np.array(trace.delays, float)
    many = len(lags) > MANY
    room.plot(read, lags, color=color, linewidth=0.9, alpha=0.3 if many else 1, zorder=2, label=f"_lag {name}")
    if many:
        window = max(1, len(lags) // 40)
        weights = np.ones(window) / window
        mean = np.convolve(lags, weights, "valid")
        half = (window - 1) // 2
        room.plot(read[half : half + len(mean)], mean, color=color, linewidth=2, zorder=4, label=f"_mean {name}")
    room.axhline(0, color=GREY, linewidth=0.8, zorder=1)


def _number_sentences(ax: Axes, room: Axes, trace: Trace) -> None:
    segments = trace.segments
    every = _step(len(segments), MOST_LINES)
    starts = [segment.start for segment in segments[::every]]
    ax.vlines(starts, 0, ax.get_ylim()[0], color=FAINT, linewidth=0.7, zorder=0)
    low, high = room.get_ylim()
    room.vlines(starts, low, high, color=FAINT, linewidth=0.7, zorder=0)
    room.set_ylim(low, high)
    every = _step(len(segments), MOST_NUMBERS)
    shown: dict[float, str] = {}
    for place in range(len(segments)):
        at = segments[place].start + segments[place].units / 2
        chosen = (place + 1) % every == 0 or (place == 0 and every > 2)
        if chosen and at - max(shown, default=-math.inf) > LEAST_GAP * ax.get_xlim()[1]:
            shown[at] = str(place + 1)
    top = ax.secondary_xaxis("top")
    top.set_xticks(list(shown), list(shown.values()))
    top.tick_params(length=0, labelsize=sizes().small, labelcolor=GREY, pad=1)
    top.spines[:].set_visible(False)
    top.set_xlabel("sentence", fontsize=sizes().small, color=GREY)


def _step(count: int, most: int) -> int:
    """Every how many are shown, so that they are at most ``most``: 1, 2, 5, 10, 20 and so on."""
    steps: Iterator[int] = (base * 10**power for power in range(9) for base in (1, 2, 5))
    return next(step for step in steps if count <= most * step)


def _explain(ax: Axes, named: Mapping[str, Trace], colors: Mapping[str, str]) -> None:
    """A key in the lower left, where no path comes by; in the upper right where one ends its target early."""
    keys = [Line2D([], [], color=colors[name], linewidth=2, label=name) for name in named if name]
    color = GREY if len(named) > 1 else next(iter(colors.values()))
    if not keys:
        keys.append(Line2D([], [], color=color, linewidth=1.6, label="read and written"))
    keys.append(Line2D([], [], color=color, linewidth=1.2, linestyle=(0, (1, 2)), label="translated"))
    labels = {str(line.get_label()) for line in ax.lines}
    dot: dict[str, Any] = {"linestyle": "", "marker": "o", "color": color, "markersize": 6}
    if any(label.startswith("_ends") for label in labels):
        every = _step(len(next(iter(named.values())).segments), MOST_LINES)
        also = f" (one of {every})" if every > 1 else ""
        keys.append(Line2D([], [], **dot, label=f"end of a sentence{also}"))
    if any(label.startswith("_elsewhere") for label in labels):
        keys.append(Line2D([], [], **dot, mfc="white", label="the same, not in the reference"))
    early = any(
        sum(delay < trace.source_units / 4 for delay in trace.delays) > ax.get_ylim()[0] / 2 for trace in named.values()
    )
    ax.legend(
        handles=keys,
        loc="upper right" if early else "lower left",
        frameon=False,
        fontsize=sizes().small,
        labelcolor=INK,
    )


# --- position in the document


def drift(
    runs: "pandas.DataFrame | Mapping[str, str | os.PathLike[str]]",
    axes: Sequence[Axes] | None = None,
    *,
    groups: Groups | None = None,
    latency: str = "long_laal",
    samples: int = 1000,
) -> list[Axes]:
    """BLEU and latency by position in the document, with 95 % intervals: does a run get worse, or later?

    Args:
        runs: rows of `streamllm.runs.load.load_runs`, run folders by name, or a table of
            `streamllm.runs.documents.drift_table`. Runs over single sentences may be among those over documents.
        axes: two, for quality and latency; None makes a figure.
        groups, latency, samples: as in `drift_table`.

    Returns: the axes of quality and latency.
    Raises: ValueError: other than two axes; a table is empty; and as `drift_table`.
    """
    table = _table(runs, groups, latency, samples)
    if table.empty:
        raise ValueError("0 rows; give the table of at least one run")
    if axes is None:
        import matplotlib.pyplot as plt

        _, drawn = plt.subplots(2, 1, figsize=DRIFT_SIZE, sharex=True, layout="constrained")
        axes = list(drawn)
    if len(axes) != 2:
        raise ValueError(f"{len(axes)} axes; give two, for quality and latency")
    columns = [str(column) for column in table]
    lag = next(name.removesuffix("_low") for name in columns if name.endswith("_low") and name != "bleu_low")
    names = list(dict.fromkeys(table["run"]))
    look_of = looks_in_order(names)
    for ax, column in zip(axes, ("bleu", lag), strict=True):
        for place, name in enumerate(names):
            rows = table[table["run"] == name]
            x = rows["group"] - 0.5 + 0.35 * ((place + 0.5) / len(names) - 0.5)
            _draw_scores(ax, x, rows, column, look_of[name], name)
        score = score_of(column)
        finish(ax, "", score.axis, grid="y")
        ax.margins(y=0.12)
    figure: Any = axes[0].get_figure(root=True)
    narrow = figure.get_figwidth() < NARROW * sizes().text
    _mark_positions(axes, table, narrow)
    if len(names) > 1 and narrow:
        explain(axes[1], [handle(look_of[name], name, 1.4) for name in names], below=True)
    elif len(names) > 1:
        _name_lines(axes[0], table, look_of)
    return list(axes)


def drift_png(table: "pandas.DataFrame") -> bytes:
    """`drift` of a table as a PNG, for programs: no window and no figure of pyplot is opened."""
    return png(DRIFT_SIZE, lambda figure: drift(table, list(figure.subplots(2, 1, sharex=True))))


def _table(runs: Any, groups: Groups | None, latency: str, samples: int) -> "pandas.DataFrame":
    if isinstance(runs, Mapping):
        return drift_table(runs, groups, latency, samples)
    if {"run", "group", "bleu_low"} <= set(runs):
        return runs  # type: ignore[no-any-return]
    return drift_table(dict(zip(run_titles(runs), runs["folder"], strict=True)), groups, latency, samples)


def _draw_scores(ax: Axes, x: Any, rows: "pandas.DataFrame", column: str, look: Look, name: str) -> None:
    ax.vlines(x, rows[f"{column}_low"], rows[f"{column}_high"], color=look.color, linewidth=2.2, alpha=0.35, zorder=2)
    ax.plot(
        x,
        rows[column],
        color=look.color,
        marker=look.marker or "o",
        linestyle=look.dashes,
        linewidth=1.4,
        markersize=7,
        markeredgecolor="white",
        markeredgewidth=0.8,
        zorder=3,
        label=name,
    )


def _name_lines(ax: Axes, table: "pandas.DataFrame", look_of: Mapping[str, Look]) -> None:
    """The names of the lines in a column right of them, at the heights of their ends as far as there is room."""
    figure: Any = ax.get_figure(root=True)
    figure.draw_without_rendering()  # lays the axes out
    line = 1.35 * sizes().text * figure.dpi / 72 / ax.get_window_extent().height
    low, high = ax.get_ylim()
    last = table.groupby("run", sort=False).tail(1).set_index("run")["bleu"]
    heights = ((last - low) / (high - low)).fillna(0.5).sort_values()
    reached = -1.0
    for above, (name, height) in zip(reversed(range(len(heights))), heights.items(), strict=True):
        reached = max(reached + line, min(height, 1 - line * above))
        ax.annotate(
            str(name),
            (1, reached),
            (8, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            va="center",
            fontsize=sizes().text,
            color=look_of[str(name)].text,
            annotation_clip=False,
        )


def _mark_positions(axes: Sequence[Axes], table: "pandas.DataFrame", narrow: bool) -> None:
    last = int(table["group"].max())
    by_place = not str(table["position"].iloc[0]).endswith("%")
    for ax in axes:
        ax.set_xlim(0, last)
        if by_place:
            every = _step(last, MOST_NUMBERS)
            ticks = [group - 0.5 for group in range(1, last + 1) if group % every == 0]
            ax.xaxis.set_major_locator(FixedLocator(ticks))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x + 0.5:.0f}"))
        else:
            every = 1 if last <= 10 else 2 if last <= 20 else -(-last // 10)
            ax.xaxis.set_major_locator(FixedLocator(range(0, last + 1, every)))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x / last:.0f} %"))
    axes[1].set_xlabel(
        "sentence of the document" if by_place else "position in the document", fontsize=sizes().text, color=INK
    )
    axes[0].tick_params(labelbottom=False)
    documents, drawn = int(table["documents"].max()), " or ".join(dict.fromkeys(table["drawn"]))
    least, most = int(table["sentences"].min()), int(table["sentences"].max())
    count = f"{most} sentences" if least == most else f"{least} to {most} sentences"
    text = f"{count} of {documents} document{'s' * (documents != 1)} at each point"
    if table["bleu_low"].notna().any():
        text += f";{chr(10) if narrow else ' '}95 % intervals, drawn of {drawn}"
    axes[0].set_title(text, fontsize=sizes().small, color=GREY, loc="left")
