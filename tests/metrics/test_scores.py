"""The one list of scores: it has every number of a run, and a latency that is new is shown without a line here."""

from dataclasses import replace

import make_metrics
import pytest
from test_summary import EARLY, FULL, KEYS

from streamllm.evaluation.tables import figures_text
from streamllm.metrics import latency
from streamllm.metrics.latency import METRICS
from streamllm.metrics.scores import (
    REPORT,
    SCREEN,
    SENTENCES,
    SWEEP,
    TEXTS,
    described,
    own_score,
    scores,
    shown_on,
)
from streamllm.metrics.summary import summarise
from streamllm.records import Segment


def first_delay(delays: object, source_length: float, target_length: float) -> float:
    """Source read before the first target unit.

    Of no paper.
    """
    return float(delays[0]) if delays else float("nan")  # type: ignore[index]


@pytest.fixture
def new_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "first_delay", first_delay)


def test_every_key_of_metrics_json_is_a_score_or_a_text_in_the_same_order() -> None:
    assert [*scores(), *TEXTS] == KEYS


def test_every_number_of_a_run_over_documents_is_a_score() -> None:
    segments = (Segment(0, 3, "a b c", "eins zwei"), Segment(3, 3, "d e f", "drei"))
    of_documents = replace(FULL, id="d", source="a b c d e f", source_units=6, segments=segments)
    found = summarise([of_documents], "de", "word")
    numbers = {key for key in found if not key.endswith("_signature")}
    assert numbers == set(scores(documents=True)) - {"first_delay"}
    assert (found["documents"], found["sentences"], found["al"]) == (1, 2, None)
    assert figures_text(found).startswith("1 document of 2 sentences")


def test_what_else_happened_is_a_line_each_where_it_is_not_zero() -> None:
    found = {"sentences": 5, "bleu": 3.0, "al_seconds": 1.25, "laal_ca": None}
    found |= {"sentences_without_output": 2, "max_units_stops": 0, "max_tokens_stops": 1, "early_ends": None}
    assert figures_text(found | {"forced_reads": 7}).splitlines() == [
        "5 sentences",
        "  quality  BLEU 3.00",
        "  seconds  AL 1.25",
        "  sentences without output, and so without latency: 2",
        "  sentences cut at the limit of tokens: 1",
        "  source units read against the policy: 7",
    ]


def test_every_latency_function_is_a_score() -> None:
    assert [score.key for score in scores().values() if score.group == "latency"] == list(METRICS)


def test_latency_function_that_is_taken_out_is_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    # A dict of its own: a key that is put back would come last in the other one, for tests that follow.
    monkeypatch.setattr(latency, "METRICS", {key: metric for key, metric in METRICS.items() if key != "ap"})
    assert "ap" not in scores()


@pytest.mark.usefixtures("new_latency")
def test_latency_function_that_is_new_is_a_score_that_is_shown_everywhere() -> None:
    score = scores()["first_delay"]
    assert (score.label, score.description) == ("FIRST DELAY", "Source read before the first target unit")
    for place in (SCREEN, SWEEP, REPORT, SENTENCES):
        assert score in shown_on(place)
    assert list(scores()).index("first_delay") == list(summarise([FULL], "de", "word")).index("first_delay")


def test_places_show_what_they_showed() -> None:
    assert [score.key for score in shown_on(SWEEP)] == ["bleu", "laal", "al"]
    assert [score.key for score in shown_on(SENTENCES)] == ["bleu", "laal", "al"]
    assert [score.key for score in shown_on(REPORT)][:4] == ["bleu", "laal", "chrf", "al"]


def test_values_have_the_digits_of_their_score() -> None:
    metrics = summarise([FULL, EARLY], "de", "word")
    assert scores()["ap"].said(metrics["ap"]) == "AP 0.688"  # type: ignore[arg-type]
    assert scores()["seconds_per_sentence"].said(0.0314) == "0.031 s per sentence"
    assert scores()["bleu"].text(None) == "-"


def test_axis_tells_the_measure() -> None:
    assert scores()["laal"].axis == "LAAL (source units)"
    assert scores()["bleu"].axis == "BLEU"


def test_own_score_is_the_same_after_it_was_stored() -> None:
    score = own_score("mine", "Mine", 1, None, "what it is")
    assert own_score(**described(score)) == score
    assert shown_on(SCREEN, [score])[-1] == score


def test_the_table_of_the_page_is_not_stale() -> None:
    assert make_metrics.PAGE.read_text(encoding="utf-8") == make_metrics.page(), "run: python scripts/make_metrics.py"
