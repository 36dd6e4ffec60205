"""Quality that is asked for: what sacrebleu and jiwer say of the same texts, and the traps of both."""

import dataclasses
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER as SacrebleuTER
from test_compare import sentences

from streamllm.metrics.asked import Bleu, ChrF, ErrorRate
from streamllm.metrics.own import MetricError, own_values, signatures
from streamllm.metrics.ter import TER
from streamllm.records import Trace

TRACES = sentences(20, 0.3, 2)
PREDICTIONS, REFERENCES = ([getattr(one, side) for one in TRACES] for side in ("prediction", "reference"))


def said(*pairs: tuple[str, str]) -> list[Trace]:
    return [
        dataclasses.replace(TRACES[0], id=str(n), prediction=mine, reference=theirs)
        for n, (mine, theirs) in enumerate(pairs)
    ]


def test_chrf_pp_is_sacrebleu_s_with_words():
    metric = ChrF("de")
    assert metric(TRACES) == CHRF(word_order=2).corpus_score(PREDICTIONS, [REFERENCES]).score
    assert "nw:2" in (metric.signature or "")
    assert signatures([metric]) == {"chrf_pp_signature": metric.signature}


def test_bleu_without_case():
    traces = said(("ein hund läuft auf der wiese", "Ein Hund läuft auf der Wiese"))
    assert Bleu("de", lowercase=True)(traces) == pytest.approx(100)
    assert Bleu("de")(traces) < 50


def test_bleu_of_tokenised_texts():
    metric = Bleu("de", moses=True)
    traces = said(("Ein Hund, der läuft.", "Ein Hund , der läuft ."))
    assert metric(traces) == pytest.approx(100)
    assert "tok:none" in (metric.signature or "")
    assert (metric.signature or "").endswith(f"|moses:de|sacremoses:{version('sacremoses')}"), (
        "texts were changed before"
    )
    assert Bleu("de", bleu_tokenizer="none")(traces) < 50


def test_several_references_also_with_some_missing(tmp_path: Path):
    """A missing reference is None. An empty one would be a reference of length 0, which BLEU takes for the closest."""
    other = ["" if n % 2 else f"{reference} noch" for n, reference in enumerate(REFERENCES)]
    (tmp_path / "b.de").write_text("\n".join(other) + "\n")
    streams = [REFERENCES, [text or None for text in other]]
    for metric, scorer in (
        (Bleu("de", references=[str(tmp_path / "b.de")]), BLEU()),
        (ChrF("de", 0, [str(tmp_path / "b.de")]), CHRF()),
    ):
        assert metric(TRACES) == scorer.corpus_score(PREDICTIONS, streams).score
        assert "nrefs:var" in (metric.signature or "")
    before = metric.contents()
    (tmp_path / "b.de").write_text("\n".join(REFERENCES) + "\n")
    assert metric.contents() != before
    (tmp_path / "b.de").write_text("\n".join(REFERENCES[:-1]) + "\n")
    with pytest.raises(MetricError, match="has 19 lines for 20 sentences of the run"):
        metric(TRACES)
    with pytest.raises(MetricError, match=r"c\.de cannot be read"):
        own_values([Bleu("de", references=["c.de"])], TRACES)


def test_an_empty_reference_would_not_be_a_missing_one():
    """What the file's empty lines must not become."""
    short = ["ein Hund läuft"], [["ein Hund läuft auf der Wiese"], [""]], [["ein Hund läuft auf der Wiese"], [None]]
    assert BLEU(effective_order=True).corpus_score(short[0], short[1]).score != (
        BLEU(effective_order=True).corpus_score(short[0], short[2]).score
    )


def test_ter_ignores_case_unless_told_and_says_so():
    traces = said(("ein hund", "Ein Hund"))
    metric, strict = TER("de"), TER("de", case_sensitive=True)
    assert (metric(traces), strict(traces)) == (0, 100)
    assert ("case:lc" in (metric.signature or ""), "case:mixed" in (strict.signature or "")) == (True, True)


def test_ter_of_chinese_is_by_character():
    assert TER("zh")(said(("一只狗跑", "一只猫跑"))) == 25
    alone = SacrebleuTER(asian_support=True).corpus_score(["一只狗跑"], [["一只猫跑"]]).score
    assert alone == 100  # without `normalized` it is a word


def test_ter_over_several_references_is_sacrebleu_s(tmp_path: Path):
    other = ["" if n % 2 else f"{reference} noch" for n, reference in enumerate(REFERENCES)]
    (tmp_path / "b.de").write_text("\n".join(other) + "\n")
    metric = TER("de", references=[str(tmp_path / "b.de")])
    streams = [REFERENCES, [text or None for text in other]]
    assert metric(TRACES) == SacrebleuTER().corpus_score(PREDICTIONS, streams).score
    assert "nrefs:var" in (metric.signature or "")


def test_error_rates_over_several_references_take_the_nearest_and_the_mean_length(tmp_path: Path):
    """1 edit of 2 and 3 of 4 words, then 1 of 1 and no other reference: 2 edits of 3 + 1 words."""
    pytest.importorskip("jiwer")
    traces = said(("ein Hund", "eine Hund"), ("Katze", "Hund"))
    (tmp_path / "b.de").write_text("ein Tier das läuft\n\n")
    metric = ErrorRate("de", references=[str(tmp_path / "b.de")])
    assert metric(traces) == pytest.approx(100 * 2 / 4)
    assert "|refs:2|" in (metric.signature or "")
    of_letters = ErrorRate("de", "characters", references=[str(tmp_path / "b.de")])
    assert of_letters(traces) == pytest.approx(100 * (1 + 5) / ((9 + 18) / 2 + 4))  # "Katze", "Hund": one is left over
    (tmp_path / "b.de").write_text("ein Hund\nKatze\n")
    assert metric(traces) == 0


def test_an_error_rate_over_one_reference_is_jiwer_s():
    jiwer = pytest.importorskip("jiwer")
    assert ErrorRate("de")(TRACES) == pytest.approx(100 * jiwer.wer(REFERENCES, PREDICTIONS), abs=1e-12)
    assert ErrorRate("de", "characters")(TRACES) == pytest.approx(100 * jiwer.cer(REFERENCES, PREDICTIONS), abs=1e-12)


def test_error_rates_are_pooled_over_the_corpus():
    pytest.importorskip("jiwer")
    traces = said(("ein Hund", "ein Hund"), ("eine Katze", "eine Katze läuft schnell"))
    words, characters = ErrorRate("de"), ErrorRate("de", "characters")
    assert words(traces) == pytest.approx(100 * 2 / 6)
    assert characters(traces) == pytest.approx(100 * 14 / (8 + 24))
    assert (words.signature or "").startswith("of:words|case:mixed|jiwer:")
    assert ErrorRate("de", lowercase=True)(said(("EIN Hund", "ein hund"))) == 0
    assert ErrorRate("de")(said(("ein", ""))) is None


def test_a_no_break_space_divides_words():
    pytest.importorskip("jiwer")
    assert ErrorRate("de")(said(("ein Hund", "ein\u00a0Hund"), ("a  b", " a b"))) == 0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ChrF(None), "needs the target language"),
        (lambda: ErrorRate("de", "letters"), "accepted are words and characters"),
        (lambda: Bleu("de", references="b.de"), r"give a list of files: \[b.de\]"),
        (lambda: Bleu("de", bleu_tokenizer="moses"), "bleu_tokenizer is 'moses'"),
    ],
)
def test_what_is_no_setting_is_refused(make: Any, said: str):
    with pytest.raises(ValueError, match=said):
        make()
