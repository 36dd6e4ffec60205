"""One self-contained page about finished runs: streamllm report outputs -o report.html"""

import sys
from collections.abc import Sequence

from streamllm.cli.arguments import Parser, one_line_errors
from streamllm.cli.main import as_module


def main(arguments: Sequence[str] | None = None, prog: str = "streamllm report") -> None:
    parser = Parser(prog=prog, description="One self-contained page about finished runs.")
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="FOLDER",
        help="run folders, or folders that hold runs; where none lies in a folder itself, those deeper in it",
    )
    parser.add_argument("-o", "--output", default="report.html", metavar="FILE", help="default: %(default)s")
    parser.add_argument(
        "--samples", type=int, default=1000, metavar="N", help="of the bootstrap; 0 leaves intervals out (%(default)s)"
    )
    given = parser.parse_args(arguments)
    with one_line_errors():
        from streamllm.report.write import write_report

        report = write_report(given.paths, given.output, given.samples)
    for folder in report.unfinished:
        print(f"left out: {folder} has not finished", file=sys.stderr)
    for folder in report.trainings:
        print(f"left out: {folder} is a training", file=sys.stderr)
    print(f"{given.output}: {report.size}")


def command() -> None:
    main()


if __name__ == "__main__":
    as_module("report")
