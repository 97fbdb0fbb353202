"""Opens the report in a real browser and times it."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError

_READY = "html[data-ready=yes]"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True, slots=True)
class Opened:
    """One opening of the page.

    Attributes:
        seconds: from the start of navigation until its script has shown the first items.
        cpu: processor seconds of the page's main thread until then.
        painted: until the first contentful paint, as the browser says.
        sample: from the click on an item until both answers are shown.
        requests: network requests beside the file itself.
        complaints: console messages and script errors.
    """

    seconds: float
    cpu: float
    painted: float | None
    sample: float
    requests: tuple[str, ...]
    complaints: tuple[str, ...]


def find_browser() -> str:
    """The Chromium that is installed.

    Raises:
        ConfigError: There is none.
    """
    found = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise ConfigError("no Chromium is installed: apt-get install chromium")
    return found


def open_page(page_file: Path, times: int) -> tuple[list[Opened], str]:
    """Open the page so often, each time in a new context without cache; and the browser's version.

    Raises:
        ConfigError: Playwright or Chromium is missing.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise ConfigError("opening the report in a browser needs Playwright: pip install playwright") from None
    executable = find_browser()
    found = []
    with sync_playwright() as playwright:
        # No sandbox: it needs user namespaces, which containers often lack; the page is ours.
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        for _ in range(times):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            page = context.new_page()
            requests: list[str] = []
            complaints: list[str] = []
            page.on("request", lambda request, kept=requests: kept.append(request.url))
            page.on("console", lambda message, kept=complaints: kept.append(message.text))
            page.on("pageerror", lambda error, kept=complaints: kept.append(str(error)))
            devtools = context.new_cdp_session(page)
            devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
            page.goto(page_file.absolute().as_uri())
            # Not `wait_for_function`: it evaluates strings, which the page's policy forbids.
            page.locator(_READY).wait_for(state="attached")
            # The page marks the moment itself: asking for it takes its own time.
            seconds = page.evaluate("performance.getEntriesByName('ready')[0].startTime / 1000")
            painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null")
            metrics = devtools.send("Performance.getMetrics")["metrics"]
            cpu = next(each["value"] for each in metrics if each["name"] == "ThreadTime")
            began = time.monotonic()
            page.locator("#samples-view button.item").first.click()
            page.wait_for_selector(".opened .sides")
            sample = time.monotonic() - began
            others = tuple(url for url in requests if url != page_file.absolute().as_uri())
            found.append(
                Opened(seconds, cpu, None if painted is None else painted / 1000, sample, others, tuple(complaints))
            )
            context.close()
        version = browser.version
        browser.close()
    return found, version
