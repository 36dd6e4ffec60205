"""Write a small study of one's own, which works: streamllm init my-study

The folder gets a policy, a metric, a data set, a sweep, a plot and a README that says how to run them.
"""

import shlex
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from streamllm.cli.main import as_module
from streamllm.files import write_atomically

EXAMPLE = Path(__file__).parent / "example"


def write_example(folder: Path) -> list[Path]:
    """Copy the example into ``folder``, which is made where it is absent; returns the files that it wrote.

    Raises:
        ValueError: there is something in the folder, or it is a file.
        OSError: it cannot be written.
    """
    if folder.is_file():
        raise ValueError(f"{folder} is a file: give a folder that does not exist yet, as in streamllm init my-study")
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: give a folder that is, or one that does not exist yet")
    files = [path.relative_to(EXAMPLE) for path in EXAMPLE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    try:
        for path in files:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / path, (EXAMPLE / path).read_bytes())
    except BaseException:  # half an example would be in the way of the next try
        for item in folder.glob("*"):
            shutil.rmtree(item, ignore_errors=True)
            with suppress(OSError):
                item.unlink(missing_ok=True)
        raise
    return sorted(files)


def command() -> None:
    words = sys.argv[1:]
    if words in (["--help"], ["-h"]):
        print(__doc__)
        return
    if len(words) != 1 or words[0].startswith("-"):
        sys.exit("error: give one folder, as in streamllm init my-study")
    folder = Path(words[0])
    try:
        written = write_example(folder)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print("\n".join((folder / path).as_posix() for path in written))
    lines = (EXAMPLE / "README.md").read_text("utf-8").splitlines()
    commands = [line.partition(" #")[0].strip() for line in lines if line.startswith(("    streamllm ", "    python "))]
    print(f"next: cd {shlex.quote(words[0])}, then one after the other:")
    print("\n".join(f"  {command}" for command in commands))


if __name__ == "__main__":
    as_module("init")
