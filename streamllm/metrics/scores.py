"""The one list of scores: what each key of metrics.json is called, which way is better, and where it is shown.

Invariant: `latency.METRICS` is the only list of latency functions. One that is added there is a score without a line
here, shown everywhere under its own key."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from streamllm.metrics import latency

SCREEN, SWEEP, REPORT, SENTENCES, NOTES = "screen", "sweep", "report", "sentences", "notes"
"""Where scores are shown: the printed summary, the table of a sweep, the columns of the report, tables of sentences;
and the notes below the printed summary and in the report, which have counts that are not 0."""

EVERYWHERE: Mapping[str, int] = {SCREEN: 0, SWEEP: 0, REPORT: 0, SENTENCES: 0}
EVERYWHERE_BUT_SENTENCES: Mapping[str, int] = {SCREEN: 0, SWEEP: 0, REPORT: 0}
AFTER_LAAL: Mapping[str, int] = {SCREEN: 0, SWEEP: 1, REPORT: 1, SENTENCES: 1}
"""Behind BLEU and LAAL, by which runs are compared: a window that is narrow shows no more than the first columns."""
AFTER_OURS: Mapping[str, int] = {SCREEN: 9, SWEEP: 9, REPORT: 9}
OWN = "own"


@dataclass(frozen=True)
class Score:
    """A score of a run: one number (or None) in metrics.json.

    Args:
        key: in metrics.json.
        label: how tables and axes call it.
        digits: after the point.
        higher_is_better: None where neither way is better.
        group: "counts", "quality", "latency", "seconds", "behaviour", "cost", or "own" for a metric of the user's.
        description: one line, without a full stop.
        source: the paper.
        measure: what it is measured in.
        words: how the printed summary says it, with ``{}`` for the number; "" puts the label before the number.
        shown: the places that show it, each with a number that orders the scores there (equal numbers: as listed).
    """

    key: str
    label: str
    digits: int = 2
    higher_is_better: bool | None = False
    group: str = OWN
    description: str = ""
    source: str = ""
    measure: str = ""
    words: str = ""
    shown: Mapping[str, int] = field(default_factory=dict)

    @property
    def axis(self) -> str:
        """The label with the measure, for an axis: "AL (source units)"."""
        return f"{self.label} ({self.measure})" if self.measure else self.label

    @property
    def name(self) -> str:
        """The label, told apart from that of the same score in units: "AL (s)"."""
        return self.axis if self.group == "seconds" else self.label

    @property
    def meaning(self) -> str:
        """The description with measure and paper."""
        text, more = self.description or self.label, "; ".join(filter(None, (self.measure, self.source)))
        return f"{text} ({more})" if more else text

    def text(self, value: float | None) -> str:
        """A value with as many digits as it has; "-" for none."""
        return "-" if value is None else f"{value:.{self.digits}f}"

    def said(self, value: float) -> str:
        """A value as the printed summary says it: "AL 2.30", "0.031 s per sentence"."""
        return self.words.format(self.text(value)) if self.words else f"{self.label} {self.text(value)}"


def own_score(key: str, label: str, digits: int, higher_is_better: bool | None, description: str = "") -> Score:
    """A metric of the user's, shown wherever whole runs are, after the scores of every run.

    Raises: ValueError: something of it is not what `streamllm.metrics.own.Metric` says.
    """
    if not isinstance(key, str) or not re.fullmatch("[a-z][a-z0-9_]*", key):
        raise ValueError(f"key is {key!r}; accepted are small letters, digits and _, a letter first")
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"label is {label!r}; it is text for tables and axes")
    if type(digits) is not int or not 0 <= digits <= 9:
        raise ValueError(f"digits is {digits!r}; it is how many stand after the point, from 0 to 9")
    if higher_is_better not in (True, False, None):
        raise ValueError(f"higher_is_better is {higher_is_better!r}; accepted are True, False and None")
    return Score(key, label, digits, higher_is_better, OWN, description, shown=AFTER_OURS)


def described(score: Score) -> dict[str, Any]:
    """The arguments of `own_score`, to be stored."""
    return {name: getattr(score, name) for name in ("key", "label", "digits", "higher_is_better", "description")}


def _lag(key: str, label: str, description: str, source: str, shown: Mapping[str, int] = {}, digits: int = 2) -> Score:
    measure = "" if key.endswith("ap") else "source units"
    return Score(key, label, digits, False, "latency", description, source, measure, shown=shown)


def _seconds(key: str, label: str, description: str) -> Score:
    return Score(key, label, 2, False, "seconds", description, measure="s", shown={SCREEN: 0, REPORT: 1})


def _count(
    key: str,
    group: str,
    description: str,
    higher_is_better: bool | None = None,
    digits: int = 0,
    shown: Mapping[str, int] = {},
) -> Score:
    return Score(key, key.replace("_", " "), digits, higher_is_better, group, description, shown=shown)


SCORES = (
    _count("sentences", "counts", "number of sentences"),
    _count(
        *("sentences_without_output", "counts", "sentences without output, and so without latency", False),
        shown={NOTES: 0},
    ),
    Score(
        "bleu", "BLEU", 2, True, "quality", "corpus BLEU by sacrebleu", "Post 2018, arXiv 1804.08771", shown=EVERYWHERE
    ),
    Score(
        *("chrf", "chrF", 2, True, "quality", "corpus chrF by sacrebleu", "Popović 2015, aclanthology W15-3049"),
        shown={SCREEN: 0, REPORT: 1},
    ),
    Score(
        *(
            "length_ratio",
            "length ratio",
            3,
            None,
            "quality",
            "tokens of the predictions over tokens of the references",
        ),
        shown={SCREEN: 0},
    ),
    _lag("al", "AL", "Average Lagging", "Ma et al. 2019, arXiv 1810.08398", AFTER_LAAL),
    _lag("laal", "LAAL", "Length-Adaptive Average Lagging", "Papi et al. 2022, arXiv 2206.05807", EVERYWHERE),
    _lag("ap", "AP", "Average Proportion", "Cho & Esipova 2016, arXiv 1606.02012", {SCREEN: 0, REPORT: 1}, 3),
    _lag(
        "dal", "DAL", "Differentiable Average Lagging", "Cherry & Foster 2019, arXiv 1906.00048", {SCREEN: 0, REPORT: 1}
    ),
    _lag("yaal", "YAAL", "Yet Another Average Lagging", "Polák et al. 2025, arXiv 2509.17349"),
    _lag("atd", "ATD", "Average Token Delay", "Kano et al. 2023, arXiv 2211.13173"),
    _lag("cw", "CW", "Consecutive Wait: the mean of the waits of a sentence", "Gu et al. 2017, arXiv 1610.00388"),
    _lag("cw_max", "CW max", "the longest wait of a sentence", "Gu et al. 2017, arXiv 1610.00388"),
    _seconds("al_seconds", "AL", "Average Lagging on the clock of arrival, compute taking no time"),
    _seconds("laal_seconds", "LAAL", "Length-Adaptive Average Lagging on the clock of arrival, compute taking no time"),
    _seconds("al_ca", "AL-CA", "Average Lagging on the clock of arrival, compute included"),
    _seconds("laal_ca", "LAAL-CA", "Length-Adaptive Average Lagging on the clock of arrival, compute included"),
    Score(
        *("ne", "NE", 3, False, "behaviour", "normalised erasure of what drafts would have shown"),
        source="Arivazhagan et al. 2020, arXiv 2004.03643",
    ),
    _count("alternations", "behaviour", "how often WRITE followed READ in a sentence", digits=2),
    Score(
        *("seconds_per_sentence", "s / sentence", 3, False, "cost", "seconds a sentence on the machine of the run"),
        words="{} s per sentence",
        shown={SCREEN: 0, REPORT: 2},
    ),
    Score(
        *("target_tokens_per_second", "target tokens / s", 1, True, "cost", "target tokens a second"),
        words="{} target tokens/s",
        shown={SCREEN: 0},
    ),
    _count("forward_passes", "cost", "forward passes of the model in all", False),
    Score(
        *("forward_passes_per_target_token", "passes / token", 2, False, "cost"),
        "forward passes of the model a target token",
        words="{} forward passes per target token",
        shown={SCREEN: 0, REPORT: 1},
    ),
    _count("forced_reads", "behaviour", "source units read against the policy", shown={NOTES: 2}),
    _count("early_stops", "behaviour", "sentences ended by an end token while source remained", shown={NOTES: 2}),
    _count("early_ends", "behaviour", "end tokens while source remained", shown={NOTES: 2}),
    _count(
        "sentences_cut_short",
        "behaviour",
        "sentences after whose last write half of the source, and eight units, came",
        False,
    ),
    _count("source_after_last_write", "behaviour", "share of the source after the last write, on average", digits=3),
    _count("max_units_stops", "behaviour", "sentences cut at the limit of units", False, shown={NOTES: 1}),
    _count("max_tokens_stops", "behaviour", "sentences cut at the limit of tokens", False, shown={NOTES: 1}),
)
"""Every number of metrics.json, in its order."""

_LONG = "Polák et al. 2025, arXiv 2509.17349; as OmniSTEval has it"
_PAPI = "Papi et al. 2024, aclanthology 2024.acl-long.202; as simulstream has it"
DOCUMENT_SCORES = (
    _count("documents", "counts", "number of documents"),
    _count("units_dropped", "counts", "target units that re-segmentation gave to no sentence", False),
    _lag("long_yaal", "LongYAAL", "YAAL of the sentences of documents", _LONG, EVERYWHERE_BUT_SENTENCES),
    _lag("long_al", "LongAL", "Average Lagging of the sentences of documents", _LONG),
    _lag("long_laal", "LongLAAL", "LAAL of the sentences of documents", _LONG, EVERYWHERE_BUT_SENTENCES),
    _lag("long_ap", "LongAP", "Average Proportion of the sentences of documents", _LONG, digits=3),
    _lag("long_dal", "LongDAL", "DAL of the sentences of documents", _LONG, {SCREEN: 0, REPORT: 1}),
    _lag("ca_long_yaal", "LongYAAL-CA", "LongYAAL, compute included", _LONG, {SCREEN: 0, REPORT: 1}),
    _lag("ca_long_al", "LongAL-CA", "LongAL, compute included", _LONG),
    _lag("ca_long_laal", "LongLAAL-CA", "LongLAAL, compute included", _LONG, {SCREEN: 0, REPORT: 1}),
    _lag("ca_long_ap", "LongAP-CA", "LongAP, compute included", _LONG, digits=3),
    _lag("ca_long_dal", "LongDAL-CA", "LongDAL, compute included", _LONG),
    Score("swf", "SWF", 1, None, "behaviour", "percent of units written before the end of their sentence", _LONG),
    Score("efsw", "EFSW", 1, None, "behaviour", "percent that were expected to be, by YAAL", _LONG),
    Score("dsptv", "EFSW − SWF", 1, None, "behaviour", "further than 20 from 0, a policy is degenerate", _LONG),
    _count("degenerate_policy", "behaviour", "1 for a policy that is simultaneous in name only", False),
    Score("bleu_word_error", "BLEU (mwer)", 2, True, "quality", "BLEU, cut at references by minimum word error"),
    Score("chrf_word_error", "chrF (mwer)", 2, True, "quality", "chrF, cut at references by minimum word error"),
    _lag("stream_laal", "StreamLAAL", "LAAL of sentences cut by minimum word error", _PAPI, {SCREEN: 0, REPORT: 1}),
    _lag("ca_stream_laal", "StreamLAAL-CA", "StreamLAAL, compute included", _PAPI),
)
"""What metrics.json has besides where the run is over documents."""

TEXTS = ("bleu_signature", "chrf_signature", "latency_signature")
"""What metrics.json holds besides numbers."""


def scores(own: Iterable[Score] = (), documents: bool = False) -> dict[str, Score]:
    """All scores by key, in the order of metrics.json: those of `SCORES`, a latency of `latency.METRICS` that has no
    line there, `DOCUMENT_SCORES` if they are asked for, then ``own``."""
    listed = [score for score in SCORES if score.group != "latency" or score.key in latency.METRICS]
    after = max(place for place, score in enumerate(SCORES) if score.group == "latency") + 1
    known = {score.key for score in SCORES}
    after -= len(SCORES) - len(listed)
    new = [_of_function(key) for key in latency.METRICS if key not in known]
    more = DOCUMENT_SCORES if documents else ()
    return {score.key: score for score in (*listed[:after], *new, *listed[after:], *more, *own)}


def shown_on(place: str, own: Iterable[Score] = (), documents: bool = False) -> list[Score]:
    """The scores that ``place`` shows, in its order; those of ``documents``, too."""
    found = [score for score in scores(own, documents).values() if place in score.shown]
    return sorted(found, key=lambda score: score.shown[place])


def notes(found: Mapping[str, Any]) -> list[str]:
    """What happened in a run that its scores do not tell: a line for each count that is not 0."""
    cut, documents = found.get("sentences_cut_short"), found.get("documents")
    short = [f"documents cut short, which have no latency: {cut} of {documents}"] if cut and documents else []
    return short + [
        f"{score.description}: {score.text(found[score.key])}" for score in shown_on(NOTES) if found.get(score.key)
    ]


def _of_function(key: str) -> Score:
    """The score of a latency function that `SCORES` does not name."""
    first, *_ = (latency.METRICS[key].__doc__ or "").strip().split("\n")
    return _lag(key, key.replace("_", " ").upper(), first.rstrip("."), "", AFTER_LAAL)


def markdown() -> str:
    """The table of docs/metrics.md: every score, what is better, and where it is shown."""
    better = {True: "higher", False: "lower", None: ""}
    places = {SCREEN: "printed summary", SWEEP: "sweep", REPORT: "report", SENTENCES: "sentences", NOTES: "notes"}
    rows = [
        (
            *(f"`{score.key}`", score.axis, score.group, better[score.higher_is_better], str(score.digits)),
            ", ".join(text for place, text in places.items() if place in score.shown),
        )
        for score in scores(documents=True).values()
    ]
    head = ("key", "called", "group", "better", "digits", "shown in")
    return "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in (head, ("---",) * len(head), *rows))
