"""What the parts of the project say to each other: plain frozen records. Imports nothing of ours.

A *unit* is a word (a character for Chinese and Japanese); every count and delay is in units.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Segment:
    """One sentence of a document, for scoring: nothing that translates is told of it.

    Args:
        start, units: where its source begins in the document, and its length; both in source units.
        source, reference: its texts.
    """

    start: int
    units: int
    source: str
    reference: str


@dataclass(frozen=True)
class Example:
    """One sentence pair of a dataset; or one document, with the ``segments`` that its texts are joined from."""

    id: str
    source: str
    reference: str
    segments: tuple[Segment, ...] = ()


@dataclass(frozen=True)
class Emission:
    """What one write gave: a target unit, or None when the end token came instead.

    ``extends``: no unit of its own but the rest of the one before, such as a comma after it. That unit had ended
    by a prediction from less source. ``space``: what stands before the unit where units are characters, " " or "".
    """

    unit: str | None
    tokens: tuple[int, ...] = ()
    extends: bool = False
    space: str = ""

    @property
    def text(self) -> str:
        """The unit with the space before it."""
        return self.space + (self.unit or "")


class Prediction(Protocol):
    """What a model says of the next token of the target. Probabilities are its own, whatever samples."""

    @property
    def token(self) -> int: ...

    @property
    def ends(self) -> bool:
        """Whether it is an end token."""
        ...

    @property
    def confidence(self) -> float:
        """The probability of the likeliest token."""
        ...

    @property
    def entropy(self) -> float:
        """In nats."""
        ...

    def probability(self, token: int) -> float: ...

    def divergence(self, other: "Prediction") -> float:
        """Kullback-Leibler divergence of this prediction from ``other``, KL(this ‖ other), in nats: the mean under this
        one of how much likelier it makes the token. Infinite where ``other`` rules out what this one does not."""
        ...


Hypothesis = tuple[Emission, ...]
"""How a translation might go on after the units written so far. Only its first emission may extend the last of them."""


Looks = Sequence[float]
"""Shares of attention, one for each source unit read."""


class Lookahead(Protocol):
    """What a policy may ask of the model before it decides. Nothing of it is written."""

    def prediction(self, hidden: int = 0) -> Prediction:
        """The next token, from all source read so far but its last ``hidden`` units. Ask for hidden ones first: it is
        cheaper."""
        ...

    def draft(self) -> Hypothesis:
        """The greedy hypothesis. Writing its units afterwards costs nothing."""
        ...

    def beam(self, size: int) -> Sequence[Hypothesis]:
        """At most ``size`` hypotheses from a beam search, the best first."""
        ...

    def attended(self, heads: Sequence[Sequence[int]] | None = None) -> int:
        """Which source unit (from 0) the next token is predicted from: the one that the attention heads
        (pairs of layer and head; None: the model's own alignment heads) look at most."""
        ...

    def attention(self) -> Sequence[Looks]:
        """How much each layer, the mean of its heads, attends to each source unit read when the next token is
        predicted. With what header and footer get, the shares of a layer add up to 1."""
        ...

    def watched_draft(
        self, heads: Sequence[Sequence[int]] | None = None, max_tokens: float = math.inf
    ) -> tuple[Hypothesis, Sequence[Looks]]:
        """As `draft`, of units that begin within ``max_tokens``; and for each of its units how much ``heads`` (None:
        all heads of all layers) attend on average to each source unit read when its first token is predicted."""
        ...

    def write_logit(self, latency: str | None = None) -> float:
        """What the model's write head says of the next token, as a logit: above 0, WRITE is likelier right than not.

        Args:
            latency: as of `wait_probability`.
        """
        ...

    def wait_probability(self, latency: str | None = None) -> float:
        """How likely the model's wait token is to come next: it wants to read on. Other answers leave it out.

        Args:
            latency: what the target header asks for, until something is written; None is the prompt's own.
        """
        ...

    def explore(self, source: str, width: int, quality: Callable[[str], float]) -> "Explored":
        """Translate this sentence in many ways before any of it is read: `streamllm.engine.frontier.explore`. No policy
        for streaming asks this, since it is told the whole source.

        Raises:
            ValueError: it has begun.
        """
        ...

    def note(self, name: str, value: Any) -> None:
        """Keep something that JSON can hold in the trace of this sentence, under this name."""
        ...


@dataclass(frozen=True)
class Way:
    """A way through a whole sentence.

    ``decisions`` has a letter for each time that a policy was asked, "R" for READ and "W" for WRITE; ``quality`` is
    what was asked of the ``prediction``.
    """

    decisions: str
    prediction: str
    delays: tuple[int, ...]
    quality: float


Value = Callable[[float, Sequence[int]], float]
"""What a way is worth, from its quality and its delays; -inf where it is worth nothing."""


class Explored(Protocol):
    """Ways through one sentence, all of which were gone to their end."""

    @property
    def ways(self) -> Sequence[Way]: ...

    @property
    def units(self) -> int:
        """Of the source."""
        ...

    @property
    def target_unit(self) -> str:
        """That of the prompt, "word" or "character"."""
        ...

    def regrets(self, way: Way, value: Value) -> Sequence[float | None]:
        """Of each decision of a way: what the best one on after READ is worth, less the best after WRITE. None where
        the two come to the same, or one of them was not tried."""
        ...


@dataclass(frozen=True)
class State:
    """What a policy decides on.

    ``read`` and ``written`` count units so far; ``source_done`` is true once a READ has found nothing,
    which is when the footer has been fed. ``model`` answers questions about the target to come. ``source`` holds the
    units read so far, and none that is still to come, whether they are a data set's or arrive live. It grows with the
    next READ: a policy that wants to keep it makes a copy.
    """

    read: int
    written: int
    source_done: bool
    model: Lookahead = field(default=None, repr=False, compare=False)  # type: ignore[assignment]
    source: Sequence[str] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class Read:
    """Action: take one more source unit."""


@dataclass(frozen=True)
class Write:
    """Action: produce one more target unit, that of ``tokens`` if there are any, else what the model predicts.

    ``bare``: without the punctuation that the model would put right after a word. The policy is asked again before
    that; what comes then extends the unit. Punctuation that ends a sentence waits for the end of the source, as the end
    token does: while source remains, it is a forced READ.
    """

    tokens: tuple[int, ...] = ()
    bare: bool = False


Action = Read | Write
READ, WRITE, WRITE_BARE = Read(), Write(), Write(bare=True)
Decide = Callable[[State], Action]


class Policy(Protocol):
    """A read/write policy: says, for each sentence anew, how to decide.

    What a sentence needs to remember lives in what ``start`` returns, so that many sentences can be under
    way at once with one policy.
    """

    def start(self, example: Example) -> Decide: ...


KINDS = ("read", "end", "write", "extend", "draft", "shown", "forced_read", "limit", "sentence", "stop")


@dataclass(frozen=True)
class Event:
    """One step of a trace.

    ``kind`` is "read" (a source unit), "end" (a READ that found the source at its end), "write" (a target
    unit), "extend" (more of the last target unit, no space between), "draft" (a hypothesis of what follows the units
    written so far, which the policy asked for), "shown" (an output that may be revised: it stands after the units
    written so far, in the place of what was shown there before), "forced_read" (one more unit was read
    because the end token came while source remained, or at the length limit), "limit" (before a forced read: it is the
    limit of tokens that forces it; ``text`` is "max_tokens"), "sentence" (of a document: a target sentence has ended,
    and ``text`` is the number of source units that are translated by now) or "stop" (why the sentence ended:
    "end_token", "early_stop", "max_units" or "max_tokens", in ``text``).

    Raises: ValueError: another kind.
    """

    kind: str
    text: str = ""
    seconds: float = 0.0  # since the start of the sentence

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; accepted are {', '.join(KINDS)}")


@dataclass(frozen=True)
class Trace:
    """Everything that happened in one example.

    ``delays[t]`` is the number of source units read when target unit t was written to its end, ``elapsed[t]``
    the seconds since the sentence began; both have one entry for each unit of ``units``. Of an output that is revised,
    it is when the unit was shown for the last time in its final form (`units.settled`).
    """

    id: str
    source: str
    reference: str
    units: tuple[str, ...]
    delays: tuple[int, ...]
    elapsed: tuple[float, ...]
    events: tuple[Event, ...]
    source_units: int
    prediction: str
    stats: dict[str, Any] = field(default_factory=dict)  # forward passes, fed tokens, seconds
    segments: tuple[Segment, ...] = ()  # of a document
    notes: dict[str, Any] = field(default_factory=dict)  # of the policy
