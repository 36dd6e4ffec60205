"""Every policy at several operating points, as one table and one plot of BLEU over LAAL:

    python -m experiments.policies.run dataset=multi30k dataset.data_dir=FOLDER

``processes=2`` says how many policies run at a time (else one for each core); what else follows is handed to run.py
with each point. The table and the plot are written beside this file. Seconds per sentence are measured afterwards, on
the first sentences, with nothing running beside. A study that was stopped goes on by the same command.
"""

import os
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas
from matplotlib.figure import Figure

from experiments.study import help_if_asked, launch_all, markdown, write_between
from streamllm.plots import operating_points, quality_latency
from streamllm.runs.compare import paired_bootstrap
from streamllm.runs.load import load_runs

HERE = Path(__file__).parent
ROOT = "outputs/policies"
POINTS = {
    "waitk": ["k=1,2,3,4,5,7,9"],
    "waitk+catchup": ["policy=waitk", "k=2,3,5,7", "policy.catchup=0.1"],
    "stride": ["policy.step=2", "policy.initial=2,3,5,7"],
    "full": [],
    "alignatt": ["policy.f=1,2,3,4,5"],
    "alignatt+max_lag": ["policy=alignatt", "policy.f=1", "max_lag=2,3"],
    "confidence": ["policy.threshold=0.3,0.5,0.7,0.8"],
    "entropy": ["policy.threshold=3.0,2.0,1.0,0.5"],
    "multi_k": ["policy.k_max=3,5,7,9"],
    "wait_if_diff": ["policy.initial=3,4,5,7"],
    "wait_if_worse": ["policy.initial=3,4,5,7"],
    "lsg": ["policy.delta=2.0", "policy.k_min=1,2,3,5"],
    "dst": ["policy.threshold=0.45,0.6,0.7,0.8,0.9"],
    "drfrattn": ["policy.threshold=0.3,0.2,0.1,0.05"],
    "drfrattn+newest": ["policy=drfrattn", "policy.newest=2", "policy.threshold=0.5,0.3,0.2,0.1"],
    "local_agreement": ["policy.n=2", "policy.step=1,2,3,4", "min_lag=3"],
    "doa": ["policy.f=1,2,3,4"],
    "hold_n": ["policy.n=4", "min_lag=2,3,5,7"],
    "ralcp": ["policy.beam=3", "policy.step=2", "min_lag=2,3,5,7"],
}
SENTENCES_TIMED = 50
CROWDED = 9  # BLEU below the best, and LAAL, of the part of the plot that is drawn a second time


def main(arguments: list[str]) -> None:
    chosen = [argument.partition("=")[2] for argument in arguments if argument.startswith("processes=")]
    overrides = [argument for argument in arguments if not argument.startswith("processes=")]
    processes = int(chosen[-1]) if chosen else os.cpu_count() or 1
    many = ["batch_size=64", *overrides, f"output.root={ROOT}"]
    # Those that search cost most and stand last: they begin first, so that no process waits for them at the end.
    launch_all("run.py", [[*sweep(name), *many] for name in reversed(POINTS)], processes)
    one = [*overrides, "batch_size=1", f"dataset.limit={SENTENCES_TIMED}", f"output.root={ROOT}/cost"]
    launch_all("run.py", [[*sweep(name), *one] for name in POINTS], 1)
    report()


def sweep(name: str) -> list[str]:
    """The arguments of run.py for all points of a line."""
    points = POINTS[name]
    policy = [] if any(point.startswith("policy=") for point in points) else [f"policy={name}"]
    return ["-m", *policy, *points, f"+study={name}", "tracker=none"]


def report() -> None:
    runs = load_runs(ROOT)
    cost = load_runs(f"{ROOT}/cost")
    runs["point"] = _points(runs)
    if len(cost):
        cost["point"] = _points(cost)
    seconds = cost.set_index(["study", "point"])["seconds_per_sentence"] if len(cost) else {}
    rows = []
    runs["order"] = runs["study"].map({name: i for i, name in enumerate(POINTS)})
    for run in runs.sort_values(["order", "laal"]).itertuples():
        key = (run.study, run.point)
        rows.append(
            [
                run.study,
                run.point,
                *(f"{getattr(run, name):.2f}" for name in ("bleu", "laal", "al", "cw")),
                f"{run.forward_passes_per_target_token:.2f}",
                f"{seconds[key]:.3f}" if key in seconds else "",
            ]
        )
    columns = ["policy", "point", "BLEU", "LAAL", "AL", "CW", "forward passes per target token", "s per sentence"]
    write_between(HERE / "README.md", "table", markdown(columns, rows))
    write_between(HERE / "README.md", "commands", commands())
    write_between(HERE / "README.md", "tests", beaten(runs))
    figure = pareto(runs)
    figure.savefig(HERE / "pareto.svg", bbox_inches="tight")
    figure.savefig(HERE / "pareto.png", dpi=150, bbox_inches="tight")


def commands() -> str:
    """The command of each line of the table, with nothing left to this script but the batch size and the label."""
    lines = []
    for name, points in POINTS.items():
        policy = "" if any(point.startswith("policy=") for point in points) else f"policy={name} "
        words = " ".join([*points, "dataset=multi30k", "dataset.data_dir=FOLDER"])
        lines.append(f"streamllm run {'-m ' if points else ''}{policy}{words}")
    return "\n".join(["```bash", *lines, "```"])


def pareto(runs: pandas.DataFrame) -> Figure:
    """BLEU over LAAL: all runs with a key, and below them those of the crowded corner again, larger."""
    figure, (whole, corner) = plt.subplots(2, 1, figsize=(8, 11.5), layout="constrained", height_ratios=(5, 7))
    best = runs["bleu"].max()
    corner.set(xlim=(0.8, CROWDED), ylim=(best - CROWDED, best + 0.6))
    quality_latency(runs, by="study", ax=corner, reference="waitk", pareto=True, key=False)
    quality_latency(runs, by="study", ax=whole, reference="waitk", pareto=True, key=True)
    return figure


def _points(runs: pandas.DataFrame) -> "pandas.Series[str]":
    """What sets the points of a line apart, such as "k=3"."""
    parts = [operating_points(rows) for _, rows in runs.groupby("study")]
    return pandas.concat(parts) if parts else pandas.Series(dtype=str)


def beaten(runs: pandas.DataFrame) -> str:
    """Runs of other policies with a higher BLEU than some wait-k at no higher LAAL: the most certain for each k."""
    fixed = ("waitk", "waitk+catchup", "stride", "full")
    waits, others = runs[runs["study"] == "waitk"].sort_values("k"), runs[~runs["study"].isin(fixed)]
    rows = []
    for wait in waits.itertuples():
        better = others[(others["laal"] <= wait.laal) & (others["bleu"] > wait.bleu)].nlargest(1, "bleu")
        for run in better.itertuples():
            found = paired_bootstrap(wait.folder, run.folder, metrics=["bleu", "laal"])
            bleu, laal = found["bleu"], found["laal"]
            rows.append(
                [
                    f"wait-{int(wait.k)}",
                    f"{run.study} {run.point}",
                    f"{bleu.baseline:.2f} → {bleu.system:.2f}",
                    f"{bleu.difference:+.2f} [{bleu.low:+.2f}, {bleu.high:+.2f}]",
                    f"{bleu.p_value:.3f}",
                    f"{laal.baseline:.2f} → {laal.system:.2f}",
                    f"{laal.difference:+.2f} [{laal.low:+.2f}, {laal.high:+.2f}]",
                ]
            )
    columns = ["wait-k", "beaten by", "BLEU", "difference [95 %]", "p", "LAAL", "difference [95 %]"]
    return markdown(columns, rows)


if __name__ == "__main__":
    help_if_asked(__doc__)
    if sys.argv[1:] == ["report"]:
        report()
    else:
        main(sys.argv[1:])
