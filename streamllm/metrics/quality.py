"""BLEU and chrF as sacrebleu has them, with the tokenizer that the target language asks for.

Every score of a corpus here equals sacrebleu's own exactly, whether sacrebleu counts the whole corpus or
`RunningQuality` one sentence after the other, and its signature stands beside it.
"""

import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from functools import cache, lru_cache
from operator import add
from typing import TYPE_CHECKING

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


class RunningBLEU:
    """Corpus BLEU of the sentences added so far, at the cost of one sentence for each ``add``.

    ``score`` is ``quality(...)["bleu"]`` exactly. Raises: ImportError, as ``quality``.
    """

    def __init__(self, target_language: str, tokenizer: str | None = None) -> None:
        self._scorer = _sentence_scorer(target_language, tokenizer)
        self._sums = [0] * (2 + 2 * self._scorer.max_ngram_order)

    def add(self, prediction: str, reference: str) -> None:
        """Takes one more sentence into the score."""
        self._sums = _added(self._sums, bleu_counts(self._scorer, prediction, reference))

    @property
    def score(self) -> float:
        """BLEU (0 to 100) of everything added; 0 before the first sentence."""
        prediction_tokens, reference_tokens, *counts = self._sums
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
        prediction_tokens, reference_tokens, *_ = self._sums
        return prediction_tokens / reference_tokens if reference_tokens else math.nan


class RunningQuality:
    """All of ``quality`` of the sentences added so far, in any order: it keeps sums, and no text.

    Raises: ImportError, as ``quality``.
    """

    def __init__(self, target_language: str, tokenizer: str | None = None) -> None:
        self._language, self._tokenizer = target_language, tokenizer
        self._bleu = RunningBLEU(target_language, tokenizer)
        self._chrf = [0] * (3 * CHRF_ORDERS)

    def add(self, prediction: str, reference: str) -> None:
        """Takes one more sentence into the scores."""
        self._bleu.add(prediction, reference)
        self._chrf = _added(self._chrf, chrf_counts(prediction, reference))

    @property
    def bleu(self) -> float:
        """BLEU (0 to 100) of everything added; 0 before the first sentence."""
        return self._bleu.score

    @property
    def scores(self) -> dict[str, float | str]:
        """What `quality` returns for everything added."""
        return {
            "bleu": self._bleu.score,
            "chrf": chrf_of_counts(self._chrf),
            "length_ratio": self._bleu.length_ratio,
            **_signatures(self._language, self._tokenizer),
        }


# --- what scores are computed from: whole numbers that add up

CHRF_ORDERS, CHRF_BETA = 6, 2  # sacrebleu's


def bleu_counts(scorer: "BLEU", prediction: str, reference: str) -> list[int]:
    """What BLEU sums over sentences: tokens of the prediction and of the reference; matching n-grams for each order;
    n-grams of the prediction for each order. They are sacrebleu's, counted faster."""
    ours, theirs = (_tokens(scorer, text.rstrip()) for text in (prediction, reference))
    orders = range(1, scorer.max_ngram_order + 1)
    correct = [0] * scorer.max_ngram_order
    for order in orders:
        matching = _shared(*(list(zip(*(side[i:] for i in range(order)), strict=False)) for side in (ours, theirs)))
        if not matching:
            break  # nor has a longer one
        correct[order - 1] = matching
    return [len(ours), len(theirs), *correct, *(max(len(ours) - order + 1, 0) for order in orders)]


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


def chrf_counts(prediction: str, reference: str) -> list[int]:
    """What chrF sums over sentences, for each order: n-grams of characters in the prediction (0 if the reference has
    none), in the reference, and in both. White space does not count."""
    ours, theirs = ("".join(text.split()) for text in (prediction, reference))
    of_ours, of_theirs = list(ours), list(theirs)
    counts = []
    for order in range(1, CHRF_ORDERS + 1):
        if order > 1:  # each one character longer
            of_ours, of_theirs = (
                list(map(add, of_ours, ours[order - 1 :])),
                list(map(add, of_theirs, theirs[order - 1 :])),
            )
        counts += [len(of_ours) if of_theirs else 0, len(of_theirs), _shared(of_ours, of_theirs)]
    return counts


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


def _shared(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """How many items two lists have in common, each as often as both have it."""
    once, others = set(a), set(b)
    both = once & others
    if not both or len(once) == len(a) or len(others) == len(b):
        return len(both)
    of_a, of_b = Counter(a), Counter(b)
    return sum(map(min, map(of_a.__getitem__, both), map(of_b.__getitem__, both)))


def _added(a: Sequence[int], b: Sequence[int]) -> list[int]:
    return [x + y for x, y in zip(a, b, strict=True)]


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
