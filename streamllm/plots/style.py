"""How figures look: colours, a look for each policy, names of metrics, and axes without clutter."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any, Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from streamllm.metrics.behaviour import READS
from streamllm.metrics.scores import Score, scores
from streamllm.records import Trace
from streamllm.runs.load import policy_name
from streamllm.runs.scores import own_of_runs

if TYPE_CHECKING:
    import pandas

Dashes = str | tuple[float, tuple[float, ...]]

INK, GREY, FAINT, HALO = "#222222", "#777777", "#cccccc", "#e4e4e4"
BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
"""Okabe and Ito's palette for all kinds of colour vision, without its yellow, which is hard to see on white."""


@dataclass(frozen=True)
class Sizes:
    """How large things are drawn: type in points; ``stroke`` times the usual width of lines and size of markers; and
    the width of a new figure in inches, None for what suits each figure best."""

    text: float = 11
    small: float = 9
    stroke: float = 1.0
    width: float | None = None


SCREEN = Sizes()
PAPER = {1: Sizes(8, 7, 0.62, 3.03), 2: Sizes(8, 7, 0.7, 6.3)}
"""One column and both of a page of ACL's style files: 7.7 and 16 cm."""

_sizes: ContextVar[Sizes] = ContextVar("sizes", default=SCREEN)


def sizes() -> Sizes:
    """The sizes that are in force, those of `look`."""
    return _sizes.get()


@contextmanager
def look(name: str = "screen", columns: int = 1) -> Iterator[None]:
    """Draw figures for a paper: ``with look("paper"):`` around the lines that draw and save them.

    New figures are as wide as a column (7.7 cm) or as two (16 cm, ``columns=2``), as in ACL's style files, with type
    of 8 points, so that they go into the paper unscaled. PDF files hold the type as TrueType, which publishers ask
    for. Nothing stays set afterwards.

    Raises: ValueError: another name or number of columns.
    """
    if name not in ("screen", "paper"):
        raise ValueError(f'look({name!r}): there are "screen" (as without it) and "paper"')
    if columns not in PAPER:
        raise ValueError(f"columns={columns!r}: a figure of a paper is 1 or 2 columns wide")
    chosen = PAPER[columns] if name == "paper" else SCREEN
    settings: Any = {"pdf.fonttype": 42, "ps.fonttype": 42, "savefig.dpi": 300, "axes.linewidth": 0.6}
    token = _sizes.set(chosen)
    try:
        with plt.rc_context(settings if name == "paper" else {}):
            yield
    finally:
        _sizes.reset(token)


POLICIES = (
    *("stride", "confidence", "entropy", "wait_if_worse", "wait_if_diff", "multi_k"),
    *("local_agreement", "hold_n", "ralcp", "alignatt", "oracle", "lsg", "dst", "drfrattn", "doa"),
)
"""Policies that look the same in every figure; others take what is left, in alphabetical order."""


@dataclass(frozen=True)
class Look:
    """Colour, marker and dashes of a line; ``text`` is its colour in the strength that type needs."""

    color: str
    marker: str
    dashes: Dashes = "-"

    @property
    def text(self) -> tuple[float, ...]:
        return tuple(0.72 * channel for channel in to_rgb(self.color))


COLORS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY)
ROUNDS: tuple[tuple[str, Dashes], ...] = (("s^Dv<P", "-"), ("^DvPsX", (0, (4, 1.5))), ("DvPX>^", (0, (1.2, 1.2))))
CYCLE = [Look(color, m, dashes) for markers, dashes in ROUNDS for color, m in zip(COLORS, markers, strict=True)]
FIXED = {"waitk": Look(INK, "o"), "full": Look(INK, "*"), **dict(zip(POLICIES, CYCLE, strict=False))}


def looks(names: Sequence[str]) -> dict[str, Look]:
    """A look for each name, the same in every figure for those of `POLICIES` and for "waitk" and "full"."""
    free = [look for look in CYCLE if look not in {FIXED[name] for name in names if name in FIXED}]
    others = sorted(name for name in names if name not in FIXED)
    return {name: FIXED[name] if name in FIXED else free[others.index(name) % len(free)] for name in names}


def looks_in_order(names: Sequence[str]) -> dict[str, Look]:
    """Looks for figures of one sentence, one document or its positions, where colours tell the lines apart: those that
    policies have everywhere if all names are policies of different colours, else the palette in the order of the
    names. So the same names in the same order have the same colours in all of these figures."""
    fixed = [FIXED[name] for name in names if name in FIXED]
    if len({look.color for look in fixed}) == len(names) > 1:
        return looks(names)
    return dict(zip(names, cycle(CYCLE), strict=False))


def line_names(runs: "pandas.DataFrame", by: str) -> "pandas.Series[str]":
    """The value of column ``by`` in each row, as text. Where "policy" is absent it is made of ``policy._target_``;
    so are "paradigm" and the like.

    Raises: ValueError: there is no such column.
    """
    if by not in runs and f"{by}._target_" in runs:
        return runs[f"{by}._target_"].map(short).map(policy_name)
    if by not in runs:
        raise ValueError(f"runs has no column {by!r}; it has {', '.join(map(str, runs.columns))}")
    return runs[by].map(short)


def score_of(column: str, runs: "pandas.DataFrame | None" = None) -> Score:
    """The score in a column of `load_runs`. Own metrics are found by the folders of ``runs``; what is no score goes by
    the name of its column."""
    known = scores(documents=True)
    if column not in known and runs is not None and "folder" in runs:
        known |= {score.key: score for score in own_of_runs(runs["folder"])}
    return known.get(column) or Score(column, column, higher_is_better=None)


def short(value: Any) -> str:
    """A cell as text: numbers without zeros at their end, "none" for what is missing."""
    if value is None or value != value:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def figure_size(size: tuple[float, float]) -> tuple[float, float]:
    """Inches of a new figure: ``size``, or the width of `sizes` with a height in proportion."""
    width = sizes().width
    return size if width is None else (width, width * size[1] / size[0])


def make_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """``ax``, or those of a new figure (inches, `figure_size`)."""
    return plt.subplots(figsize=figure_size(size), layout="constrained")[1] if ax is None else ax


def png(size: tuple[float, float], draw: Callable[[Figure], object]) -> bytes:
    """What ``draw`` draws in a new figure (inches), for programs: no window and no figure of pyplot is opened."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=90)
    return content.getvalue()


def staircase(trace: Trace) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The corners of the way through source (x) and target (y): a step to the right is a READ, one in y a WRITE."""
    delays, rows = np.array(trace.delays, float), np.arange(len(trace.delays))
    read = max([sum(event.kind in READS for event in trace.events), *trace.delays[-1:]])
    xs = np.concatenate([[0], np.repeat(delays, 2), [read]])
    ys = np.concatenate([np.repeat(rows, 2), [len(rows), len(rows)]])
    return xs, ys


def finish(ax: Axes, xlabel: str, ylabel: str, grid: Literal["x", "y", "both"] | None) -> None:
    """Name the axes, and leave of frame and grid what helps to read."""
    text = sizes().text
    ax.set_xlabel(xlabel, fontsize=text, color=INK)
    ax.set_ylabel(ylabel, fontsize=text, color=INK)
    ax.tick_params(labelsize=text - 1, labelcolor=INK, color=FAINT)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    if grid:
        ax.grid(True, axis=grid, color="#e6e6e6", linewidth=0.8)
