"""Streams that go on after a sentence has ended: what is kept of what came before."""

from dataclasses import dataclass
from typing import Any

from streamllm.check import whole_number
from streamllm.engine.living_on import Boundary, LivingOn, check_boundary
from streamllm.engine.paradigms.forgetting import Window, forgetting_of
from streamllm.engine.paradigms.group import GroupMemory
from streamllm.engine.paradigms.memory import TargetStart


@dataclass(frozen=True)
class Sentences:
    """Sentence memory: the model ends its sentence, the last sentence pairs stay in view, older ones are forgotten.

    Nothing that is kept is encoded again: its keys move down to where the forgotten ones were. With ``context=0``
    and ``held`` each sentence is translated exactly as if it stood alone: any model can do that.

    Args:
        context: how many sentence pairs that have ended are held; None is 1 for models that were trained with
            ``data.documents``, and 0 for others.
        held: whether reading stops at the end of a source sentence, after which its footer is fed, until its
            translation has ended. ``boundary="punctuation"`` makes that possible.
        boundary: what says where a source sentence ends, see `LivingOn`.
        asks: whether the model is asked, after each end token, if anything is left, see `LivingOn`; None asks models
            that were trained with ``data.documents``, which know.

    Raises:
        ValueError: a value is none of these.
    """

    context: int | None = None
    held: bool = True
    boundary: Boundary = "punctuation"
    asks: bool | None = None

    trained_as = "group"

    def __post_init__(self) -> None:
        whole_number("paradigm.context", self.context, 0, of="sentence pairs", null="for what suits the model")
        if not isinstance(self.held, bool):
            raise ValueError(f"paradigm.held is {self.held!r}; accepted are true and false")
        if not isinstance(self.asks, bool | None):
            raise ValueError(f"paradigm.asks is {self.asks!r}; accepted are true, false, and null for what suits")
        check_boundary(self.boundary)
        if self.held and self.boundary != "punctuation":
            raise ValueError(
                "paradigm.held is true, so the end of a source sentence must be known when it is read, and "
                f"paradigm.boundary={self.boundary} knows it later: set paradigm.held=false"
            )

    def living_on(self, documents: bool) -> LivingOn:
        """For a model that was trained with ``data.documents``, or was not."""
        context = int(documents) if self.context is None else self.context
        return LivingOn(self.held, context, self.boundary, documents if self.asks is None else self.asks)

    def open(self, model: Any, target_start: TargetStart = 0) -> GroupMemory:
        """A memory for streams without headers; `windows.memories` also keeps those."""
        windows = Window("source", None, 0), Window("target", None, 0)
        return GroupMemory(model, target_start, forgetting=forgetting_of(model, *windows, "paradigm=sentences needs"))


@dataclass(frozen=True)
class Continuous:
    """One pair of streams, of which windows are held: the first tokens and the last ones. The model writes the next
    sentence without being told, which it must have been trained to do (``data.documents``).

    Args:
        max_source, max_target: tokens of each stream that are held, header included; ``model.max_source`` and
            ``model.max_target``, where given, are taken instead.
        sinks: how many of the first tokens of each stream are never forgotten; a header that is longer stays whole.
        boundary: what says where a source sentence ends, see `LivingOn`; policies count from there.

    Raises:
        ValueError: a value is none of these.
    """

    max_source: int = 96
    max_target: int = 96
    sinks: int = 0
    boundary: Boundary = "punctuation"

    trained_as = "group"

    def __post_init__(self) -> None:
        for name in ("max_source", "max_target"):
            whole_number(f"paradigm.{name}", getattr(self, name), of="tokens")
        whole_number("paradigm.sinks", self.sinks, 0, of="tokens")
        check_boundary(self.boundary)

    def living_on(self, documents: bool) -> LivingOn:
        """The same for every model."""
        return LivingOn(False, None, self.boundary)

    def open(self, model: Any, target_start: TargetStart = 0) -> GroupMemory:
        """A memory for streams without headers; `windows.memories` also keeps those."""
        windows = Window("source", self.max_source, self.sinks), Window("target", self.max_target, self.sinks)
        return GroupMemory(model, target_start, forgetting=forgetting_of(model, *windows, "paradigm=continuous needs"))
