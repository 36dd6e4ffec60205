"""What the curves of a report come to: the area under each, how far they lie above wait-k, and NoSE."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamllm.files import RunError
from streamllm.runs.curve_tests import curve_table
from streamllm.runs.points import by_test_set, curves_of
from streamllm.runs.scored import Scored

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)

BASELINE, FULL = "waitk", "full"


@dataclass(frozen=True)
class CurveFacts:
    """The curves over one test set: ``rows`` are those of `curve_table`."""

    test_set: str
    baseline: str | None
    rows: list[dict[str, Any]]


def curve_facts(table: "pandas.DataFrame", scored: Mapping[str, Scored], samples: int) -> list[CurveFacts]:
    """The facts of each test set that has two curves, or a curve and a full-sentence translation. Curves that cannot be
    compared have none, and the log says why.

    Args:
        table: rows of `load_runs`.
        scored: runs over sentences, with "bleu" and "laal", by folder.
    """
    found = []
    rows = table[[str(folder) in scored for folder in table["folder"]]]
    for name, runs in by_test_set(rows).items() if samples and len(rows) else ():
        try:
            curves = curves_of(runs)
            full = curves.pop(FULL, [])
            lines = {policy: curve for policy, curve in curves.items() if len(curve) > 1}
            offline = full[0] if len(full) == 1 else None
            if not lines or (len(lines) == 1 and offline is None):
                continue
            baseline = BASELINE if BASELINE in lines and len(lines) > 1 else None
            facts = curve_table(lines, baseline, offline, samples=samples, scored=scored)
        except (ValueError, RunError) as error:
            log.info("no areas under the curves of %s: %s", name, error)
            continue
        found.append(CurveFacts(name, baseline, [dict(row) for _, row in facts.iterrows()]))
    return found


def cells(facts: CurveFacts) -> tuple[list[str], list[list[str]]]:
    """The heads and rows of a table, as texts."""
    first = facts.rows[0]
    columns = [("mean", f"mean BLEU, LAAL {first['from']:.2f} to {first['to']:.2f}", 2, "")]
    columns += [("difference", f"above {facts.baseline}", 2, "+")] if facts.baseline else []
    columns += [("nose", "NoSE", 3, "")] if "nose" in first else []
    heads = ["Curve", "Points", *(head for _, head, _, _ in columns)]
    return heads, [
        [str(row["curve"]), str(row["points"]), *(_text(row, key, digits, sign) for key, _, digits, sign in columns)]
        for row in facts.rows
    ]


def _text(row: Mapping[str, Any], key: str, digits: int, sign: str) -> str:
    if math.isnan(row[key]):
        return "–"
    value, low, high = (f"{row[name]:{sign}.{digits}f}" for name in (key, f"{key}_low", f"{key}_high"))
    return f"{value} [{low}, {high}]" if not math.isnan(row[f"{key}_low"]) else value
