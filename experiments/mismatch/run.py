"""Which mismatch between streaming and offline translation costs quality? After Tong et al. 2025 (arXiv 2505.16983).

    python -m experiments.mismatch.run dataset.data_dir=FOLDER

Trains three small models (`conf/experiment/mismatch.yaml`: group, interleaved, and group with φ = 256), decodes the
test set with each mismatch put in or taken out, and writes table and plot beside this file. Takes some hours on two
cores; a study that was stopped goes on by the same command. Without data_dir the data comes from the hub.
"""

import sys
from pathlib import Path

from experiments.study import launch, markdown, write_between
from streamllm.compare import intervals, paired_bootstrap
from streamllm.plots import quality_latency
from streamllm.runs import load_runs

HERE = Path(__file__).parent
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


def main(overrides: list[str]) -> None:
    for name, choice in MODELS.items():
        launch("train.py", "experiment=mismatch", *choice, f"name={name}", f"output.root={ROOT}/models", *overrides)
    for name, (model, choice) in DECODED.items():
        (folder,) = (Path(ROOT) / "models").glob(f"{model}-????????????")
        common = ["model=folder", f"model.path={folder}/model", *choice, "policy=waitk", K, "dataset=multi30k"]
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
    axes = quality_latency(runs, by="study", reference="group", band=band)
    axes.figure.savefig(HERE / "mismatch.png", dpi=150, bbox_inches="tight")
    axes.figure.savefig(HERE / "mismatch.svg", bbox_inches="tight")


if __name__ == "__main__":
    if sys.argv[1:] == ["report"]:
        report()
    else:
        main(sys.argv[1:])
