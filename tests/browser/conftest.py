"""A headless Chromium whose every request is recorded and, unless it is a local file, refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.reports.run_folder import make_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
)


@dataclass
class Watched:
    """A page and everything that went wrong or out while it was open."""

    page: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def foreign(self, allowed: str = "file:") -> list[str]:
        """Requests to anywhere but `allowed` and the page's own data."""
        return [url for url in self.requests if not url.startswith((allowed, "blob:", "data:"))]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One browser for all tests."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium on the path")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def watch(chromium: Any) -> Iterator[Callable[..., Watched]]:
    """A function that gives a fresh page; only addresses that start with `allowed` are let through."""
    contexts = []

    def start(*, allowed: str = "file:", **options: Any) -> Watched:
        context = chromium.new_context(viewport={"width": 1280, "height": 900}, **options)
        contexts.append(context)
        watched = Watched(context.new_page())
        context.route("**/*", lambda r: r.continue_() if r.request.url.startswith(allowed) else r.abort())
        watched.page.on("request", lambda request: watched.requests.append(request.url))
        watched.page.on("pageerror", lambda error: watched.errors.append(f"page error: {error}"))
        watched.page.on(
            "console",
            lambda m: watched.errors.append(f"console: {m.text}") if m.type in ("error", "warning") else None,
        )
        return watched

    yield start
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a whole run."""
    from workbench.reports import write_report

    return write_report(make_run(tmp_path_factory.mktemp("report") / "demo"))
