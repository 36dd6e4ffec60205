"""Quality over latency: the curves of policies, together or in panels, and the front of the best runs."""

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from streamllm.metrics.latency import METRICS
from streamllm.plots.labels import Label, place_labels
from streamllm.plots.style import (
    FAINT,
    HALO,
    INK,
    Look,
    figure_size,
    finish,
    line_names,
    looks,
    make_axes,
    score_of,
    short,
    sizes,
)
from streamllm.runs.load import FULL, LAG_BOUNDS, curve_name

if TYPE_CHECKING:
    import pandas

SAME_ON_A_LINE = ("dataset.name", "dataset.split", "sentences", "documents", "model.path", "paradigm._target_")
"""Columns that may not differ between the points of one line."""

SAME_IN_A_FIGURE = ("dataset.name", "dataset.split", "sentences", "documents")
"""Columns that say which sentences were translated: scores of others do not compare."""

THICK = 2.6  # points, the line that others are measured by
CROWD = 8  # more lines than this get a larger figure
NARROW, FEW = 0.45, 4  # inches of width for each point of type, below which a key names more than so many lines
FRONT = "no earlier run is as good"  # what the grey front is


def quality_latency(
    runs: "pandas.DataFrame",
    x: str = "laal",
    y: str = "bleu",
    by: str = "policy",
    band: "pandas.DataFrame | None" = None,
    ax: Axes | None = None,
    *,
    reference: str | None = "waitk",
    points: bool = False,
    labels: bool | Collection[str] = True,
    pareto: bool = False,
    styles: Mapping[str, Look] | None = None,
    key: bool | None = None,
) -> Axes:
    """A line for each policy through its operating points, from early to late. Full-sentence translation has no setting
    between whose values a line could go: its points are stars, and each stands alone.

    Args:
        runs: a row for each run, as `streamllm.runs.load.load_runs` gives; rows without ``x`` or ``y`` are left out.
        x, y: columns of a latency and of a quality.
        by: the column whose values are the lines. Where "policy" or "paradigm" is absent, it is made of ``_target_``.
        band: intervals ``<y>_low`` and ``<y>_high`` with the index of ``runs``, as
            `streamllm.runs.compare.intervals` gives; drawn as bands.
        ax: where to draw; None makes a figure. Limits that it was given stay, and what lies beyond has no label.
        reference: the line to measure the others by, drawn thick and black.
        points: whether to write at each point what sets it apart (`operating_points`), where there is room.
        labels: whether to write the name of each line, or which names to write. A name stands at the late end of its
            line, or at the early end where there is no room.
        pareto: whether to draw the front of what no other run beats (`pareto_front`), broad and grey. A key says so.
        styles: looks for lines by name, in place of the usual ones.
        key: whether to name the lines in a key below the axes rather than at the lines; None does so where the figure
            is too narrow for the names.

    Warns where one line is of other sentences than another.
    Raises: ValueError: a column is absent, no row has both values, intervals are missing, or one line would
        join runs over different data or models.
    """
    lines = _lines(runs, x, y, by, band)
    look_of = _looks(lines, reference) | {name: look for name, look in (styles or {}).items() if name in lines}
    keys = {name: _of_whole(look) if all(p.whole for p in lines[name]) else look for name, look in look_of.items()}
    own = ax is None
    ax = make_axes(ax, (7.2, 4.8) if len(lines) <= CROWD else (9.0, 6.0))
    if pareto:
        front = pareto_front(runs, x, y)
        ax.plot(front[x], front[y], zorder=1, label="_pareto", **_halo())
    for name, look in look_of.items():
        _draw(ax, lines[name], look, name, THICK if name == reference else 1.8, band=band is not None)
    finish(ax, score_of(x, runs).axis, score_of(y, runs).axis, grid="both")
    ax.margins(0.08, 0.09)
    _begin_at_zero(ax)
    if key is None:
        figure: Any = ax.get_figure(root=True)
        key = len(lines) > FEW and figure.get_figwidth() < NARROW * sizes().text
    explained = [Line2D([], [], **_halo(0.5), label=FRONT)] if pareto else []
    if key:
        labels = labels if isinstance(labels, Collection) else False
        explain(
            ax,
            [*(handle(look, name, THICK if name == reference else 1.8) for name, look in keys.items()), *explained],
            below=True,
            grow=own,
        )
    elif explained:
        explain(ax, explained, below=False)
    wanted = []
    in_sight = {name: [point for point in line if _contains(ax, point.at)] for name, line in lines.items()}
    wished = set(labels) if isinstance(labels, Collection) else set(look_of) if labels else set()
    named = [name for name in look_of if name in wished and in_sight[name]]
    for name in sorted(named, key=lambda name: name != reference):
        first, last = in_sight[name][0].at, in_sight[name][-1].at
        wanted.append(Label(name, last, look_of[name].text, sizes().text, bold=name == reference, else_at=first))
    for place, (name, look) in product(range(max(map(len, lines.values()))), look_of.items()) if points else ():
        if place < len(in_sight[name]) and (setting := in_sight[name][place].setting):
            # The key stands at the first point of a line only, unless there are several keys.
            text = setting.partition("=")[2] if place and setting.count("=") == 1 else setting
            wanted.append(Label(text, in_sight[name][place].at, look.text, sizes().small, needed=False))
    place_labels(ax, wanted)
    return ax


def _begin_at_zero(ax: Axes) -> None:
    """Let no axis of scores that are all 0 or more show numbers below 0, nor one of zeros alone numbers around 0.
    Limits that were given stay."""
    if not ax.get_autoscaley_on() or ax.dataLim.y0 < 0 or ax.get_ylim()[0] >= 0:
        return
    top = ax.get_ylim()[1] if ax.dataLim.y1 > 0 else 1.0
    if ax.get_autoscalex_on():
        for line in ax.lines:
            line.set_clip_on(False)  # a marker at 0 is shown whole
    ax.set_ylim(0.0, top)


def _halo(factor: float = 1.0) -> dict[str, Any]:
    stroke = factor * sizes().stroke
    return {"color": HALO, "linewidth": 6 * stroke, "marker": "o", "markersize": 19 * stroke}


def handle(look: Look, name: str, width: float = 1.8) -> Line2D:
    """A piece of a line, for a key."""
    return Line2D([], [], label=name, **_style(look, width, alone=False))


def explain(ax: Axes, handles: Sequence[Line2D], below: bool, grow: bool = False) -> None:
    """A key of ``handles``: below the axes in as many columns as have room, else in their lower right corner.

    Args:
        grow: whether to make the figure higher by the key, so that the axes keep their height.
    """
    figure: Any = ax.get_figure(root=True)
    style: dict[str, Any] = {"frameon": False, "fontsize": sizes().small, "labelcolor": INK, "borderaxespad": 0.3}
    if not below:
        ax.legend(handles=list(handles), loc="lower right", **style)
        return
    figure.draw_without_rendering()  # lays the axes out
    frame: Any = ax.get_tightbbox()
    drop = ax.get_window_extent().y0 - frame.y0  # what the axis and its name take
    style["bbox_transform"] = ax.transAxes + ScaledTranslation(0, -drop / figure.dpi, figure.dpi_scale_trans)
    style |= {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "handlelength": 2.6, "columnspacing": 1.2}
    room = 0.98 * figure.get_window_extent().width
    for columns in range(min(len(handles), 6), 0, -1):
        extent = ax.legend(handles=list(handles), ncols=columns, **style).get_window_extent()
        if extent.width <= room:
            break
    if grow:
        figure.set_figheight(figure.get_figheight() + extent.height / figure.dpi)


def _contains(ax: Axes, at: tuple[float, float]) -> bool:
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    return left <= at[0] <= right and low <= at[1] <= high


def quality_latency_panels(
    runs: "pandas.DataFrame",
    x: str = "laal",
    y: str = "bleu",
    by: str = "policy",
    band: "pandas.DataFrame | None" = None,
    *,
    reference: str | None = "waitk",
    columns: int = 4,
) -> list[Axes]:
    """`quality_latency` for many policies: a panel for each, with ``reference`` in black and the rest in grey.

    Returns: the panels of one new figure, in alphabetical order.
    Raises: ValueError: as `quality_latency`.
    """
    lines = _lines(runs, x, y, by, band)
    look_of = _looks(lines, reference)
    shown = sorted(set(lines) - {reference}) or list(lines)
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    size = figure_size((2.6 * columns + 0.6, 2.3 * rows + 0.5))
    figure, grid = plt.subplots(
        rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    panels = list(grid.flat)
    for place, (name, ax) in enumerate(zip(shown, panels, strict=False)):
        for other in lines.keys() - {name, reference}:
            _draw(ax, lines[other], Look(FAINT, ""), "_other", 1.2)
        if reference in lines and reference != name:
            _draw(ax, lines[reference], Look(INK, ""), reference, 1.6)
        _draw(ax, lines[name], replace(look_of[name], dashes="-"), name, 2.0, band=band is not None)
        finish(ax, "", "", grid="both")
        ax.set_title(name, fontsize=sizes().text, color=look_of[name].text, loc="left")
        ax.tick_params(labelbottom=place + columns >= len(shown))
    for unused in panels[len(shown) :]:
        unused.set_axis_off()
    if reference in lines and reference not in shown:
        place_labels(panels[0], [Label(reference, lines[reference][0].at, INK, sizes().small)])
    figure.supxlabel(score_of(x, runs).axis, fontsize=sizes().text, color=INK)
    figure.supylabel(score_of(y, runs).axis, fontsize=sizes().text, color=INK)
    return panels[: len(shown)]


def pareto_front(runs: "pandas.DataFrame", x: str = "laal", y: str = "bleu") -> "pandas.DataFrame":
    """The runs that no other beats, from early to late: each is better than all runs that are as early or earlier.
    Lower values of ``y`` are better if its score says so."""
    lower = score_of(y, runs).higher_is_better is False
    ordered = runs.dropna(subset=[x, y]).sort_values([x, y], ascending=[True, lower])
    good = -ordered[y] if lower else ordered[y]
    return ordered[good > good.cummax().shift(fill_value=-np.inf)]


def settings_of_policy(runs: "pandas.DataFrame") -> list[str]:
    """The columns that name a run of its policy: single values right below ``policy``, and the bounds of the lag.
    Lists (delays, heads) and what a setting is made of (``policy.delays.run``) are too long for a label."""
    own = [column for column in runs.columns if column.startswith("policy.") and column.count(".") == 1]
    single = [key for key in own if not runs[key].map(lambda value: isinstance(value, list | tuple)).any()]
    bounds = [column for column in LAG_BOUNDS if column in runs]
    return [key for key in single if key != "policy._target_"] + bounds


def operating_points(runs: "pandas.DataFrame") -> "pandas.Series[str]":
    """What sets each run apart from the others of its policy, such as "k=3": those of
    `settings_of_policy` that differ there, but for a bound that a run has not.

    Raises: ValueError: nothing in ``runs`` tells the policy.
    """
    import pandas

    names = line_names(runs, "policy")
    keys = settings_of_policy(runs)
    cells = runs[keys].map(short)
    settings = np.full(len(runs), "", dtype=object)
    for name in names.unique():
        chosen = (names == name).to_numpy()
        rows = cells[chosen]
        varied = [key for key in keys if rows[key].nunique() > 1]
        settings[chosen] = [
            ", ".join(
                f"{key.rpartition('.')[2]}={row[key]}"
                for key in varied
                if not (key in LAG_BOUNDS and row[key] == short(None))
            )
            for _, row in rows.iterrows()
        ]
    return pandas.Series(settings, runs.index)


def run_titles(runs: "pandas.DataFrame") -> list[str]:
    """A name for each run: its policy with what sets it apart, and the digest of those that are the same by that.

    Raises: ValueError: ``runs`` has no column ``folder``.
    """
    if "folder" not in runs:
        raise ValueError("runs has no column 'folder': take the DataFrame of streamllm.runs.load.load_runs")
    titles = [f"{n} {p}".strip() for n, p in zip(line_names(runs, "policy"), operating_points(runs), strict=True)]
    if len(set(titles)) == len(titles):
        return titles
    named = zip(titles, runs["digest"], strict=True)  # the same policy on other data or with another model
    return [f"{title} {digest}" if titles.count(title) > 1 else title for title, digest in named]


@dataclass(frozen=True)
class _Point:
    """A run in a figure; without a band, ``low`` and ``high`` are the value itself. ``whole`` is full-sentence
    translation."""

    at: tuple[float, float]
    low: float
    high: float
    setting: str
    whole: bool = False


def _lines(
    runs: "pandas.DataFrame", x: str, y: str, by: str, band: "pandas.DataFrame | None"
) -> dict[str, list[_Point]]:
    """The points of each line, from early to late."""
    for column in (x, y):
        if column not in runs:
            numbers = ", ".join(map(str, runs.select_dtypes("number").columns))
            raise ValueError(f"runs has no column {column!r}; of numbers it has {numbers or 'none'}")
    rows = runs.dropna(subset=[x, y])
    if rows.empty:
        advice = "run something first"
        if x in METRICS and "long_yaal" in runs and runs["long_yaal"].notna().any():
            advice = f"runs over documents have x='long_yaal' and x='long_laal' in place of {x}"
        raise ValueError(f"none of the {len(runs)} runs has both {x!r} and {y!r}: {advice}")
    names, policies = line_names(rows, by), _policies(rows)
    if by == "policy":
        names = policies
    _check_comparable(rows, names, by)
    ends = [rows[y], rows[y]]
    if band is not None:
        columns = [f"{y}_low", f"{y}_high"]
        if not set(columns) <= set(band.columns) or not set(rows.index) <= set(band.index) or not band.index.is_unique:
            raise ValueError(
                f"band needs the columns {columns[0]} and {columns[1]} and one row for each of runs, with its index: "
                "take streamllm.runs.compare.intervals(runs)"
            )
        ends = [band.loc[rows.index, column] for column in columns]
    settings = operating_points(rows) if {"policy", "policy._target_"} & set(rows.columns) else [""] * len(rows)
    lines: dict[str, list[_Point]] = {}
    for name, policy, early, good, low, high, setting in zip(
        names, policies, rows[x], rows[y], *ends, settings, strict=True
    ):
        whole = policy == FULL
        point = _Point((float(early), float(good)), float(low), float(high), "" if whole else setting, whole)
        lines.setdefault(name, []).append(point)
    return {name: sorted(points, key=lambda point: point.at) for name, points in lines.items()}


def _policies(rows: "pandas.DataFrame") -> "pandas.Series[str]":
    """The policy of each row, by the name of its curve; "" where nothing tells it."""
    import pandas

    if not {"policy", "policy._target_"} & set(rows.columns):
        return pandas.Series("", rows.index)
    bounds = rows["max_lag"] if "max_lag" in rows else pandas.Series(None, rows.index, dtype=object)
    names = line_names(rows, "policy")
    found = [curve_name(name, most) for name, most in zip(names, bounds, strict=True)]
    return pandas.Series(found, rows.index, dtype=object)


def _check_comparable(rows: "pandas.DataFrame", names: "pandas.Series[str]", by: str) -> None:
    mixed = _mixed(rows, names, by)
    if mixed is None:
        _warn_of_other_data(rows, names, by)
        return
    name, column, values = mixed
    other = column.removesuffix("._target_")
    advice = f"keep those of one, such as runs[runs[{column!r}] == {values[0]!r}]"
    if _mixed(rows, line_names(rows, other), other) is None:  # else that would be refused, too
        advice += f", or give by={other!r}"
    listed = ", ".join(map(short, values))
    raise ValueError(f"the line {name!r} would join runs with different {column} ({listed}): {advice}")


def _warn_of_other_data(rows: "pandas.DataFrame", names: "pandas.Series[str]", by: str) -> None:
    """Say so if one line is of other sentences than another: each is right, and yet they do not compare."""
    for column in SAME_IN_A_FIGURE:
        if column not in rows or by in SAME_IN_A_FIGURE:
            continue
        of = rows[column].dropna().groupby(names).first()
        if of.nunique() > 1:
            listed = ", ".join(f"{name}: {short(value)}" for name, value in of.items())
            warnings.warn(
                f"the lines are of different {column} ({listed}), so they do not compare: "
                f"keep those of one, such as runs[runs[{column!r}] == {of.iloc[0]!r}]",
                stacklevel=5,
            )
            return


def _mixed(rows: "pandas.DataFrame", names: "pandas.Series[str]", by: str) -> tuple[str, str, list[Any]] | None:
    """A line that would join runs over different data or models: its name, the column, and the values there."""
    for column in SAME_ON_A_LINE:
        for name in names.unique() if column in rows and column.removesuffix("._target_") != by else ():
            values = rows[column][names == name].dropna().drop_duplicates().tolist()
            if len(values) > 1:
                return name, column, values
    return None


def _looks(lines: Iterable[str], reference: str | None) -> dict[str, Look]:
    return {name: Look(INK, "o") if name == reference else look for name, look in looks(list(lines)).items()}


def _draw(ax: Axes, points: Sequence[_Point], look: Look, label: str, width: float, band: bool = False) -> None:
    joined, alone = [point for point in points if not point.whole], [point for point in points if point.whole]
    if joined:
        _draw_line(ax, joined, look, label, width, band)
    if alone:
        _draw_line(ax, alone, _of_whole(look), f"_whole {label}" if joined else label, width, band)


def _of_whole(look: Look) -> Look:
    """How points of full-sentence translation look."""
    return replace(look, marker="*", dashes="")


def _draw_line(ax: Axes, points: Sequence[_Point], look: Look, label: str, width: float, band: bool) -> None:
    x, y = zip(*(point.at for point in points), strict=True)
    if band:
        low, high = [point.low for point in points], [point.high for point in points]
        if len(points) > 1 and look.dashes:
            ax.fill_between(x, low, high, color=look.color, alpha=0.13, linewidth=0, zorder=2)
        else:
            ax.vlines(x, low, high, color=look.color, alpha=0.4, linewidth=3, zorder=2)
    ax.plot(
        x, y, zorder={FAINT: 2, INK: 4}.get(look.color, 3), label=label, **_style(look, width, alone=len(points) == 1)
    )


def _style(look: Look, width: float, alone: bool) -> dict[str, Any]:
    """How a line is drawn; a point ``alone`` has a marker in any case."""
    stroke = sizes().stroke
    return {
        "color": look.color,
        "marker": look.marker or ("o" if alone else ""),
        "linestyle": look.dashes,
        "linewidth": width * stroke,
        "markersize": {"*": 13, "": 4}.get(look.marker, 7.5) * stroke,
        "markeredgecolor": "white",
        "markeredgewidth": 0.8 * stroke,
    }
