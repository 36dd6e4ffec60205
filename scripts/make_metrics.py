"""Writes the table of all scores in docs/metrics.md from streamllm/metrics/scores.py; a test says when it is stale.

python scripts/make_metrics.py
"""

import argparse
import re
from pathlib import Path

from streamllm.metrics.scores import markdown

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
PLACE = re.compile(r"(?<=<!-- scores -->\n).*?(?=<!-- end of scores -->)", re.DOTALL)


def page() -> str:
    """The page with the table as it should be."""
    return PLACE.sub(lambda _: f"\n{markdown()}\n\n", PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(page(), encoding="utf-8")
