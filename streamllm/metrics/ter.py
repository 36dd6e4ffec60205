"""Translation Edit Rate, as a metric that is asked for: metric=ter."""

import re
from collections.abc import Sequence
from typing import Any

from streamllm.metrics.asked import BySacrebleu, counting


class TER(BySacrebleu):
    """Translation Edit Rate by sacrebleu (Snover et al. 2006).

    Edits (shifts of words included) that turn the translations into the references, over the words of the references,
    in percent. Of several references, the edits are those of the nearest, and the words are their mean. It is slow for
    long sentences, so it is not among the scores of every run.

    Args:
        language: of the target; characters of Chinese and Japanese count as words.
        case_sensitive: whether case counts; it does not in the standard score.
        references: as for `streamllm.metrics.asked.OfCorpus`.

    Raises: ValueError: no language.
    """

    def __init__(self, language: str | None, case_sensitive: bool = False, references: Sequence[str] | None = None):
        if not language:
            raise ValueError("metric=ter needs the target language: add dataset.target_language=…")
        by_character = re.split("[-_]", language.lower())[0] in ("zh", "zho", "cmn", "ja", "jpn")

        def scorer() -> Any:
            from sacrebleu.metrics.ter import TER as Scorer

            return counting(Scorer)(normalized=by_character, asian_support=by_character, case_sensitive=case_sensitive)

        of: dict[str, Any] = {"key": "ter", "label": "TER", "language": language, "references": references}
        super().__init__(scorer, "ratio", higher_is_better=False, **of)
