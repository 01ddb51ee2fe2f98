"""A headless browser for tests of pages."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextlib.contextmanager
def open_browser() -> Iterator[Any]:
    """Provide a browser of playwright, on the Chromium of the system.

    Where there is none, the test is skipped and says how to install it.
    """
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("Chromium is missing: `make browser` installs it on Debian and Ubuntu, as root")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # root, as build servers are, cannot use the sandbox; the pages are our own
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Page:
    """A page in a browser, with what went wrong in it.

    Args:
        browser: the browser.
        path: the file.
        width: the width of the window in pixels.
        scheme: "light" or "dark".

    Attributes:
        page: the page, as playwright knows it.
        errors: errors and warnings of the console, requests of other files, and dialogs.
    """

    def __init__(self, browser: Any, path: Path, width: int = 1280, scheme: str = "light") -> None:
        self.errors: list[str] = []
        self.page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: self.errors.append(dialog.message))
        self.page.on("request", lambda request: self._check(request.url, path))
        self.page.goto(path.as_uri())

    def _check(self, url: str, path: Path) -> None:
        if url != path.as_uri() and not url.startswith("data:"):
            self.errors.append(f"requested {url}")

    def wait_until(self, expression: str) -> None:
        """Wait until an expression is true, for ten seconds at most.

        playwright's own wait evaluates it in the page, which the page's policy forbids.
        """
        deadline = time.monotonic() + 10
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, expression
            self.page.wait_for_timeout(20)

    def image(self, selector: str) -> int:
        """Return a number that stands for what a canvas shows."""
        digest: int = self._pixels(selector, "reduce((h, p) => Math.imul(h ^ p, 16777619), 0)")
        return digest

    def n_colors(self, selector: str) -> int:
        """Return how many different colors a canvas shows."""
        number: int = self._pixels(selector, "reduce((set, p) => set.add(p), new Set()).size")
        return number

    def _pixels(self, selector: str, then: str) -> Any:
        script = f"""canvas => {{
            const {{ width, height }} = canvas;
            const copy = new OffscreenCanvas(width, height);
            const context = copy.getContext("2d", {{ willReadFrequently: true }});
            context.drawImage(canvas, 0, 0);
            const {{ data }} = context.getImageData(0, 0, width, height);
            return new Uint32Array(data.buffer).{then};
        }}"""
        return self.page.eval_on_selector(f"{selector} canvas", script)
