"""Direct labels of plots: text is written near its point, and never over another label.

Places are found in pixels, so labels go in last, when size and limits of the axes are final.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

Point = tuple[float, float]

OUTLINE = (withStroke(linewidth=3, foreground="white"),)
TIED = 1.2  # a label further from its point than this many of its heights gets a line to it
# What a label avoids: how many of its heights it would rather stand further away than
ELSEWHERE = 2.0  # at the second choice of a point
MISTAKEN = 1.5  # nearer to the marker of another point
CROSSED = 8.0  # its tie goes through another label
COVERED = 3.0  # on a marker
UNDERLAID = 0.4  # on four pixels of a line


@dataclass(frozen=True)
class Label:
    """Text for the point ``at`` (data coordinates), or for ``else_at`` if there is much more room. A label that is not
    ``needed`` is left out if there is no room close by."""

    text: str
    at: Point
    color: Any
    size: float = 11
    needed: bool = True
    bold: bool = False
    else_at: Point | None = None


def place_labels(ax: Axes, labels: Sequence[Label]) -> list[Annotation]:
    """Write labels so that none covers another, and lines and markers as little as possible.

    The limits of the axes are widened to the right where labels need it, and fixed. The first labels get the best
    places.

    Returns: what was written.
    """
    ax.set(xlim=ax.get_xlim(), ylim=ax.get_ylim())
    sizes = [_size(ax, label) for label in labels]
    _make_room(ax, labels, sizes)
    figure: Any = ax.get_figure(root=True)
    points_a_pixel = 72 / figure.dpi
    lines, markers = _ink(ax)
    frame = ax.get_window_extent()
    taken: list[Bbox] = [legend.get_window_extent() for legend in [ax.get_legend()] if legend is not None]
    written = []
    for label, (width, height) in sorted(zip(labels, sizes, strict=True), key=lambda item: not item[0].needed):
        best = None
        for point, cost in ((label.at, 0.0), *([(label.else_at, ELSEWHERE)] if label.else_at else [])):
            at = ax.transData.transform(point)
            found = _best(at, width, height, label.needed, frame, taken, lines, markers)
            if found and (best is None or found[0] + cost < best[0]):
                best = found[0] + cost, found[1], at, point
        if best is None:
            continue
        _, box, at, point = best
        taken.append(box)
        centre = np.mean([box.min, box.max], axis=0)
        tied = _away(at, box) > TIED * height
        if tied:
            lines = np.concatenate([lines, _between(at, centre)])
        tie = {"arrowstyle": "-", "color": label.color, "linewidth": 0.8, "alpha": 0.7, "shrinkA": 1, "shrinkB": 5}
        written.append(
            ax.annotate(
                xy=point,
                xytext=tuple((centre - at) * points_a_pixel),
                textcoords="offset points",
                arrowprops=tie if tied else None,
                **_text(label),
            )
        )
    return written


def _text(label: Label) -> dict[str, Any]:
    return {
        "text": label.text,
        "ha": "center",
        "va": "center",
        "fontsize": label.size,
        "fontweight": "bold" if label.bold else "normal",
        "color": label.color,
        "zorder": 6,
        "path_effects": OUTLINE,
    }


def _size(ax: Axes, label: Label) -> tuple[float, float]:
    x, y = label.at
    text = ax.text(x, y, label.text, fontsize=label.size, fontweight="bold" if label.bold else "normal")
    extent = text.get_window_extent()
    text.remove()
    return extent.width, extent.height


def _make_room(ax: Axes, labels: Sequence[Label], sizes: Sequence[tuple[float, float]]) -> None:
    """Move the right limit so that each needed label has room to the right of its point."""
    figure: Any = ax.get_figure(root=True)
    figure.draw_without_rendering()  # lays the axes out
    frame = ax.get_window_extent()
    share = 0.0
    for label, (width, height) in zip(labels, sizes, strict=True):
        if label.needed and width + 2 * height < frame.width / 2:
            reached = (ax.transData.transform(label.at)[0] - frame.x0) / (frame.width - width - height)
            share = max(share, reached)
    if share > 1:
        left, right = ax.get_xlim()
        ax.set_xlim(left, left + (right - left) * share)
        figure.draw_without_rendering()


def _ink(ax: Axes) -> tuple[NDArray[Any], NDArray[Any]]:
    """Points in pixels, each (n, 2): every few pixels of the lines, and the markers."""
    lines, markers = [np.zeros((0, 2))], [np.zeros((0, 2))]
    for line in ax.lines:
        if line.get_zorder() <= 1:  # background
            continue
        corners = line.get_transform().transform(np.asarray(line.get_xydata(), dtype=float))
        if line.get_marker() not in ("", "None", None):
            markers.append(corners)
        for start, end in pairwise(corners):
            lines.append(_between(start, end))
    return np.concatenate(lines), np.concatenate(markers)


def _best(
    at: NDArray[Any],
    width: float,
    height: float,
    needed: bool,
    frame: Bbox,
    taken: Sequence[Bbox],
    lines: NDArray[Any],
    markers: NDArray[Any],
) -> tuple[float, Bbox] | None:
    """Of the free boxes inside the frame, the one with the least ink below it, then the nearest; and what it costs."""
    best: Bbox | None = None
    least = math.inf
    gaps = height * (np.array([0.6, 1, 1.4, 2, 3, 4, 5.5, 7, 9, 12, 16, 21]) if needed else np.array([0.5, 0.9]))
    for gap in gaps:
        for turn in range(16):
            angle = 2 * np.pi * turn / 16
            side = np.clip(1.42 * np.array([np.cos(angle), np.sin(angle)]), -1, 1)
            x, y = at + side * (np.array([width, height]) / 2 + gap)
            box = Bbox.from_bounds(x - width / 2, y - height / 2, width, height)
            if not (frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1):
                continue
            if any(box.padded(1.5).overlaps(other) for other in taken):
                continue
            away = _away(at, box)
            cost = COVERED * _covered(markers, box.padded(3.5)) + UNDERLAID * _covered(lines, box) + gap / height
            cost += 0.15 * (1 - np.cos(angle))  # rather to the right
            cost += MISTAKEN * bool(np.any(_distances(markers, box) < away - 1))
            if cost < least and away > TIED * height:
                cost += CROSSED * sum(_covered(_between(at, (x, y)), other) > 0 for other in taken)
            if cost < least:
                best, least = box, float(cost)
    return (least, best) if best is not None and (needed or least < 3) else None


def _between(start: Any, end: Any) -> NDArray[Any]:
    """Points (n, 2) every four pixels of the way."""
    return np.linspace(start, end, 2 + int(np.hypot(*np.subtract(end, start)) / 4))


def _away(at: NDArray[Any], box: Bbox) -> float:
    """How far a point is from a box."""
    return float(_distances(at[None], box)[0])


def _distances(points: NDArray[Any], box: Bbox) -> NDArray[Any]:
    gaps = np.maximum(box.min - points, points - box.max).clip(0)
    return np.asarray(np.hypot(gaps[:, 0], gaps[:, 1]))


def _covered(points: NDArray[Any], box: Bbox) -> int:
    return int(np.sum(np.all((points >= box.min) & (points <= box.max), axis=1)))
