"""Draw the picture in the README: ``python docs/picture.py RUN_DIR``.

Takes a screenshot of the run's report with Debian's Chromium, from the curves to the first best prompt, and writes
docs/images/report.png.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH = 1000
MARGIN = 16


def main(run_dir: str) -> None:
    """Write the picture."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 800}, device_scale_factor=1.5, color_scheme="light")
        page.goto((Path(run_dir).resolve() / "report.html").as_uri())
        top = page.locator("#curves-title").evaluate("element => element.getBoundingClientRect().top") - MARGIN
        end = page.get_by_role("heading", name="Examples").first
        bottom = end.evaluate("element => element.getBoundingClientRect().top") - MARGIN
        page.screenshot(
            path=Path(__file__).parent / "images" / "report.png",
            clip={"x": 0, "y": top, "width": WIDTH, "height": bottom - top},
            full_page=True,
        )
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
