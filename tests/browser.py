"""Chromium, driven by Playwright; a test is skipped if the program is not installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

WAITS_MS = 60_000
"""For an element or a text; a busy machine may need some seconds."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; ``expect`` and the pages of ``window`` wait long enough."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium (Debian's package chromium)")
    expect.set_options(timeout=WAITS_MS)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"], timeout=WAITS_MS)
        yield browser
        browser.close()


@contextmanager
def window(browser: Browser) -> Iterator[BrowserContext]:
    """A new window without a history."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(WAITS_MS)
    yield context
    context.close()
