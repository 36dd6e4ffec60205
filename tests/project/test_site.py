"""The documentation as a site: it builds without a warning, mistakes fail, and it loads nothing from other hosts."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

pytest.importorskip("sphinx", reason="pip install -e '.[docs]'")
pytest.importorskip("myst_parser", reason="pip install -e '.[docs]'")


def build(top: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", str(top / "docs"), str(top), str(site)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The pages alone, with what they link to."""
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors", "outputs", "site")
    for folder in ("docs", "experiments", "notebooks", "streamllm", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    for file in (*ROOT.glob("*.md"), ROOT / "LICENSE", ROOT / "CITATION.cff", ROOT / "pyproject.toml"):
        shutil.copy(file, tmp_path)
    return tmp_path


@pytest.mark.long
def test_it_builds_with_every_page_and_begins_with_the_readme(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("experiments/**/README.md")]
    built = {path.relative_to(tmp_path).with_suffix(".md") for path in tmp_path.rglob("*.html")}
    assert {page.relative_to(ROOT) for page in pages} <= built
    assert (tmp_path / "index.html").read_bytes() == (tmp_path / "README.html").read_bytes()


@pytest.mark.long
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[x](no_such_page.md)", "no_such_page.md"),
        ("[x](metrics.md#no-such-heading)", "no-such-heading"),
        ('<img src="https://example.com/x.png">', "from other hosts"),
    ],
)
def test_what_is_wrong_in_a_page_fails(copy: Path, tmp_path: Path, line: str, said: str) -> None:
    with (copy / "docs" / "wandb.md").open("a", encoding="utf-8") as page:
        page.write(f"\n{line}\n")
    done = build(copy, tmp_path / "site")
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('<a href="https://example.com">a link to follow</a>', 0),
        ('<script src="_static/x.js"></script><img src="x.png">', 0),
        ('<link rel="canonical" href="https://example.com/">', 0),
        ('<script async src="https://example.com/x.js"></script>', 1),
        ('<link href="//fonts.example.com/css" rel="stylesheet">', 1),
        ("@font-face { src: url(https://example.com/x.woff2) }", 1),
        ("@import 'https://example.com/x.css';", 1),
    ],
)
def test_what_is_loaded_from_elsewhere_is_told_from_links(tmp_path: Path, text: str, count: int) -> None:
    spec = importlib.util.spec_from_file_location("site_conf", ROOT / "docs" / "conf.py")
    assert spec is not None
    assert spec.loader is not None
    conf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conf)
    (tmp_path / ("x.css" if text.startswith("@") else "x.html")).write_text(text)
    assert len(conf.loaded_from_elsewhere(tmp_path)) == count
