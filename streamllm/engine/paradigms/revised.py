"""Streams whose translation is revised while its sentence goes on: re-translation, the baseline of the field."""

from dataclasses import dataclass

from streamllm.check import flag, whole_number
from streamllm.engine.living_on import LivingOn, Revision
from streamllm.engine.paradigms.documents import SentencePairs


@dataclass(frozen=True)
class Revised(SentencePairs):
    """The sentence under way is translated again after each chunk of source, and what is shown may change
    (re-translation: Niehues et al. 2018, arXiv 1808.00491; Arivazhagan et al. 2020, arXiv 2004.03643 and 1912.03393).

    The source is never encoded again. Ended sentence pairs are held as by `Sentences`.

    Args:
        mask: how many of the last units of an output are not shown while its source goes on (mask-k).
        chunk: how many source units are read between two outputs.
        longest: after so many source units without an end, a sentence is ended.
        drafts: whether the last output is the draft of the next. Then an output costs one forward, and one for each
            token that is new; else one for each of its tokens. The output is the same.
        context: how many sentence pairs that have ended are held.
        asks: whether the model is asked, after each sentence, if anything is left to be written, so that a second
            sentence that nothing divides from the first is not lost. None asks models that were trained with
            ``data.documents``, which know.

    Raises:
        ValueError: a value is none of these.
    """

    mask: int = 0
    chunk: int = 1
    longest: int = 100
    drafts: bool = True
    context: int = 0
    asks: bool | None = None

    def __post_init__(self) -> None:
        self.check_context()
        whole_number("paradigm.mask", self.mask, 0)
        whole_number("paradigm.chunk", self.chunk, of="source units")
        whole_number("paradigm.longest", self.longest, of="source units")
        flag("paradigm.drafts", self.drafts)

    def living_on(self, documents: bool) -> LivingOn:
        revision = Revision(self.mask, self.chunk, self.longest, self.drafts)
        return LivingOn(True, self.context, asks=self.asked(documents), revision=revision)
