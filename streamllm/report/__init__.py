"""One self-contained page about runs: `streamllm report outputs -o report.html`. May import plots, runs and metrics.

Nothing in the page comes from, or may go to, a network; the same runs give the same bytes."""

from typing import TYPE_CHECKING

from streamllm.faces import face

if TYPE_CHECKING:
    from streamllm.report.gather import Report as Report
    from streamllm.report.page import render as render
    from streamllm.report.write import write_report as write_report

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "Report": "streamllm.report.gather",
        "render": "streamllm.report.page",
        "write_report": "streamllm.report.write",
    },
)
