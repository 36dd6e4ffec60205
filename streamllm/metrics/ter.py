"""Translation Edit Rate, as a metric that is asked for: metric=ter. An example of an own metric, too."""

import re
from collections.abc import Sequence

from streamllm.records import Trace


class TER:
    """Translation Edit Rate by sacrebleu (Snover et al. 2006).

    Edits (shifts of words included) that turn the translations into the references, over the words of the references,
    in percent. It is slow for long sentences, so it is not among the scores of every run.

    Args:
        language: of the target; characters of Chinese and Japanese count as words.
        case_sensitive: whether case counts; it does not in the standard score.

    Raises: ValueError: no language.
    """

    key, label, digits, higher_is_better = "ter", "TER", 2, False

    def __init__(self, language: str | None, case_sensitive: bool = False):
        if not language:
            raise ValueError("metric=ter needs the target language: add dataset.target_language=…")
        self._case_sensitive = case_sensitive
        self.signature: str | None = None
        self._by_character = re.split("[-_]", language.lower())[0] in ("zh", "zho", "cmn", "ja", "jpn")

    def __call__(self, traces: Sequence[Trace]) -> float:
        from sacrebleu.metrics.ter import TER as Scorer

        scorer = Scorer(
            normalized=self._by_character, asian_support=self._by_character, case_sensitive=self._case_sensitive
        )
        references = [trace.reference for trace in traces]
        score = float(scorer.corpus_score([trace.prediction for trace in traces], [references]).score)
        self.signature = str(scorer.get_signature())
        return score
