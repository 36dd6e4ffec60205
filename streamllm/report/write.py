"""The page about runs, from folders to a file."""

import os
from collections.abc import Sequence
from pathlib import Path

from streamllm.files import write_atomically
from streamllm.report.gather import Report, gather
from streamllm.report.page import render


def write_report(
    paths: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str] = "report.html", samples: int = 1000
) -> Report:
    """Write the page about all runs that ``paths`` give: run folders, folders of runs, or both.

    Args:
        paths: where no finished run lies in a folder itself, those deeper in it are taken.
        samples: of the bootstrap for the intervals of BLEU; 0 leaves them out.

    Returns: what the page shows, and what it leaves out: runs that have not finished, and trainings.
    Raises: FileNotFoundError: a path is absent or holds no run, or ``output`` lies in no folder.
        RunError: a run that was named has not finished. ValueError: ``samples`` is negative.
    """
    if Path(output).is_dir() or not Path(output).resolve().parent.is_dir():
        raise FileNotFoundError(f"{output} cannot be written: give the name of a file in a folder that exists")
    report = gather(paths, samples)
    write_atomically(Path(output), render(report))
    return report
