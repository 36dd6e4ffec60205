"""Sentences in which two runs decide otherwise, chosen by a rule, with our own output alone: what the data say of a
sentence is not ours to show."""

from typing import Any

import numpy as np

from experiments.study import markdown
from streamllm.records import Trace
from streamllm.runs import load_traces, sentence_table

NEAR = 0.5  # LAAL by which a sentence may differ between the runs
BETTER, WORSE = 2, 2  # sentences

RULE = (
    f"Of the sentences whose LAAL differs by at most {NEAR:g} words between the two: the {BETTER} with the largest "
    f"gain in sentence BLEU, the {WORSE} with the largest loss, and of the rest the one whose words lie furthest apart "
    "(the mean distance of the delays, word by word, up to the end of the shorter translation). Of equals, the first "
    "of the data set. Behind each word is the number of source words that had been read when it was written."
)


def examples_text(ours: str, theirs: str) -> str:
    """The rule, and the sentences that it chooses of two finished runs.

    Raises: as `sentence_table`.
    """
    table = sentence_table(theirs, ours, ["laal"])
    traces = {name: {trace.id: trace for trace in load_traces(run)} for name, run in (("a", theirs), ("b", ours))}
    apart = {id: distance(traces["a"][id], traces["b"][id]) for id in table["id"]}
    rows = []
    for why, row in chosen(table, apart):
        for name in ("b", "a"):
            trace = traces[name][row["id"]]
            lag, bleu = row[f"laal_{name}"], row[f"bleu_{name}"]
            first = [row["id"], why] if name == "b" else ["", ""]
            rows.append([*first, "learned" if name == "b" else "wait-k", f"{lag:.2f}", f"{bleu:.0f}", written(trace)])
    return f"{RULE}\n\n" + markdown(["sentence", "", "run", "LAAL", "BLEU", "written at"], rows)


def chosen(table: Any, apart: dict[str, float]) -> list[tuple[str, dict[str, Any]]]:
    """Rows of `sentence_table` by the `RULE`, each with the reason; none that is no better, no worse or not apart."""
    near = table[table["laal_difference"].abs() <= NEAR].assign(apart=table["id"].map(apart))
    up = near[near["bleu_difference"] > 0].sort_values("bleu_difference", ascending=False, kind="stable")[:BETTER]
    down = near[near["bleu_difference"] < 0].sort_values("bleu_difference", kind="stable")[:WORSE]
    rest = near[~near["id"].isin([*up["id"], *down["id"]]) & (near["apart"] > 0)]
    other = rest.sort_values("apart", ascending=False, kind="stable")[:1]
    found = (("better", up), ("worse", down), ("other places", other))
    return [(why, row) for why, rows in found for row in rows.to_dict("records")]


def distance(a: Trace, b: Trace) -> float:
    """The mean distance of the delays of two outputs, word by word; 0 where one is empty."""
    pairs = list(zip(a.delays, b.delays, strict=False))
    return float(np.mean([abs(one - other) for one, other in pairs])) if pairs else 0.0


def written(trace: Trace) -> str:
    """As in "Ein (2) Hund (3)"; a bar of a table is escaped."""
    text = " ".join(f"{unit} ({delay:g})" for unit, delay in zip(trace.units, trace.delays, strict=True))
    return text.replace("|", "\\|")
