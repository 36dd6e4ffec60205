"""Quality and lag of one sentence, as what looks for the best way through it takes them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from streamllm.metrics.latency import METRICS, reference_length
from streamllm.metrics.quality import check_tokenizer, sentence_bleu

QUALITIES = ("bleu", "chrf")
LAGS = ("al", "laal", "dal", "ap", "atd")


@dataclass(frozen=True)
class SentenceQuality:
    """BLEU of a sentence (effective order, smoothed), or chrF, 0 to 100.

    chrF forgives words too many, so it is taken times what the reference has of the translation's length, where that is
    less than 1.

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
        too_long = min(1.0, len(reference) / len(prediction)) if prediction else 1.0
        return float(self._chrf.sentence_score(prediction, [reference]).score) * too_long

    @cached_property
    def _chrf(self) -> Any:
        from sacrebleu.metrics.chrf import CHRF

        return CHRF()


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
