"""The table of a paper: chosen runs with intervals, marks of significance and the best of each column in bold, as LaTeX
or Markdown.

Invariant: beneath it stands a signature of every number, by which it can be made again, and the caption names the
test."""

import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from streamllm.metrics.scores import Score, scores
from streamllm.report.names import settings, titles, varied
from streamllm.report.signatures import signature, together
from streamllm.runs.compare import Difference, bootstrap, paired_test
from streamllm.runs.folder import RunFolder
from streamllm.runs.load import clock_of, flat_config, policy_name, read_config
from streamllm.runs.randomisation import NAME, TRIALS
from streamllm.runs.scored import KNOWN, ON_A_CLOCK
from streamllm.runs.scores import own_of_runs
from streamllm.runs.sentence_scores import beside_score, sentence_scores
from streamllm.runs.stored import computed_otherwise
from streamllm.runs.sums import SEED

RunPath = str | os.PathLike[str]

USUAL = ("bleu", "chrf", "laal", "al")
USUAL_OF_DOCUMENTS = ("bleu", "chrf", "long_yaal", "long_laal")
MARKS = (("‡", 0.01), ("†", 0.05))
"""Of p below these."""
LONG = 20
"""Characters of a name, beyond which it goes on beneath itself in LaTeX."""
FLOATS = {1: "table", 2: "table*"}
"""LaTeX's environments, by how many columns of a page they span."""


@dataclass(frozen=True)
class Cell:
    """A score of a run. ``low`` and ``high`` are its 95 % interval, None where there is none; ``mark`` says that the
    run differs from the first one, and ``best`` that no other is better."""

    value: float | None
    low: float | None
    high: float | None
    mark: str
    best: bool


@dataclass(frozen=True)
class Table:
    """Runs by name, the first of them the baseline, with a cell for each score; ``signatures`` are pairs of what has
    one and the signature."""

    columns: list[Score]
    rows: dict[str, list[Cell]]
    caption: str
    signatures: list[tuple[str, str]]


def table(
    runs: Sequence[RunPath],
    metrics: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    samples: int = 1000,
    seed: int = SEED,
    trials: int = TRIALS,
) -> Table:
    """The table of finished runs over the same sentences.

    Args:
        runs: their folders, the baseline first.
        metrics: keys of metrics.json; None: BLEU, chrF, LAAL and AL, of documents LongYAAL and LongLAAL. What is
            not computed from single sentences (a cost, an own metric without a KEY.jsonl) has neither interval nor
            mark.
        names: what the runs are called; None: by policy and settings.
        samples, seed, trials: as for `streamllm.runs.compare.paired_test`.

    Raises: ValueError: no runs, a key that no run has, or another number of names; and as `paired_test`.
    """
    if not runs:
        raise ValueError("0 runs; give two or more run folders, the baseline first")
    beside = [sentence_scores(RunFolder(run)) for run in runs]
    found = [
        {key: one.value for key, one in files.items()} | RunFolder(run).metrics()
        for run, files in zip(runs, beside, strict=True)
    ]
    drawable = [{*KNOWN, *files} for files in beside]
    columns = _columns(metrics, found, beside, runs)
    chosen = _names(runs, names)
    values = [[one.get(score.key) for score in columns] for one in found]
    tests: list[Mapping[str, Difference]] = [{}]
    of_first = _drawn(columns, found[0], drawable[0])
    for run, numbers, keys in zip(runs[1:], found[1:], drawable[1:], strict=True):
        both = [key for key in _drawn(columns, numbers, keys) if key in of_first]
        tests.append(paired_test(runs[0], run, samples, seed, both, trials) if both else {})
    rows = {}
    for place, (name, run) in enumerate(zip(chosen, runs, strict=True)):
        drawn = _drawn(columns, found[place], drawable[place])
        intervals = bootstrap(run, samples, seed, drawn) if drawn else {}
        rows[name] = [
            _cell(score, value, intervals.get(score.key), tests[place].get(score.key), [row[at] for row in values])
            for at, (score, value) in enumerate(zip(columns, values[place], strict=True))
        ]
    drew = f"bs:{samples}|ar:{trials}|seed:{seed}"
    return Table(
        columns,
        rows,
        _caption(runs, found, chosen[0], tests, samples, trials),
        _signed(columns, found, runs, drew, set[str]().union(*drawable)),
    )


def _columns(
    metrics: Sequence[str] | None,
    found: Sequence[Mapping[str, Any]],
    beside: Sequence[Mapping[str, Any]],
    runs: Sequence[RunPath],
) -> list[Score]:
    known = scores(own_of_runs(runs), documents=True)
    known |= {key: beside_score(key) for key in dict.fromkeys(chain(*beside)) if key not in known}
    documents = any(one.get("documents") is not None for one in found)
    keys = metrics or (USUAL_OF_DOCUMENTS if documents else USUAL)
    there = [key for key in known if any(_is_number(one.get(key)) for one in found)]
    if unknown := [key for key in keys if key not in there]:
        clock = " (it needs runs with a clock: arrival.words_per_second=2.5)" if unknown[0] in ON_A_CLOCK else ""
        raise ValueError(f"metrics: {unknown[0]!r} is no number of these runs{clock}; they have {', '.join(there)}")
    for key in keys:
        if otherwise := computed_otherwise(found, key):
            raise ValueError(
                f"metrics: {known[key].name} of these runs does not compare ({' and '.join(otherwise)}): score them "
                f"alike, with streamllm score RUN… metric={key}"
            )
    return [known[key] for key in dict.fromkeys(keys)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _drawn(columns: Sequence[Score], found: Mapping[str, Any], drawable: Collection[str]) -> list[str]:
    """The scores of a run that sentences can be drawn anew for."""
    return [score.key for score in columns if score.key in drawable and found.get(score.key) is not None]


def _names(runs: Sequence[RunPath], names: Sequence[str] | None) -> list[str]:
    import pandas

    if names is None:
        configs = [flat_config(read_config(run)) for run in runs]
        rows = pandas.DataFrame(configs)
        policies = [policy_name(str(config.get("policy._target_", "?"))) for config in configs]
        digests = [RunFolder(run).digest for run in runs]
        names = titles(policies, settings(rows, configs), varied(configs), digests)
    if len(names) != len(runs):
        raise ValueError(f"{len(names)} names for {len(runs)} runs: give one for each, in their order")
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise ValueError(f"two runs are called {twice[0]!r}: give each run once, or a name of its own")
    return list(names)


def _cell(
    score: Score, value: float | None, interval: Any, test: Difference | None, column: Sequence[float | None]
) -> Cell:
    drawn = interval is not None and math.isfinite(interval.low)
    p = math.nan if test is None else test.p_value
    mark = next((sign for sign, below in MARKS if p < below), "")
    known = [one for one in column if one is not None]
    best = False
    if value is not None and score.higher_is_better is not None and len({*map(score.text, known)}) > 1:
        best = score.text(value) == score.text((max if score.higher_is_better else min)(known))
    return Cell(value, interval.low if drawn else None, interval.high if drawn else None, mark, best)


def _caption(
    runs: Sequence[RunPath],
    found: Sequence[Mapping[str, Any]],
    first: str,
    tests: Sequence[Mapping[str, Difference]],
    samples: int,
    trials: int,
) -> str:
    config = flat_config(read_config(runs[0]))
    languages = [str(config.get(f"dataset.{side}_language") or "?") for side in ("source", "target")]
    count = f"{found[0].get('sentences', '?'):,} sentences"
    if found[0].get("documents") is not None:
        count += f" in {found[0]['documents']} documents"
    name, pair = config.get("dataset.name") or "a data set", ", {} to {}".format(*languages)
    texts = [f"{count} of {name}{'' if '?' in languages else pair}."]
    every = [one for of_run in tests for one in of_run.values()]
    drawn = "documents" if any("documents" in one.test for one in every) else "sentences"
    texts.append(f"In brackets: 95% intervals by bootstrap over {drawn} ({samples:,} samples).")
    if every:
        signs = ", ".join(f"{sign} p < {below}" for sign, below in reversed(MARKS))
        texts.append(
            f"{signs} by {every[0].test or NAME}, two-sided ({trials:,} trials), each pair by itself: better or worse "
            f"than {first}."
        )
        if len({one.sentences for one in every}) > 1:
            texts.append("Latencies are tested over the sentences that have an output in both runs.")
    texts.append("The best of a column is bold.")
    return " ".join(texts)


def _signed(
    columns: Sequence[Score],
    found: Sequence[Mapping[str, Any]],
    runs: Sequence[RunPath],
    drew: str,
    drawable: Collection[str],
) -> list[tuple[str, str]]:
    """A signature for each column; columns with one signature share a line, and one that runs differ in has several."""
    lines = []
    for score in columns:
        for one, run in zip(found, runs, strict=True):
            text = signature(score, one, clock_of(run)) or score.description or f"metrics.json:{score.key}"
            lines.append((score.name, f"{text}|{drew}" if score.key in drawable else text))
    return together(lines)


# --- as text


def markdown(found: Table) -> str:
    """The table for a page: the caption, the rows, and the signatures."""
    head = ["run", *(f"{score.name}{_arrow(score, '↑', '↓')}" for score in found.columns)]
    lines = [_row(head), _row(["---", *["---:"] * len(found.columns)])]
    for name, cells in found.rows.items():
        texts = [_plain(name).replace("|", "\\|")]
        for score, cell in zip(found.columns, cells, strict=True):
            value = f"**{score.text(cell.value)}**" if cell.best else score.text(cell.value)
            texts.append(f"{value}{cell.mark} {_interval(score, cell)}".strip())
        lines.append(_row(texts))
    signed = [f"- {what}: `{signature}`" for what, signature in found.signatures]
    return "\n".join([_plain(found.caption), "", *lines, "", *signed])


def latex(found: Table, columns: int = 1) -> str:
    """The table as a float that needs no package: intervals beneath their numbers, then the signatures, then the
    caption.

    Args:
        columns: of the page that it spans: 1 (``table``), or both of a page with two (``table*``).

    Raises: ValueError: another number of columns.
    """
    if columns not in FLOATS:
        raise ValueError(f"columns is {columns!r}: a table of a paper is 1 or 2 columns wide")
    environment, count = FLOATS[columns], len(found.columns)
    head = " & ".join(["", *(_head(score) for score in found.columns)])
    lines = [
        rf"\begin{{{environment}}}",
        r"\centering",
        r"\small",
        r"\setlength{\tabcolsep}{4.5pt}",
        rf"\begin{{tabular}}{{@{{}}l{'r' * count}@{{}}}}",
        r"\hline",
        rf"{head} \\",
        r"\hline",
    ]
    for name, cells in found.rows.items():
        values, intervals = [], []
        for score, cell in zip(found.columns, cells, strict=True):
            text = _minus(score.text(cell.value))
            mark = {"†": r"$^{\dagger}$", "‡": r"$^{\ddagger}$", "": ""}[cell.mark]
            values.append((rf"\textbf{{{text}}}" if cell.best else text) + mark)
            between = _minus(_interval(score, cell))
            intervals.append(rf"{{\scriptsize {between}}}" if between else "")
        first, rest = _divided(name) if any(intervals) else (name, "")
        lines.append(rf"{' & '.join([_escaped(first), *values])} \\")
        if any(intervals):
            below = rf"{{\scriptsize {_escaped(rest)}}}" if rest else ""
            lines.append(rf"{' & '.join([below, *intervals])} \\[2pt]")
    signed = [rf"{_escaped(what)}: \texttt{{{_breakable(text)}}}" for what, text in found.signatures]
    lines += [
        r"\hline",
        r"\end{tabular}",
        "",
        r"\medskip",
        r"\parbox{0.95\linewidth}{\raggedright\scriptsize",
        "\\\\\n".join(signed) + "}",
        rf"\caption{{{_escaped(found.caption)}}}",
        r"\label{tab:runs}",
        rf"\end{{{environment}}}",
    ]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Text in which Markdown finds nothing to do; it lets a _ within a word be, and a < before a space."""
    return re.sub(r"[*`\\\[]|<(?=[\w/!?])|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)


def _divided(name: str) -> tuple[str, str]:
    """A long name as what stands beside the numbers, and what beside the intervals."""
    first, _, rest = name.partition(" ")
    return (name, "") if len(name) <= LONG else (first, rest)


def _arrow(score: Score, up: str, down: str) -> str:
    return "" if score.higher_is_better is None else f" {up if score.higher_is_better else down}"


def _head(score: Score) -> str:
    return _escaped(score.name) + _arrow(score, r"$\uparrow$", r"$\downarrow$")


def _interval(score: Score, cell: Cell) -> str:
    return "" if cell.low is None else f"[{score.text(cell.low)}, {score.text(cell.high)}]"


def _minus(text: str) -> str:
    return re.sub(r"-(?=[0-9])", r"$-$", text)


SIGNS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
    "·": r"$\cdot$",
    "†": r"$^{\dagger}$",
    "‡": r"$^{\ddagger}$",
    "−": "$-$",
    "…": r"\dots{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def _escaped(text: str) -> str:
    """Text in which LaTeX finds nothing to do."""
    return "".join(SIGNS.get(sign, sign) for sign in text)


def _breakable(signature: str) -> str:
    """A signature that may go on in the next line after each of its parts."""
    return r"|\allowbreak ".join(_escaped(part) for part in signature.split("|"))
