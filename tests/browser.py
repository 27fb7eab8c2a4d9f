"""A real Chromium that looks at real pages, and axe-core, which finds what keeps people out of them."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
SCREENSHOTS = os.environ.get("FEDMEDCLIP_SCREENSHOTS")
"""A folder to which screenshots go, for people to look at."""
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 900}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Give a browser without a window; the test is skipped where the system has none."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here (apt install chromium)")
    # As root, and in a container, there is no sandbox to be had; it sees our own pages alone.
    arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def looking_at(browser: Browser, address: str, **options: object) -> Iterator[Page]:
    """Give a page that was opened; what it asks of other machines, or says as an error, fails the test."""
    context = browser.new_context(**{"viewport": DESK, **options})  # type: ignore[arg-type]
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith(address) or asked.url.startswith("data:")
            else faults.append(f"asks {asked.url}"))  # fmt: skip
    try:
        page.goto(address)
        yield page
    finally:
        context.close()
    assert not faults, faults


def violations(page: Page) -> list[str]:
    """Return what axe-core finds against WCAG 2.2 AA and its own good practice, a line each."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options={"runOnly": WCAG}).response["violations"]
    return [f"{one['id']}: {one['help']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


def keep_screenshot(page: Page, name: str) -> None:
    """Keep a picture of the whole page where the environment says that somebody wants to look at it."""
    if SCREENSHOTS:
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{SCREENSHOTS}/{name}.png", full_page=True)
