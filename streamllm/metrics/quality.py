"""BLEU and chrF as sacrebleu has them, with the tokenizer that the target language asks for.

Every score of a corpus here equals sacrebleu's own exactly, whether sacrebleu counts the whole corpus or
`RunningQuality` one sentence after the other, and its signature stands beside it.
"""

import math
import re
from collections.abc import Callable, Hashable, Sequence
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamllm.metrics import ngrams

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU

# Primary language tag (ISO 639-1 and 639-3) -> (tokenizer, the extra of sacrebleu that brings it)
TOKENIZERS: dict[str, tuple[str, str | None]] = {
    "zh": ("zh", None),
    **dict.fromkeys(("zho", "chi", "cmn", "yue", "wuu"), ("zh", None)),
    "ja": ("ja-mecab", "ja"),
    "jpn": ("ja-mecab", "ja"),
    "ko": ("ko-mecab", "ko"),
    "kor": ("ko-mecab", "ko"),
    # Words that no space divides: 13a would take a sentence for one word. sacrebleu's flores200, which cuts them, has
    # to fetch a model, and so is chosen by key only.
    **dict.fromkeys(("th", "tha", "km", "khm", "lo", "lao", "my", "mya", "bur"), ("char", None)),
    **dict.fromkeys(("bo", "bod", "tib", "dz", "dzo"), ("char", None)),
}

EXTRAS = {"ja-mecab": "ja", "ko-mecab": "ko"}
"""The extra of sacrebleu that brings a tokenizer."""
CHOICES = ("13a", "intl", "char", "zh", "ja-mecab", "ko-mecab", "spm", "flores101", "flores200", "spBLEU-1K", "none")
"""sacrebleu's tokenizers. Those by SentencePiece (spm, flores…, spBLEU-1K) fetch a model when they are first used."""


def tokenizer(target_language: str) -> str:
    """The name of sacrebleu's tokenizer for a language tag: "de", "zh-CN", "jpn_Jpan" …; 13a for the rest."""
    return _tokenizer_and_extra(target_language)[0]


def check_tokenizer(name: object) -> None:
    """Raises: ValueError: sacrebleu has no tokenizer of this name."""
    if name is not None and name not in CHOICES:
        raise ValueError(
            f"dataset.bleu_tokenizer is {name!r}; accepted are {', '.join(CHOICES)} and null (by the target language)"
        )


def quality(
    predictions: Sequence[str], references: Sequence[str], target_language: str, tokenizer: str | None = None
) -> dict[str, float | str]:
    """Corpus scores of predictions against one reference each.

    Args:
        tokenizer: of BLEU, by sacrebleu's name; None takes the one of the language.

    Returns: ``bleu`` and ``chrf`` (0 to 100), ``length_ratio`` (tokens of the predictions over tokens of the
        references as BLEU counts them; nan when the references have none), ``bleu_signature`` and
        ``chrf_signature``.
    Raises: ValueError: no sentences, or unequal numbers of them. ImportError: the tokenizer of the language
        needs a package that is not installed.
    """
    if len(predictions) != len(references):
        raise ValueError(
            f"{len(predictions)} predictions but {len(references)} references; give one reference for each"
        )
    if not predictions:
        raise ValueError("0 predictions; a corpus score needs at least one sentence")
    from sacrebleu.metrics.chrf import CHRF

    bleu, chrf = _bleu(target_language, tokenizer), CHRF()
    score = bleu.corpus_score(list(predictions), [list(references)])
    return {
        "bleu": score.score,
        "chrf": chrf.corpus_score(list(predictions), [list(references)]).score,
        "length_ratio": score.sys_len / score.ref_len if score.ref_len else math.nan,
        "bleu_signature": str(bleu.get_signature()),
        "chrf_signature": str(chrf.get_signature()),
    }


def sentence_bleu(prediction: str, reference: str, target_language: str, tokenizer: str | None = None) -> float:
    """BLEU of one sentence (0 to 100), over the n-gram orders that it has (sacrebleu's effective order).

    For tables of single sentences: its mean is not corpus BLEU. Raises: ImportError, as ``quality``.
    """
    return float(_sentence_scorer(target_language, tokenizer).sentence_score(prediction, [reference]).score)


TOGETHER = 256
"""Sentences that are counted together: it takes a third of the time of one by one."""


class _Sums:
    """The sums of what ``count`` says of each sentence, over all sentences added so far; some wait to be counted."""

    def __init__(self, count: Callable[[Sequence[str], Sequence[str]], NDArray[np.int64]]):
        self._count = count
        self._waiting: list[tuple[str, str]] = []
        self._sums = _total(count([], []))

    def add(self, prediction: str, reference: str) -> None:
        self._waiting.append((prediction, reference))
        if len(self._waiting) >= TOGETHER:
            self.of_all()

    def of_all(self) -> list[int]:
        if self._waiting:
            predictions, references = zip(*self._waiting, strict=True)
            of_waiting = _total(self._count(predictions, references))
            self._sums = [a + b for a, b in zip(self._sums, of_waiting, strict=True)]
            self._waiting = []
        return self._sums


class RunningBLEU:
    """Corpus BLEU of the sentences added so far.

    ``score`` is ``quality(...)["bleu"]`` exactly. Raises: ImportError, as ``quality``.
    """

    def __init__(self, target_language: str, tokenizer: str | None = None) -> None:
        self._scorer = _sentence_scorer(target_language, tokenizer)
        self._sums = _Sums(partial(bleu_counts, self._scorer))

    def add(self, prediction: str, reference: str) -> None:
        """Takes one more sentence into the score."""
        self._sums.add(prediction, reference)

    @property
    def score(self) -> float:
        """BLEU (0 to 100) of everything added; 0 before the first sentence."""
        prediction_tokens, reference_tokens, *counts = self._sums.of_all()
        score = self._scorer.compute_bleu(
            correct=counts[: self._scorer.max_ngram_order],  # copies: some smoothing methods write into these lists
            total=counts[self._scorer.max_ngram_order :],
            sys_len=prediction_tokens,
            ref_len=reference_tokens,
            smooth_method=self._scorer.smooth_method,
            smooth_value=self._scorer.smooth_value,
        )
        return float(score.score)

    @property
    def length_ratio(self) -> float:
        """Tokens of the predictions over tokens of the references; nan when the references have none."""
        prediction_tokens, reference_tokens, *_ = self._sums.of_all()
        return prediction_tokens / reference_tokens if reference_tokens else math.nan


class RunningQuality:
    """All of ``quality`` of the sentences added so far, in any order: it keeps sums, and the texts of the last few.

    Raises: ImportError, as ``quality``.
    """

    def __init__(self, target_language: str, tokenizer: str | None = None) -> None:
        self._language, self._tokenizer = target_language, tokenizer
        self._bleu = RunningBLEU(target_language, tokenizer)
        self._chrf = _Sums(chrf_counts)

    def add(self, prediction: str, reference: str) -> None:
        """Takes one more sentence into the scores."""
        self._bleu.add(prediction, reference)
        self._chrf.add(prediction, reference)

    @property
    def bleu(self) -> float:
        """BLEU (0 to 100) of everything added; 0 before the first sentence."""
        return self._bleu.score

    @property
    def scores(self) -> dict[str, float | str]:
        """What `quality` returns for everything added."""
        return {
            "bleu": self._bleu.score,
            "chrf": chrf_of_counts(self._chrf.of_all()),
            "length_ratio": self._bleu.length_ratio,
            **_signatures(self._language, self._tokenizer),
        }


# --- what scores are computed from: whole numbers that add up

CHRF_ORDERS, CHRF_BETA = 6, 2  # sacrebleu's


def bleu_counts(scorer: "BLEU", predictions: Sequence[str], references: Sequence[str]) -> NDArray[np.int64]:
    """What BLEU sums over sentences, (sentences, 2 + 2 * orders): tokens of the prediction and of the reference;
    matching n-grams for each order; n-grams of the prediction for each order. They are sacrebleu's, counted faster."""
    orders = scorer.max_ngram_order
    sides = [[_tokens(scorer, text.rstrip()) for text in texts] for texts in (predictions, references)]
    return _in_portions(sides, ngrams.of_items, orders, _as_bleu)


def _as_bleu(ours: NDArray[np.int64], theirs: NDArray[np.int64], shared: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([ours[:, :1], theirs[:, :1], shared, ours], axis=1)


_BY_LINE = re.compile(r"[\n<&]|[^\S ]")  # what 13a looks at across words: line ends, <skipped>, &amp; and other spaces


def _tokens(scorer: "BLEU", text: str) -> list[str]:
    """The tokens of a text. Where 13a takes a word, it looks no further than the space beside it, and there are far
    fewer words than texts."""
    if scorer.tokenizer.signature() != "13a" or _BY_LINE.search(text):
        tokens: list[str] = scorer.tokenizer(text).split()
        return tokens
    return [token for word in text.split() for token in _tokens_of_word(word)]


@lru_cache(maxsize=1 << 16)
def _tokens_of_word(word: str) -> tuple[str, ...]:
    return tuple(_sentence_scorer("", "13a").tokenizer(word).split())


def chrf_counts(predictions: Sequence[str], references: Sequence[str]) -> NDArray[np.int64]:
    """What chrF sums over sentences, (sentences, 3 * orders), for each order: n-grams of characters in the prediction
    (0 if the reference has none), in the reference, and in both. White space does not count."""
    sides = [["".join(text.split()) for text in texts] for texts in (predictions, references)]
    return _in_portions(sides, ngrams.of_characters, CHRF_ORDERS, _as_chrf)


def _as_chrf(ours: NDArray[np.int64], theirs: NDArray[np.int64], shared: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.stack([np.where(theirs, ours, 0), theirs, shared], axis=2).reshape(len(ours), 3 * CHRF_ORDERS)


def _in_portions(
    sides: Sequence[Sequence[Sequence[Hashable]]],
    numbers: Callable[[Any], NDArray[np.int64]],
    orders: int,
    laid_out: Callable[[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]],
) -> NDArray[np.int64]:
    """A row for each sentence, from the n-grams of both ``sides`` and those that they share, some sentences at a time:
    what is sorted stays in the cache of a core."""
    rows = []
    for start in range(0, max(1, len(sides[0])), TOGETHER):
        some = [sequence for side in sides for sequence in side[start : start + TOGETHER]]
        lengths = ngrams.lengths_of(some)
        ours, theirs = np.split(ngrams.how_many(lengths, orders), 2)
        rows.append(laid_out(ours, theirs, ngrams.shared(numbers(some), lengths, orders)))
    return np.concatenate(rows)


def _total(counts: NDArray[np.int64]) -> list[int]:
    found: list[int] = counts.sum(axis=0).tolist()
    return found


def chrf_of_counts(sums: Sequence[int]) -> float:
    """chrF (0 to 100) of summed `chrf_counts` (Popović 2015), over the orders that both sides have, in the order of
    sacrebleu's operations: to the last digit."""
    precision = recall = 0.0
    orders = 0
    for ours, theirs, both in zip(sums[::3], sums[1::3], sums[2::3], strict=True):
        if ours > 0 and theirs > 0:
            precision += both / ours
            recall += both / theirs
            orders += 1
    if not orders:
        return 0.0
    precision, recall = precision / orders, recall / orders
    if not precision + recall:
        return 0.0
    factor = CHRF_BETA**2
    score = (1 + factor) * precision * recall
    score /= (factor * precision) + recall
    return 100 * score


@cache
def _signatures(target_language: str, tokenizer: str | None) -> dict[str, str]:
    from sacrebleu.metrics.chrf import CHRF

    bleu, chrf = _bleu(target_language, tokenizer), CHRF()
    for scorer in (bleu, chrf):
        scorer.corpus_score(["a"], [["a"]])  # only then does a signature know how many references there are
    return {"bleu_signature": str(bleu.get_signature()), "chrf_signature": str(chrf.get_signature())}


def _tokenizer_and_extra(target_language: str) -> tuple[str, str | None]:
    primary_tag = re.split("[-_]", target_language.strip().lower())[0]
    return TOKENIZERS.get(primary_tag, ("13a", None))


def _bleu(target_language: str, chosen: str | None = None, effective_order: bool = False) -> "BLEU":
    from sacrebleu.metrics.bleu import BLEU

    name, extra = (chosen, EXTRAS.get(chosen)) if chosen else _tokenizer_and_extra(target_language)
    try:
        # force: text that looks tokenized is scored as it is, without a warning in the middle of a run
        return BLEU(tokenize=name, force=True, effective_order=effective_order)
    except (ImportError, RuntimeError) as error:
        if extra is None:
            raise
        raise ImportError(
            f"BLEU for target language {target_language!r} uses sacrebleu's tokenizer {name!r}, which cannot "
            f"be loaded; install it with: pip install 'sacrebleu[{extra}]'"
        ) from error


@cache  # a MeCab dictionary takes long to load, and per-sentence tables ask for each sentence
def _sentence_scorer(target_language: str, tokenizer: str | None = None) -> "BLEU":
    return _bleu(target_language, tokenizer, effective_order=True)
