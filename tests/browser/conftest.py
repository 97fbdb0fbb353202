"""A page of a made-up run, open in a real Chromium; every test fails on a console message or a network request."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.report.html.build import recovery_html
from harness.report.html.source import open_source

TESTS = Path(__file__).resolve().parents[1]
kit = SimpleNamespace(**runpy.run_path(str(TESTS / "harness" / "html_run.py")))
CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run whose names, reasons, events and answers are hostile."""
    folder = kit.write_hostile(tmp_path_factory.mktemp("run"))
    path = folder / "recovery.html"
    path.write_text(recovery_html(open_source(folder)), encoding="utf-8")
    return path


class Watched:
    """Opens pages and keeps what they asked for and complained of."""

    def __init__(self, browser: Any, path: Path) -> None:
        self._browser, self._path = browser, path
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._contexts: list[Any] = []
        # What a test provokes may arrive late, so it is named and not taken away.
        self.provoked: tuple[str, ...] = ()

    def open(self, **options: Any) -> Any:
        context = self._browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(20_000)
        self._contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        page.goto(self._path.as_uri())
        if options.get("java_script_enabled", True):
            # Not `wait_for_function`: it evaluates strings, which the page's policy forbids.
            page.locator("html[data-ready=yes]").wait_for(state="attached")
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()
        asked = {url for url in self.requests if not url.startswith(self.provoked)}
        assert asked == {self._path.as_uri()}, "the page asked for something"
        assert [text for text in self.complaints if not any(part in text for part in self.provoked)] == []


@pytest.fixture
def watched(browser: Any, report: Path) -> Iterator[Watched]:
    found = Watched(browser, report)
    yield found
    found.close()
