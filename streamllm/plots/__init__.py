"""Figures for papers and notebooks: each function takes runs or traces and returns the Axes, those of a new figure
only where none are given. Nothing is shown, saved or set globally, and no label covers another."""

from streamllm.plots.curves import operating_points, pareto_front, quality_latency, quality_latency_panels
from streamllm.plots.look import policy_name
from streamllm.plots.sentences import delay_histogram, path_png, read_write_path, sentence_comparison

__all__ = [
    "delay_histogram",
    "operating_points",
    "pareto_front",
    "path_png",
    "policy_name",
    "quality_latency",
    "quality_latency_panels",
    "read_write_path",
    "sentence_comparison",
]
