"""The end of the target: what is fed next, what is known to come, what has been written since the last read.

Invariant: nothing is known to come that was not predicted from all source read so far.
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Literal, NamedTuple

import mlx.core as mx

from streamllm.engine.attention import Attention
from streamllm.engine.finite import Likeliest, Logits, without
from streamllm.engine.paradigms.memory import Memory
from streamllm.engine.sampling import Sampling
from streamllm.engine.write_head import Judgement

Sampler = Callable[[mx.array], mx.array]
"""Log-probabilities (1, V) -> token (1,)."""

MOST_GUESSED = 64
"""Tokens that are checked in one forward."""

Guess = Callable[[list[int]], Sequence[int]]
"""Tokens written so far -> tokens that may come next."""


@dataclass(frozen=True)
class Place:
    """Where the target stands, to go back to with `Ahead.rewind`."""

    taken: int
    forced: int
    begun: bool


class Settled(NamedTuple):
    """The end of a target before source is read, to go back to with `Ahead.take_back`."""

    open: tuple[int, ...]
    last: tuple[int, ...]
    begun: bool
    reads: int
    written: int
    predicted: bool  # whether it was known what comes next


class Ahead:
    """Predicts the tokens of a target one after the other, and takes back what was predicted from stale context.

    Args:
        memory: holds what is fed; an empty one.
        header: tokens that come before all others of the target, fed with the first prediction.
        sampler: picks a token; None is greedy.
        never: a token that is never written, whatever its logit; None for none.
    """

    def __init__(
        self,
        memory: Memory,
        header: Sequence[int],
        sampler: Sampling | Sampler | None = None,
        never: int | None = None,
    ):
        self._memory, self._header, self._sampler, self._never = memory, header, sampler, never
        self._open = list(header)  # to be fed before the next prediction
        # Tokens that come next, each predicted after feeding the one before: all but the last are fed.
        self._known: list[int] = []
        self._logits: list[Logits | None] = []  # that each of them was predicted from; None once let go of
        # What was known and has been written since the last read. Logits are kept once a mark is out: those of a
        # whole sentence, in a batch those of all sentences, would fill the memory.
        self._taken: list[tuple[int, Logits | None]] = []
        self._marked = False
        # Tokens picked since the last read, from the first of `_taken` on: where a prediction is made anew, the token
        # is that which was picked before.
        self._picked: list[int] = []
        self._reads = self._written = 0  # times that source was read, and tokens written
        self._forced = 0  # times that tokens were given which the model had not predicted
        # What the first of `_known` was predicted after: the last token written, or the tokens fed with it; and the
        # same before `_taken`.
        self._last: list[int] = []
        self._before: list[int] = []
        self._guess: Guess | None = None
        self._guess_from = 0  # of `_taken`
        # What is read out with each prediction: what was asked for last.
        self._reads_out: Literal["nothing", "attention", "write_logit"] = "nothing"
        self._predicts_first = False  # before tokens are given
        self.attention: Attention | None = None  # of the last prediction
        self.judgement: Judgement | None = None  # the same
        self.begun = False  # whether a unit was written, or tried to be; set by whoever writes

    def predict(self) -> int:
        """The token that comes next, from all source read so far. It is not written yet."""
        if self._known:
            return self._known[0]
        self._predicts_first = False
        if self._guess is not None and (guessed := self._guessed()):
            self._check(guessed)
        else:
            self._read_out_nothing()
            if self._reads_out == "attention":
                logits, self.attention = self._memory.attend(self._open)
            elif self._reads_out == "write_logit":
                logits, self.judgement = self._memory.judge(self._open)
            else:
                logits = self._memory.write(self._open)
            self._last = self._open
            self._before = self._before if self._taken else self._last
            self._open = []
            if len(self._picked) == len(self._taken):
                self._picked.append(self._pick(logits))
            self._known, self._logits = [self._picked[len(self._taken)]], [logits]
        return self._known[0]

    def head_with(self, header: Sequence[int]) -> None:
        """Begin the target with this header instead, as long as nothing is written; then it stays as it is."""
        if not self.begun and header != self._header:
            self.forget()
            self._header, self._open = header, list(header)
            self._taken, self._picked = [], []  # what was picked after another header

    def guess(self, guess: Guess | None) -> None:
        """From here on ask ``guess`` what comes next, after the tokens written from here; None ends it. That changes
        nothing but the cost: `predict` checks it in one forward, and keeps what it would have predicted."""
        self._guess, self._guess_from = guess, len(self._taken)

    def _guessed(self) -> list[int]:
        if self._guess is None or self._reads_out != "nothing":
            return []
        return list(self._guess([token for token, _ in self._taken[self._guess_from :]]))[:MOST_GUESSED]

    def _check(self, guessed: list[int]) -> None:
        """Predict what comes next, as far as it is as guessed, and the token after that."""
        start = len(self._taken)
        logits, likeliest = self._memory.check([*self._open, *guessed], len(guessed) + 1)
        self._last, self._open = self._open, []
        self._read_out_nothing()
        self._before = self._before if self._taken else self._last
        for i in range(len(guessed) + 1):
            if len(self._picked) == start + i:
                self._picked.append(self._choose(logits[i], likeliest[i], i))
            self._known.append(self._picked[start + i])
            self._logits.append(logits[i])
            if self._known[i] not in guessed[i : i + 1]:
                break
        self._memory.trim(len(guessed) + 1 - len(self._known))

    def _pick(self, logits: Logits) -> int:
        return self._choose(logits, self._memory.likeliest(logits))  # which refuses logits that are not finite

    def _choose(self, logits: Logits, likeliest: int, ahead: int = 0) -> int:
        """A token by ``logits``, which so many tokens that are known come before."""
        if self._sampler is None:
            return likeliest if likeliest != self._never else int(Likeliest.of(without(logits, likeliest)).found()[0])
        logits = without(logits, self._never)
        if isinstance(self._sampler, Sampling):
            return self._sampler.draw(logits, self._reads, self._written + ahead)
        row = mx.array(logits)[None].astype(mx.float32)
        return int(self._sampler(row - mx.logsumexp(row, axis=-1, keepdims=True)).item())  # type: ignore[arg-type]

    @property
    def logits(self) -> Logits:
        """What the next token was predicted from, (V,)."""
        self.predict()
        if self._logits[0] is None:
            self.forget()
            self.predict()
        assert self._logits[0] is not None
        return self._logits[0]

    def take(self) -> int:
        """Write the token that is known to come next."""
        token = self._known.pop(0)
        logits = self._logits.pop(0)
        self._taken.append((token, logits if self._marked else None))
        self._written += 1
        self._last = [token]
        if not self._known:
            self._open = [token]
        return token

    def force(self, tokens: Sequence[int]) -> None:
        """Write these tokens, whatever was predicted. Those that are known to come cost nothing."""
        if self._predicts_first and not self._known:
            self.predict()  # as before source was taken back: what is written so far is fed before more is read
        given = list(tokens)
        while given and self._known and given[0] == self._known[0]:
            given.pop(0)
            self.take()
        if given:  # what is known to follow takes another way
            if self._known:
                self._memory.trim(len(self._known) - 1)
            self._known, self._logits, self._taken, self._picked = [], [], [], []
            self._open = [*self._open, *given]
            self._written += len(given)
            self._forced += 1

    def forget(self) -> None:
        """Make the next prediction anew: the last token is fed again, and what was known to follow it is gone. A
        header that was fed only to look ahead is fed again as a whole."""
        if self._known:
            again = self._again
            self._memory.trim(self._unwritten)
            self._memory.keep_start(self.begun)  # a header of one token may have been all that there was
            self._open, self._known, self._logits = again, [], []
            self._read_out_nothing()

    def settle(self) -> None:
        """Before source is read: forget what is known to come; what has been written cannot be taken back any more."""
        self.forget()
        self._taken, self._picked, self._marked = [], [], False
        self._predicts_first = False
        self._reads += 1

    @property
    def _again(self) -> list[int]:
        """Of what is fed, the tokens that are fed again once what is known to come is forgotten."""
        return self._last[-1:] if self.begun else list(self._header)

    @property
    def _unwritten(self) -> int:
        """Tokens fed that are forgotten then."""
        return len(self._again) + len(self._known) - 1  # the last of them has not been fed

    def settled(self) -> tuple[Settled, int]:
        """What there is to go back to once what is known to come is forgotten, and how many of the tokens that are fed
        are forgotten then."""
        opened, n = (self._again, self._unwritten) if self._known else (self._open, 0)
        return Settled(tuple(opened), tuple(self._last), self.begun, self._reads, self._written, bool(self._known)), n

    def take_back(self, settled: Settled) -> None:
        """The memory was taken back to where it was when this was ``settled``; so is the target."""
        self._open, self._last, self.begun = list(settled.open), list(settled.last), settled.begun
        self._reads, self._written = settled.reads, settled.written
        self._known, self._logits = [], []
        self._read_out_nothing()
        self._taken, self._picked, self._marked = [], [], False
        self._forced += 1  # places before are none any more
        self._predicts_first = settled.predicted

    def at_end(self, ends: Callable[[int], bool]) -> bool:
        """Whether the token that is known to come next ``ends`` the target."""
        return bool(self._known) and ends(self._known[0])

    # Sentences of a document

    def close(self, ends: Callable[[int], bool], end: int) -> None:
        """Write the end of a sentence: the token that is known to come next if it ``ends`` one, else ``end``. What was
        written cannot be taken back any more."""
        if self._known and ends(self._known[0]):
            self.take()
        else:
            self.force([end])
        self.begun = True
        self._taken, self._picked, self._marked = [], [], False

    @property
    def unfed(self) -> int:
        """Written tokens that are not fed yet."""
        return len(self._open)

    def begin_anew(self) -> None:
        """Forget the target, header and all: the next prediction is that of its first token."""
        self.forget()
        self._memory.reset_target()
        self._memory.keep_start(False)
        self._open, self.begun, self._last, self._before = list(self._header), False, [], []

    # Going back

    def mark(self) -> Place:
        """Where the target stands now. From here on logits are kept, so that going back costs nothing."""
        self._marked = True
        return self.place

    @property
    def place(self) -> Place:
        return Place(len(self._taken), self._forced, self.begun)

    def rewind(self, place: Place) -> None:
        """Take back what was written after ``place``. It stays known, so that writing it again costs nothing.

        Raises:
            RuntimeError: the place lies ahead, or tokens were forced since.
        """
        if place.forced != self._forced:
            raise RuntimeError("cannot rewind past a unit that was given: take a new mark after it")
        if place.taken > len(self._taken):
            raise RuntimeError(
                f"cannot rewind forward: {len(self._taken)} tokens were written since the last read and "
                f"{place.taken} at the mark"
            )
        back = self._taken[place.taken :]
        if back:
            self._taken = self._taken[: place.taken]
            self._written -= len(back)
            self._known = [token for token, _ in back] + self._known
            self._logits = [logits for _, logits in back] + self._logits
            self._open = []
            self._last = [self._taken[-1][0]] if self._taken else self._before
        self.begun = place.begun
        if not self.begun:
            self._memory.keep_start(False)
            if not self._known:  # of the header, the last token alone is to be fed
                self._memory.trim(self._memory.target_offset)
                self._open = list(self._header)

    # Other ways on

    def shorten(self) -> None:
        """Forget what is known to come after the next token, so that the memory ends where that was predicted."""
        self.predict()
        if len(self._known) > 1:
            self._memory.trim(len(self._known) - 1)
            self._known, self._logits = self._known[:1], self._logits[:1]
            self._read_out_nothing()

    def with_hidden(self, n: int) -> Logits:
        """Logits (V,) of the next token if the token that it is predicted after had not seen the last ``n`` source
        tokens; a header that nothing was written after is as a whole without them. The prediction from all of the
        source is forgotten."""
        if not n:
            return self.logits
        self.forget()
        if self.begun and len(self._open) > 1:  # tokens that were given: they are fed as a prediction would feed them
            self._memory.write(self._open[:-1])
            self._open = self._open[-1:]
        logits = self._memory.write(self._open, hidden=n)
        self._memory.trim(len(self._open))
        return logits

    def watched(self) -> Attention:
        """Where the model looked when it predicted the next token. From here on attention is read out each time."""
        self._reads_out = "attention"
        if self.attention is None or len(self._known) != 1:
            self.forget()
        self.predict()
        assert self.attention is not None
        return self.attention

    def judged(self) -> Judgement:
        """What the write head says of the next token. From here on it is asked at each prediction, which costs nothing
        more; where the next token is known without it, that is predicted anew."""
        self._reads_out = "write_logit"
        if self.judgement is None or len(self._known) != 1:
            self.forget()
        self.predict()
        assert self.judgement is not None
        return self.judgement

    def _read_out_nothing(self) -> None:
        self.attention = self.judgement = None

    def let_go(self) -> None:
        """Forget the logits of what is known to come. In a batch they are a part of what was computed for all of its
        sentences, and many twins that wait would fill the memory with them."""
        self._logits = [None] * len(self._known)

    def twin(self, memory: Memory) -> "Ahead":
        """A copy that goes on by itself, in a memory that holds the same."""
        twin = copy(self)
        twin._memory, twin.attention = memory, None
        for name in ("_open", "_known", "_logits", "_taken", "_picked", "_last", "_before"):
            setattr(twin, name, list(getattr(self, name)))
        return twin

    def scripted(self, tokens: Sequence[int]) -> "Ahead":
        """A copy to which ``tokens`` are known to come, one of which nobody takes: it never asks the memory."""
        script = copy(self)
        script._known, script._taken = list(tokens), []
        script._logits = [None] * len(tokens)
        return script
