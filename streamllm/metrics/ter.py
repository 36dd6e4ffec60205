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

    Raises: ValueError: no language.
    """

    key, label, digits, higher_is_better = "ter", "TER", 2, False

    def __init__(self, language: str | None):
        if not language:
            raise ValueError("metric=ter needs the target language: add dataset.target_language=…")
        self._by_character = re.split("[-_]", language.lower())[0] in ("zh", "zho", "cmn", "ja", "jpn")

    def __call__(self, traces: Sequence[Trace]) -> float:
        from sacrebleu.metrics.ter import TER as Scorer

        scorer = Scorer(normalized=self._by_character, asian_support=self._by_character)
        references = [trace.reference for trace in traces]
        return float(scorer.corpus_score([trace.prediction for trace in traces], [references]).score)
