"""What a policy did, counted from the events of a trace: alternations, erasure, early ends.

READ is an event that took a source unit ("read", "forced_read"), WRITE one that gave target ("write", "extend").
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

from streamllm.records import State, Trace
from streamllm.units import Unit, common_prefix, ends_sentence, split

READS = frozenset({"read", "forced_read"})
WRITES = frozenset({"write", "extend"})


def alternations(trace: Trace) -> int:
    """How often WRITE followed READ. A READ that found the source at its end is none: full-sentence translation
    has 1."""
    actions = [event.kind in READS for event in trace.events if event.kind in READS | WRITES]
    return sum(read and not next_read for read, next_read in pairwise(actions))


def stops(trace: Trace, reason: str) -> bool:
    """Whether the sentence ended for this reason: "end_token", "early_stop", "max_units" or "max_tokens"."""
    return any(event.kind == "stop" and event.text == reason for event in trace.events)


def forced_reads(trace: Trace) -> int:
    """Source units that were read against the policy: after an end token, or at the length limit."""
    return sum(event.kind == "forced_read" for event in trace.events)


def early_ends(trace: Trace, at_limit: Callable[[State], bool]) -> int:
    """How often the end token came while source remained: forced reads below the length limit, and the end token
    that ended the sentence early, if one did.

    ``at_limit`` says whether the run's limit of units allows no more writing in a state
    (`engine.limits.Limits.reached`). It is needed because a trace tells a forced read at the limit of tokens from
    others, but not one at the limit of units.
    """
    ends = read = written = 0
    before = ""
    for event in trace.events:
        forced = event.kind == "forced_read" and before != "limit"
        ends += forced and not at_limit(State(read, written, source_done=False))
        before = event.kind
        read += event.kind in READS
        written += event.kind == "write"
    return ends + stops(trace, "early_stop")


CUT_SHARE, CUT_UNITS = 0.5, 8
"""A sentence was cut short if so large a share of its source, and so many units, came after the last write."""


MANY = 0.05
"""From this share of a run on, translations that were cut short are named whatever their sources are."""


def source_after_last_write(trace: Trace) -> float:
    """The share of the source that came after the last target unit was written: 1 without output, 0 without source."""
    return 1 - max(trace.delays, default=0) / trace.source_units if trace.source_units else 0.0


def cut_short(trace: Trace) -> bool:
    """Whether the target ended while much of the source was unread, or was read with nothing more written: the source
    is several sentences, or the model ended early."""
    share = source_after_last_write(trace)
    return bool(trace.delays) and share >= CUT_SHARE and share * trace.source_units >= CUT_UNITS


class CutShort:
    """Counts translations that were cut short, trace by trace."""

    def __init__(self) -> None:
        self._traces = 0
        self._cut: list[
            tuple[str, float, bool]
        ] = []  # id, what came after, and whether the source is several sentences

    def add(self, trace: Trace) -> None:
        self._traces += 1
        if cut_short(trace):
            several = any(map(ends_sentence, trace.source.split()[:-1]))
            self._cut.append((trace.id, source_after_last_write(trace), several))

    def warning(self, order: Sequence[str] | None = None) -> str | None:
        """A line about translations that were cut short, if their sources are several sentences or they are many; else
        None. ``order`` are the ids of all traces in the order of the data; None is that of their coming."""
        place = {id: index for index, id in enumerate(order or ())}
        cut = sorted(self._cut, key=lambda one: place[one[0]]) if place else self._cut
        several = [one for one in cut if one[2]]
        if not cut or (not several and len(cut) < MANY * self._traces):
            return None
        share = sum(after for _, after, _ in cut) / len(cut)
        example, *_ = (several or cut)[0]
        told = (
            f"{len(cut)} of {self._traces} translations ended with {share:.0%} of the source still to come (such as "
            f"{example!r}). "
        )
        if not several:
            return (
                f"{told}The model has ended early, or such a source is a document without punctuation: for documents "
                "give paradigm=sentences (docs/documents.md)"
            )
        return (
            f"{told}A source of several sentences is a document, which a translation that ends with its first sentence "
            "does not cover: give paradigm=sentences (docs/documents.md)"
        )


DISPLAYED = frozenset({"shown", "draft"})
"""Events that give an output which may be taken back: one that was shown, or one that only the policy saw."""


def sentence_ends(trace: Trace) -> list[tuple[int, int]]:
    """Where each target sentence of a document ended, by the system itself: source units that were translated by then,
    and target units that were written. Empty where the system keeps no account of it."""
    ends, written = [], 0
    for event in trace.events:
        written += event.kind == "write"
        if event.kind == "sentence" and event.text.isdecimal():
            ends.append((int(event.text), written))
    return ends


def lags_of_document(trace: Trace, ends: Sequence[tuple[int, int]]) -> list[float]:
    """How many source units lay between what was read and what was translated when each target unit was written.

    Between two ``ends`` (as `sentence_ends` gives them), source counts as translated evenly: of n target units for s
    source units, each stands for s / n, as in LAAL. After the last, the rest of the target stands for that of the
    source.
    """
    lags: list[float] = []
    for (source, first), (end, last) in pairwise([(0, 0), *ends, (trace.source_units, len(trace.units))]):
        for t, delay in enumerate(trace.delays[first:last]):
            lags.append(delay - source - t * (end - source) / (last - first))
    return lags


def displayed(trace: Trace, unit: Unit) -> list[list[str]]:
    """The target as a reader has seen it, or would have seen it who was shown every draft. After each "shown" or
    "draft" event these are the units written so far, then those of the event; at the end, the units of the trace.

    Units are in their last form: text that extends one (a comma) takes nothing back, whether it comes before a draft
    or after, and whether the unit was written by then or only drafted as it was first written.
    """
    return [[*trace.units[:written], *rest] for written, rest in _outputs(trace, unit)]


def _outputs(trace: Trace, unit: Unit) -> Iterator[tuple[int, Sequence[str]]]:
    """The outputs of `displayed`, each as the number of its written units, and those that follow them."""
    written = 0
    forms = _forms(trace)
    for event in trace.events:
        written += event.kind == "write"
        if event.kind in DISPLAYED:
            yield (
                written,
                [
                    trace.units[place] if text in forms.get(place, ()) else text
                    for place, text in enumerate(split(event.text, unit), written)
                ],
            )
    yield written, trace.units[written:]


def _forms(trace: Trace) -> dict[int, list[str]]:
    """The forms that the units which were extended had before, by their places."""
    forms: dict[int, list[str]] = {}
    form, place = "", -1
    for event in trace.events:
        if event.kind == "write":
            form, place = event.text.strip(), place + 1  # characters may have a space before them
        elif event.kind == "extend" and 0 <= place < len(trace.units):
            forms.setdefault(place, []).append(form)
            form += event.text
    return forms


def erased(trace: Trace, unit: Unit) -> int:
    """How many units disappear over the outputs of a trace: `erasure` of `displayed`.

    Written units are in all outputs after, so of each the rest alone is compared: a long document has as many outputs
    as units.
    """
    erased = 0
    for (before, rest), (after, following) in pairwise(_outputs(trace, unit)):
        erased += len(rest) - common_prefix(rest, [*trace.units[before:after], *following])
    return erased


def erasure(outputs: Sequence[Sequence[str]]) -> int:
    """How many units disappear over successive outputs (Arivazhagan et al. 2020, arXiv 2004.03643).

    E = sum_{i>1} (|o_{i-1}| - |LCP(o_i, o_{i-1})|) with LCP the longest common prefix: a unit that changes takes all
    that follow it with it.
    """
    return sum(len(before) - common_prefix(before, after) for before, after in pairwise(outputs))


def normalised_erasure(traces: Iterable[Trace], unit: Unit) -> float:
    """Normalised erasure, NE: units erased over units of the final translations, both summed over the run.

    Returns: NE; nan when no trace has an output that could be taken back, shown or drafted, or all are empty.
    """
    traces = list(traces)
    final = sum(len(trace.units) for trace in traces)
    if not final or not any(event.kind in DISPLAYED for trace in traces for event in trace.events):
        return math.nan
    return sum(erased(trace, unit) for trace in traces) / final
