"""A real browser for tests of the page: Debian's Chromium, headless, driven by Playwright."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, Dialog, Page, ViewportSize, sync_playwright

SIZE = ViewportSize(width=1360, height=900)

ARGUMENTS = (
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str:
    """The path of the browser; without one the test is skipped, in CI it fails."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser")  # the first takes half as much
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found:
        return found
    text = "no Chromium: install Debian's chromium-headless-shell or chromium, or set CHROMIUM to its path"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


class Window:
    """A page that remembers what went wrong in it and whom it asked."""

    def __init__(self, page: Page, pictures: Path | None) -> None:
        self.page = page
        self.pictures = pictures
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", self._interrupted)
        page.on("request", lambda request: self._asked(request.url))

    def _interrupted(self, dialog: Dialog) -> None:
        self.errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _asked(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "data":
            self.hosts.add(parts.netloc)

    def picture(self, name: str, *, whole: bool = True) -> None:
        """Keeps the whole page, or what is seen of it now, as a file, if somebody wants to see it."""
        if self.pictures is None:
            return
        self.pictures.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=self.pictures / f"{name}.png", full_page=whole)

    def text(self, selector: str) -> str:
        """The visible text of an element, each run of white space as one space."""
        return re.sub(r"\s+", " ", self.page.locator(selector).inner_text()).strip()


@contextmanager
def browser(folder: Path) -> Iterator[BrowserContext]:
    """A browser with an empty profile. While it is open, this thread cannot run an event loop of its own."""
    path = chromium()
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            folder / "profile",
            executable_path=path,
            args=list(ARGUMENTS),
            viewport=SIZE,
            locale="en-US",
        )
        context.set_default_timeout(10_000)
        try:
            yield context
        finally:
            context.close()


def pictures() -> Path | None:
    """Where screenshots go: the folder that SCREENSHOTS names, else nowhere, for they take half of a test's time."""
    return Path(os.environ["SCREENSHOTS"]) if os.environ.get("SCREENSHOTS") else None
