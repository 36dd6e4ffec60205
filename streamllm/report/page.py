"""The page of a report: HTML around page.css, page.js and the data as JSON.

All text of runs is escaped here, and the script writes text nodes only; nothing may be loaded from anywhere."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from streamllm.metrics.scores import REPORT, SENTENCES, Score, notes, scores, shown_on
from streamllm.report.curve import Drawing, Figure, drifts, figures
from streamllm.report.curve_facts import CurveFacts, cells
from streamllm.report.gather import OF_DOCUMENTS, Report, Result, Run
from streamllm.report.names import folded
from streamllm.report.signatures import signature, together
from streamllm.runs.load import clock_of
from streamllm.units import unit_of


def render(report: Report) -> str:
    """The whole page."""
    resources = files("streamllm.report")
    css, script = ((resources / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    drawn = figures(report.table)
    parts = {
        "title": _escaped(_title(report)),
        "script-hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "css": css,
        "facts": _facts(report),
        "curves": "\n".join(_curve(figure, len(drawn) > 1) for figure in drawn)
        or "<p>No run has both BLEU and LAAL.</p>",
        "curve-hint": "Shades and bars are 95 % intervals. " * bool(report.samples and drawn),
        "curve-facts": "".join(_curve_facts(facts, len(report.curves) > 1) for facts in report.curves),
        "drift": _drift(report),
        "sentences-heading": _heading(report),
        "latency-codes": ", ".join(f"<code>{_escaped(score.key)}</code>" for score in _latencies(report.runs)),
        "documents-hint": " Scores of a document are those of its sentences after re-segmentation."
        * any(run.is_over_documents for run in report.runs),
        "runs": _run_table(report),
        "notes": _notes(report),
        "provenance": _provenance(report),
        "data": _embedded_json(_data(report, drawn)),
        "script": script,
    }
    template = (resources / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{([a-z-]+)\}\}", lambda found: parts[found[1]], template)  # in one pass: data may hold {{…}} too


def _escaped(text: object) -> str:
    return html.escape(str(text))


def _latencies(runs: Iterable[Run]) -> list[Score]:
    """Those of single sentences and of single documents, as far as there are runs over them; the first is shown."""
    known, kinds = scores(documents=True), {run.is_over_documents for run in runs}
    of_sentences = [score for score in shown_on(SENTENCES) if score.group == "latency"]
    return of_sentences * (False in kinds) + [known[key] for key in OF_DOCUMENTS] * (True in kinds)


def _embedded_json(values: Any) -> str:
    """JSON that no HTML parser takes for markup."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", r"\u003c")


# --- head


def _title(report: Report) -> str:
    names = {str(run.config.get("dataset.name") or "") for run in report.runs}
    return f"streamllm: {next(iter(names))}" if len(names) == 1 and all(names) else "streamllm"


def _facts(report: Report) -> str:
    """What all runs have in common, of what a reader asks first."""
    facts = report.size.split(", ")
    for keys, between in ((["dataset.name"], ""), (LANGUAGES, " → "), (["model.path"], "")):
        values = {between.join(str(run.config.get(key) or "?") for key in keys) for run in report.runs}
        if len(values) == 1 and "?" not in (value := values.pop()):
            facts.append(value)
    return "".join(f"<li>{_escaped(fact)}</li>" for fact in facts)


LANGUAGES = ["dataset.source_language", "dataset.target_language"]


# --- curves


def _curve(figure: Figure, several: bool) -> str:
    """The figure between two layers that the script fills: marks behind it, and what can be clicked on."""
    caption = f"<figcaption>{_escaped(figure.title)}</figcaption>" if several else ""
    drawings = "".join(_layers(kind, drawing) for kind, drawing in (("wide", figure.wide), ("narrow", figure.narrow)))
    return f'<figure class="curve">{caption}{drawings}</figure>'


def _layers(kind: str, drawing: Drawing) -> str:
    view = " ".join(f"{length:g}" for length in (0, 0, *drawing.size))
    rings, hits = (f'<svg class="{name}" viewBox="{view}" aria-hidden="true"></svg>' for name in ("rings", "hits"))
    return f'<div class="layers {kind}">{rings}{drawing.svg}{hits}</div>'


def _curve_facts(facts: CurveFacts, several: bool) -> str:
    """What the curves of a test set come to, as a table."""
    heads, rows = cells(facts)
    caption = "Areas under curves" + (f" of {_escaped(facts.test_set)}" if several else "")
    head = "".join(f'<th scope="col">{_escaped(text)}</th>' for text in heads)
    body = "\n".join("<tr>" + "".join(f"<td>{_escaped(_minus(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    hint = (
        "The mean height of each line over a range of latencies that all cover, with 95 % intervals of a bootstrap "
        "over sentences. NoSE is that mean over the BLEU of full-sentence translation."
    )
    return (
        f'<details><summary>{caption}</summary>\n<p class="hint">{hint}</p>\n<div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div></details>\n"
    )


def _drift(report: Report) -> str:
    """The section about positions in documents; nothing without documents."""
    if not (drawn := drifts(report)):
        return ""
    figures = "\n".join(
        f'<figure class="curve"><figcaption>{_escaped(figure.title)}</figcaption>'
        f'<div class="drawn wide">{figure.wide.svg}</div><div class="drawn narrow">{figure.narrow.svg}</div></figure>'
        for figure in drawn
    )
    return (
        '<section aria-labelledby="drift-heading">\n<h2 id="drift-heading">By position in the document</h2>\n'
        '<p class="hint">Texts differ from position to position: compare runs at a position rather than positions of a '
        f'run.</p>\n<div class="curves">\n{figures}\n</div>\n</section>'
    )


def _heading(report: Report) -> str:
    kinds = {bool(one.segments) for one in report.sentences}
    return "Sentences and documents" if len(kinds) > 1 else "Documents" if True in kinds else "Sentences"


# --- the table


def _run_table(report: Report) -> str:
    folds = folded([run.varied for run in report.runs])
    keys = list(folds)
    columns = _columns(report)
    heads = [
        _head("run", "Policy", "the read/write policy; choose runs to compare with the boxes"),
        _head("setting", "Setting", "what the policy was set to"),
        *(_head(key, _name(key, keys), _with(key, folds[key]), "key") for key in keys),
        *(_head(score.key, score.name, _meaning(score), "number", bool(score.higher_is_better)) for score in columns),
    ]
    rows = "\n".join(_row(number, run, folds, columns) for number, run in enumerate(report.runs))
    return f'<thead><tr><th class="box">Show</th>{"".join(heads)}</tr></thead>\n<tbody>\n{rows}\n</tbody>'


def _columns(report: Report) -> list[Score]:
    """The scores that some run has."""
    own = {score.key: score for run in reversed(report.runs) for score in run.own}  # as the first run calls it
    shown = shown_on(REPORT, own.values(), documents=True)
    return [score for score in shown if any(run.metrics.get(score.key) is not None for run in report.runs)]


def _name(key: str, keys: Sequence[str]) -> str:
    """The part of a key that says most; the whole key where another has the same."""

    def short(key: str) -> str:
        group, _, last = key.rpartition(".")
        return group if group and last in ("name", "path", "_target_") else last

    return short(key) if sum(short(other) == short(key) for other in keys) == 1 else key


def _meaning(score: Score) -> str:
    interval = "; below it the 95 % interval of a bootstrap over sentences, or documents"
    return f"{score.meaning}{interval * (score.key == 'bleu')}"


def _head(key: str, name: str, meaning: str, kind: str = "", descending: bool = False) -> str:
    of = f' class="{kind}"' if kind else ""
    first = "descending" if descending else "ascending"
    button = f'<button type="button" title="{_escaped(meaning)}">{_escaped(name)}</button>'
    return f'<th{of} scope="col" data-key="{_escaped(key)}" data-first="{first}" aria-sort="none">{button}</th>'


def _with(key: str, others: Sequence[str]) -> str:
    """A key, and those that differ along with it."""
    return f"{key}, and with it {', '.join(others)}" if others else key


def _row(number: int, run: Run, folds: Mapping[str, Sequence[str]], columns: Sequence[Score]) -> str:
    box = f'<input type="checkbox" value="{number}" aria-label="Show {_escaped(run.title)}">'
    texts = [_cell(run.setting)]
    for key, others in folds.items():
        along = ", ".join(f"{other}={run.varied[other] or 'null'}" for other in others)
        texts.append(_cell(run.varied[key], key.endswith("_target_"), along, "key"))
    cells = [_number(run, column) for column in columns]
    policy, folder = _escaped(run.policy), _escaped(run.folder)
    name = f'<th scope="row" data-value="{policy}" title="{folder}">{policy}</th>'
    return f'<tr data-run="{number}"><td class="box">{box}</td>{name}{"".join(texts)}{"".join(cells)}</tr>'


def _cell(text: str, is_class: bool = False, along: str = "", kind: str = "") -> str:
    shown = text.rpartition(".")[2] if is_class else text
    title = f' title="{_escaped(along)}"' if along else ""
    of = f' class="{kind}"' if kind else ""
    return f'<td{of} data-value="{_escaped(shown)}"{title}>{_escaped(shown)}</td>'


def _number(run: Run, score: Score) -> str:
    value = run.metrics.get(score.key)
    if value is None:
        return '<td class="number" data-value="">–</td>'
    interval = ""
    if score.key == "bleu" and run.interval:
        low, high = run.interval
        interval = f" <small>{low:.{score.digits - 1}f}–{high:.{score.digits - 1}f}</small>"
    return f'<td class="number" data-value="{value!r}">{_minus(score.text(value))}{interval}</td>'


def _minus(number: str) -> str:
    return number.replace("-", "−")


def _notes(report: Report) -> str:
    """What happened in runs that their scores do not tell; nothing where nothing did."""
    rows = "".join(
        f'<tr><th scope="row">{_escaped(run.title)}</th><td>{_escaped("; ".join(said))}</td></tr>'
        for run in report.runs
        if (said := notes(run.metrics))
    )
    if not rows:
        return ""
    return (
        "<details><summary>Sentences cut or without output, early ends, forced reads</summary>\n"
        f'<div class="scroll"><table id="notes">{rows}</table></div></details>'
    )


def _provenance(report: Report) -> str:
    """How each run was made, and what all runs share: without it, metrics must not be read."""
    rows = "".join(
        f'<tr><th scope="row">{_escaped(run.title)}</th><td>{_escaped(run.folder)}</td>'
        f"<td><code>{_escaped(run.environment.get('command', '–'))}</code></td>"
        f"<td>{_escaped(str(run.environment.get('commit') or '–')[:10])}{'*' * bool(run.environment.get('dirty'))}</td>"
        f"<td>{_escaped(run.environment.get('device_name') or run.environment.get('device') or '–')}</td></tr>"
        for run in report.runs
    )
    signatures = _signatures(report)
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("Run", "Folder", "Command", "Commit", "Device"))
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="How the runs were made"><table class="plain">'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        f"<p>{'<br>'.join(f'{_escaped(names)}: <code>{_escaped(text)}</code>' for names, text in signatures)}</p>"
        "<p>* with changes that were not committed</p>"
    )


def _signatures(report: Report) -> list[tuple[str, str]]:
    """Those of all scores in the table that have one."""
    clocks = [
        clock_of(folder) if run.config.get("arrival.words_per_second") is not None else None
        for run, folder in zip(report.runs, report.table["folder"], strict=True)
    ]
    found = (
        (score.name, signature(score, run.metrics, clock))
        for score in _columns(report)
        for run, clock in zip(report.runs, clocks, strict=True)
        if run.metrics.get(score.key) is not None
    )
    return together((name, text) for name, text in found if text)


# --- data for the script


def _data(report: Report, drawn: Iterable[Figure]) -> dict[str, Any]:
    """What page.js reads, in columns. Units are left out (0) where single spaces divide the text into them."""
    sentences = report.sentences
    documents = {}
    if any(sentence.segments for sentence in sentences):
        documents["segments"] = [[[s.start, s.units, s.source, s.reference] for s in one.segments] for one in sentences]
    return {
        "shown": _shown_at_first(report.runs),
        "units": _units_of(report.runs),
        "latencies": {score.key: score.label for score in _latencies(report.runs)},
        "curves": [
            [[number, round(x, 1), round(y, 1)] for number, (x, y) in drawing.points.items()]
            for figure in drawn
            for drawing in (figure.wide, figure.narrow)
        ],
        "sentences": {
            "id": [sentence.id for sentence in sentences],
            "source": [sentence.source for sentence in sentences],
            "reference": [sentence.reference for sentence in sentences],
            "units": [_units(sentence.units, sentence.source) for sentence in sentences],
            **documents,
        },
        "runs": [_run_data(run) for run in report.runs],
    }


def _units_of(runs: Sequence[Run]) -> str:
    """What the lengths of sources are counted in."""
    kinds = {
        run.config.get("dataset.source_unit") or unit_of(str(run.config.get("dataset.source_language") or ""))
        for run in runs
    }
    return {"word": "Words", "character": "Characters"}.get(str(kinds.pop()), "Units") if len(kinds) == 1 else "Units"


def _shown_at_first(runs: Sequence[Run]) -> list[int]:
    """The earliest run, and of those with the same sentences the best; one if there is no other."""

    def lag(number: int) -> float:
        return float(runs[number].metrics.get("laal") or runs[number].metrics.get("long_yaal") or 0.0)

    def bleu(number: int) -> float:
        return float(runs[number].metrics.get("bleu") or 0.0)

    first = min(range(len(runs)), key=lag)
    others = [n for n, run in enumerate(runs) if n != first and run.results.keys() & runs[first].results.keys()]
    return [first, max(others, key=bleu)] if others else [first]


def _run_data(run: Run) -> dict[str, Any]:
    results = list(run.results.values())
    found = {
        name: [None if (value := result.scores[name]) is None else round(value, 3) for result in results]
        for name in (results[0].scores if results else ())
    }
    documents: dict[str, list[Any]] = {}
    if run.is_over_documents:
        documents["ends"] = [[list(end) for end in result.ends] for result in results]
        documents["told"] = [result.told for result in results]
        documents["cut"] = [
            [[one.prediction, round(one.bleu, 1), _rounded(one.long_laal)] for one in result.cut] for result in results
        ]
    return {
        "title": run.title,
        "languages": [run.config.get(key) or "" for key in LANGUAGES],
        "sentences": list(run.results),
        "prediction": [result.prediction for result in results],
        "units": [_units(result.units, result.prediction) for result in results],
        "delays": [list(result.delays) for result in results],
        "forced": [[list(place) for place in result.forced] for result in results],
        "read": [result.read for result in results],
        "stop": [_why(result) for result in results],
        **found,
        **documents,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _units(units: Sequence[str], text: str) -> list[str] | int:
    return 0 if text.split(" ") == list(units) else list(units)


def _why(result: Result) -> str:
    """Why a sentence ended, where that is not as it should be."""
    reasons = {
        "early_stop": "ended before the source did",
        "max_units": "cut at the length limit",
        "max_tokens": "cut at the limit of tokens",
    }
    return reasons.get(result.stop, "")
