"""Bounds on the lag of any policy, so that each can be swept over latency."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streamllm.check import check_model, whole_number
from streamllm.records import READ, WRITE, Action, Decide, Example, Policy, State


@dataclass(frozen=True)
class Bounded:
    """READ while fewer than ``min_lag`` units are read and not written, WRITE from ``max_lag`` on, else ask ``policy``.

    Every policy lies between wait-``min_lag`` and wait-``max_lag`` then; with both at k it is wait-k. None is no
    bound. The policy is not asked where a bound decides, so that costs nothing.

    Raises:
        ValueError: a bound is not an integer of at least 1, or max_lag is below min_lag.
    """

    policy: Policy
    min_lag: int | None = None
    max_lag: int | None = None

    def __post_init__(self) -> None:
        if self.min_lag is not None:
            whole_number("min_lag", self.min_lag, hint="null for no bound")
        if self.max_lag is not None:
            low = self.min_lag or 1
            whole_number("max_lag", self.max_lag, least=low, hint="null for no bound; not below min_lag")

    def check_model(self, model: Any) -> None:
        check_model(self.policy, model)

    def start(self, example: Example) -> Decide:
        ask = self.policy.start(example)

        def decide(state: State) -> Action:
            lag = state.read - state.written
            if state.source_done or (self.max_lag is not None and lag >= self.max_lag):
                return WRITE
            return READ if self.min_lag is not None and lag < self.min_lag else ask(state)

        return decide


def bounded(policy: Policy, min_lag: int | None = None, max_lag: int | None = None) -> Policy:
    """``policy`` within bounds; ``policy`` itself when there are none.

    Raises: ValueError: as `check_policy`; or it takes no bounds.
    """
    check_policy(policy)
    if (min_lag, max_lag) != (None, None) and not getattr(policy, "takes_bounds", True):
        raise ValueError(
            f"policy={type(policy).__name__.lower()} chooses whole ways through a sentence, which bounds would leave: "
            "leave min_lag and max_lag at null"
        )
    return policy if min_lag is None and max_lag is None else Bounded(policy, min_lag, max_lag)


def check_policy(policy: object) -> None:
    """Raises: ValueError: it is no policy, but its name, its class, or settings without a class."""
    if isinstance(policy, type):
        raise ValueError(f"policy is the class {policy.__name__}; give an object of it, such as streamllm.WaitK(3)")
    if callable(getattr(policy, "start", None)):
        return
    if isinstance(policy, Mapping):
        raise ValueError(
            f"policy is {dict(policy)}, which names no class: its YAML needs a line _target_: MODULE.CLASS"
        )
    what = (
        repr(policy) if isinstance(policy, str | int | None) else f"a {type(policy).__name__}, without start(example)"
    )
    raise ValueError(f"policy is {what}; give a policy object such as streamllm.WaitK(3)")
