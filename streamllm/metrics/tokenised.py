"""Whether texts look tokenised: "a dog , he said ." Latencies then count marks as units, and BLEU and chrF move too.

sacrebleu's own warning would come in the middle of a run and is switched off (`streamllm.metrics.quality`)."""

import re
from collections.abc import Iterable, Sequence

from streamllm.records import Trace

SHARE = 0.05  # of texts; in plain text there are next to none
# Not ! ? : ; which French sets apart, and not the danda of Hindi.
_SIGNS = re.compile(r"\S\s+[.,。，、](?=\s|$)|\S@-@\S|\s@-@\s|&(?:apos|quot);")


def looks_tokenised(text: str) -> bool:
    """Whether a full stop or a comma is set apart from the word before it, or there are signs of Moses (``@-@``,
    ``&apos;``)."""
    return _SIGNS.search(text) is not None


class Tokenised:
    """Counts references and predictions that look tokenised, trace by trace."""

    def __init__(self) -> None:
        self._traces = 0
        self._references: list[tuple[str, str]] = []  # ids and texts
        self._predictions: list[tuple[str, str]] = []

    def add(self, trace: Trace) -> None:
        self._traces += 1
        for found, text in ((self._references, trace.reference), (self._predictions, trace.prediction)):
            if looks_tokenised(text):
                found.append((trace.id, text))

    def warning(self, order: Sequence[str] | None = None) -> str | None:
        """A line about references and predictions that look tokenised; None where less than ``SHARE`` of both do.
        ``order`` are the ids of all traces in the order of the data; None is that of their coming."""
        sides = (self._references, self._predictions)
        shares = [len(found) / max(self._traces, 1) for found in sides]
        if max(shares) < SHARE:
            return None
        place = {id: index for index, id in enumerate(order or ())}
        _, example = min(next(filter(None, sides)), key=lambda one: place.get(one[0], 0))
        return (
            f"{shares[0]:.0%} of the references and {shares[1]:.0%} of the predictions look tokenised, such as "
            f"{example!r:.80}: marks that are set apart count as units of their own, so latencies and quality are not "
            "those of plain text; give detokenised texts"
        )


def tokenised_warning(traces: Iterable[Trace]) -> str | None:
    """`Tokenised.warning` of all ``traces``."""
    found = Tokenised()
    for trace in traces:
        found.add(trace)
    return found.warning()
