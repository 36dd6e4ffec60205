"""BLEU over LAAL, a line for each policy, of the runs over one data set."""

from streamllm.plots import quality_latency
from streamllm.runs import load_runs

DATASET = "phrases"

runs = load_runs("outputs")
ax = quality_latency(runs[runs["dataset.name"] == DATASET])
ax.figure.savefig("curve.png", dpi=150)
