"""One sentence in a pool. Invariant: it gives what a memory of its own gives, whatever the others do."""

from collections.abc import Callable
from functools import partial
from itertools import count, islice
from typing import Protocol

from streamllm.batching.holder import Answer, Columns
from streamllm.batching.twins import Places, RowTwin
from streamllm.engine.attention import Attention
from streamllm.engine.finite import Logits, check_logits
from streamllm.engine.paradigms.forgetting import Forgets, Forgetting
from streamllm.engine.paradigms.memory import Held, TargetStart, check_gaps, check_holds_all
from streamllm.engine.portions import FEWEST, TOGETHER, portions
from streamllm.engine.positions import check_end
from streamllm.engine.prefix import Prefix
from streamllm.engine.write_head import Judgement, WriteHead, some


class Owner(Protocol):
    """What a row asks of its pool (`streamllm.batching.pool.Pool`)."""

    positions: int | None
    forgetting: Forgetting | None
    prefix: Prefix | None
    write_head: WriteHead | None

    @property
    def wait(self) -> Callable[["Row"], None]: ...

    def forget_oldest(self, row: "Row", target: bool, n: int, after: int) -> None: ...

    def begin(self, row: "Row") -> None: ...

    def cut(self, row: "Row", source: int, target: int) -> None: ...


class Row(Forgets):
    """One sentence's memory (`streamllm.engine.paradigms.memory.Memory`) in a pool. A read waits for the next write: so
    it costs no forward of its own.

    ``forward_passes`` counts what the sentence would cost alone, so that it does not depend on those beside it.
    """

    def __init__(self, pool: Owner, slot: int, target_start: TargetStart):
        self._pool, self.slot, self.positions = pool, slot, pool.positions
        self._after_source, self._keeps_start = target_start == "after_source", False
        self.target_start = 0 if target_start == "after_source" else target_start
        self.unread: list[int] = []  # source tokens to be fed
        self.unwritten: list[int] = []  # target tokens to be fed after them
        self.hidden = 0  # source tokens, from the last one back, that the latter do not see
        self.attends = False  # whether attention is read out
        self.judges = False  # whether the write head is asked
        self.checked = 1  # of how many of the last tokens logits are wanted
        self.branching: list[int] = []  # the next token of each hypothesis of a beam, to be fed
        self.paths: list[Columns] = []  # of these hypotheses, with that token
        self.branches_end = 0  # columns up to which hypotheses may lie that go on later
        self.length = self.source_offset = self.target_offset = 0  # tokens held
        self.source_end = 0  # the column after the last source token
        self.answer: Answer | None = None
        self.forward_passes = self.source_tokens = self.fed_tokens = 0
        self._waiting = 0  # source tokens that a memory of its own would feed with the next write
        self.forgetting = pool.forgetting

    @property
    def source_held(self) -> int:
        return self.source_offset + len(self.unread)

    @property
    def target_held(self) -> int:
        return self.target_offset

    def read(self, tokens: list[int], waits: bool = False) -> None:
        self.read_in_windows(tokens, partial(self._read, waits=True) if waits else self._read)

    def _read(self, tokens: list[int], waits: bool = False) -> None:
        self._count_waiting()
        held = self.source_offset + len(self.unread)
        check_end(self.positions, held + len(tokens))
        if waits and len(tokens) < TOGETHER:
            self._waiting = len(tokens)
        else:
            self._count(len(tokens), held)
        self.source_tokens += len(tokens)
        prefix = self._pool.prefix
        if prefix is not None and not held and not self.length and prefix.begins(tokens):
            tokens = tokens[len(prefix) :]
            self._pool.begin(self)
        self.unread += tokens

    def write(self, tokens: list[int], hidden: int = 0) -> Logits:
        return self._ask(tokens, hidden).logits

    def attend(self, tokens: list[int]) -> tuple[Logits, Attention]:
        self.attends = True
        try:
            answer = self._ask(tokens, 0)
        finally:
            self.attends = False
        assert answer.attention is not None
        return answer.logits, answer.attention

    def check_judges(self) -> None:
        """Raises: ValueError: there is no write head."""
        some(self._pool.write_head)

    def judge(self, tokens: list[int]) -> tuple[Logits, Judgement]:
        self.check_judges()
        self.judges = True
        try:
            answer = self._ask(tokens, 0)
        finally:
            self.judges = False
        assert answer.judgement is not None
        return answer.logits, answer.judgement

    def check(self, tokens: list[int], last: int) -> tuple[Logits, list[int]]:
        self.checked = last
        try:
            answer = self._ask(tokens, 0)
        finally:
            self.checked = 1
        return answer.logits.reshape(last, -1), answer.likeliest

    def _ask(self, tokens: list[int], hidden: int) -> Answer:
        if self._after_source and not self.target_offset and not self._keeps_start:
            self.target_start = self.source_held - hidden
        self._keeps_start = self._keeps_start and hidden > 0
        check_end(self.positions, self.target_start + self.target_offset + len(tokens))
        self.branches_end = 0
        if self._waiting and (hidden or self.checked > 1 or self._waiting + len(tokens) > TOGETHER):
            self._count_waiting()
        waiting, self._waiting = self._waiting, 0
        self._count(len(tokens) + waiting, self.source_offset + len(self.unread) + self.target_offset - waiting)
        return self._wait(tokens, hidden)

    def _wait(self, tokens: list[int], hidden: int) -> Answer:
        self.unwritten, self.hidden, self.answer = tokens, hidden, None
        self._pool.wait(self)
        answer: Answer = self.answer  # type: ignore[assignment]
        # Here, not in the step: the error is this sentence's alone.
        check_logits(answer.highest, self.source_tokens, self.target_offset)
        return answer

    def likeliest(self, logits: Logits) -> int:
        assert self.answer is not None
        return self.answer.likeliest[-1]

    def trim(self, n: int) -> None:
        """Raises: RuntimeError: source has been read since these tokens were fed."""
        n = min(n, self.target_offset)
        if self.length - n < self.source_end:
            raise RuntimeError(f"cannot trim {n} target tokens: source has been read since they were fed")
        self.length -= n  # what lies behind has an index that nobody looks for until it is written over
        self.target_offset -= n

    def held(self, trimmed: int = 0) -> Held:
        start, keeps = self.target_start, self._keeps_start
        return Held(self.source_held, self.target_offset - trimmed, self.source_tokens, start, keeps, self.gaps)

    def take_back(self, held: Held) -> None:
        check_gaps(held, self.gaps)
        if held.read < self.source_tokens:
            del self.unread[max(0, held.source - self.source_offset) :]
            self._waiting = 0  # of the last read
        self._pool.cut(self, held.source, held.target)
        self.source_offset, self.target_offset = min(held.source, self.source_offset), held.target
        self.source_tokens, self._keeps_start = held.read, held.keeps_start
        if self._after_source and not held.target:
            self.target_start = held.start

    def forgets_before(self, n: int) -> bool:
        return self.makes_room(n)

    def reset_target(self) -> None:
        self._pool.forget_oldest(self, True, self.target_offset, 0)
        self.target_offset = 0

    def forget_oldest(self, forgetting: Forgetting, target: bool, n: int) -> None:
        self._count_waiting()
        window = forgetting.target if target else forgetting.source
        self._pool.forget_oldest(self, target, n, window.sinks)
        if target:
            self.target_offset -= n
        else:
            self.source_offset -= n

    def keep_start(self, keep: bool) -> None:
        self._keeps_start = keep

    def fork(self) -> "RowBranches":
        self._count_waiting()
        return RowBranches(self)

    def beside(self, source: list[int]) -> RowTwin:
        check_holds_all(self.forgetting is not None)
        costs = self.forward_passes, self.fed_tokens
        self._read(source)
        self.forward_passes, self.fed_tokens = costs
        return RowTwin(self, Places(self.length + len(self.unread)), self._after_source)

    def ask_for(self, tokens: list[int], paths: list[Columns], seen: int, start: int) -> Answer:
        """Feed tokens of a twin, each in the last column of its path.

        Args:
            seen: source tokens that they see.
            start: position of the first target token.
        """
        own, self.target_start = self.target_start, start
        self.branching, self.paths = tokens, paths
        self.branches_end = max(self.branches_end, *(max(path) + 1 for path in paths))
        try:
            return self._wait([], self.source_held - seen)
        finally:
            self.branching, self.paths, self.target_start, self.hidden = [], [], own, 0

    def branch(self, tokens: list[int], paths: list[Columns]) -> Logits:
        """Feed one token to each hypothesis, in the last column of its path; logits (len(tokens), V)."""
        check_end(self.positions, self.target_start + self.target_offset + len(paths[0]))
        self.branching, self.paths = tokens, paths
        self.branches_end = max(self.branches_end, *(path[-1] + 1 for path in paths))
        try:
            self.forward_passes += 1
            self.fed_tokens += len(tokens)
            return self._wait([], 0).logits
        finally:
            self.branching, self.paths = [], []

    @property
    def end(self) -> int:
        """Columns that the row needs for what it holds and for what it is about to be fed."""
        return max(self.length + len(self.unread) + len(self.unwritten), self.branches_end)

    def _count(self, tokens: int, held: int) -> None:
        """What the sentence would cost alone."""
        self.forward_passes += 1 if tokens <= FEWEST else len(portions(tokens, held))
        self.fed_tokens += tokens

    def _count_waiting(self) -> None:
        """Alone, what waits would be fed now, in a forward of its own."""
        if self._waiting:
            waiting, self._waiting = self._waiting, 0
            self._count(waiting, self.source_held - waiting)


class RowBranches:
    """The hypotheses of a beam (`streamllm.engine.paradigms.memory.Fork`), in the columns behind those of the row.
    Nothing is copied: they share what they have in common, and columns of those that were given up are used again."""

    def __init__(self, row: Row):
        self._row = row
        self._paths: list[Columns] = [[]]

    def step(self, parents: list[int], tokens: list[int]) -> Logits:
        paths = [self._paths[parent] for parent in parents]
        taken = {column for path in paths for column in path}
        free = (column for column in count(self._row.length) if column not in taken)
        self._paths = [[*path, column] for path, column in zip(paths, islice(free, len(paths)), strict=True)]
        return self._row.branch(tokens, self._paths)
