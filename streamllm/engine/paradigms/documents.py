"""Streams that go on after a sentence has ended: what is kept of what came before."""

from dataclasses import dataclass

from streamllm.cache.retention import Retention
from streamllm.check import flag, whole_number
from streamllm.engine.living_on import Boundary, LivingOn, check_boundary
from streamllm.engine.paradigms.group import GroupParadigm


class SentencePairs(GroupParadigm):
    """Paradigms that hold the last sentence pairs and forget older ones."""

    forgets = True
    context: int
    asks: bool | None

    def windows(self, retention: Retention) -> tuple[int | None, int | None, int]:
        return retention.max_source, retention.max_target, 0  # of the first tokens the header alone stays

    def check_context(self) -> None:
        """Raises: ValueError: ``context`` or ``asks`` is not accepted."""
        whole_number("paradigm.context", self.context, 0, of="sentence pairs")
        flag("paradigm.asks", self.asks, null="for what suits the model")

    def asked(self, documents: bool) -> bool:
        """Whether the model is asked if anything is left; where that is None, one is that was trained with
        ``data.documents``."""
        return documents if self.asks is None else self.asks


@dataclass(frozen=True)
class Sentences(SentencePairs):
    """Sentence memory: the model ends its sentence, which is forgotten once ``context`` others have followed it.

    Nothing that is kept is encoded again: its keys move down to where the forgotten ones were. With ``context=0``
    and ``held`` each sentence is translated exactly as if it stood alone: any model can do that.

    Args:
        context: how many sentence pairs that have ended are held. More than 0 needs a model that was trained with
            ``data.documents``.
        held: whether reading stops at the end of a source sentence, after which its footer is fed, until its
            translation has ended. ``boundary="punctuation"`` makes that possible.
        boundary: where a source sentence ends: "punctuation" says so as soon as it is read; "attention", once its
            translation has ended: where the model looked last.
        asks: whether the model is asked, after each end token, if anything is left to be written, so that a second
            sentence that nothing divides from the first is not lost. None asks models that were trained with
            ``data.documents``, which know.

    Raises:
        ValueError: a value is none of these.
    """

    context: int = 0
    held: bool = True
    boundary: Boundary = "punctuation"
    asks: bool | None = None

    def __post_init__(self) -> None:
        self.check_context()
        flag("paradigm.held", self.held)
        check_boundary(self.boundary)
        if self.held and self.boundary != "punctuation":
            raise ValueError(
                "paradigm.held is true, so the end of a source sentence must be known when it is read, and "
                f"paradigm.boundary={self.boundary} knows it later: set paradigm.held=false"
            )

    def living_on(self, documents: bool) -> LivingOn:
        return LivingOn(self.held, self.context, self.boundary, self.asked(documents))


@dataclass(frozen=True)
class Continuous(GroupParadigm):
    """One pair of streams, of which windows are held: the first tokens and the last ones. The model writes the next
    sentence without being told, which it must have been trained to do (``data.documents``).

    Args:
        max_source: source tokens that are held, header included; ``model.max_source``, where given, is taken instead.
        max_target: target tokens that are held, header included; ``model.max_target``, where given, is taken instead.
        sinks: how many of the first tokens of each stream are never forgotten; a header that is longer stays whole.
        boundary: where a source sentence ends, from which policies count: "punctuation" says so as soon as it is read;
            "attention", once its translation has ended: where the model looked last.

    Raises:
        ValueError: a value is none of these.
    """

    max_source: int = 96
    max_target: int = 96
    sinks: int = 0
    boundary: Boundary = "punctuation"

    def __post_init__(self) -> None:
        for name in ("max_source", "max_target"):
            whole_number(f"paradigm.{name}", getattr(self, name), of="tokens")
        whole_number("paradigm.sinks", self.sinks, 0, of="tokens")
        check_boundary(self.boundary)

    def windows(self, retention: Retention) -> tuple[int | None, int | None, int]:
        return retention.max_source or self.max_source, retention.max_target or self.max_target, self.sinks

    def living_on(self, documents: bool) -> LivingOn:
        return LivingOn(False, None, self.boundary)
