"""What can be chosen, a line each: streamllm list policies

A line is the first sentence of a YAML file's head comment, or of the docstring of the class that it names; nothing is
imported for it."""

import ast
import difflib
import importlib.util
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from streamllm.cli.arguments import Parser, one_line_errors
from streamllm.cli.conf import CONF
from streamllm.cli.main import as_module
from streamllm.metrics.scores import scores

GROUPS = {
    "policies": "policy",
    "metrics": "metric",
    "models": "model",
    "datasets": "dataset",
    "prompts": "prompt",
    "paradigms": "paradigm",
    "trackers": "tracker",
    "objectives": "objective",
    "labels": "labels",
    "adapters": "adapter",
    "optimizers": "optimizer",
    "experiments": "experiment",
}
"""What is listed, by the group of configurations that has it."""

PAPER = re.compile(r"\([^()]*(?:arXiv|doi|et al\.)[^()]*\)")


def choices(group: str, folders: Sequence[Path] = (CONF,)) -> dict[str, str]:
    """What ``group=…`` accepts, each with a sentence; of two files with one name, that of the earlier folder counts."""
    found: dict[str, str] = {}
    for folder in folders:
        for path in sorted((folder / group).glob("*.yaml")):
            found.setdefault(path.stem, sentence_of(path))
    return dict(sorted(found.items()))


def sentence_of(path: Path) -> str:
    """What a configuration file is: the first sentence of its head comment; without one, that of the class it names, or
    the model that it loads."""
    text = path.read_text(encoding="utf-8")
    comment = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#"))
    said = [line for line in comment if not line.strip().startswith("@package")]
    if said:
        return first_sentence("\n".join(said))
    if named := re.search(r"^path: (\S+)", text, re.MULTILINE):
        return named[1]
    target = re.search(r"^ *_target_: (\S+)", text, re.MULTILINE)
    return first_sentence(docstring(target[1])) if target else ""


def first_sentence(text: str) -> str:
    """The first sentence of a comment or docstring, with the paper that the rest of its paragraph names, if it has
    none. A command ends it, also within a line."""
    paragraph: list[str] = []
    for line in map(str.strip, text.strip().splitlines()):
        if not line or line.startswith(("python ", "streamllm ")):
            break
        paragraph.append(line)
    whole = " ".join(paragraph)
    # A point in "et al.", "e.g." or a number ends no sentence.
    sentence, *rest = re.split(r"(?<!et al)(?<!e\.g)(?<!i\.e)(?:\.|:)(?= [A-Z(]|$)", whole, maxsplit=1)
    sentence = sentence.partition(": streamllm ")[0]
    paper = PAPER.search(rest[0]) if rest and not PAPER.search(sentence) else None
    return f"{sentence} {paper[0]}" if paper else sentence


def docstring(target: str) -> str:
    """The docstring of a class by its dotted name, read from the source; "" where there is none."""
    module, _, name = target.rpartition(".")
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        return ""
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return ""
    try:
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except SyntaxError:  # of somebody's own module, which is being written
        return ""
    kinds = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name]
    return ast.get_docstring(kinds[0]) or "" if kinds else ""


def listing(kind: str, folders: Sequence[Path] = (CONF,)) -> str:
    """The lines of one kind of `GROUPS`. Metrics are those of every run, then those that ``metric=[…]`` adds."""
    rows = list(choices(GROUPS[kind], folders).items())
    if kind != "metrics":
        return _aligned(rows)
    ours = [
        (score.key, _metric(score.axis, score.description, score.source)) for score in scores(documents=True).values()
    ]
    return _aligned([*ours, *((name, f"{text} [metric={name}]") for name, text in rows)])


def _metric(label: str, description: str, source: str) -> str:
    text = f"{label}: {description}" if description else label
    return f"{text} ({source})" if source else text


def _aligned(rows: Iterable[tuple[str, str]]) -> str:
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name.ljust(width)}  {text}".rstrip() for name, text in rows)


def command() -> None:
    parser = Parser(
        prog="streamllm list", description="What can be chosen, one line each, with the paper where there is one."
    )
    parser.add_argument("kind", nargs="?", metavar="KIND", help=f"{', '.join(GROUPS)}; everything, if left out")
    given = parser.parse_args()
    with one_line_errors():
        kind = given.kind and kind_of(given.kind)
        from streamllm.cli.plugins import searched  # takes Hydra, which --help does not need

        folders = searched()
        if kind:
            print(listing(kind, folders))
            return
        parts = [f"{kind} ({group}=…)\n{_indented(listing(kind, folders))}" for kind, group in GROUPS.items()]
        print("\n\n".join(parts))


def kind_of(word: str) -> str:
    """The kind of `GROUPS` that a word means: its name, or that of its group.

    Raises: ValueError: it is neither.
    """
    for kind, group in GROUPS.items():
        if word in (kind, group):
            return kind
    close = difflib.get_close_matches(word, GROUPS)
    hint = f"did you mean {' or '.join(close)}?" if close else f"accepted are {', '.join(GROUPS)}"
    raise ValueError(f"there is no kind {word!r}; {hint}")


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


if __name__ == "__main__":
    as_module("list")
