"""Each command that a page shows runs as it stands there (pytest -m documented; a quarter of an hour or more). Those
that need a network, an extra, a chat model or hours are told by `NOT_HERE`, and the pages say so, too.

On a busy machine, DOCUMENTED_LIMIT=8 leaves the same commands and takes so many sentences of the sample corpus, by a
`conf/dataset/sample.yaml` in the folder in which they are given."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
from conftest import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("experiments/**/README.md")),
    *sorted(ROOT.glob("streamllm/models/assets/*/README.md")),
]

NOT_HERE = {
    "installs, or runs tests: CI does": r"pip (un)?install|python3 -m venv|^\(?pytest|^\.ci/run|^ruff|sphinx-build",
    "a model of the hub, or a folder of it": r"\bmodel=(?!folder|tiny)|=GEMMA|=PATH|OR_HUB_ID|lora_en_de|lora\.r",
    "a model folder of your own": r"model\.path=FOLDER|model=folder",
    "data of the hub": r"dataset=(hub|wmt|iwslt2017)|(tiny_en_de|=mismatch|multi30k)(?!.*data_dir)",
    "the rest of a command, or what another has left": r"…|outputs/RUN|\$\(|^cp |^printf",
    "a training of hours": r"train experiment=(tiny_en_de|mismatch)|experiments\.\w+\.run",
    "two processes": r"--processes|mlx\.launch",
    "the extras of docs/sweeps.md": r"hydra/(launcher|sweeper)=|tune_threshold|^ray ",
    "SimulEval: pytest -m simuleval": r"simuleval|omnisteval",
    "an account of W&B": r"wandb (sync|sweep|agent|login)|tracker\.mode=online",
    "a browser": r"screenshot\.py",
    "a GPU, or tests/project/test_gpu.py": r"check_gpu|mx\.default_device",
    "tests/project/test_kills.py": r"check_kills",
    "a service, which goes on until it is stopped": r"streamllm serve",
    "words from a terminal": r"^streamllm live",
    "notebooks: CI runs them": r"^jupyter",
    "it would write into the checkout": r"scripts/make_",
    "a benchmark": r"scripts/bench_",
}
"""Why a command is not run, with what its text holds."""

FILE = re.compile(r"`([\w./]+)`:\n\n```\w+\n(.*?)```", re.DOTALL)
"""A code block with its file's name before it."""

SENTENCES = {
    "en": ["A man rides a bicycle.", "Two dogs run through the snow.", "A woman reads a book.", "The boy is happy."],
    "de": ["Ein Mann fährt Rad.", "Zwei Hunde rennen durch den Schnee.", "Eine Frau liest ein Buch.", "Er freut sich."],
}


def shortened(folder: Path) -> None:
    """Make the sample corpus shorter for commands that are given in ``folder``, where $DOCUMENTED_LIMIT says so."""
    if limit := os.environ.get("DOCUMENTED_LIMIT"):
        short = (ROOT / "conf" / "dataset" / "sample.yaml").read_text(encoding="utf-8")
        (folder / "conf" / "dataset").mkdir(parents=True, exist_ok=True)
        changed = re.sub(r"(?m)^limit: \w+", f"limit: {int(limit)}", short)
        (folder / "conf" / "dataset" / "sample.yaml").write_text(changed, encoding="utf-8")


def commands(page: Path) -> list[str]:
    """The commands of a page in their order, each on one line and without the comment at its end."""
    blocks = re.findall(r"```(?:bash|sh)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.strip() for block in blocks for line in re.sub(r" *\\\n *", " ", block).splitlines()]
    return [re.sub(r"\s+# .*", "", line) for line in lines if line and not line.startswith("#")]


def reason(command: str) -> str | None:
    """Why a command is not run here, None where it is."""
    return next((why for why, pattern in NOT_HERE.items() if re.search(pattern, command)), None)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder in which somebody works, with the files that pages name, and `streamllm` on the PATH."""
    for name in ("run.py", "train.py", "scripts", "experiments"):
        (tmp_path / name).symlink_to(ROOT / name)
    data = tmp_path / "FOLDER"
    data.mkdir()
    for language, lines in SENTENCES.items():
        for split in ("train", "val", "test_2016_flickr"):
            (data / f"{split}.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
        for name in ("a", "talk", "tst-COMMON"):
            (tmp_path / f"{name}.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
        talks = "\n".join([*lines[:2], "", *lines[2:]])
        (tmp_path / f"talks.{language}").write_text(talks + "\n", encoding="utf-8")
        blocks = [f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\n{line}\n" for n, line in enumerate(lines, start=1)]
        (tmp_path / f"film.{language}.srt").write_text("\n".join(blocks), encoding="utf-8")
    segments = [f"- {{duration: 2.0, offset: {2.0 * n}, speaker_id: s, wav: talk_{n // 2}.wav}}" for n in range(4)]
    (tmp_path / "tst-COMMON.yaml").write_text("\n".join(segments) + "\n")
    pairs = [{"source": one, "reference": other} for one, other in zip(*SENTENCES.values(), strict=True)]
    rows = [{"id": "one", "sentences": pairs[:2]}, {"id": "two", "sentences": pairs[2:]}]
    for name in ("talks.jsonl", "val.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "streamllm"
    start = "import sys; sys.argv[0] = 'streamllm'; from streamllm.cli.main import main; main()"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{start}" "$@"\n')
    program.chmod(0o755)
    return tmp_path


def run(command: str, folder: Path, desk: Path) -> str | None:
    """What is wrong with a command; None where it has worked."""
    path = f"{desk / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    began = time.monotonic()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    print(f"{time.monotonic() - began:5.0f} s  {command}", flush=True)
    return None if done.returncode == 0 else f"$ {command}\n{done.stdout[-500:]}{done.stderr[-1000:]}"


def prepared(command: str, folder: Path) -> None:
    """Make the runs that a command calls outputs/A, outputs/B and outputs/C, and the ids of talks."""
    if "outputs/A" in command:
        runs = sorted((folder / "outputs" / "analysis").glob("sample-*"))
        for letter, one in zip("ABC", runs, strict=False):
            if not (folder / "outputs" / letter).exists():
                (folder / "outputs" / letter).symlink_to(one)
    if "talks.ids" in command:
        for language, lines in SENTENCES.items():
            (folder / f"talks.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / "talks.ids").write_text("one\none\ntwo\ntwo\n")


def with_commands() -> list[Path]:
    return [page for page in PAGES if any(reason(command) is None for command in commands(page))]


@pytest.mark.documented
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", with_commands(), ids=lambda page: str(page.relative_to(ROOT)))
def test_each_command_of_a_page_runs_as_it_stands(page: Path, desk: Path) -> None:
    for name, text in FILE.findall(page.read_text(encoding="utf-8")):
        for folder in (desk, desk / "my-study"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    if page.name == "tutorial.md":
        (desk / "my-study").rename(desk / "files")  # `streamllm init` makes the folder
    folder, wrong = desk, []
    shortened(folder)
    for command in commands(page):
        if reason(command) is not None:
            continue
        if command.startswith("cd "):
            folder /= shlex.split(command)[1]
            if (desk / "files").exists():
                subprocess.run(["cp", "-r", f"{desk / 'files'}/.", str(folder)], check=True)
            shortened(folder)
            continue
        prepared(command, folder)
        if (said := run(command, folder, desk)) is not None:
            wrong.append(said)
    assert not wrong, "\n\n".join(wrong)


def test_commands_are_read_whole_and_without_their_comments() -> None:
    found = commands(ROOT / "README.md")
    assert "streamllm run policy=waitk k=5" in found
    assert (
        "python run.py policy=hold_n policy.n=6 paradigm=batch model=folder model.path=GEMMA prompt=few-shot-de-en "
        in (" ".join(f"{command} " for command in commands(ROOT / "experiments/policies/README.md")))
    )
    assert sum(reason(command) is None for page in PAGES for command in commands(page)) > 50


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("streamllm run policy=waitk k=5", None),
        ("streamllm run dataset=multi30k dataset.data_dir=FOLDER", None),
        ("streamllm run dataset=multi30k", "data of the hub"),
        ("streamllm run model=gemma-3-270m prompt=few-shot-en-de", "a model of the hub, or a folder of it"),
        ("streamllm run -m k=1,3 hydra/launcher=joblib", "the extras of docs/sweeps.md"),
    ],
)
def test_what_is_not_run_has_a_reason(command: str, why: str | None) -> None:
    assert reason(command) == why


@pytest.mark.parametrize("study", ["policies", "mismatch"])
def test_each_line_of_a_table_has_its_command(study: str) -> None:
    of_lines = import_module(f"experiments.{study}.run").commands()
    assert of_lines in (ROOT / "experiments" / study / "README.md").read_text(encoding="utf-8")
