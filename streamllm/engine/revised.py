"""Re-translation, the baseline of the field: after each chunk of source, the sentence under way is translated again,
from scratch, and its output may change.

Invariant: each output is the greedy translation of the source read by then (or the sampler's), whatever was shown
before; what has been written as units is never taken back.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from streamllm.engine.living_on import LivingOn, Revision
from streamllm.engine.recall import Recall
from streamllm.engine.stream import Stream, checked
from streamllm.records import WRITE, Event, Example, Hypothesis, Policy, Read, State
from streamllm.units import ends_sentence

Happened = Iterator[tuple[Event, State]]


def stream_revised(
    stream: Stream, policy: Policy, example: Example, living_on: LivingOn, revision: Revision
) -> Happened:
    """As `streamllm.engine.loop.stream_document`. WRITE translates the sentence under way from all that is read of it
    ("shown"); once its source has ended, its units are written, as they stand then.

    A sentence ends with punctuation, with the source, or when it is as long as `Revision.longest`. Nothing is read
    beyond that before it is written. The policy is asked after each chunk of source, and counts from where the sentence
    began; nothing of that is ever written when it is asked.

    Raises:
        ValueError: the policy asks the model, or ``early_stop`` is "stop".
    """
    if stream.limits.early_stop == "stop":
        raise ValueError(
            "early_stop=stop ends a sentence before its source, and with paradigm=revised an end is revised like any "
            "unit: leave early_stop at read"
        )
    decide = policy.start(example)
    here = _Sentence(revision)
    while True:
        if stream.source_done and stream.read == here.read:
            yield stream.event("stop", "end_token")
            return
        done = stream.source_done or here.ended or stream.read - here.read >= revision.longest
        if not done:
            state = State(stream.read - here.read, 0, False, _Unasked(), stream.seen)
            if stream.read - here.looked < revision.chunk or isinstance(checked(decide(state)), Read):
                yield from here.take(stream)
                continue
        if done and not (stream.source_done or here.footed):
            yield here.foot(stream)
        yield here.translate(stream, done)
        if not done:
            continue
        for _ in here.output:
            if happened := stream.write(WRITE):
                yield happened
        if cut := here.cut(stream):
            yield stream.event("limit", cut)
        stream.session.close_sentence()
        # Two sentences may have come that nothing tells apart.
        more = living_on.asks and not cut and bool(here.output) and not stream.session.nothing_left()
        if not more:
            stream.session.leave_sentence(stream.read, living_on.context)
        here.begin(stream, more)
        decide = policy.start(example)
        yield stream.event("sentence", str(here.read))


@dataclass
class _Sentence:
    """The sentence under way: where it began and was translated last, in units read; whether its source has ended with
    punctuation, and whether its footer is fed; units of its source that are written already; the last output; and the
    outputs so far, which also other sentences had, as a draft of the next."""

    revision: Revision
    read: int = 0
    looked: int = 0
    ended: bool = False
    footed: bool = False
    written: int = 0
    output: Hypothesis = ()
    recall: Recall = field(default_factory=Recall)

    def take(self, stream: Stream) -> Happened:
        yield stream.take("read", footer=stream.read > self.read)
        self.ended = not stream.source_done and ends_sentence(stream.seen[-1])

    def foot(self, stream: Stream) -> tuple[Event, State]:
        """The source of the sentence has ended, and that of the stream has not, as far as is known."""
        stream.session.end_source()
        self.footed = True
        return stream.event("end")

    def translate(self, stream: Stream, done: bool) -> tuple[Event, State]:
        """From scratch. What is as in earlier outputs is only checked, which gives the same."""
        units, most = self._left(stream)
        self.output = stream.session.draft(units, most, self.recall if self.revision.drafts else None)
        self.recall.add([token for emission in self.output for token in emission.tokens])
        self.looked = stream.read
        return stream.show(self.output if done else self.output[: max(0, len(self.output) - self.revision.mask)])

    def cut(self, stream: Stream) -> str:
        """Which limit the last output reached, if it did."""
        units, most = self._left(stream)
        if len(self.output) >= units:
            return "max_units"
        return "max_tokens" if sum(len(emission.tokens) for emission in self.output) >= most else ""

    def _left(self, stream: Stream) -> tuple[int, float]:
        """Units and tokens that an output may have."""
        state = State(stream.read - self.read, self.written, False)
        return stream.limits.left(state), stream.limits.tokens_left(state, 0)

    def begin(self, stream: Stream, more: bool) -> None:
        """The next sentence; with ``more``, of the same source."""
        self.written = self.written + len(self.output) if more else 0
        self.ended = self.footed = more
        self.output = ()
        self.recall.forget_last()
        if not more:
            del stream.seen[: stream.read - self.read]
            self.read = stream.read


class _Unasked:
    """Stands for what a policy may ask (`records.Lookahead`): an answer would be about the first unit each time."""

    def __getattr__(self, question: str) -> Any:
        if question.startswith("__"):
            raise AttributeError(question)
        raise ValueError(
            f"the policy asks the model ({question}) what it would write next, and with paradigm=revised the whole "
            "sentence is written anew: choose a policy that counts, such as policy=waitk or policy=full"
        )
