"""The command line of the report: `python -m streamllm.report outputs -o report.html`."""

import argparse
import sys
from collections.abc import Sequence

from streamllm.report import write_report


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m streamllm.report", description="One self-contained page about finished runs."
    )
    parser.add_argument("paths", nargs="+", metavar="FOLDER", help="run folders, or folders that hold runs")
    parser.add_argument("-o", "--output", default="report.html", metavar="FILE", help="default: %(default)s")
    parser.add_argument(
        "--samples", type=int, default=1000, metavar="N", help="of the bootstrap; 0 leaves intervals out (%(default)s)"
    )
    given = parser.parse_args(arguments)
    try:
        report = write_report(given.paths, given.output, given.samples)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
    for folder in report.unfinished:
        print(f"left out: {folder} has not finished", file=sys.stderr)
    runs, sentences = len(report.runs), len(report.sentences)
    print(f"{given.output}: {runs} run{'s' * (runs != 1)}, {sentences} sentence{'s' * (sentences != 1)}")


if __name__ == "__main__":
    main()
