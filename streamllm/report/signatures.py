"""What scores were computed with, as sacrebleu's signatures say it of BLEU: beneath the table of a paper, and in the
report."""

from collections.abc import Iterable, Mapping
from typing import Any

from streamllm.metrics.arrival import ArrivalClock
from streamllm.metrics.scores import Score
from streamllm.runs.scored import ON_A_CLOCK
from streamllm.runs.stored import SIGNATURE

SIGNED_AS = {
    "length_ratio": "bleu",
    "bleu_word_error": "bleu",
    "chrf_word_error": "chrf",
    "ca_stream_laal": "stream_laal",
}
"""Scores that another one's signature is about, too."""
CUT_BY = {"bleu_word_error": "stream_laal", "chrf_word_error": "stream_laal"}
"""Scores of documents that are not cut by the soft alignment, and the one whose signature says how they are."""


def signature(score: Score, found: Mapping[str, Any], clock: ArrivalClock | None) -> str | None:
    """The signature of a score of a run; None for what has none, such as a count.

    Args:
        found: the run's metrics.
        clock: that of the run, which lags in seconds depend on.
    """
    text = found.get(f"{SIGNED_AS.get(score.key, score.key)}{SIGNATURE}")
    if text is None and score.group in ("latency", "seconds"):
        text = found.get(f"longform{SIGNATURE}") or found.get(f"latency{SIGNATURE}")
    if text is None:
        return None
    parts = str(text).split("|")
    if found.get("documents") is not None and not any(part.startswith("segmenter:") for part in parts):
        how = str(found.get(f"{CUT_BY.get(score.key, 'longform')}{SIGNATURE}") or "").split("|")
        parts += [part for part in how if part.startswith(("segmenter:", "lang:"))]
    if score.key in ON_A_CLOCK and clock is not None:
        costs = "measured" if clock.measured else f"{clock.seconds_per_read:g}+{clock.seconds_per_write:g}s"
        parts += [f"rate:{clock.words_per_second:g}/s", f"compute:{costs}"]
    return "|".join(parts)


def together(signed: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs of a name and its signature, those with one signature as one pair."""
    names: dict[str, dict[str, None]] = {}
    for name, text in signed:
        names.setdefault(text, {})[name] = None
    return [(", ".join(those), text) for text, those in names.items()]
