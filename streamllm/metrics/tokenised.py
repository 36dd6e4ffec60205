"""Whether texts look tokenised: "a dog , he said ." Latencies then count marks as units, and BLEU and chrF move too.

sacrebleu's own warning would come in the middle of a run and is switched off (`streamllm.metrics.quality`)."""

import re
from collections.abc import Sequence

from streamllm.records import Trace

SHARE = 0.05  # of texts; in plain text there are next to none
# Not ! ? : ; which French sets apart, and not the danda of Hindi.
_SIGNS = re.compile(r"\S\s+[.,。，、](?=\s|$)|\S@-@\S|\s@-@\s|&(?:apos|quot);")


def looks_tokenised(text: str) -> bool:
    """Whether a full stop or a comma is set apart from the word before it, or there are signs of Moses (``@-@``,
    ``&apos;``)."""
    return _SIGNS.search(text) is not None


def tokenised_warning(traces: Sequence[Trace]) -> str | None:
    """A line about references and predictions that look tokenised; None where less than ``SHARE`` of both do."""
    sides = [[trace.reference for trace in traces], [trace.prediction for trace in traces]]
    found = [[text for text in texts if looks_tokenised(text)] for texts in sides]
    shares = [len(texts) / max(len(traces), 1) for texts in found]
    if max(shares) < SHARE:
        return None
    example = next(text for texts in found for text in texts)
    return (
        f"{shares[0]:.0%} of the references and {shares[1]:.0%} of the predictions look tokenised, such as "
        f"{example!r:.80}: marks that are set apart count as units of their own, so latencies and quality are not "
        "those of plain text; give detokenised texts"
    )
