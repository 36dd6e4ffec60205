"""What a sampled read/write path is worth: the quality of its translation less what its lag costs."""

from streamllm.metrics.latency import differentiable_average_lagging
from streamllm.metrics.of_one import chrf_with_penalty
from streamllm.metrics.quality import sentence_bleu
from streamllm.records import Trace

NOTHING = 1.0
"""Points by which writing nothing is worse than writing nothing right at the end of the source."""


def reward(trace: Trace, quality: str, latency: float, language: str, tokenizer: str | None = None) -> float:
    """Quality (0 to 100) less ``latency`` times DAL; always finite.

    DAL (`differentiable_average_lagging`) is between 0 and the units of the source. LAAL would fall below 0, and pay
    for writing everything at once. Without output no lag is defined: that is worth `NOTHING` less than the worst
    output.

    Args:
        quality: "bleu" or "chrf".
        language, tokenizer: of BLEU, as for `sentence_bleu`.
    """
    return worth(trace, quality, language, tokenizer) - latency * lag(trace)


def worth(trace: Trace, quality: str, language: str, tokenizer: str | None = None) -> float:
    """The part of a `reward` that latency has no say in: the quality, or what is lost by writing nothing."""
    if not trace.delays:
        return -NOTHING
    if quality == "bleu":
        return sentence_bleu(trace.prediction, trace.reference, language, tokenizer)
    return chrf_with_penalty(trace.prediction, trace.reference)


def lag(trace: Trace) -> float:
    """DAL; without output, that of writing at the end of the source."""
    return differentiable_average_lagging(trace.delays, trace.source_units) if trace.delays else trace.source_units
