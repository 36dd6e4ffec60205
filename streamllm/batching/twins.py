"""Ways on from one sentence of a pool: many memories that share its source, and of the target what they have in common
(`streamllm.engine.paradigms.memory.Twin`). Nothing is copied: the target of each is a path of columns.

Invariant: a column is given out again only when no twin holds it."""

from typing import Protocol

from streamllm.batching.holder import Answer, Columns
from streamllm.engine.attention import Attention
from streamllm.engine.finite import Logits
from streamllm.engine.paradigms.memory import Fork, Held
from streamllm.engine.positions import check_end
from streamllm.engine.write_head import Judgement


class Owner(Protocol):
    """What a twin asks of its row (`streamllm.batching.row.Row`)."""

    positions: int | None
    target_start: int
    attends: bool
    judges: bool

    @property
    def source_held(self) -> int: ...

    def check_judges(self) -> None: ...

    def ask_for(self, tokens: list[int], paths: list[Columns], seen: int, start: int) -> Answer: ...

    def likeliest(self, logits: Logits) -> int: ...


class Places:
    """Columns from ``first`` on, each given out for as long as somebody holds it."""

    def __init__(self, first: int):
        self._end = first
        self._free: list[int] = []
        self._holders: dict[int, int] = {}

    def take(self) -> int:
        if self._free:
            column = self._free.pop()
        else:
            column, self._end = self._end, self._end + 1
        self._holders[column] = 1
        return column

    def hold(self, columns: Columns) -> None:
        """Somebody else holds them, too."""
        for column in columns:
            self._holders[column] += 1

    def drop(self, columns: Columns) -> None:
        """One who held them does not any more."""
        for column in columns:
            self._holders[column] -= 1
            if not self._holders[column]:
                self._free.append(column)


class RowTwin:
    """A `Twin` in the columns behind the source of a row, all of which the row holds or is to be fed."""

    source_gap = (0, 0)

    def __init__(self, row: Owner, places: Places, after_source: bool):
        self._row, self._places, self._after_source = row, places, after_source
        self._path: Columns = []
        self._start, self._keeps_start = row.target_start, False
        self.forward_passes = self.source_tokens = self.fed_tokens = 0

    def twin(self) -> "RowTwin":
        twin = RowTwin(self._row, self._places, self._after_source)
        twin.__dict__ |= self.__dict__ | {"_path": list(self._path)}
        self._places.hold(self._path)
        return twin

    def close(self) -> None:
        self.trim(len(self._path))

    @property
    def target_offset(self) -> int:
        return len(self._path)

    def read(self, tokens: list[int], waits: bool = False) -> None:
        self.source_tokens += len(tokens)
        assert self.source_tokens <= self._row.source_held, "a twin reads what its row was told"

    def write(self, tokens: list[int], hidden: int = 0) -> Logits:
        return self._ask(tokens, hidden).logits[-1]

    def check(self, tokens: list[int], last: int) -> tuple[Logits, list[int]]:
        answer = self._ask(tokens)
        return answer.logits[-last:], answer.likeliest[-last:]

    def attend(self, tokens: list[int]) -> tuple[Logits, Attention]:
        self._row.attends = True
        try:
            answer = self._ask(tokens)
        finally:
            self._row.attends = False
        assert answer.attention is not None
        return answer.logits[-1], answer.attention

    def judge(self, tokens: list[int]) -> tuple[Logits, Judgement]:
        self._row.check_judges()
        self._row.judges = True
        try:
            answer = self._ask(tokens)
        finally:
            self._row.judges = False
        assert answer.judgement is not None
        return answer.logits[-1], answer.judgement

    def _ask(self, tokens: list[int], hidden: int = 0) -> Answer:
        seen = self.source_tokens - hidden
        if self._after_source and not self._path and not self._keeps_start:
            self._start = seen
        self._keeps_start = self._keeps_start and hidden > 0
        check_end(self._row.positions, self._start + len(self._path) + len(tokens))
        paths = []
        for _ in tokens:
            self._path = [*self._path, self._places.take()]
            paths.append(self._path)
        self.forward_passes += 1
        self.fed_tokens += len(tokens)
        return self._row.ask_for(tokens, paths, seen, self._start)

    def likeliest(self, logits: Logits) -> int:
        return self._row.likeliest(logits)

    def trim(self, n: int) -> None:
        left = max(0, len(self._path) - n)
        self._places.drop(self._path[left:])
        self._path = self._path[:left]

    def reset_target(self) -> None:
        self.trim(len(self._path))

    def held(self, trimmed: int = 0) -> Held:
        held = len(self._path) - trimmed
        return Held(self.source_tokens, held, self.source_tokens, self._start, self._keeps_start)

    def take_back(self, held: Held) -> None:
        self.trim(len(self._path) - held.target)
        self.source_tokens, self._start, self._keeps_start = held.read, held.start, held.keeps_start

    def forgets_before(self, n: int) -> bool:
        return False

    def keep_start(self, keep: bool) -> None:
        self._keeps_start = keep

    def keep_last(self, source: int, target: int) -> None:
        raise RuntimeError("a twin holds all that it is fed: forget in the session that it stands beside")

    def fork(self) -> Fork:
        raise RuntimeError("a twin has no beam: search in the session that it stands beside")

    def beside(self, source: list[int]) -> "RowTwin":
        raise RuntimeError("a twin has none beside it: ask its `twin`")
