"""OmniSTEval, simulstream and Moses themselves over logs of ours: equal to 1e-9 (pytest -m simuleval).

STREAMLLM_SIMULEVAL names a folder whose subfolder "documents" keeps their virtual environment; without it, each test
run installs them.
"""

import json
import math
import os
import random
import subprocess
import unicodedata
import venv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import long_documents
import pytest
from document_runs import CLOCK, RUNS, SILENT

from streamllm.metrics.longform import Document, Sentence, longform
from streamllm.metrics.moses import WITH_ABBREVIATIONS, abbreviations, moses_language, tokenise
from streamllm.metrics.quality import tokenizer
from streamllm.runs.longform_logs import Scale, omnisteval_command, write_omnisteval, write_simulstream
from streamllm.units import Unit

pytestmark = [pytest.mark.simuleval, pytest.mark.slow, pytest.mark.long]

TOOLS = ("omnisteval==0.1.10", "mosestokenizer==1.2.1", "mweralign==1.4.1", "simulstream==1.0.0")
# What they import for this. Left to themselves, they also want PyTorch and tools for speech.
THEIR_IMPORTS = ("sacrebleu", "pyyaml", "sentencepiece", "toolwrapper", "docopt", "openfile", "uctools")
SCALE = Scale(units_per_second=long_documents.RATE)
ENVIRONMENT = os.environ | {"PYTHONUTF8": "1"}  # simulstream opens files in the locale's encoding
ENVIRONMENT.pop("PYTHONPATH", None)
IN_UNITS = {"yaal", "al", "laal", "dal"}


@pytest.fixture(scope="module")
def tools(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of their environment."""
    kept = os.environ.get("STREAMLLM_SIMULEVAL")
    if "simuleval" not in request.config.option.markexpr and kept is None:
        pytest.skip("installs packages: pytest -m simuleval")
    folder = (Path(kept) if kept else tmp_path_factory.mktemp("tools")) / "documents"
    programs = folder / "bin"
    if not (programs / "simulstream_score_latency").exists():
        pip = [str(programs / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        try:
            venv.create(folder, with_pip=True)
            for packages in (THEIR_IMPORTS, ("--no-deps", *TOOLS)):
                subprocess.run([*pip, *packages], check=True, capture_output=True, text=True, env=ENVIRONMENT)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"cannot install {', '.join(TOOLS)}: {error.stderr.strip().splitlines()[-1]}")
    return programs


def run(*command: str | Path, given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, encoding="utf-8", env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return done.stdout


ten_documents = pytest.mark.parametrize(
    ("seed", "language", "unit"), [(1, "de", "word"), (2, "fr", "word"), (3, "zh", "character")]
)


def said_of(documents: list[Document], language: str, unit: Unit, tools: Path, folder: Path) -> dict[str, Any]:
    write_omnisteval(folder, documents, unit, SCALE)
    write_simulstream(folder, documents, unit, SCALE)
    program = Path(__file__).parent / "tools_on_documents.py"
    theirs = {"word": "word", "character": "char"}[unit]
    said: dict[str, Any] = json.loads(
        run(tools / "python", program, folder, theirs, moses_language(language), tokenizer(language))
    )
    return said


@ten_documents
def test_scores_of_ten_documents_equal_omnisteval(
    seed: int, language: str, unit: Unit, tools: Path, tmp_path: Path
) -> None:
    """Which reads logs of both forms."""
    documents = long_documents.run(seed, unit)
    said = said_of(documents, language, unit, tools, tmp_path)
    ours = longform(documents, language, unit, units_per_second=long_documents.RATE, word_error=False)
    check_omnisteval(said, ours.metrics, ours.sentences)


def check_omnisteval(said: dict[str, Any], metrics: Mapping[str, Any], sentences: Sequence[Sentence]) -> None:
    """All that OmniSTEval says, from logs of both forms, equals ours."""
    for form in ("omnisteval", "simulstream"):
        theirs = said[form]["scores"] | said[form]["degeneracy"]
        names = theirs.keys() & metrics.keys()
        assert len(names) == 16
        for name in names:
            value = theirs[name] / (1000 if name.split("_")[-1] in IN_UNITS else 1)
            ours = math.nan if metrics[name] is None else metrics[name]  # undefined
            assert ours == pytest.approx(value, abs=1e-9, nan_ok=True), (form, name)
        for row, sentence in zip(said[form]["rows"], sentences, strict=True):
            assert (row["prediction"], row["reference"]) == (sentence.prediction, sentence.reference)


@pytest.mark.parametrize("name", RUNS)
def test_scores_of_a_run_over_documents_equal_omnisteval_and_simulstream(
    name: str, tools: Path, tmp_path: Path
) -> None:
    """What ``metrics.json`` says of runs of the bundled model, on logs that we write of what is stored; but for
    documents that are cut short, to which the tools give latencies all the same."""
    run = RUNS[name]
    documents, metrics = run.made([*RUNS].index(name), tmp_path)
    said = said_of(documents, run.target_language, run.target_unit, tools, tmp_path)
    if any(one.cut_short for one in documents):
        documents = [replace(one, cut_short=False) for one in documents]
        metrics = longform(
            documents, run.target_language, run.target_unit, units_per_second=CLOCK.words_per_second
        ).metrics
    sentences = longform(documents, run.target_language, run.target_unit, word_error=False).sentences
    check_omnisteval(said, metrics, sentences)
    assert [one.id for one in documents if not one.units] == [f"talk{SILENT}"] * ("nothing" in name)
    if metrics["stream_laal"] is not None:  # mweralign is installed
        theirs = said["stream_laal"]
        assert {key: metrics[key] for key in theirs} == pytest.approx(theirs, abs=1e-9)


@ten_documents
@pytest.mark.skipif(find_spec("mweralign") is None, reason="pip install -e '.[longform]'")
def test_stream_laal_of_ten_documents_equals_simulstream(
    seed: int, language: str, unit: Unit, tools: Path, tmp_path: Path
) -> None:
    documents = long_documents.run(seed, unit)
    said = said_of(documents, language, unit, tools, tmp_path)["stream_laal"]
    ours = longform(documents, language, unit, units_per_second=long_documents.RATE, word_error=True).metrics
    assert {name: ours[name] for name in said} == pytest.approx(said, abs=1e-9)


def test_omnistevals_command_prints_what_we_compute(tools: Path, tmp_path: Path) -> None:
    documents = long_documents.run(4)
    write_omnisteval(tmp_path, documents, "word", SCALE)
    program, *arguments = omnisteval_command(tmp_path, "de", "word")
    run(tools / program, *arguments, "--output_folder", tmp_path)
    printed = dict(line.split("\t") for line in (tmp_path / "scores.tsv").read_text().splitlines())
    metrics = longform(documents, "de", "word", units_per_second=long_documents.RATE, word_error=False).metrics
    names = {"BLEU": "bleu", "chrF": "chrf"}
    names |= {f"Long{name.upper()} (CU)": f"long_{name}" for name in ("yaal", "al", "laal", "ap", "dal")}
    names |= {f"Long{name.upper()} (CA)": f"ca_long_{name}" for name in ("yaal", "al", "laal", "ap", "dal")}
    for theirs, ours in names.items():
        scale = 1000 if ours.split("_")[-1] in IN_UNITS else 1
        assert float(printed[theirs]) / scale == pytest.approx(metrics[ours], abs=0.6e-4), theirs


def test_simulstreams_command_reads_our_log(tools: Path, tmp_path: Path) -> None:
    write_simulstream(tmp_path, long_documents.run(5), "word", SCALE)
    files = {"eval-config": "simulstream.yaml", "log-file": "simulstream.jsonl"}
    files |= {"reference": "references.txt", "audio-definition": "segments.yaml"}
    options = [part for name, file in files.items() for part in (f"--{name}", str(tmp_path / file))]
    said = run(tools / "simulstream_score_latency", *options, "--scorer", "stream_laal")
    assert "Latency scores (in seconds): LatencyScores(ideal_latency=" in said


@pytest.mark.parametrize("language", [*(one for one in WITH_ABBREVIATIONS if one not in ("sv", "ta")), "ja", "xx"])
def test_tokens_equal_moses(language: str, tools: Path) -> None:
    draw = random.Random(language)
    pieces = [*"abcz019.,'`-..,,''-!?;:()\"«»äßé％…´½#@&<", "'s", "dr", "usw", "z.b", "中", "٣", "ⅷ"]
    words = ["".join(draw.choice(pieces) for _ in range(draw.randint(1, 8))) for _ in range(1000)]
    known = sorted(abbreviations(language))
    words += [f"{word}.{end}" for word in known for end in ("", "x.", ",", "-a")]
    words = [part for word in words for part in unicodedata.normalize("NFKC", word).lower().split()]
    (script,) = (tools.parent / "lib").glob("python3*/site-packages/mosestokenizer/tokenizer-v1.1.perl")
    said = run("perl", script, "-q", "-l", language, "-no-escape", "-a", given="".join(f"{word}\n" for word in words))
    assert [list(tokenise(word, language)) for word in words] == [line.split() for line in said.splitlines()]
