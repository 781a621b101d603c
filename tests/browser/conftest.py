"""A headless Chromium of the machine's, and pages opened in it from disk."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",  # it cannot be had as root in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Opened:
    """A page and all that it did on the way."""

    page: Any
    requests: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    @property
    def outside(self) -> list[str]:
        """Requests for anything but the page itself, and what plotly makes in memory."""
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]


Open = Callable[..., Opened]


def chromium() -> str | None:
    """The path of a browser; the variable BROWSER_PATH comes first."""
    named = os.environ.get("BROWSER_PATH")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = chromium()
    if path is None:
        pytest.skip("no Chromium found (Debian: apt install chromium)")
    with playwright.sync_playwright() as driver:  # with a fresh profile folder
        running = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def open_page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """Open HTML from a file; keywords are the browser context's (viewport, color_scheme, ...)."""
    contexts = []
    folder: Path = tmp_path_factory.mktemp("pages")

    def opened(html: str, **settings: Any) -> Opened:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | settings))
        contexts.append(context)
        found = Opened(context.new_page())
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.on("console", lambda message: found.console.append(message.text))
        found.page.on("pageerror", lambda error: found.errors.append(str(error)))

        def dismiss(dialog: Any) -> None:
            found.dialogs.append(dialog.message)
            dialog.dismiss()

        found.page.on("dialog", dismiss)
        path = folder / f"{len(contexts)}.html"
        path.write_text(html, encoding="utf-8")
        found.page.goto(path.as_uri())
        return found

    yield opened
    for context in contexts:
        context.close()
