"""A picture of a report in a headless Chromium: two runs chosen, sentences sorted by what the second gains, one open.

    python scripts/screenshot.py report.html docs/report.png --a "waitk k=3" --b "waitk k=7"

A run is found by what the page calls it or the beginning of that, by its folder (sample-waitk-0123456789ab, with or
without the path), or by the digest at the end of that.

Needs playwright (`pip install playwright`) and a Chromium on the PATH (Debian: apt-get install chromium).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from chromium import launched

FOLDERS = "rows => rows.map(row => [Number(row.dataset.run), row.querySelector('th').title])"


def number_of(name: str, titles: Sequence[str], folders: Sequence[str]) -> int:
    """Which run a name means; all that tables call a run will do.

    Args:
        titles, folders: of the runs of the page, in its order.

    Raises: ValueError: it means none of them, or several.
    """
    folder = Path(name).name
    ways = (
        [title == name for title in titles],
        [folder in (one, one.rpartition("-")[2]) for one in folders],
        [title.startswith(name) for title in titles],
    )
    for found in ways:
        if sum(found) == 1:
            return found.index(True)
    known = ", ".join(f"{title!r} ({one})" for title, one in zip(titles, folders, strict=True))
    raise ValueError(f"{name!r} means {'several runs' if any(map(any, ways)) else 'no run'}; the page has {known}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--a", required=True, help="the first run, as tables call it: title, folder or digest")
    parser.add_argument("--b", required=True, help="the second one")
    parser.add_argument("--sentence", type=int, default=2, help="which sentence of the sorted list to open, from 1")
    args = parser.parse_args()
    try:
        _draw(args)
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")


def _draw(args: argparse.Namespace) -> None:
    with launched() as browser:
        page = browser.new_page(viewport={"width": 1120, "height": 1900})
        page.goto(args.report.resolve().as_uri())
        titles = page.locator("#run-a option").all_text_contents()
        folders = dict(page.locator("#runs tbody tr").evaluate_all(FOLDERS))
        try:
            for letter in ("a", "b"):
                number = number_of(getattr(args, letter), titles, [folders[place] for place in range(len(titles))])
                page.locator(f"#run-{letter}").select_option(value=str(number))
        except ValueError as error:
            sys.exit(f"error: {error}")
        page.locator("#sentences th").get_by_role("button", name="BLEU, B − A", exact=True).click()
        page.locator("#sentences tr.row").nth(args.sentence - 1).click()
        page.evaluate("window.scrollTo(0, 0)")
        page.screenshot(path=args.picture)


if __name__ == "__main__":
    main()
