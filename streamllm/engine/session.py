"""One sentence on its way through a model: reads source units, writes target units. A small library of its own.

It needs no policy and no loop. Whatever was read is fed once, whenever the model has written in between:

    model, tokenizer = mlx_lm.load("Qwen/Qwen2.5-0.5B-Instruct")  # `StreamingModel.session` does these two lines
    session = Session(Interleaved().open(model), PromptTokens(Prompt(target_header="\\nGerman:"), tokenizer))
    session.read("Two")  # feeds this word alone
    session.draft()  # what it would write by now; to write that later costs nothing, unless more is read
    session.write().unit  # one word, from all that was read; None where the model would end the sentence
    session.read("dogs")  # reads on, though it has written
    session.end_source()  # no more will come
    while (unit := session.write().unit) is not None:
        print(unit)

Invariant: the memory holds the fed tokens of the header, of what was written and of what is known to come next
(`Ahead`); each unit that a policy did not choose was predicted from all source read so far.
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from streamllm.engine.ahead import Ahead, Guess, Place, Sampler
from streamllm.engine.finite import Logits, without
from streamllm.engine.limits import LONGEST_UNIT, Limits
from streamllm.engine.lookahead import NextToken, beam_search, copied, probability_of, write_on
from streamllm.engine.output import Output, Stand
from streamllm.engine.paradigms.memory import Fork, Memory
from streamllm.engine.reads import BeforeRead, Reads
from streamllm.engine.sampling import Sampling
from streamllm.prompt import PromptTokens
from streamllm.records import Emission, Hypothesis
from streamllm.units import pieces

if TYPE_CHECKING:
    from streamllm.engine.frontier import Exploration

ENDED_READS = 8
"""After so many units read in a row with the target at its end, the source is taken to be more than a sentence (as
`streamllm.metrics.behaviour.cut_short` takes it), and each read goes through one forward with the prediction after it.
Until then, reads are fed at once: they are done while the next unit is awaited."""

_END = -1  # stands for the end token where a hypothesis is cut into units


@dataclass(frozen=True)
class Mark:
    """A point in the target to go back to with `Session.rewind`, valid until the next read."""

    place: Place
    output: Stand
    epoch: int


class Session:
    """Feeds one sentence to a model, one unit at a time; answers a policy's questions (`records.Lookahead`).

    Args:
        memory: an empty one, of any paradigm.
        prompt: headers, footer and facts about tokens.
        sampler: picks a token; None is greedy. One that is not a `Sampling` is asked once for each token, until source
            is read.
        max_unit_tokens: tokens after which a unit ends even though no new one has begun; if they are all white
            space, this counts as the end token.
        alignment_heads: pairs of layer and head that follow the source, for `attended`.
        max_ahead: tokens after which a draft or a beam ends; None is no limit but its units.
    """

    def __init__(
        self,
        memory: Memory,
        prompt: PromptTokens,
        sampler: Sampling | Sampler | None = None,
        max_unit_tokens: int = LONGEST_UNIT,
        alignment_heads: Sequence[Sequence[int]] | None = None,
        max_ahead: int | None = None,
    ):
        self.memory, self.prompt = memory, prompt
        self._ahead = Ahead(memory, prompt.target_header, sampler, prompt.wait_token)
        self._output, self._heads = Output(prompt, max_unit_tokens), alignment_heads
        self._max_ahead = math.inf if max_ahead is None else max_ahead
        self._last_reads = Reads()
        self._epoch = 0  # grows with each read, and whenever source is taken back
        self._reads = 0
        self._ended_reads = 0  # units read in a row, up to the last: the target was at its end before each
        # Number of source tokens fed by the end of each unit that is held, at least in part; and how many are not.
        self._unit_ends: list[int] = []
        self._units_gone = 0
        self._source_ended = False
        self.notes: dict[str, Any] = {}  # of the policy, for the trace
        self._unit_starts: list[int] = []  # the same at their beginnings: between two units there may be a footer
        self._ended = 0  # sentences of a document
        self._held_ends: deque[tuple[int, int]] = deque()  # of those that are held: tokens of both streams by then

    @property
    def forward_passes(self) -> int:
        return self.memory.forward_passes

    @property
    def source_tokens(self) -> int:
        return self.memory.source_tokens

    @property
    def fed_tokens(self) -> int:
        return self.memory.fed_tokens

    @property
    def target_tokens(self) -> int:
        """Tokens written, without header and end tokens."""
        return self._output.tokens

    @property
    def units_read(self) -> int:
        """Source units by now, forgotten ones included."""
        return self._units_gone + len(self._unit_ends)

    # Reading

    def read(self, unit: str) -> None:
        """Feed one source unit (after the source header, the first time) and evaluate the cache; long after the end of
        the target, with the next prediction."""
        tokens = self.prompt.source_tokens(unit, first=self._reads == 0)
        self._read(tokens, units=1)
        self._unit_ends.append(self.memory.source_tokens)
        self._unit_starts.append(self.memory.source_tokens - len(tokens))

    def end_source(self) -> None:
        """Feed the footer: no more source will come, or none of this sentence."""
        self._source_ended = True
        self._read(self.prompt.source_footer, units=0)

    def _read(self, tokens: list[int], units: int) -> None:
        self._last_reads.add(self._before_read(footer=not units))
        if self._reads == 0:
            tokens = self.prompt.source_header + tokens
        self._reads += 1
        self._epoch += 1
        if not tokens:
            return
        self._output.boundary_is_stale = self._output.has_unit
        self._ended_reads = self._ended_reads + units if self._ahead.at_end(self._ends) else 0
        self._ahead.settle()
        if self._ended_reads > ENDED_READS:
            self.memory.read(tokens, waits=True)
        else:
            self.memory.read(tokens)
        self._forget_units()

    def _before_read(self, footer: bool) -> BeforeRead:
        settled, unwritten = self._ahead.settled()
        held = self.memory.held(unwritten)
        return BeforeRead(
            self.units_read,
            held._replace(keeps_start=settled.begun) if unwritten else held,
            settled,
            self._ended_reads,
            self._source_ended and not footer,
            self._output.stand(),
        )

    def take_back(self, units: int, revises: bool = False) -> None:
        """The source is revised behind its first ``units`` units: they are what was read and what is said now have in
        common. All that was read behind them is forgotten, a footer included, as if it had never been read.

        What was written since then stays, as units that were given: exactly as if the session had read the first
        units alone, and had then been told by `write` to write those tokens. Where the output ``revises`` what it has
        shown, it goes, too, and the session is as it was before it read on; a metric counts what changes.

        Raises:
            ValueError: so many units have not been read.
            RuntimeError: a window has forgotten tokens since, or a target sentence has ended since, or it is too long
                ago. The session stays as it is.
        """
        if not 0 <= units <= self.units_read:
            raise ValueError(f"cannot take the source back to {units} units: {self.units_read} have been read")
        if units < self._units_gone:
            raise RuntimeError(f"cannot take the source back to {units} units: {self._units_gone} are forgotten")
        found = self._last_reads.before(units)
        if found is None:
            return  # nothing was read behind them
        self.memory.take_back(found.held)
        self._ahead.take_back(found.settled)
        written = self._last_reads.take_back(found)
        self._ended_reads, self._source_ended = found.ended_reads, found.source_ended
        if revises:
            self._output.back_to(found.output)
        elif written:
            self._ahead.force(written)
            self._ahead.begun = True
            self._last_reads.wrote(written)
            self._output.boundary_is_stale = self._output.has_unit
        else:
            self._output.boundary_is_stale = found.output.boundary_is_stale
        del self._unit_ends[units - self._units_gone :], self._unit_starts[units - self._units_gone :]
        self._reads = units
        self._epoch += 1

    def forgets_before(self, unit: str) -> bool:
        """Whether room is made for this unit, if it is read next, by forgetting others: then it cannot be taken
        back."""
        return self.memory.forgets_before(len(self.prompt.source_tokens(unit, first=self._reads == 0)))

    def _forget_units(self) -> None:
        if gap := self.memory.source_gap[1]:
            gone = bisect_right(self._unit_ends, gap)
            del self._unit_ends[:gone], self._unit_starts[:gone]
            self._units_gone += gone

    # Writing

    def predict(self) -> int:
        """The token that comes next in the target, from all source read so far. It is not written yet."""
        return self._ahead.predict()

    def write(self, tokens: tuple[int, ...] = (), bare: bool = False) -> Emission:
        """Write one whole unit, that of ``tokens`` if there are any; or learn that the end token comes next (it is
        not fed). A ``bare`` unit ends before the punctuation that would stand right after a word; and until the source
        has ended, punctuation that would end a sentence is not written, as an end token is not.

        A token that holds the stop text is not fed either. What it says before that text is written once the
        source has ended; until then the token is forgotten by the next read, like an end token.
        """
        output = self._output
        if output.has_more:
            return output.more()
        if tokens:
            return self._force(tokens)
        written: list[int] = []
        tail, is_cut = "", False
        while True:
            token = self._ahead.predict()
            if token in self.prompt.end_tokens or token == _END:
                break
            if bare and not written and not self._source_ended and output.would_end_sentence(token):
                break
            before_stop = self.prompt.text_before_stop(token)
            if before_stop is not None:
                if self._source_ended and not output.tail_written:
                    tail, output.tail_written = before_stop, True
                break
            if output.is_whole(written, token):
                break
            if bare and (is_cut := self.prompt.divides(written, token)):
                break
            written.append(self._ahead.take())
            if output.is_closed(written):
                break
        self._ahead.begun = True
        emission = self._emit(written, tail)
        output.boundary_is_stale |= is_cut  # what follows extends it
        return emission

    def _force(self, tokens: tuple[int, ...]) -> Emission:
        self._ahead.force(tokens)
        self._ahead.begun = True
        emission = self._emit(list(tokens))
        self._output.boundary_is_stale = self._output.has_unit  # the model may not end the unit here
        return emission

    def _emit(self, tokens: list[int], tail: str = "") -> Emission:
        self._last_reads.wrote(tokens)
        return self._output.emit(tokens, tail)

    # Sentences of a document

    def close_sentence(self) -> None:
        """End the target sentence: the end token is written, and what is written next begins another one."""
        self._ahead.close(self._ends, self.prompt.end_token)
        self._ended += 1
        self._last_reads.clear(self.units_read, self.target_tokens)
        self._output.begin_sentence()

    def nothing_left(self) -> bool:
        """Whether the model would end the next sentence at once: it sees nothing more to be written. A model that was
        trained with ``data.documents`` knows."""
        return self._ends(self._ahead.predict())

    def leave_sentence(self, units: int, context: int | None) -> None:
        """The sentence that was closed is over, and so is its source, the first ``units`` of the stream.

        Args:
            context: how many sentence pairs that are over are held, besides what follows them; None holds all.

        Raises:
            RuntimeError: the memory cannot forget.
        """
        self._source_ended = False
        if context is None:
            return
        self._ahead.forget()
        held = units - self._units_gone
        read = self._unit_ends[held - 1] if held > 0 else min(self._source_start, self.source_tokens)
        if held == len(self._unit_ends):  # and the footer, if it has one
            read = self.source_tokens
        self._held_ends.append((read, self._written))
        if len(self._held_ends) <= context:
            return
        read, written = self._held_ends.popleft()
        if context:
            self.memory.keep_last(self.source_tokens - read, self._written - written - self._ahead.unfed)
        else:
            self._ahead.begin_anew()
            self.memory.keep_last(self.source_tokens - read, 0)  # of the target nothing is held
        self._forget_units()

    @property
    def _written(self) -> int:
        """Target tokens, end tokens between sentences included."""
        return self.target_tokens + self._ended

    # Going back

    def mark(self) -> Mark:
        """Where the target stands now."""
        return self._mark(self._ahead.mark())

    def _mark(self, place: Place) -> Mark:
        return Mark(place, self._output.stand(), self._epoch)

    def can_rewind(self, mark: Mark) -> bool:
        """Whether nothing was read since the mark was taken, nor taken back."""
        return mark.epoch == self._epoch

    def rewind(self, mark: Mark) -> None:
        """Take back what was written after ``mark``. It stays known, so that writing it again costs nothing.

        Raises:
            RuntimeError: source was read since, so what was predicted is stale; or the mark lies ahead; or a unit
                was written since that the model did not choose.
        """
        if not self.can_rewind(mark):
            raise RuntimeError("cannot rewind past a read: take a new mark after each read")
        self._ahead.rewind(mark.place)
        self._restore(mark)

    def _restore(self, mark: Mark) -> None:
        self._output.back_to(mark.output)
        self._last_reads.rewound(mark.output.tokens)

    # Ways on

    def explore(
        self, source: str, limits: Limits, width: int, quality: Callable[[str], float], **options: Any
    ) -> "Exploration":
        """See `streamllm.engine.frontier.explore`. The session stays as it is.

        Raises:
            ValueError: it has begun, or its memory forgets.
        """
        from streamllm.engine.frontier import explore

        if self._reads or self.target_tokens:
            raise ValueError("ways through a sentence are looked for before it begins, and this one has: ask first")
        held, units = self.memory.held(), pieces(source, self.prompt.source_unit)
        tokens = [self.prompt.source_tokens(unit, first=i == 0) for i, unit in enumerate(units)]
        fed = [self.prompt.source_header, *tokens, self.prompt.source_footer]
        twin = self._twin(self.memory.beside([token for some in fed for token in some]))
        try:
            return explore(twin, units, limits, self.prompt.target_unit, width, quality, **options)
        finally:
            self.memory.take_back(held)

    def twin(self) -> "Session":
        """One that stands where this one does, and goes on by itself; of a session that `explore` has made."""
        return self._twin(self.memory.twin())  # type: ignore[attr-defined]

    def _twin(self, memory: Memory) -> "Session":
        twin = copy(self)
        twin.memory, twin._ahead, twin._last_reads = memory, self._ahead.twin(memory), self._last_reads.copy()
        twin._output, twin._held_ends = copy(self._output), self._held_ends.copy()
        twin._output.back_to(self._output.stand())  # with a queue of its own
        twin._unit_ends, twin._unit_starts = list(self._unit_ends), list(self._unit_starts)
        return twin

    def rest(self) -> None:
        """Hold no more than it needs while others go on."""
        self._ahead.let_go()

    def close(self) -> None:
        """A twin is not wanted any more."""
        self.memory.close()  # type: ignore[attr-defined]

    # Looking ahead

    def prediction(self, hidden: int = 0) -> NextToken:
        """What the model says of the next token, from all source read but its last ``hidden`` units.

        With units hidden, what was written before still knows them. That costs a forward, one more if the
        prediction from all of the source is known already and wanted again, and one if a unit of several tokens was
        given since the last prediction. With a window on the source, no more
        units can be hidden than it holds.
        """
        if hidden <= 0:
            return NextToken(self._ahead.logits, self.prompt.end_tokens, self.prompt.wait_token)
        units = max(0, len(self._unit_ends) - hidden)
        read = self.memory.source_tokens
        seen = self._unit_ends[units - 1] if units else min(self._source_start, read)
        # A policy may keep it, since no later read makes it stale.
        logits = copied(self._ahead.with_hidden(read - seen))
        return NextToken(logits, self.prompt.end_tokens, self.prompt.wait_token)

    def draft(self, max_units: int = 200, max_tokens: float = math.inf, guess: Guess | None = None) -> Hypothesis:
        """The units that greedy writing (or the sampler) would give from here, up to the end token; no unit begins
        after ``max_tokens``.

        They stay known: writing them costs nothing until the next read.

        Args:
            guess: says what may come next, from the tokens of this draft so far, as `streamllm.engine.recall.Recall`
                does. What it says is checked in one forward. It changes nothing but the cost.
        """
        self._ahead.guess(guess)
        hypothesis = self._drafted(max_units, max_tokens, lambda: None)
        self._ahead.guess(None)
        return hypothesis

    def watched_draft(
        self, heads: Sequence[Sequence[int]] | None = None, max_units: int = 200, max_tokens: float = math.inf
    ) -> tuple[Hypothesis, np.ndarray]:
        """As `draft`; and for each of its units how much ``heads`` (None: all) attend on average to each source unit
        that is held when its first token is predicted: (units of the draft, source units). A unit that has no token of
        its own has the row of the one before it. Raises: as `unit_attention`."""
        rows: list[np.ndarray] = []

        def look() -> None:
            rows.append(rows[-1] if self._output.has_more and rows else self.unit_attention(heads).mean(axis=0))

        hypothesis = self._drafted(max_units, max_tokens, look)
        return hypothesis, np.array(rows[: len(hypothesis)]).reshape(len(hypothesis), len(self._unit_ends))

    def _drafted(self, max_units: int, max_tokens: float, before_each: Callable[[], None]) -> Hypothesis:
        mark, start = self.mark(), self.target_tokens
        max_tokens = min(max_tokens, self._max_ahead)
        hypothesis: list[Emission] = []
        while len(hypothesis) < max_units and self.target_tokens - start < max_tokens:
            before_each()
            if (emission := self.write()).unit is None:
                break
            hypothesis.append(emission)
        self.rewind(mark)
        return tuple(hypothesis)

    def beam(self, size: int, max_units: int = 200) -> list[Hypothesis]:
        """At most ``size`` hypotheses by `lookahead.beam_search`, the best first. The search is over after some four
        tokens a unit; a unit that it leaves in the middle is written to its end greedily.

        Raises:
            ValueError: size is not positive.
        """
        if size < 1:
            raise ValueError(f"the beam's size is {size}; accepted is at least 1")
        self._ahead.shorten()
        branches: list[Fork] = []
        never = self.prompt.wait_token
        following = first = without(self._ahead.logits, never)  # after each hypothesis that has not ended

        def step(parents: list[int], tokens: list[int]) -> Logits:
            nonlocal following
            branches[:] = branches or [self.memory.fork()]
            following = without(branches[0].step(parents, tokens), never)
            return following

        def is_cut(tokens: list[int]) -> bool:
            """Whether the last of its first units may go on, and began within the limit."""
            units, used = self._units_of(tokens, ended=False)
            return len(units) < max_units and used < max_tokens

        max_tokens = int(min(4 * max_units + 8, self._max_ahead))  # few words have more than four
        found = beam_search(first, step, self._ends, size, max_tokens)
        ended = [(tokens, True) for tokens in found if len(tokens) < max_tokens]
        others = write_on(found[len(ended) :], following, step, self._ends, is_cut)
        return [self._units_of(*each)[0][:max_units] for each in [*ended, *others]]

    def _ends(self, token: int) -> bool:
        return token in self.prompt.end_tokens or self.prompt.text_before_stop(token) is not None

    def _units_of(self, tokens: list[int], ended: bool) -> tuple[Hypothesis, int]:
        """The units that ``tokens`` would be if the model chose them, and how many tokens are in them. If the sentence
        has not ``ended`` after them, a last unit that may go on is left out. The session stays as it is."""
        ahead, mark = self._ahead, self._mark(self._ahead.place)
        self._ahead = ahead.scripted([*tokens, _END])
        hypothesis: list[Emission] = []
        used = 0
        while True:
            emission, before = self.write(), used
            used = self.target_tokens - mark.output.tokens
            if not ended and before < used == len(tokens) and not self._output.is_closed(emission.tokens):
                used = before
                break
            if emission.unit is None:
                used = len(tokens)
                break
            hypothesis.append(emission)
        self._ahead = ahead
        self._restore(mark)
        return tuple(hypothesis), used

    def attended(self, heads: Sequence[Sequence[int]] | None = None) -> int:
        """Which source unit (from 0) the next token is predicted from: the one that ``heads`` (None: the model's
        alignment heads) attend to most on average, its tokens taken together. Header and footer do not count, nor do
        sinks once a window has forgotten what followed them.

        Raises:
            ValueError: nothing was read, there are no heads, or attention cannot be read out of this model.
        """
        heads = heads if heads is not None else self._heads
        if heads is None:
            raise ValueError(
                "no attention heads are given and the model names none: find some with "
                "`streamllm calibrate` and set policy.heads"
            )
        return self._units_gone + int(self.unit_attention(heads).mean(axis=0).argmax())

    @property
    def _source_start(self) -> int:
        """Where the units that are held begin, in source tokens fed."""
        return max(len(self.prompt.source_header), self.memory.source_gap[1])

    @property
    def heads(self) -> list[tuple[int, int]]:
        """All pairs of layer and head, once attention has been read out."""
        return self._ahead.attention.heads if self._ahead.attention is not None else []

    def layer_attention(self) -> np.ndarray:
        """`unit_attention`, the mean of the heads of each layer: (layers, units). Raises: as `attended`."""
        weights = self.unit_attention()
        layers = np.array([layer for layer, _ in self.heads])
        return np.stack([weights[layers == layer].mean(axis=0) for layer in range(layers[-1] + 1)])

    def ask_for(self, latency: str | None) -> None:
        """Ask the model for a latency in its target header, as long as nothing is written; None leaves the header as it
        is.

        Raises:
            ValueError: the header has no place for it, or the model was not trained with it.
        """
        if latency is not None:
            self._ahead.head_with(self.prompt.header_asking(latency))

    def write_logit(self, latency: str | None = None) -> float:
        """What the model's write head says of the state that the next token is predicted from, as a logit, float32.

        Args:
            latency: as of `ask_for`.

        Raises:
            ValueError: the model has no write head, or its hidden states cannot be read; or as `ask_for`.
        """
        self.ask_for(latency)
        return self._ahead.judged().logit

    def judged_state(self) -> np.ndarray:
        """What the write head is given to say `write_logit`: a state (E,), float32. Raises: as `write_logit`."""
        return self._ahead.judged().state.copy()  # which is cut from those of all sentences

    def wait_probability(self, latency: str | None = None) -> float:
        """How likely the model's wait token comes next: it wants to read on before it writes.

        Args:
            latency: as of `ask_for`.

        Raises:
            ValueError: the model has no wait token; or as `ask_for`.
        """
        self.ask_for(latency)
        return probability_of(self.prompt.wait_token, self._ahead.logits)

    def unit_attention(self, heads: Sequence[Sequence[int]] | None = None) -> np.ndarray:
        """How much each of ``heads`` (None: all) attends to each source unit that is held when the next token is
        predicted: (heads, units), a row sums to at most 1. A unit that the tokenizer gives no tokens has none of it.
        Raises: as `attended`."""
        if not self._unit_ends:
            raise ValueError("no source unit has been read, so none is attended to: read one first")
        attention = self._ahead.watched()
        weights = np.array(attention.weights(heads if heads is not None else attention.heads))
        first, end = self.memory.source_gap
        # A unit that a window has cut begins where what is held does.
        starts = np.maximum(self._unit_starts, self._source_start) - (end - first)
        ends = np.array(self._unit_ends) - (end - first)
        attended = np.zeros((len(weights), len(ends)), weights.dtype)
        if len(some := np.flatnonzero(starts < ends)):  # units that have tokens
            bounds = np.stack([starts[some], ends[some]], axis=1).reshape(-1)
            # Every second sum is of what lies between two units: nothing, or a footer.
            attended[:, some] = np.add.reduceat(weights[:, : bounds[-1]], bounds[:-1], axis=1)[:, ::2]
        return attended
