"""Streams whose translation is revised while its sentence goes on: re-translation, the baseline of the field."""

from dataclasses import dataclass
from typing import Any

from streamllm.check import whole_number
from streamllm.engine.living_on import LivingOn, Revision
from streamllm.engine.paradigms.forgetting import Window, forgetting_of
from streamllm.engine.paradigms.group import GroupMemory
from streamllm.engine.paradigms.memory import TargetStart


@dataclass(frozen=True)
class Revised:
    """The sentence under way is translated again after each chunk of source, and what is shown may change
    (re-translation: Niehues et al. 2018, arXiv 1808.00491; Arivazhagan et al. 2020, arXiv 2004.03643 and 1912.03393).

    The source is never encoded again. Ended sentence pairs are held as by `Sentences`.

    Args:
        mask: how many of the last units of an output are not shown while its source goes on (mask-k).
        chunk: how many source units are read between two outputs.
        longest: after so many source units without an end, a sentence is ended.
        drafts: whether the last output is the draft of the next. Then an output costs one forward, and one for each
            token that is new; else one for each of its tokens. The output is the same.
        context: how many sentence pairs that have ended are held; None is 1 for models that were trained with
            ``data.documents``, and 0 for others.
        asks: whether the model is asked, after each sentence, if anything is left, see `LivingOn`; None asks models
            that were trained with ``data.documents``, which know.

    Raises:
        ValueError: a value is none of these.
    """

    mask: int = 0
    chunk: int = 1
    longest: int = 100
    drafts: bool = True
    context: int | None = None
    asks: bool | None = None

    trained_as = "group"

    def __post_init__(self) -> None:
        whole_number("paradigm.mask", self.mask, 0)
        whole_number("paradigm.chunk", self.chunk, of="source units")
        whole_number("paradigm.longest", self.longest, of="source units")
        whole_number("paradigm.context", self.context, 0, of="sentence pairs", null="for what suits the model")
        if not isinstance(self.drafts, bool):
            raise ValueError(f"paradigm.drafts is {self.drafts!r}; accepted are true and false")
        if not isinstance(self.asks, bool | None):
            raise ValueError(f"paradigm.asks is {self.asks!r}; accepted are true, false, and null for what suits")

    def living_on(self, documents: bool) -> LivingOn:
        """For a model that was trained with ``data.documents``, or was not."""
        context = int(documents) if self.context is None else self.context
        revision = Revision(self.mask, self.chunk, self.longest, self.drafts)
        return LivingOn(True, context, asks=documents if self.asks is None else self.asks, revision=revision)

    def open(self, model: Any, target_start: TargetStart = 0) -> GroupMemory:
        """A memory for streams without headers; `windows.memories` also keeps those."""
        windows = Window("source", None, 0), Window("target", None, 0)
        return GroupMemory(model, target_start, forgetting=forgetting_of(model, *windows, "paradigm=revised needs"))
