"""Runs over the same sentences, two of them score by score: streamllm compare outputs/A outputs/B; or any number as a
table for a paper: streamllm compare outputs/A outputs/B outputs/C --latex

The interval of a difference is that of a paired bootstrap over sentences, p that of approximate randomisation; see
`streamllm.runs.compare`."""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from streamllm.cli.arguments import Parser, one_line_errors
from streamllm.cli.main import as_module
from streamllm.files import write_atomically
from streamllm.metrics.scores import REPORT, Score, scores
from streamllm.report.names import differing
from streamllm.report.paper import latex, markdown, table
from streamllm.runs.compare import Difference, paired_test
from streamllm.runs.folder import CONFIG, RunFolder
from streamllm.runs.load import flat_config, read_config, runs_in
from streamllm.runs.randomisation import NAME, TRIALS
from streamllm.runs.scores import own_of_runs
from streamllm.runs.sentence_scores import beside_score
from streamllm.runs.stored import computed_otherwise
from streamllm.runs.sums import SEED


def comparison(a: Path, b: Path, samples: int = 1000, seed: int = SEED, trials: int = TRIALS) -> str:
    """What A and B are set to otherwise, and a line for each score that both have: A, B, B - A and, where single
    sentences add up to it, the 95 % interval and the p-value.

    Raises: as `paired_test`.
    """
    differences = paired_test(a, b, samples, seed, trials=trials)
    found = RunFolder(a).metrics(), RunFolder(b).metrics()
    rows = []
    known = scores(own_of_runs([a, b]), documents=True)
    for score in [*known.values(), *(beside_score(key) for key in differences if key not in known)]:
        if score.key in differences:
            rows.append(_drawn(score, differences[score.key], found[0].get("sentences")))
        elif REPORT in score.shown:
            rows.append(_plain(score, found))
    lines = _aligned([row for row in rows if row])
    test = next(iter(differences.values())).test
    head = [
        f"A  {a}",
        f"B  {b}",
        _apart(a, b),
        f"{found[0].get('sentences', '?')} sentences; B - A [95 % interval], p by {test}",
    ]
    return "\n".join([*head, *lines])


MOST_KEYS = 8
"""Settings that differ, which are told."""


def _apart(a: Path, b: Path) -> str:
    found = differing(*(flat_config(read_config(run)) for run in (a, b)))
    texts = [f"{key} {old} and {new}" for key, (old, new) in found.items()]
    more = f"; and {len(texts) - MOST_KEYS} more" if texts[MOST_KEYS:] else ""
    return f"they differ in {'; '.join(texts[:MOST_KEYS])}{more}" if texts else "they are set alike"


def _check_is_a_run(path: Path) -> None:
    if not path.is_dir():
        raise FileNotFoundError(f"{path} {'is a file' if path.exists() else 'does not exist'}: give run folders")
    if not (path / CONFIG).exists() and (finished := runs_in(path)[0]):
        examples = " ".join(str(run) for run in [*finished, Path("…")][:2])
        raise ValueError(f"{path} holds runs, and is none: give two of them, as in streamllm compare {examples}")


def _drawn(score: Score, found: Difference, sentences: int | None) -> list[str]:
    """Where a run does not define the score of some sentences, over how many it is."""
    if math.isnan(found.difference):
        return []
    values = [score.text(found.baseline), score.text(found.system), f"{found.difference:+.{score.digits}f}"]
    interval = f"[{found.low:+.{score.digits}f}, {found.high:+.{score.digits}f}]"
    over = f"over {found.sentences} sentences" if found.sentences != sentences else ""
    return [score.name, *values, "" if math.isnan(found.low) else interval, found.p_text, over]


def _plain(score: Score, found: Sequence[Mapping[str, Any]]) -> list[str]:
    a, b = (metrics.get(score.key) for metrics in found)
    if a is None or b is None:
        return []
    if otherwise := computed_otherwise(found, score.key):
        return [score.name, score.text(a), score.text(b), "", "", "", f"not compared: {' and '.join(otherwise)}"]
    return [score.name, score.text(a), score.text(b), f"{b - a:+.{score.digits}f}", "", "", ""]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        name, a, b, *rest = (
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([name, f"A {a}", f"B {b}", *rest]).rstrip())
    return lines


def command() -> None:
    if "--curves" in sys.argv:
        from streamllm.cli.curves import command as of_curves

        of_curves()
        return
    parser = Parser(
        prog="streamllm compare",
        description="Finished runs over the same sentences: scores, differences, and how sure these are. Of two runs, "
        "a line for each score; with --latex or --markdown, and of more than two, a table for a paper, in which the "
        "first run is the baseline. Intervals are by paired bootstrap over sentences (over documents where there are 8 "
        f"or more), p by {NAME}. What metric=… adds (ter, chrf_pp, wer, laal_characters …) has both by a file beside "
        "the run, such as ter.jsonl; streamllm score RUN… metric=ter writes it for runs that are older. What is of a "
        "run as a whole, such as seconds or counts, has neither.",
        epilog="Whole curves: streamllm compare --curves outputs; streamllm compare --curves --help says more.",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, the baseline first")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--latex", action="store_true", help="the table as a float of LaTeX that needs no package")
    form.add_argument("--markdown", action="store_true", help="the table as Markdown")
    parser.add_argument(
        "--columns", type=int, choices=(1, 2), help="of a page with two columns that the table in LaTeX spans (1)"
    )
    parser.add_argument(
        "--metrics", type=_listed, metavar="KEYS", help="of the table, such as bleu,chrf,laal: keys of metrics.json"
    )
    parser.add_argument("--names", type=_listed, metavar="NAMES", help="of the runs in the table, such as wait-3,full")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it there, too")
    parser.add_argument("--samples", type=int, default=1000, metavar="N", help="of the bootstrap (%(default)s)")
    parser.add_argument("--trials", type=int, default=TRIALS, metavar="N", help="of the randomisation (%(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, metavar="N", help="of both (%(default)s)")
    given = parser.parse_args()
    with one_line_errors():
        for path in given.runs:
            _check_is_a_run(path)
        if len(given.runs) < 2:
            raise ValueError(f"{given.runs[0]} is one run: give two or more, the baseline first")
        if given.columns and not given.latex:
            raise ValueError("--columns is of the table in LaTeX: add --latex")
        drawing = {"samples": given.samples, "seed": given.seed, "trials": given.trials}
        if len(given.runs) == 2 and not (given.latex or given.markdown):
            if given.metrics or given.names:
                raise ValueError("--metrics and --names are of the table: add --markdown or --latex")
            text = comparison(*given.runs, **drawing)
        else:
            found = table(given.runs, given.metrics, given.names, **drawing)
            text = latex(found, given.columns or 1) if given.latex else markdown(found)
        print(text)
        if given.output:
            write_atomically(given.output, f"{text}\n")


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")]


if __name__ == "__main__":
    as_module("compare")
