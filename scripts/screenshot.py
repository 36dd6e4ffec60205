"""A picture of a report in a headless Chromium: two runs chosen, sentences sorted by what the second gains, one open.

    python scripts/screenshot.py report.html docs/report.png --a "waitk k=3" --b "waitk k=7"

Needs playwright (`pip install playwright`) and a Chromium on the PATH (Debian: apt-get install chromium).
"""

import argparse
import os
import shutil
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--a", required=True, help="the first run, as the page calls it")
    parser.add_argument("--b", required=True, help="the second one")
    parser.add_argument("--sentence", type=int, default=2, help="which sentence of the sorted list to open, from 1")
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright  # type: ignore[import-not-found]

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        sys.exit("error: there is no chromium on the PATH (Debian: apt-get install chromium)")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=sandbox)
        page = browser.new_page(viewport={"width": 1120, "height": 1800})
        page.goto(args.report.resolve().as_uri())
        page.locator("#run-a").select_option(label=args.a)
        page.locator("#run-b").select_option(label=args.b)
        page.locator("#sentences th").get_by_role("button", name="BLEU, B − A", exact=True).click()
        page.locator("#sentences tr.row").nth(args.sentence - 1).click()
        page.evaluate("window.scrollTo(0, 0)")
        page.screenshot(path=args.picture)
        browser.close()


if __name__ == "__main__":
    main()
