"""The site: `pip install -e '.[docs]'`, then, at the top of a checkout, `sphinx-build -W --keep-going -c docs . site`.

The source folder is the checkout, so that one relative link works on the code host and in the site. -W: a link that
leads nowhere fails. Invariant: a page loads nothing from another host; the build fails where one would."""

import re
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

project = "streamllm"
author = copyright = "the authors of streamllm"
release = re.search(r'^__version__ = "(.+)"', (ROOT / "streamllm/__init__.py").read_text(), re.MULTILINE)[1]  # type: ignore[index]

extensions = ["myst_parser"]
root_doc = "README"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/*.md",
    "experiments/README.md",
    "experiments/*/README.md",
    "streamllm/models/assets/*/README.md",
]
exclude_patterns = ["outputs", "site", ".*", "**/node_modules"]
myst_heading_anchors = 4  # the anchors that the code host gives headings
suppress_warnings = ["myst.header"]  # levels of headings are the pages' own matter
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_title = f"streamllm {release}"
html_copy_source = html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {"footer_icons": []}

SECTIONS = {
    "Start": ["docs/tutorial", "docs/tasks", "docs/coming_from_simuleval", "docs/architecture"],
    "Use": [
        "docs/policies",
        "docs/learned",
        "docs/metrics",
        "docs/analysis",
        "docs/sweeps",
        "docs/long_streams",
        "docs/documents",
        "docs/longform",
        "docs/training",
        "docs/session",
        "docs/serve",
        "docs/simuleval",
        "docs/wandb",
    ],
    "Own things": ["docs/own_data_set", "docs/own_metric", "docs/own_tracker"],
    "Reference": [
        "docs/configuration",
        "docs/families",
        "docs/configs",
        "docs/tokenizers",
        "docs/known-reports",
        "docs/reliability",
        "docs/speed",
        "docs/gpu",
        "streamllm/models/assets/tiny-en-de/README",
        "streamllm/models/assets/tiny-en-de-wait/README",
        "streamllm/models/assets/tiny-en-de-reward/README",
    ],
    "Studies": ["experiments/README", "experiments/*/README"],
    "Project": ["CONTRIBUTING", "CHANGELOG"],
}
"""The contents, in the bar at the side of each page. A page of docs/ that is not named here stands under Reference."""


def contents() -> str:
    named = {page for pages in SECTIONS.values() for page in pages}
    rest = [f"docs/{path.stem}" for path in sorted((ROOT / "docs").glob("*.md")) if f"docs/{path.stem}" not in named]
    blocks = []
    for caption, pages in SECTIONS.items():
        entries = [f"/{page}" for page in pages + (rest if caption == "Reference" else [])]
        blocks.append("\n".join(["```{toctree}", ":hidden:", ":glob:", f":caption: {caption}", "", *entries, "```"]))
    return "\n\n" + "\n\n".join(blocks) + "\n"


def add_contents(app: Any, page: str, text: list[str]) -> None:
    """To the start page alone: on the code host the README shows no list."""
    if page == root_doc:
        text[0] += contents()


RESOURCE = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*?\b(?:src|data|srcset)\s*=\s*["'](?:https?:)?//[^"']*"""
    r"""|<link\b(?=[^>]*\brel\s*=\s*["'](?:stylesheet|preload|icon|preconnect|dns-prefetch|shortcut))[^>]*"""
    r"""\bhref\s*=\s*["'](?:https?:)?//[^"']*"""
    r"""|(?:@import|\burl\()\s*["']?(?:https?:)?//[^"')]*""",
    re.IGNORECASE,
)


def loaded_from_elsewhere(site: Path) -> list[str]:
    """What the pages and style sheets of a site load from other hosts. Links to follow are no matter."""
    return [
        f"{path.relative_to(site)}: {found[0]}"
        for path in sorted(site.rglob("*"))
        if path.suffix in {".html", ".css"}
        for found in RESOURCE.finditer(path.read_text(encoding="utf-8"))
    ]


def check_and_begin(app: Any, error: Exception | None) -> None:
    """The built site loads nothing from elsewhere; its index is the start page."""
    if error is not None or app.builder.name != "html":
        return
    site = Path(app.outdir)
    if found := loaded_from_elsewhere(site):
        raise ValueError(f"the site would load {len(found)} things from other hosts: {'; '.join(found[:5])}")
    shutil.copy(site / f"{root_doc}.html", site / "index.html")


def setup(app: Any) -> None:
    app.connect("source-read", add_contents)
    app.connect("build-finished", check_and_begin)
