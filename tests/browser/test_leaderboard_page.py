"""The leaderboard's page in a real browser: sort, filter, records, no request, no error, hostile names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.bench.leaderboard.synthetic import Shape, write_set
from harness.leaderboard.assemble import assemble
from harness.leaderboard.output import write_all
from harness.records import read_summary, write_json_atomic

HOSTILE = "<img src=x onerror=alert(1)>\"'`</script><b>\u202eevil"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("board")
    paths = write_set(root / "set", Shape(variants=20, per_study=6, items=40))
    # One variant of the second study has a name that would be code where it is not text.
    path = paths[1] / "summary.json"
    summary = read_summary(path)
    last = summary.variants[-1]
    renamed = [*summary.variants[:-1], last.model_copy(update={"name": HOSTILE, "base": HOSTILE})]
    speed = [row.model_copy(update={"variant": HOSTILE}) if row.variant == last.name else row for row in summary.speed]
    write_json_atomic(path, summary.model_copy(update={"variants": renamed, "speed": speed}))
    (paths[1] / "samples.parquet").unlink()
    found, files = assemble(paths)
    write_all(found, files, root / "out")
    return root / "out" / "leaderboard.html"


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    """The page opened; afterwards: nothing was asked of the network, and nothing was said on the console."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("dialog", lambda dialog: (said.append(f"dialog {dialog.message}"), dialog.dismiss()))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(page_file.as_uri())
    yield opened
    assert said == []
    assert all(url.startswith(page_file.as_uri()) for url in asked)
    context.close()


def column(page: Any, table: str, place: int) -> list[str]:
    rows = page.locator(f"#{table} tbody tr:visible")
    return [row.locator("th, td").nth(place).inner_text().strip() for row in rows.all()]


def test_sorting_by_a_number_and_back(page: Any) -> None:
    heads = [each.inner_text().strip() for each in page.locator("#scores-1 thead th").all()]
    place = heads.index("MB")
    button = page.locator("#scores-1 thead th").nth(place).locator("button.sort")
    button.click()
    down = [float(each) for each in column(page, "scores-1", place)]
    assert down == sorted(down, reverse=True) and len(set(down)) > 3
    button.focus()
    page.keyboard.press("Enter")
    assert [float(each) for each in column(page, "scores-1", place)] == sorted(down)


def test_filter_by_study_and_by_text(page: Any) -> None:
    bar = page.locator('.filters[data-for="scores-1"]')
    everything = len(column(page, "scores-1", 0))
    bar.locator("select").first.select_option("study0")
    names = column(page, "scores-1", 0)
    assert 0 < len(names) < everything
    assert bar.locator("output").inner_text() == f"{len(names)} of {everything} rows"
    bar.locator("input[type=search]").fill("sparse50")
    assert all("sparse50" in name for name in column(page, "scores-1", 0))


def test_a_name_opens_the_record_and_escape_closes_it(page: Any) -> None:
    page.locator("#scores-1 tbody button.row").first.click()
    dialog = page.locator("dialog#record")
    assert dialog.is_visible()
    text = dialog.inner_text()
    for told in ("weights sha256", "study hash", "record sha256", "sparsebench run", "/variants/", "summary.json"):
        assert told in text
    page.wait_for_url("**#row-*")
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    # The address follows with the event of the dialog, a moment later.
    page.wait_for_url(lambda url: "#row-" not in url)


def test_a_number_opens_its_own_line(page: Any) -> None:
    heads = [each.inner_text().strip() for each in page.locator("#scores-1 thead th").all()]
    place = heads.index("gsm8k")
    page.locator("#scores-1 tbody tr").first.locator("th, td").nth(place).click()
    chosen = page.locator("dialog#record tr.chosen")
    assert chosen.count() == 1
    assert "/suites/gsm8k" in chosen.inner_text() and "exact_match_flexible" in chosen.inner_text()
    page.locator("dialog#record button.close").click()
    page.locator("dialog#record").wait_for(state="hidden")


def test_a_link_to_a_row_opens_it(page: Any, page_file: Path) -> None:
    identifier = page.locator("#scores-1 tbody button.row").nth(2).get_attribute("id")
    page.goto("about:blank")
    page.goto(f"{page_file.as_uri()}#{identifier}")
    assert page.locator("dialog#record").is_visible()
    page.goto("about:blank")
    page.goto(f"{page_file.as_uri()}#row-constructor")
    assert not page.locator("dialog#record").is_visible()


def test_hostile_names_stay_text(page: Any) -> None:
    shown = page.locator("button.row", has_text="onerror").first
    assert "<img src=x onerror=alert(1)>" in shown.inner_text()
    shown.click()
    title = page.locator("#record-title").inner_text()
    assert "<img src=x onerror=alert(1)>" in title
    assert page.locator("main img, dialog img, main b").count() == 0
    assert page.evaluate("document.querySelectorAll('script[src], link, iframe').length") == 0


def test_fronts_are_drawn_with_words(page: Any) -> None:
    plots = page.locator("svg.plot[role=img]")
    assert plots.count() >= 2
    captions = [each.inner_text() for each in page.locator("figcaption").all()]
    assert "mean score against size" in captions


def test_it_fits_a_narrow_screen_and_dark_mode(browser: Any, page_file: Path) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
    opened = context.new_page()
    opened.goto(page_file.as_uri())
    assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    paper = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(13, 17, 23)"
    context.close()
