"""BLEU and chrF by sacrebleu, with the tokenizer that the target language asks for.

Every BLEU of a corpus here equals sacrebleu's own corpus score exactly, and its signature stands beside it.
"""

import math
import re
from collections.abc import Sequence
from functools import cache
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

    It keeps the sums of sacrebleu's sentence statistics, so ``score`` is ``quality(...)["bleu"]`` exactly.
    Raises: ImportError, as ``quality``.
    """

    def __init__(self, target_language: str, tokenizer: str | None = None) -> None:
        self._scorer = _sentence_scorer(target_language, tokenizer)
        self._correct = [0] * self._scorer.max_ngram_order
        self._total = [0] * self._scorer.max_ngram_order
        self._prediction_tokens = 0
        self._reference_tokens = 0

    def add(self, prediction: str, reference: str) -> None:
        """Takes one more sentence into the score."""
        sentence = self._scorer.sentence_score(prediction, [reference])
        self._correct = [a + b for a, b in zip(self._correct, sentence.counts, strict=True)]
        self._total = [a + b for a, b in zip(self._total, sentence.totals, strict=True)]
        self._prediction_tokens += sentence.sys_len
        self._reference_tokens += sentence.ref_len

    @property
    def score(self) -> float:
        """BLEU (0 to 100) of everything added; 0 before the first sentence."""
        score = self._scorer.compute_bleu(
            correct=list(self._correct),  # copies: some smoothing methods write into these lists
            total=list(self._total),
            sys_len=self._prediction_tokens,
            ref_len=self._reference_tokens,
            smooth_method=self._scorer.smooth_method,
            smooth_value=self._scorer.smooth_value,
        )
        return float(score.score)


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
