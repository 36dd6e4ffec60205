"""Fixtures and doubles that several test files share."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamllm.records import Emission, Example, Hypothesis, Looks

Answer = Callable[[int, int, bool], str | None]  # units read, units written, source ended -> unit or end token


def sentence(units: int, id: str = "1") -> Example:
    """An example with so many source units: s1 s2 …"""
    return Example(id, " ".join(f"s{i}" for i in range(1, units + 1)), "")


END = 0  # the end token of a `FakePrediction`


@dataclass(frozen=True)
class FakePrediction:
    """What a model says of the next token: the probabilities of those that have any."""

    probabilities: Mapping[int, float]

    @property
    def token(self) -> int:
        return max(self.probabilities, key=lambda token: self.probabilities[token])

    @property
    def ends(self) -> bool:
        return self.token == END

    @property
    def confidence(self) -> float:
        return self.probabilities[self.token]

    @property
    def entropy(self) -> float:
        return -sum(p * math.log(p) for p in self.probabilities.values() if p)

    def probability(self, token: int) -> float:
        return self.probabilities.get(token, 0.0)

    def divergence(self, other: "FakePrediction") -> float:
        """Of predictions that have the same tokens."""
        return sum(p * math.log(p / other.probabilities[token]) for token, p in self.probabilities.items() if p)


class FakeSession:
    """A session without a model: ``answer`` says what each write gives; ``calls`` is what was asked, in order.

    Args:
        answer: what the model writes greedily.
        drafts: the whole greedy hypothesis instead; it is asked for once between reads, and what is written is taken
            from it.
        beams: the hypotheses of a beam search. Writing tokens gives the unit that they were here.
        predictions: what is said of the next token.
        attends: the source unit that is attended to most.
        layers: how much each layer attends to each source unit.
        looks: the same of each unit of a draft.
        write_logits: what the write head says.

    ``asked`` is what a policy has asked for: the question with the units read (and not hidden) and written.
    """

    def __init__(
        self,
        answer: Answer = lambda read, written, ended: None,
        drafts: Callable[[int, int], Hypothesis] | None = None,
        beams: Callable[[int, int], Sequence[Hypothesis]] | None = None,
        predictions: Callable[[int, int], FakePrediction] | None = None,
        attends: Callable[[int, int], int] | None = None,
        layers: Callable[[int, int], Sequence[Looks]] | None = None,
        looks: Callable[[int, int], Sequence[Looks]] | None = None,
        write_logits: Callable[[int, int], float] | None = None,
    ):
        self._answer, self._drafts, self._beams = answer, drafts, beams
        self._predictions, self._attends, self._write_logits = predictions, attends, write_logits
        self._layers, self._looks = layers, looks
        self._draft: list[Emission] | None = None  # what is left of it
        self._queue: list[Emission] = []  # units of the token that was written last
        self._units: dict[tuple[int, ...], list[Emission]] = {}  # that tokens of a beam's hypotheses stand for
        self._written = 0
        self.calls: list[tuple[str, str | None]] = []
        self.asked: list[tuple[str, int, int]] = []
        self.heads: Any = None  # that were asked about last
        self.forward_passes = self.source_tokens = self.target_tokens = self.fed_tokens = 0
        self.notes: dict[str, Any] = {}

    def count(self, kind: str) -> int:
        return sum(name == kind for name, _ in self.calls)

    def read(self, unit: str) -> None:
        assert not self.count("end_source"), "a read after the end of the source"
        self.calls.append(("read", unit))
        self._draft = None

    def end_source(self) -> None:
        self.calls.append(("end_source", None))
        self._draft = None

    def write(self, tokens: tuple[int, ...] = (), bare: bool = False) -> Emission:
        if self._queue:
            emission = self._queue.pop(0)
        elif tokens:
            emission, *self._queue = self._units[tokens]
            self._draft = None
        elif self._drafts:
            self._draft = self._greedy()
            emission = self._draft.pop(0) if self._draft else Emission(None)
        else:
            emission = Emission(self._answer(self.count("read"), self._written, bool(self.count("end_source"))))
        self._written += emission.unit is not None and not emission.extends
        self.calls.append(("write", emission.unit))
        return emission

    def _greedy(self) -> list[Emission]:
        assert self._drafts, "the policy asked for a draft, and this session has none"
        return list(self._drafts(self.count("read"), self._written)) if self._draft is None else self._draft

    # Looking ahead

    def prediction(self, hidden: int = 0) -> FakePrediction:
        assert self._predictions, "the policy asked for a prediction, and this session has none"
        return self._predictions(*self._asked("prediction", hidden))

    def draft(self, max_units: int = 200, max_tokens: float = math.inf, guess: Any = None) -> Hypothesis:
        self._asked("draft")
        self._draft = self._greedy()
        return tuple(self._draft)

    def beam(self, size: int, max_units: int = 200) -> Sequence[Hypothesis]:
        assert self._beams, "the policy asked for a beam search, and this session has none"
        hypotheses = self._beams(*self._asked("beam"))[:size]
        for hypothesis in hypotheses:
            units: list[Emission] = []
            for emission in hypothesis:
                if emission.tokens:
                    units = self._units[emission.tokens] = []
                units.append(emission)  # one without tokens comes out of those before
        return hypotheses

    def attended(self, heads: Sequence[Sequence[int]] | None = None) -> int:
        assert self._attends, "the policy asked for attention, and this session has none"
        self.heads = heads
        return self._attends(*self._asked("attended"))

    def layer_attention(self) -> np.ndarray:
        assert self._layers, "the policy asked for the attention of layers, and this session has none"
        return np.array(self._layers(*self._asked("attention")))

    def watched_draft(
        self, heads: Sequence[Sequence[int]] | None = None, max_units: int = 200, max_tokens: float = math.inf
    ) -> tuple[Hypothesis, np.ndarray]:
        assert self._looks, "the policy asked for a watched draft, and this session has none"
        self.heads, self.max_tokens = heads, max_tokens
        draft, at = self.draft(max_units), self._asked("watched_draft")
        return draft, np.array(self._looks(*at)).reshape(len(draft), at[0])

    def write_logit(self, latency: str | None = None) -> float:
        assert self._write_logits, "the policy asked for a write head, and this session has none"
        return self._write_logits(*self._asked("write_logit"))

    def explore(self, source: str, limits: Any, width: int, quality: Callable[[str], float]) -> Any:
        raise AssertionError("the policy looks for ways, and this session has none")

    def _asked(self, question: str, hidden: int = 0) -> tuple[int, int]:
        self.asked.append((question, self.count("read") - hidden, self._written))
        return self.count("read") - hidden, self._written


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tiny byte-level tokenizer, with the end token <end>."""
    import tiny

    folder: Path = tmp_path_factory.mktemp("byte-level")
    tiny.byte_level_tokenizer(folder)
    return tiny.load(folder)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random model and a chat template; to be read only."""
    import tiny

    return tiny.model_folder(tmp_path_factory.mktemp("model"))
