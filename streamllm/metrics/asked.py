"""Quality metrics that are asked for: chrF++, BLEU on changed texts, scores over several references, WER and CER.

Invariant: a reference that is missing is left out (None for sacrebleu), and never an empty one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from streamllm.metrics.longform import document, resegment
from streamllm.metrics.moses import moses_language
from streamllm.metrics.own import MetricError
from streamllm.metrics.quality import check_tokenizer, tokenizer
from streamllm.records import Trace
from streamllm.units import unit_of


class OfCorpus:
    """What these metrics share: predictions with their references, of documents those of the sentences.

    Args:
        key: its name in metrics.json.
        label: its name in tables and on axes.
        digits: how many it has there after the point.
        higher_is_better: whether a higher value is better; None where neither way is.
        language: the code of the target language.
        references: text files with further references, a line for each sentence of the data; an empty line is a
            reference that is missing. None for the references of the data alone.
        lowercase: whether case does not count.

    ``sums`` has what each sentence adds to the score, by its id, and ``formula`` is how the score comes of their sums
    (`streamllm.runs.formulas.FORMULAS`).

    Raises: ValueError: no language.
    """

    formula: str
    sums: Mapping[str, Sequence[float]]

    def __init__(
        self,
        key: str,
        label: str,
        higher_is_better: bool,
        language: str | None,
        references: Sequence[str] | None = None,
        lowercase: bool = False,
        digits: int = 2,
    ):
        if not language:
            raise ValueError(f"{label} needs the target language: add dataset.target_language=…")
        if isinstance(references, str):
            raise ValueError(f"references is {references!r}; give a list of files: [{references}]")
        self.key, self.label, self.digits, self.higher_is_better = key, label, digits, higher_is_better
        self._language, self._files, self._lowercase = language, list(references or ()), lowercase
        self.signature: str | None = None
        self.sums = {}

    def texts(self, traces: Sequence[Trace]) -> tuple[list[str], list[str], list[list[str | None]]]:
        """The ids, the predictions, and a list for each reference: that of the data, then those of the files.

        Raises: MetricError: a file has not as many lines.
        """
        found = [(trace.id, trace.prediction, trace.reference) for trace in traces]
        if any(trace.segments for trace in traces):
            unit = unit_of(self._language)
            cut = resegment([document(trace, unit) for trace in traces], self._language, unit)
            found = [(f"{one.document}#{one.index + 1}", one.prediction, one.reference) for one in cut]
        streams: list[list[str | None]] = [[reference for _, _, reference in found]]
        streams += [_lines(file, len(found)) for file in self._files]
        return [id for id, _, _ in found], [prediction for _, prediction, _ in found], streams

    def contents(self) -> dict[str, str]:
        """Digests of the files of references, so that new ones are scored anew."""
        from streamllm.contents import of_files

        return of_files([Path(file) for file in self._files if Path(file).is_file()])


def _lines(file: str, count: int) -> list[str | None]:
    try:
        lines = Path(file).expanduser().read_text("utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise MetricError(f"references: {file} cannot be read ({error})") from error
    lines = lines[:-1] if lines[-1] == "" else lines
    if len(lines) != count:
        raise MetricError(
            f"references: {file} has {len(lines)} lines for {count} sentences of the run; give one for each"
        )
    return [line.strip() or None for line in lines]


def counting(kind: type[Any]) -> type[Any]:
    """A metric of sacrebleu that keeps in ``counts`` what the sentences of its last score add to it."""

    class Counting(kind):  # type: ignore[misc]
        counts: Sequence[Sequence[float]] = ()

        def _aggregate_and_compute(self, stats: Sequence[Sequence[float]]) -> Any:
            self.counts = stats
            return super()._aggregate_and_compute(stats)

    return Counting


class BySacrebleu(OfCorpus):
    """A corpus score of sacrebleu, which is its ``formula`` of sums. ``scorer`` makes a metric that is `counting`;
    ``change`` is done to every text before, and the signature ends with what ``changed`` says of it."""

    def __init__(
        self,
        scorer: Callable[[], Any],
        formula: str,
        change: Callable[[str], str] = str,
        changed: Callable[[], str] = str,
        **given: Any,
    ):
        super().__init__(**given)
        self._scorer, self.formula, self._change, self._changed = scorer, formula, change, changed

    def __call__(self, traces: Sequence[Trace]) -> float:
        ids, predictions, streams = self.texts(traces)
        scorer = self._scorer()
        changed = [[None if text is None else self._change(text) for text in stream] for stream in streams]
        score = scorer.corpus_score([self._change(text) for text in predictions], changed).score
        self.sums = dict(zip(ids, scorer.counts, strict=True))
        self.signature = "|".join(filter(None, (str(scorer.get_signature()), self._changed())))
        return float(score)


class ChrF(BySacrebleu):
    """Corpus chrF by sacrebleu; with ``word_order=2`` it is chrF++ (Popović 2017).

    Args:
        word_order: up to which length n-grams of words count, too; 0 is chrF.
        key, label, language, references, lowercase: as for `OfCorpus`.
    """

    def __init__(
        self,
        language: str | None,
        word_order: int = 2,
        references: Sequence[str] | None = None,
        lowercase: bool = False,
        key: str = "chrf_pp",
        label: str = "chrF++",
    ):
        def scorer() -> Any:
            from sacrebleu.metrics.chrf import CHRF

            return counting(CHRF)(word_order=word_order, lowercase=lowercase)

        of: dict[str, Any] = {"key": key, "label": label, "language": language, "references": references}
        super().__init__(scorer, "chrf", higher_is_better=True, **of)


class Bleu(BySacrebleu):
    """Corpus BLEU by sacrebleu on texts that are lower-cased, or tokenised by Moses, or over several references.

    Args:
        lowercase: whether case does not count.
        moses: whether Moses tokenises texts first, as in older papers; sacrebleu's tokenizer is then "none".
        bleu_tokenizer: a name of one of sacrebleu's tokenizers; None is the one of the language.
        key, label, language, references: as for `OfCorpus`.
    """

    def __init__(
        self,
        language: str | None,
        lowercase: bool = False,
        moses: bool = False,
        bleu_tokenizer: str | None = None,
        references: Sequence[str] | None = None,
        key: str = "bleu_lower",
        label: str = "BLEU (lower case)",
    ):
        check_tokenizer(bleu_tokenizer)
        chosen = "none" if moses else bleu_tokenizer or tokenizer(language or "")

        def scorer() -> Any:
            from sacrebleu.metrics.bleu import BLEU

            return counting(BLEU)(tokenize=chosen, lowercase=lowercase, force=True)

        def change(text: str) -> str:
            return _moses(text, moses_language(language or "")) if moses else text

        def changed() -> str:
            return f"moses:{moses_language(language or '')}|sacremoses:{version('sacremoses')}" if moses else ""

        of: dict[str, Any] = {"key": key, "label": label, "language": language, "references": references}
        super().__init__(scorer, "bleu", change, changed, higher_is_better=True, **of)


def _moses(text: str, language: str) -> str:
    found: str = _moses_tokenizer(language).tokenize(text, return_str=True, escape=False)
    return found


@cache  # it compiles many patterns
def _moses_tokenizer(language: str) -> Any:
    from sacremoses import MosesTokenizer

    return MosesTokenizer(language)


class ErrorRate(OfCorpus):
    """Word error rate by jiwer, pooled over the corpus, in percent; or that of characters.

    Edits that turn the references into the translations, over the words (or characters) of the references. Case and
    punctuation count. Of several references, the edits of a sentence are those of the nearest, and its length is their
    mean, as in TER.

    Args:
        of: "words" or "characters".
        lowercase, language, references: as for `OfCorpus`.

    Raises: ValueError: another ``of``, or no language.
    """

    formula = "ratio"

    def __init__(
        self,
        language: str | None,
        of: str = "words",
        lowercase: bool = False,
        references: Sequence[str] | None = None,
    ):
        if of not in ("words", "characters"):
            raise ValueError(f"of is {of!r}; accepted are words and characters")
        key, label = ("wer", "WER") if of == "words" else ("cer", "CER")
        super().__init__(key, label, False, language, references, lowercase)
        self._of = of

    def __call__(self, traces: Sequence[Trace]) -> float | None:
        try:
            import jiwer
        except ImportError as error:
            raise MetricError(f"metric={self.key} needs jiwer: pip install 'jiwer>=4'") from error
        ids, predictions, streams = self.texts(traces)
        ours = self._clean(predictions)
        process = jiwer.process_words if self._of == "words" else jiwer.process_characters
        found = [_edits(process(self._clean(stream), ours)) for stream in streams]
        counts = []
        for place, texts in enumerate(zip(*streams, strict=True)):
            here = [of[place] for of, text in zip(found, texts, strict=True) if text is not None]
            counts.append((min(edits for edits, _ in here), sum(length for _, length in here) / len(here)))
        self.sums = dict(zip(ids, counts, strict=True))
        edits, length = (sum(numbers) for numbers in zip(*counts, strict=True))
        several = f"|refs:{len(streams)}" if len(streams) > 1 else ""
        case = "lc" if self._lowercase else "mixed"
        self.signature = f"of:{self._of}|case:{case}{several}|jiwer:{version('jiwer')}"
        return 100 * edits / length if length else None

    def _clean(self, texts: Iterable[str | None]) -> list[str]:
        """With single plain spaces: jiwer takes a no-break space for a letter."""
        joined = (" ".join((text or "").split()) for text in texts)
        return [text.lower() if self._lowercase else text for text in joined]


def _edits(found: Any) -> list[tuple[int, int]]:
    """Edits and length of each sentence in what jiwer has aligned."""
    counted = []
    for chunks, reference in zip(found.alignments, found.references, strict=True):
        edits = 0
        for chunk in chunks:
            if chunk.type != "equal":
                spans = chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx
                edits += max(spans)
        counted.append((edits, len(reference)))
    return counted
