"""Which mismatch between streaming and offline translation costs quality? After Tong et al. 2025 (arXiv 2505.16983).

    python -m experiments.mismatch.run dataset.data_dir=FOLDER

Trains three small models (group, interleaved, and group with φ = 256, see `conf/experiment/mismatch.yaml` beside this
file), decodes the test set with each mismatch put in or taken out, and writes table and plot beside this file. Takes
some hours on two cores; a study that was stopped goes on by the same command. Without data_dir the data comes from the
hub.

    python -m experiments.mismatch.run report   # table and plot again, from finished runs
    python -m experiments.mismatch.run plot     # the plot alone, from the numbers of the table
"""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from experiments.study import help_if_asked, launch, markdown, write_between
from streamllm.plots import quality_latency
from streamllm.plots.style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILLION, Look, sizes
from streamllm.runs.compare import intervals, paired_bootstrap
from streamllm.runs.load import load_runs

if TYPE_CHECKING:
    import pandas

HERE = Path(__file__).parent
OWN = ["--config-dir", "experiments/mismatch/conf"]  # searched after ours; `launch` works in the checkout
ROOT = "outputs/mismatch"
K = "k=1,3,5,7"
SENTENCES = "dataset.limit=500"  # most paradigms are decoded one sentence at a time
MODELS = {
    "group": [],
    "interleaved": ["paradigm=interleaved"],
    "group-phi256": ["fresh.target_start=256"],
}
# name: model, overrides. What is compared with "group" differs from it in one thing, unless it says "and".
DECODED = {
    "group": ("group", ["paradigm=group"]),
    "interleaved (trained)": ("interleaved", ["paradigm=interleaved"]),
    "source sees target": ("group", ["paradigm=mismatched", "paradigm.source_sees_target=true"]),
    "positions by arrival": ("group", ["paradigm=mismatched", "paradigm.arrival_positions=true"]),
    "target re-encoded (batch)": ("group", ["paradigm=batch"]),
    "φ = 256 (trained)": ("group-phi256", ["paradigm=group"]),
    "φ = 256 (not trained)": ("group", ["paradigm=group", "model.target_start=256"]),
    "batch_positions": ("group", ["paradigm=batch_positions"]),
}
# A colour and a marker for each line, and a panel for each kind of mismatch: in one panel the lines cover each other.
LOOKS = {
    "group": Look(INK, "o"),
    "interleaved (trained)": Look(GREEN, "s"),
    "source sees target": Look(VERMILLION, "v"),
    "target re-encoded (batch)": Look(GREY, "P", (0, (1.2, 1.2))),
    "φ = 256 (trained)": Look(BLUE, "D", (0, (4, 1.5))),
    "positions by arrival": Look(ORANGE, "^"),
    "batch_positions": Look(PURPLE, "X", (0, (4, 1.5))),
    "φ = 256 (not trained)": Look(SKY, "D", (0, (1.2, 1.2))),
}
LABEL_HEIGHT = 1.7  # BLEU that a line of text takes
PANELS = {
    "positions as in training": list(LOOKS)[:5],
    "positions the model has not seen": ["group", *list(LOOKS)[5:]],
}


def main(overrides: list[str]) -> None:
    for name, choice in MODELS.items():
        launch(
            "train.py", *OWN, "experiment=mismatch", *choice, f"name={name}", f"output.root={ROOT}/models", *overrides
        )
    for name, (model, choice) in DECODED.items():
        (folder,) = (Path(ROOT) / "models").glob(f"{model}-????????????")
        common = [*OWN, "model=folder", f"model.path={folder}/model", *choice, "policy=waitk", K, "dataset=multi30k"]
        common += ["tracker=none", f"+study='{name}'", *overrides]
        launch("run.py", "-m", *common, SENTENCES, f"output.root={ROOT}")
        launch("run.py", "-m", *common, "batch_size=1", f"output.root={ROOT}/cost", "dataset.limit=50")
    report()


def report() -> None:
    runs = load_runs(ROOT)
    timed = load_runs(f"{ROOT}/cost")
    cost = timed.set_index(["study", "k"])["seconds_per_sentence"] if len(timed) else {}
    runs["order"] = runs["study"].map({name: i for i, name in enumerate(DECODED)})
    runs = runs.sort_values(["order", "k"])
    band = intervals(runs, metrics=["bleu"])
    groups = runs[runs["study"] == "group"].set_index("k")["folder"]
    rows = []
    for index, run in runs.iterrows():
        low, high = band.loc[index, ["bleu_low", "bleu_high"]]
        row = [run["study"], int(run["k"]), f"{run['bleu']:.2f} [{low:.1f}, {high:.1f}]"]
        if run["study"] == "group":
            row.append("")
        else:
            bleu = paired_bootstrap(groups[run["k"]], run["folder"], metrics=["bleu"])["bleu"]
            row.append(f"{bleu.difference:+.2f} [{bleu.low:+.2f}, {bleu.high:+.2f}], p = {bleu.p_value:.3f}")
        row += [f"{run['al']:.2f}", f"{run['laal']:.2f}"]
        seconds = cost.get((run["study"], run["k"]), float("nan"))
        row += [f"{run['forward_passes'] / run['sentences']:.1f}", f"{seconds:.3f}"]
        rows.append(row)
    columns = ["decoding", "k", "BLEU [95 %]", "against group [95 %]", "AL", "LAAL"]
    columns += ["forward passes per sentence", "s per sentence"]
    write_between(HERE / "README.md", "table", markdown(columns, rows))
    write_between(HERE / "README.md", "commands", commands())
    plot()


def commands() -> str:
    """The command of each model and of each line of the table."""
    data = ["dataset.data_dir=FOLDER"]
    lines = [
        ["streamllm train", *OWN, "experiment=mismatch", *choice, f"name={name}", f"output.root={ROOT}/models", *data]
        for name, choice in MODELS.items()
    ]
    for model, choice in DECODED.values():
        path = ["model=folder", f"model.path={ROOT}/models/{model}-…/model"]
        lines.append(
            ["streamllm run -m", *OWN, *path, *choice, "policy=waitk", K, "dataset=multi30k", *data, SENTENCES]
        )
    return "\n".join(["```bash", *(" ".join(line) for line in lines), "```"])


def read_table(path: Path) -> "pandas.DataFrame":
    """What the plot needs of the table: ``study``, ``k``, ``bleu``, ``bleu_low``, ``bleu_high`` and ``laal``."""
    import pandas

    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in DECODED and (bleu := re.fullmatch(r"(\S+) \[(\S+), (\S+)\]", cells[2])):
            rows.append((cells[0], int(cells[1]), *map(float, bleu.groups()), float(cells[5])))
    return pandas.DataFrame(rows, columns=["study", "k", "bleu", "bleu_low", "bleu_high", "laal"])


def label_ends(ax: Axes, rows: "pandas.DataFrame") -> None:
    """Names in a column right of the lines, in the order of their ends and tied to them: the ends nearly coincide."""
    ends = rows.sort_values("k").groupby("study").last().sort_values("bleu")
    heights = ends["bleu"].to_numpy(copy=True)
    for _ in range(100):  # push neighbours apart until none overlap
        for i in range(len(heights) - 1):
            push = max(0.0, LABEL_HEIGHT - (heights[i + 1] - heights[i])) / 2
            heights[i : i + 2] += -push, push
    for height, (name, end) in zip(heights, ends.iterrows(), strict=True):
        look = LOOKS[str(name)]
        tie = {"arrowstyle": "-", "color": look.color, "linewidth": 1, "shrinkA": 2, "shrinkB": 5}
        at, to = (end["laal"], end["bleu"]), (7.5, height)
        ax.annotate(str(name), at, to, va="center", color=look.text, fontsize=sizes().text, arrowprops=tie)
    ax.set_xlim(0.5, 11)
    ax.set_xticks(range(1, 8))


def plot() -> None:
    """Draw the table of the README, so that plot and table cannot differ."""
    table = read_table(HERE / "README.md")
    figure, panels = plt.subplots(1, 2, figsize=(12, 4.8), sharey=True, layout="constrained")
    for ax, (title, studies) in zip(panels, PANELS.items(), strict=True):
        ax.set_ylim(0, 33)
        rows = table[table["study"].isin(studies)]
        quality_latency(rows, by="study", reference="group", band=rows, styles=LOOKS, labels=False, ax=ax)
        label_ends(ax, rows)
        ax.set_title(title, fontsize=sizes().text, color=INK, loc="left")
    panels[1].set_ylabel("")
    figure.savefig(HERE / "mismatch.png", dpi=100)
    figure.savefig(HERE / "mismatch.svg")
    plt.close(figure)


if __name__ == "__main__":
    help_if_asked(__doc__)
    if sys.argv[1:] in (["report"], ["plot"]):
        {"report": report, "plot": plot}[sys.argv[1]]()
    else:
        main(sys.argv[1:])
