"""What tests of sessions share: models and prompts, sessions with a scripted model, a memory that notes what it holds,
and a beam search by hand."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import scratch
import tiny

from streamllm.engine.paradigms.group import Group
from streamllm.engine.paradigms.memory import TargetStart
from streamllm.engine.session import Session
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import Emission

TIE = 1e-3  # differences under which float32 may decide either way
PROMPT = Prompt(source_header="a <", source_footer=" =>", target_header="German: cat")  # several tokens each
WORDS = ("a", "cat,", "the", "Größe:", "runs")
SCRIPTED = Prompt(source_header="<bos>", source_footer="<stop>", target_header="<mark>")
Table = Callable[[tuple[int, ...]], np.ndarray]  # logits (V,) after a beginning


def varied_models(tokenizer: Any) -> list[Any]:
    """From one that ends its sentences early to one that seldom does."""
    biases = [tiny.sentence_bias(tokenizer, end) for end in (6.0, 4.5, 0.0)]
    return [tiny.Biased(tiny.random_model(seed, len(tokenizer)), bias) for seed, bias in enumerate(biases)]


def scripted(tokenizer: Any, say: Callable[[str, str], str], prompt: Prompt = SCRIPTED, **options: Any) -> Session:
    return Session(Group().open(tiny.Scripted(tokenizer, say)), PromptTokens(prompt, tokenizer), **options)


def sentence(*pieces: str) -> Callable[[str, str], str]:
    """Says the pieces one after the other, then the end token, whatever it reads."""
    texts = ["".join(pieces[:n]) for n in range(len(pieces))]

    def say(source: str, target: str) -> str:
        return pieces[texts.index(target)] if target in texts else "<end>"

    return say


def fed(session: Session) -> list[str]:
    model: Any = session.memory.model  # type: ignore[attr-defined]
    return [text for text, _ in model.fed]


def tokens_of(tokenizer: Any, *pieces: str) -> tuple[int, ...]:
    vocabulary = tokenizer.get_vocab()
    return tuple(vocabulary["".join(tiny.LETTERS[byte] for byte in piece.encode())] for piece in pieces)


def units(hypothesis: Sequence[Emission]) -> list[str | None]:
    return [emission.unit for emission in hypothesis]


class Noted:
    """A memory of `Group` that notes the source it holds, and each target token with the source that it saw."""

    def __init__(self, model: Any, target_start: TargetStart = 0):
        self.model, self.memory = model, Group().open(model, target_start)
        self.source: list[int] = []
        self.target: list[tuple[int, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.memory, name)

    def read(self, tokens: list[int]) -> None:
        self.source += tokens
        self.memory.read(tokens)

    def write(self, tokens: list[int], hidden: int = 0) -> mx.array:
        assert 0 <= hidden <= len(self.source)
        self.target += [(token, len(self.source) - hidden) for token in tokens]
        return self.memory.write(tokens, hidden)

    def trim(self, n: int) -> None:
        self.target = self.target[: len(self.target) - n]
        self.memory.trim(n)

    def logits(self, target: Sequence[tuple[int, int]], start: int = 0) -> np.ndarray:
        """From scratch, after ``target``."""
        tokens, seen = zip(*target, strict=True)
        return scratch.streams(self.model, self.source, tokens, seen, start)


def close(got: mx.array | np.ndarray, expected: np.ndarray) -> None:
    values = got if isinstance(got, np.ndarray) else np.array(got.astype(mx.float32))
    np.testing.assert_allclose(values, expected, atol=5e-4, rtol=1e-3)


def by_hand(
    logits: Table, ends: Callable[[int], bool], size: int, max_tokens: int
) -> tuple[list[tuple[int, ...]], float]:
    """The search as the docstring has it, from whole forwards; and the smallest difference that anything hung on."""
    alive: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    ended: list[tuple[float, tuple[int, ...]]] = []
    margin = math.inf
    for _ in range(max_tokens):
        candidates = [
            (score + p, beginning, token)
            for score, beginning in alive
            for token, p in enumerate(scratch.logprobs(logits(beginning)).tolist())
        ]
        candidates = sorted(candidates, key=lambda candidate: -candidate[0])[: 2 * size + 1]
        margin = min([margin, *(one[0] - other[0] for one, other in itertools.pairwise(candidates))])
        candidates = candidates[: 2 * size]
        ended += [(score / (len(path) + 1), path) for score, path, token in candidates[:size] if ends(token)]
        alive = [(score, (*path, token)) for score, path, token in candidates if not ends(token)][:size]
        if len(ended) >= size:
            break
    ended.sort(key=lambda candidate: -candidate[0])
    margin = min([margin, *(one[0] - other[0] for one, other in itertools.pairwise(ended))])
    return [path for _, path in [*ended, *alive]][:size], margin
