"""Ways of living on, side by side: documents of 20 sentences, and the same sentences one by one.

    python -m experiments.documents.run dataset=multi30k dataset.data_dir=FOLDER

What else follows is handed to run.py with each point (``dataset.split=val``). The table and the figures are written
beside this file. A study that was stopped goes on by the same command.
"""

import sys
from pathlib import Path

import pandas

from experiments.study import launch_all, markdown, write_between
from streamllm.plots import drift, read_write_path
from streamllm.runs import bootstrap, load_runs, load_traces, paired_test
from streamllm.runs.compare import Difference

HERE = Path(__file__).parent
ROOT = "outputs/documents"
JOINED = "dataset.sentences_per_document=20"
POLICIES = {
    "wait-3": ["policy=waitk", "k=3"],
    "wait-5": ["policy=waitk", "k=5"],
    "alignatt f=2": ["policy=alignatt", "policy.f=2"],
}
WAYS = {
    "one by one": [],
    "sentences": [JOINED, "paradigm=sentences"],
    "sentences, one pair held": [JOINED, "paradigm=sentences", "paradigm.context=1"],
    "sentences, not asked": [JOINED, "paradigm=sentences", "paradigm.asks=false"],
    "continuous": [JOINED, "paradigm=continuous"],
}
AGAINST = [way for way in WAYS if way not in ("one by one", "sentences")]
SHOWN = "wait-3"


def main(arguments: list[str]) -> None:
    commands = [
        [*policy, *way, *arguments, f"+study='{point} | {name}'", "tracker=none", f"output.root={ROOT}"]
        for point, policy in POLICIES.items()
        for name, way in WAYS.items()
    ]
    launch_all("run.py", commands, 1)
    report()


def report() -> None:
    runs = load_runs(ROOT)
    runs[["point", "study"]] = runs["study"].str.split(" | ", regex=False, expand=True)
    rows = []
    for point in POLICIES:
        for way in WAYS:
            (run,) = runs[(runs["study"] == way) & (runs["point"] == point)].itertuples()
            alone = way == "one by one"
            lag = "yaal" if alone else "long_yaal"
            found = bootstrap(run.folder, metrics=["bleu", lag])
            by_itself = runs[(runs["study"] == "one by one") & (runs["point"] == point)]["yaal"].item()
            rows.append(
                [
                    point,
                    way,
                    *(f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]" for one in (found["bleu"], found[lag])),
                    f"{found[lag].value / by_itself:.2f}",
                    f"{run.forward_passes_per_target_token:.2f}",
                ]
            )
    columns = ["policy", "way", "BLEU [95 %]", "LongYAAL [95 %]", "over one by one", "forward passes per target token"]
    write_between(HERE / "README.md", "table", markdown(columns, rows))
    write_between(HERE / "README.md", "tests", tests(runs))
    figures(runs)


def tests(runs: pandas.DataFrame) -> str:
    """The ways of living on against each other, documents exchanged."""
    rows = []
    for point in POLICIES:
        chosen = runs[runs["point"] == point].set_index("study")["folder"]
        for way in AGAINST:
            found = paired_test(chosen["sentences"], chosen[way], metrics=["bleu", "long_yaal"])
            bleu, lag = found["bleu"], found["long_yaal"]
            rows.append(
                [
                    point,
                    f"sentences → {way}",
                    f"{bleu.difference:+.2f} [{bleu.low:+.2f}, {bleu.high:+.2f}]",
                    p(bleu),
                    f"{lag.difference:+.2f} [{lag.low:+.2f}, {lag.high:+.2f}]",
                    p(lag),
                ]
            )
    return markdown(["policy", "from → to", "BLEU", "p", "LongYAAL", "p"], rows)


def p(found: Difference) -> str:
    """As the difference itself says it, below a head that says "p"."""
    return found.p_text.removeprefix("p ").removeprefix("= ")


def figures(runs: pandas.DataFrame) -> None:
    """Of one policy: whether it drifts, and the path of the first document."""
    chosen = runs[runs["point"] == SHOWN].set_index("study")["folder"]
    ways = {way: chosen[way] for way in ("one by one", "sentences", "continuous")}
    drift(ways)[0].figure.savefig(HERE / "drift.png", dpi=110, bbox_inches="tight")
    paths = {way: load_traces(chosen[way])[0] for way in ("sentences", "continuous")}
    read_write_path(paths).figure.savefig(HERE / "path.png", dpi=80, bbox_inches="tight")


if __name__ == "__main__":
    if sys.argv[1:] == ["report"]:
        report()
    else:
        main(sys.argv[1:])
