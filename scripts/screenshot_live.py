"""A picture of the service's page in a headless Chromium, in the middle of its third sentence.

    streamllm serve policy=waitk k=3 port=12321
    python scripts/screenshot_live.py http://127.0.0.1:12321 docs/figures/live.png

Needs playwright (`pip install playwright`) and a Chromium on the PATH (Debian: apt-get install chromium).
"""

import argparse
import sys
from pathlib import Path

from chromium import launched

TYPED = (
    (3, "A man in a green jacket is waiting at the bus stop. "),
    (7, "Two children are building a sandcastle on the beach. "),
    (3, "A woman is reading a newspaper while she waits "),
)
"""What is typed, and the k of wait-k for it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("address", help="of the service, such as http://127.0.0.1:12321")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=760)
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    args = parser.parse_args()
    try:
        _draw(args)
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")


def _draw(args: argparse.Namespace) -> None:
    with launched() as browser:
        page = browser.new_page(viewport={"width": args.width, "height": args.height}, color_scheme=args.scheme)
        page.goto(args.address)
        page.wait_for_selector("#state[data-state=open]")
        for k, text in TYPED:
            page.fill("#policy [name=k]", str(k))
            page.focus("#box")
            page.wait_for_timeout(500)  # ms, for the service to take it
            page.keyboard.type(text, delay=100)
        page.wait_for_timeout(2000)
        page.screenshot(path=args.picture)


if __name__ == "__main__":
    main()
