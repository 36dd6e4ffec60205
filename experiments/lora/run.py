"""A base model that learns to stream: LoRA on 2,000 sentence pairs, and wait-k before and after.

    python -m experiments.lora.run dataset.data_dir=FOLDER model.path=FOLDER

Trains the adapter (`conf/experiment/lora_en_de.yaml`), translates 100 sentences at k = 3 and 5 without and with it, and
writes table and loss curve beside this file. About 35 CPU minutes on one core; what was stopped goes on by the same
command. Without the two folders, data and model come from the hub. `… report` only writes table and curve.
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

from experiments.study import ROOT as CHECKOUT
from experiments.study import help_if_asked, launch, markdown, write_between
from streamllm.plots.style import BLUE, FAINT, VERMILLION, sizes
from streamllm.runs.load import load_runs

HERE = Path(__file__).parent
ROOT = "outputs/lora"
MODEL = ["model=gemma-3-270m", "prompt=zero-shot-en-de"]
# The base model does not end its sentences by itself: tighter limits than usual save half an hour, and cut none of the
# adapted model's.
LIMITS = ["limits.length_ratio=1.5", "limits.length_extra=5"]
SENTENCES = ["-m", "k=3,5", "dataset=multi30k", "dataset.limit=100", "tracker=none", *LIMITS]


def training() -> Path:
    """The folder of the training, the newest if there are several."""
    return max((CHECKOUT / ROOT).glob("lora-en-de-????????????"), key=lambda folder: folder.stat().st_mtime)


def main(overrides: list[str]) -> None:
    launch("train.py", "experiment=lora_en_de", "tracker=none", f"output.root={ROOT}", *overrides)
    for adapter in ("null", training() / "adapter"):
        translate = [*SENTENCES, *MODEL, f"model.adapter_path={adapter}", f"output.root={ROOT}/translations"]
        launch("run.py", *translate, *overrides)
    report()


def report() -> None:
    runs = load_runs(CHECKOUT / ROOT / "translations").sort_values("k")
    rows = []
    for name, adapted in (("base model", False), ("with the adapter", True)):
        for _, run in runs[runs["model.adapter_path"].notna() == adapted].iterrows():
            rows.append([name, int(run["k"]), *(f"{run[metric]:.2f}" for metric in ("bleu", "chrf", "al", "laal"))])
    table = markdown(["model", "k", "BLEU", "chrF", "AL", "LAAL"], rows)
    write_between(HERE / "README.md", "table", table)
    curve([json.loads(line) for line in (training() / "train.jsonl").read_text().splitlines()])


def curve(lines: list[dict[str, float]]) -> None:
    """Draw the loss of each logged line, and the last validation loss."""
    steps = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    validations = [(line["step"], line["validation_loss"]) for line in lines if "validation_loss" in line]
    figure, axes = plt.subplots(figsize=(6, 3.4))
    axes.plot(*zip(*steps, strict=True), color=BLUE, label="training (mean of 5 steps, k drawn)")
    if validations:
        axes.plot(*validations[-1], "o", color=VERMILLION, label=f"validation, k = 3: {validations[-1][1]:.2f}")
    axes.set(xlabel="step", ylabel="loss (nats a token)", ylim=(0, None))
    axes.grid(axis="y", color=FAINT, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=sizes().small)
    figure.savefig(HERE / "loss.png", dpi=150, bbox_inches="tight")
    figure.savefig(HERE / "loss.svg", bbox_inches="tight")


if __name__ == "__main__":
    help_if_asked(__doc__)
    if sys.argv[1:] == ["report"]:
        report()
    else:
        main(sys.argv[1:])
