"""How figures look: colours, a look for each policy, names of metrics, and axes without clutter."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager
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

TEXT, SMALL = 11, 9  # points

WIDE_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Source Han Sans"),
    *("IPAexGothic", "WenQuanYi Zen Hei", "PingFang SC", "Hiragino Sans", "Arial Unicode MS"),
)
"""Fonts with Chinese and Japanese characters, which Matplotlib does not bring."""

POLICIES = (
    *("stride", "confidence", "entropy", "wait_if_worse", "wait_if_diff", "multi_k"),
    *("local_agreement", "hold_n", "ralcp", "alignatt", "oracle"),
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
ROUNDS: tuple[tuple[str, Dashes], ...] = (("s^Dv<P", "-"), ("^DvPsX", (0, (4, 1.5))), ("DvPXs^", (0, (1.2, 1.2))))
CYCLE = [Look(color, m, dashes) for markers, dashes in ROUNDS for color, m in zip(COLORS, markers, strict=True)]
FIXED = {"waitk": Look(INK, "o"), "full": Look(INK, "*"), **dict(zip(POLICIES, CYCLE, strict=False))}


def looks(names: Sequence[str]) -> dict[str, Look]:
    """A look for each name, the same in every figure for those of `POLICIES` and for "waitk" and "full"."""
    free = [look for look in CYCLE if look not in {FIXED[name] for name in names if name in FIXED}]
    others = sorted(name for name in names if name not in FIXED)
    return {name: FIXED[name] if name in FIXED else free[others.index(name) % len(free)] for name in names}


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


@cache
def word_fonts() -> list[str]:
    """Fonts for words of any language: Matplotlib's own, then what is installed of `WIDE_FONTS`."""
    installed = set(font_manager.get_font_names())
    return [*plt.rcParams["font.family"], *(font for font in WIDE_FONTS if font in installed)]


def make_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """``ax``, or those of a new figure (inches)."""
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


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
    ax.set_xlabel(xlabel, fontsize=TEXT, color=INK)
    ax.set_ylabel(ylabel, fontsize=TEXT, color=INK)
    ax.tick_params(labelsize=TEXT - 1, labelcolor=INK, color=FAINT)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    if grid:
        ax.grid(True, axis=grid, color="#e6e6e6", linewidth=0.8)
