"""Arithmetic of quality-latency curves: their height at a latency, and the area under them, for many samples at once.

A curve is piecewise linear through its points: arrays x (latency) and y (quality) of shape (samples, points), in any
order. Invariant: nothing is extrapolated but in samples, whose ends lie a little beside those of the curve itself.
"""

import numpy as np

from streamllm.runs.sums import Array

REACH = 0.1  # of the range: a sample's end goes on in the direction of a point that is at least so far from it


def heights(x: Array, y: Array, at: Array) -> Array:
    """Quality (samples,) of curves at latencies ``at`` (samples,): between two points, a line. Where points have the
    same latency, the height there is the middle of two of them. A curve that ends before goes on as `extended`."""
    x, y = extended(x, y, at, at)
    total, count = np.zeros(len(x)), np.zeros(len(x))
    for left in range(x.shape[1] - 1):
        a, b = x[:, left], x[:, left + 1]
        width = b - a
        share = np.divide(at - a, width, out=np.full(len(x), 0.5), where=width > 0)
        inside = (a <= at) & (at <= b)
        total += np.where(inside, y[:, left] + share * (y[:, left + 1] - y[:, left]), 0.0)
        count += inside
    found: Array = np.divide(total, count, out=np.full(len(x), np.nan), where=count > 0)
    return found


def areas(x: Array, y: Array, low: float, high: float) -> Array:
    """The exact area (samples,) under curves between two latencies. A curve that ends before goes on as `extended`."""
    ends = np.full(len(x), low), np.full(len(x), high)
    x, y = extended(x, y, *ends)
    total = np.zeros(len(x))
    for left in range(x.shape[1] - 1):
        a, b = x[:, left], x[:, left + 1]
        width = b - a
        begin, end = np.clip(a, low, high), np.clip(b, low, high)
        slope = np.divide(y[:, left + 1] - y[:, left], width, out=np.zeros(len(x)), where=width > 0)
        middle = y[:, left] + slope * ((begin + end) / 2 - a)
        total += (end - begin) * middle
    return total


def extended(x: Array, y: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Curves in the order of their latencies that reach from ``low`` to ``high`` (samples,), with a point more at
    either end.

    A sample of a curve begins and ends a little beside the curve. It goes on in the direction of the first point that
    is `REACH` of the curve's width away: a nearer one may lie anywhere. A curve of one point is flat.
    """
    order = np.argsort(x, axis=1, kind="stable")
    x, y = np.take_along_axis(x, order, 1), np.take_along_axis(y, order, 1)
    left = _continued(x, y, np.minimum(low, x[:, 0]))
    right = _continued(-x[:, ::-1], y[:, ::-1], np.minimum(-high, -x[:, -1]))
    return (
        np.column_stack([np.minimum(low, x[:, 0]), x, np.maximum(high, x[:, -1])]),
        np.column_stack([left, y, right]),
    )


def _continued(x: Array, y: Array, to: Array) -> Array:
    """The height at ``to``, at or before the first point."""
    away = x - x[:, :1]
    far = away >= REACH * away[:, -1:]
    far[:, 0] = False
    other = np.where(far.any(1), far.argmax(1), 0)
    rows = np.arange(len(x))
    width = away[rows, other]
    slope = np.divide(y[rows, other] - y[:, 0], width, out=np.zeros(len(x)), where=width > 0)
    result: Array = y[:, 0] + slope * (to - x[:, 0])
    return result
