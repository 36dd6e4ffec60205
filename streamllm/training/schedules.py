"""How the learning rate falls, as a share of its highest. mlx's own schedules count steps from a number of steps that
must be known before; here they go by the share of the training that is done, since epochs differ in their steps."""

import math
from collections.abc import Callable

Schedule = Callable[[float, float, int, int], float]
"""(share of the training that is done, final rate, step, warm-up steps) -> share of the highest rate."""


def _constant(progress: float, final: float, step: int, warmup: int) -> float:
    return 1.0


def _linear(progress: float, final: float, step: int, warmup: int) -> float:
    return 1 - (1 - final) * progress


def _cosine(progress: float, final: float, step: int, warmup: int) -> float:
    """Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts."""
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2


def _inverse_sqrt(progress: float, final: float, step: int, warmup: int) -> float:
    """Vaswani et al. 2017, arXiv 1706.03762, section 5.3; never below ``final``."""
    return max(final, math.sqrt(max(warmup, 1) / max(step + 1, warmup, 1)))


SCHEDULES: dict[str, Schedule] = {
    "cosine": _cosine,
    "linear": _linear,
    "constant": _constant,
    "inverse_sqrt": _inverse_sqrt,
}


def factor(schedule: str, step: int, progress: float, warmup: int, final: float) -> float:
    """The learning rate at a step (0-based) as a share of the highest: a linear warm-up times the schedule.

    Args:
        progress: share of the training that is done; beyond 1 is 1.
        warmup: steps until the highest rate is reached.
        final: share that is left at the end.
    """
    return SCHEDULES[schedule](min(progress, 1), final, step, warmup) * min(1.0, (step + 1) / max(warmup, 1))
