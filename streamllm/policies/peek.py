"""What the two criteria of Cho & Esipova share: predictions before and after the last units read are compared."""

from collections.abc import Callable

from streamllm.check import whole_number
from streamllm.records import READ, WRITE, Action, Decide, Prediction, State


def check_peek(initial: int, step: int) -> None:
    """Raises: ValueError: a number of units is not at least 1, or nothing would be left before the last ``step``."""
    whole_number("step", step)
    whole_number("initial", initial, least=step + 1, hint="one more than step, which is hidden at first")


def peek(initial: int, step: int, waits: Callable[[Prediction, Prediction], bool]) -> Decide:
    """Decide in one sentence: read ``initial`` units; then READ ``step`` more whenever ``waits`` says so of the
    predictions without and with the last ``step`` units read, else WRITE."""
    decides_at = initial

    def decide(state: State) -> Action:
        nonlocal decides_at
        if state.source_done:
            return WRITE
        if state.read < decides_at:
            return READ
        before = state.model.prediction(hidden=step)
        if not waits(before, state.model.prediction()):
            return WRITE
        decides_at = state.read + step
        return READ

    return decide
