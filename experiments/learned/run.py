"""Policies that learn against those that need no training, on the bundled model and on an LLM with an adapter:

    python -m experiments.learned.run dataset=multi30k dataset.data_dir=FOLDER [model.path=GEMMA]

Trains the heads that it compares, runs every line of `points`, and writes tables and plots beside this file. With
``model.path``, the folder of Gemma 3 270M, the part about an LLM is run, too. A study that was stopped goes on by the
same command, and ``report`` behind it only writes tables and plots. What else it takes:

    dataset.split=val      any key of the data set is handed to run.py; runs of other data have a folder of their own
    adapter=FOLDER         of the LLM; else it is trained (hours)
    sentences=500          of the LLM: so many of the data set; else all
    head.NAME=FOLDER       a head of `HEADS`, or head.llm, that is there; else it is trained
    only=llm               or only=bundled, only=rewarded: one of the parts
    pairs=2000             that the bundled model's heads learn from
    processes=2            commands at a time; else one for each core
    output.root=FOLDER     where runs, heads and adapter lie (outputs/learned)
    page=FOLDER            where tables and plots are written, into a copy of README.md; else beside this file
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.learned import points
from experiments.learned.report import Part, write_report
from experiments.study import ROOT as CHECKOUT
from experiments.study import help_if_asked, launch_all

HERE = Path(__file__).parent
PARTS = ("bundled", "rewarded", "llm")
HELD_OUT = f"validation.limit={points.HELD_OUT}"


@dataclass(frozen=True)
class Given:
    """What the command was given, see above; ``data`` is handed to run.py."""

    data: list[str]
    root: Path
    page: Path
    processes: int
    pairs: int
    llm: str | None = None
    adapter: str | None = None
    sentences: int | None = None
    heads: Mapping[str, str] = field(default_factory=dict)
    only: str | None = None
    report: bool = False

    @classmethod
    def of(cls, arguments: Sequence[str]) -> "Given":
        """Raises: SystemExit: an argument is none that the study takes, or its value is no whole number."""
        values = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
        own: dict[str, str] = {}
        data, heads = [], {}
        for key, value in values.items():
            if key == "dataset" or key.startswith("dataset."):
                data.append(f"{key}={value}")
            elif key.startswith("head.") and key[5:] in (*points.HEADS, "llm"):
                heads[key[5:]] = str(Path(value).resolve())
            elif key in ("adapter", "sentences", "pairs", "processes", "output.root", "page", "model.path", "only"):
                own[key] = value
            else:
                sys.exit(f"{key}={value} is not taken: {__doc__}")
        if unknown := [word for word in arguments if "=" not in word and word != "report"]:
            sys.exit(f"{unknown[0]!r} is not taken: {__doc__}")
        only = own.get("only", "bundled")
        if only not in PARTS or (only == "llm" and "model.path" not in own):
            sys.exit(f"only is {only!r}; accepted are bundled, rewarded, and llm with model.path=FOLDER")
        return cls(
            data=data,
            root=CHECKOUT / own.get("output.root", "outputs/learned"),
            page=Path(own["page"]).resolve() if "page" in own else HERE,
            processes=_whole(own, "processes", os.cpu_count() or 1),
            pairs=_whole(own, "pairs", 2000),
            llm=own.get("model.path"),
            adapter=str(Path(own["adapter"]).resolve()) if "adapter" in own else None,
            sentences=_whole(own, "sentences", 0) or None,
            heads=heads,
            only=own.get("only"),
            report="report" in arguments,
        )

    @property
    def runs(self) -> Path:
        """Where the runs of these data lie: named by what is said of them, but for folders and files."""
        said = [value for value in (one.partition("=")[2] for one in self.data) if "/" not in value]
        return self.root / (re.sub(r"[^\w.+-]", "_", "-".join(said)) or "sample")

    @property
    def training_data(self) -> list[str]:
        """Where the training part is, if it is not to come from the hub."""
        return [one for one in self.data if one.startswith("dataset.data_dir=")]

    @property
    def llm_data(self) -> list[str]:
        if self.sentences is None:
            return self.data
        return [*(one for one in self.data if not one.startswith("dataset.limit=")), f"dataset.limit={self.sentences}"]


def _whole(own: Mapping[str, str], key: str, default: int) -> int:
    value = own.get(key, str(default))
    if not value.isdecimal() or (key in own and not int(value)):
        sys.exit(f"{key} is {value!r}; a whole number of at least 1 is accepted")
    return int(value)


def main(arguments: Sequence[str]) -> None:
    given = Given.of(arguments)
    if given.page != HERE:
        given.page.mkdir(parents=True, exist_ok=True)
        if not (given.page / "README.md").exists():
            shutil.copy(HERE / "README.md", given.page)
    parts = {}
    for name in PARTS if given.only is None else (given.only,):
        if name == "bundled":
            parts[name] = bundled(given)
        elif name == "rewarded":
            parts[name] = rewarded(given)
        elif given.llm is not None:
            parts[name] = llm(given, given.llm)
    write_report(given.page, parts)


def bundled(given: Given) -> Part:
    """Train, run and time what is asked of the bundled model."""
    heads = dict(given.heads)
    first = {name: how for name, how in points.HEADS.items() if not any("{" in one for one in how)}
    for group in (first, {name: how for name, how in points.HEADS.items() if name not in first}):
        heads |= train_heads(given, group, heads)
    without = _filled(points.WITHOUT_TRAINING, {})
    learned = _filled({**points.LEARNED, **points.HEAD_LINES}, heads)
    timed = _filled(points.TIMED, heads)
    part = Part(given.runs / "bundled", without, learned, timed, given.data, points.BESIDE)
    run_all(given, part, points.SENTENCES_TIMED, points.TURNS)
    return part


def rewarded(given: Given) -> Part:
    """Run what is asked of the model that went on by reward; it comes with its head."""
    lines = points.REWARDED_WITHOUT_TRAINING, points.REWARDED_LEARNED
    without, learned = ({name: [*points.REWARDED, *line] for name, line in each.items()} for each in lines)
    part = Part(given.runs / "rewarded", without, learned, {}, given.data)
    run_all(given, part, 0, 0)
    return part


def llm(given: Given, path: str) -> Part:
    """The same of an LLM: an adapter first, then the heads that AlignAtt looks at, then a write head."""
    adapter = given.adapter or train_adapter(given, path)
    model = [*points.MODEL, f"model.path={path}", f"model.adapter_path={adapter}"]
    found = {"alignment_heads": alignment_heads(given, model)}
    name, where = "llm", given.root / "heads" / f"llm-{points.LLM_PAIRS['head']}-{Path(adapter).parent.name}"
    if name in given.heads:
        found[name] = given.heads[name]
    else:
        limit = [f"dataset.limit={points.LLM_PAIRS['head']}", f"validation.limit={points.LLM_HELD_OUT}"]
        limit += points.LLM_HEAD
        if not given.report:
            train_head([[*model, *given.training_data, *limit, "tracker=none", f"output.root={where}"]], 1)
        found[name] = newest(where, "head-*/head")
    lines = _filled(points.LLM_WITHOUT_TRAINING, found), _filled(points.LLM_LEARNED, found)
    without, learned = ({name: [*model, *line] for name, line in each.items()} for each in lines)
    timed = {name: [*model, *line] for name, line in _filled(points.LLM_TIMED, found).items()}
    part = Part(given.runs / "llm", without, learned, timed, given.llm_data)
    run_all(given, part, points.LLM_SENTENCES_TIMED, points.LLM_TURNS)
    return part


def run_all(given: Given, part: Part, sentences: int, turns: int) -> None:
    """All runs of a part, and then, with nothing beside it, what is timed."""
    if given.report:
        return
    batch = ["batch_size=64", "tracker=none", f"output.root={part.root}"]
    commands = [["-m", *line, *part.data, f"+study='{name}'", *batch] for name, line in part.lines.items()]
    # Those that search cost most. Among several processes they begin first, so that none waits for them at the end;
    # alone they come last, so that a study that is stopped has the others.
    commands.sort(key=lambda command: bool({"policy=ralcp", "policy=doa"} & {*command}))
    if given.processes > 1:
        commands.reverse()
    launch_all("run.py", commands, given.processes)
    if not part.timed:
        return
    os.environ.setdefault("STREAMLLM_THREADS", "1")
    data = [*(one for one in part.data if not one.startswith("dataset.limit=")), f"dataset.limit={sentences}"]
    words = [word for name, line in part.timed.items() for word in ("--line", name, *line)]
    launch_all("-m", [["experiments.learned.cost", str(part.cost), str(turns), *data, *words]], 1)


# --- what is trained


def train_heads(given: Given, wanted: Mapping[str, Sequence[str]], there: Mapping[str, str]) -> dict[str, str]:
    """Folders of heads that the study trains; those that are given or trained already are left alone."""
    missing = _filled({name: how for name, how in wanted.items() if name not in there}, there)
    where = {name: given.root / "heads" / f"{name}-{given.pairs}-{_mark(how)}" for name, how in missing.items()}
    shared = [*given.training_data, f"dataset.limit={given.pairs}", HELD_OUT]
    cells = f"cells.cache={given.root / 'cells'}"  # what was measured for one kind of labels may serve another
    if not given.report:
        of_labels = {name: any(one.startswith("labels=") for one in how) for name, how in missing.items()}
        commands = [
            [*shared, *([cells] if of_labels[name] else []), *how, "tracker=none", f"output.root={where[name]}"]
            for name, how in missing.items()
        ]
        train_head(commands, given.processes)
    return {name: newest(folder, "head-*/head") for name, folder in where.items()}


def train_head(commands: Sequence[Sequence[str]], processes: int) -> None:
    launch_all("-m", [["streamllm", "train-head", *command] for command in commands], processes)


def train_adapter(given: Given, path: str) -> str:
    where = given.root / f"adapter-{points.LLM_PAIRS['adapter']}"
    if not given.report:
        limit = f"dataset.limit={points.LLM_PAIRS['adapter']}"
        how = [*points.ADAPTER, f"model.path={path}", limit, "tracker=none", f"output.root={where}"]
        launch_all("train.py", [[*how, *given.training_data]], 1)
    return newest(where, "*/adapter")


def alignment_heads(given: Given, model: Sequence[str]) -> str:
    """The attention heads that ``streamllm calibrate`` finds on validation sentences; kept in a file."""
    adapter = Path(next(one for one in model if one.startswith("model.adapter_path=")).partition("=")[2])
    kept = given.root / f"alignment_heads-{adapter.parent.name}.txt"
    if not kept.exists():
        if given.report:
            sys.exit(f"{kept} is not there yet: run the study without 'report' first")
        limit = f"dataset.limit={points.LLM_CALIBRATED}"
        command = ["-m", "streamllm", "calibrate", *model, "dataset=multi30k-val", limit]
        print("$ python", *command, flush=True)
        done = subprocess.run(
            [sys.executable, *command, *given.training_data, "tracker=none"],
            cwd=CHECKOUT,
            check=False,
            stdout=subprocess.PIPE,
            text=True,
        )
        found = re.search(r"policy\.heads=(\[.*\])'", done.stdout)
        if done.returncode or not found:
            sys.exit(done.returncode or f"streamllm calibrate named no heads:\n{done.stdout}")
        print(done.stdout, flush=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(found[1].replace(" ", ""), encoding="utf-8")
    return kept.read_text(encoding="utf-8")


def _mark(how: Sequence[str]) -> str:
    """What tells a head from one of the same name that was trained otherwise."""
    return hashlib.sha256("\n".join(how).encode()).hexdigest()[:6]


def newest(folder: Path, pattern: str) -> str:
    """Raises: SystemExit: there is none."""
    found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        sys.exit(f"{folder} has no {pattern}: run the study without 'report' first")
    return str(found[-1])


def _filled(lines: Mapping[str, Sequence[str]], folders: Mapping[str, str]) -> dict[str, list[str]]:
    """Lines with the folders that they name in braces."""
    named = {f"{{{name}}}": folder for name, folder in folders.items()}

    def of(override: str) -> str:
        for name, folder in named.items():
            override = override.replace(name, folder)
        return override

    return {name: [of(override) for override in line] for name, line in lines.items()}


if __name__ == "__main__":
    help_if_asked(__doc__)
    main(sys.argv[1:])
