"""Quality and lag of one sentence, as what looks for the best way through it takes them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from streamllm.metrics.latency import METRICS, reference_length
from streamllm.metrics.quality import check_tokenizer, chrf_counts, chrf_of_counts, sentence_bleu

QUALITIES = ("bleu", "chrf")
LAGS = ("al", "laal", "dal", "ap", "atd")


@dataclass(frozen=True)
class SentenceQuality:
    """BLEU of a sentence (effective order, smoothed), or chrF, 0 to 100.

    chrF is that of `chrf_with_penalty`.

    Args:
        score: "bleu" or "chrf".
        tokenizer: of BLEU, by sacrebleu's name; None is 13a.

    Raises:
        ValueError: there is no such score or tokenizer.
    """

    score: str = "bleu"
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        if self.score not in QUALITIES:
            raise ValueError(f"score is {self.score!r:.80}; accepted are {', '.join(QUALITIES)}")
        check_tokenizer(self.tokenizer)

    def __call__(self, prediction: str, reference: str) -> float:
        if self.score == "bleu":
            return sentence_bleu(prediction, reference, "", self.tokenizer)
        return chrf_with_penalty(prediction, reference)


@dataclass(frozen=True)
class SentenceLag:
    """A lag by its name, as `streamllm.metrics.latency` has it; nan where nothing is written.

    Args:
        metric: "al", "laal", "dal", "ap" or "atd".

    Raises:
        ValueError: there is no such lag.
    """

    metric: str = "laal"

    def __post_init__(self) -> None:
        if self.metric not in LAGS:
            raise ValueError(f"metric is {self.metric!r:.80}; accepted are {', '.join(LAGS)}")

    def __call__(self, delays: Sequence[int], source_units: int, reference: str, unit: str) -> float:
        if not delays:
            return math.nan
        return METRICS[self.metric](delays, source_units, reference_length(reference, unit))


def chrf_with_penalty(prediction: str, reference: str) -> float:
    """chrF (0 to 100) times exp(1 - c / r) where the prediction has more characters c than the reference r, as BLEU
    has it for the opposite: chrF weighs recall twice, and so forgives what is too much, but not what is missing. White
    space does not count."""
    score = chrf_of_counts(chrf_counts([prediction], [reference])[0].tolist())
    ours, theirs = (len("".join(text.split())) for text in (prediction, reference))
    return score * math.exp(1 - ours / theirs) if ours > theirs > 0 else score
