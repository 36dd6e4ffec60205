"""BLEU over LAAL, a line for each policy, of the runs over one data set."""

import matplotlib.pyplot as plt

from streamllm.plots import quality_latency
from streamllm.runs import load_runs

DATASET = "phrases"

runs = load_runs("outputs")
quality_latency(runs[runs["dataset.name"] == DATASET])
plt.savefig("curve.png", dpi=150)
