"""Figures for papers and notebooks. Each function takes runs or traces and draws on the Axes that it is given, else on
those of a new figure, and returns them. Nothing is shown, saved or set globally, and no label covers another;
`look("paper")` gives the sizes of a paper. May import runs and metrics."""

from typing import TYPE_CHECKING

from streamllm.faces import face

if TYPE_CHECKING:
    from streamllm.plots.curves import (
        operating_points as operating_points,
    )
    from streamllm.plots.curves import (
        pareto_front as pareto_front,
    )
    from streamllm.plots.curves import (
        quality_latency as quality_latency,
    )
    from streamllm.plots.curves import (
        quality_latency_panels as quality_latency_panels,
    )
    from streamllm.plots.documents import document_path as document_path
    from streamllm.plots.documents import drift as drift
    from streamllm.plots.sentences import (
        delay_histogram as delay_histogram,
    )
    from streamllm.plots.sentences import (
        path_png as path_png,
    )
    from streamllm.plots.sentences import (
        read_write_path as read_write_path,
    )
    from streamllm.plots.sentences import (
        sentence_comparison as sentence_comparison,
    )
    from streamllm.plots.style import look as look
    from streamllm.runs.load import policy_name as policy_name

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "delay_histogram": "streamllm.plots.sentences",
        "document_path": "streamllm.plots.documents",
        "drift": "streamllm.plots.documents",
        "look": "streamllm.plots.style",
        "operating_points": "streamllm.plots.curves",
        "pareto_front": "streamllm.plots.curves",
        "policy_name": "streamllm.runs.load",
        "path_png": "streamllm.plots.sentences",
        "quality_latency": "streamllm.plots.curves",
        "quality_latency_panels": "streamllm.plots.curves",
        "read_write_path": "streamllm.plots.sentences",
        "sentence_comparison": "streamllm.plots.sentences",
    },
)
