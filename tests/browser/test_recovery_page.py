"""The report in a real browser: what readers do with it, and that what models wrote stays text."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.report.page import visible

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).resolve().parents[1] / "harness" / "html_run.py")))
SHOWN_NAME = visible(kit.NAME)
CONTRASTS = """() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map((part) => {
      const v = Number(part) / 255;
      return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = getComputedStyle(document.body).backgroundColor;
  const marks = [0, 1, 2, 3, 4, 5, 6, 7].map((i) => `.c${i}`).join(', ');
  return [...document.querySelectorAll(`p, th, td, a, .good, .bad, .open, .soft, ${marks}`)].map((e) => {
    const style = getComputedStyle(e);
    const back = style.backgroundColor.endsWith(', 0)') ? paper : style.backgroundColor;
    const [a, b] = [light(style.color), light(back)];
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.className.baseVal ?? e.className];
  });
}"""
VARIANTS = "#variants tbody tr"


def names(page: Any) -> list[str]:
    return [text.strip() for text in page.locator(f"{VARIANTS}:visible th").all_text_contents()]


def choose(page: Any, variant: str, verdict: str = "all") -> None:
    page.locator("#samples-view select").first.select_option(label=variant)
    page.locator("#samples-view").get_by_label("verdict").select_option(verdict)


def test_columns_sort_both_ways_and_say_so(watched: Any) -> None:
    page = watched.open()
    header = page.locator("#variants thead th", has_text="mean recovery")
    before = names(page)
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    descending = names(page)
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    ascending = names(page)
    # The reference has no recovery: it stays last both ways.
    assert descending[-1] == ascending[-1] == "dense" and descending[:-1] == ascending[:-1][::-1]
    assert sorted(before) == sorted(ascending) and len(before) == 3
    page.locator("#variants thead th", has_text="MB").get_by_role("button").click()
    assert header.get_attribute("aria-sort") is None


def test_rows_filter_by_choice_and_by_text(watched: Any) -> None:
    page = watched.open()
    bar = page.locator(".filters[data-for=recovery]")
    rows = page.locator("#recovery tbody tr:visible")
    assert rows.count() == 4 and bar.locator("output").text_content() == "4 rows"
    bar.get_by_label("variant").select_option(SHOWN_NAME)
    assert rows.count() == 2
    bar.get_by_label("skill").select_option("gsm8k")
    assert rows.count() == 1 and bar.locator("output").text_content() == "1 of 4 rows"
    bar.get_by_label("variant").select_option("")
    bar.get_by_label("Search").fill("INT8")
    assert rows.count() == 1 and "int8" in rows.first.text_content()
    bar.get_by_label("Search").fill("no such words")
    assert rows.count() == 0 and bar.locator("output").text_content() == "0 of 4 rows"


def test_an_item_opens_and_closes_by_keyboard(watched: Any) -> None:
    page = watched.open()
    choose(page, "int8", "changed")
    first = page.locator("#samples-view button.item").first
    first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#samples-view .opened .sides")
    assert first.get_attribute("aria-expanded") == "true"
    sides = page.locator("#samples-view .opened .sides > div")
    assert sides.count() == 2
    assert "dense (baseline)" in sides.nth(0).text_content() and "int8" in sides.nth(1).text_content()
    assert "answer" in sides.nth(0).locator(".answer").text_content()
    # What differs between the two answers is marked.
    assert page.locator("#samples-view .opened mark").count() == 2
    page.keyboard.press("Enter")
    page.locator("#samples-view .opened").wait_for(state="detached")
    assert first.get_attribute("aria-expanded") == "false"


def test_the_whole_page_is_reached_by_tab_alone(watched: Any) -> None:
    page = watched.open()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.tagName + ' ' + (document.activeElement.className || '')"))
    assert {"BUTTON sort", "SELECT ", "INPUT ", "DIV scroll"} <= seen
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline not in ("none", "")


def test_items_filter_by_skill_verdict_length_and_text(watched: Any) -> None:
    page = watched.open()
    choose(page, "int8", "all")
    view = page.locator("#samples-view")
    count = view.locator("output")
    assert count.text_content() == f"{2 * kit.N} rows"
    view.get_by_label("skill").select_option(label="gsm8k")
    assert count.text_content() == f"{kit.N} of {2 * kit.N} rows"
    view.get_by_label("verdict").select_option("lost")
    assert count.text_content() == f"1 of {2 * kit.N} rows"
    assert view.locator("tbody td .bad").text_content() == "lost"
    view.get_by_label("verdict").select_option("gained")
    assert view.locator("tbody td .good").count() == 1
    view.get_by_label("verdict").select_option("all")
    view.get_by_label("answer length").select_option("longest")
    assert count.text_content() == f"0 of {2 * kit.N} rows"
    view.get_by_label("answer length").select_option("")
    view.get_by_label("Search texts").fill("answer 17,")
    view.locator("output", has_text=f"1 of {2 * kit.N} rows").wait_for(state="attached")
    assert "00017" in view.locator("tbody th").text_content()


def test_items_sort_and_more_of_them_can_be_shown(watched: Any) -> None:
    page = watched.open()
    choose(page, SHOWN_NAME, "all")
    view = page.locator("#samples-view")
    assert view.locator("tbody tr").count() == 40
    view.get_by_role("button", name="Show more").click()
    assert view.locator("tbody tr").count() == 2 * kit.N
    view.locator("thead th", has_text="characters").get_by_role("button").click()
    first = view.locator("tbody tr").first
    assert first.locator("td").nth(5).text_content() == str(len(kit.LONG))
    view.locator("thead th", has_text="characters").get_by_role("button").click()
    assert int(view.locator("tbody tr").first.locator("td").nth(5).text_content()) < 20


def test_hostile_answers_are_shown_as_they_are_and_run_nothing(watched: Any) -> None:
    page = watched.open()
    choose(page, SHOWN_NAME, "all")
    view = page.locator("#samples-view")
    view.get_by_label("skill").select_option(label="gsm8k")
    buttons = view.locator("button.item")
    texts = list(kit.HOSTILE.values())
    for i in range(len(texts)):
        buttons.nth(i).click()
        answer = view.locator(".opened .sides > div").nth(1).locator(".answer").first
        assert answer.text_content() == visible(texts[i])
        assert answer.locator("img, script, svg, style, a").count() == 0
        buttons.nth(i).click()
    buttons.nth(len(texts)).click()
    opened = view.locator(".opened")
    opened.locator(".sides").wait_for()
    # A line of a million characters is cut, says so, and does not widen the page.
    assert "20000 of 1000000 characters" in opened.text_content()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("window.__pwned") is None


def test_hostile_names_reasons_and_events_are_text(watched: Any) -> None:
    page = watched.open()
    assert page.evaluate("window.__pwned") is None
    assert page.locator("img, iframe, object, embed, a[href^=javascript]").count() == 0
    assert page.locator("script").count() == page.evaluate(
        "[...document.scripts].filter((s) => s.type || s.parentNode === document.body).length"
    )
    assert SHOWN_NAME in names(page)
    events = page.locator("#events tbody").text_content()
    assert all(kit.HOSTILE[key] in events for key in ("image", "script", "comment"))
    assert page.locator("main").evaluate("e => getComputedStyle(e).display") == "block"


def test_the_policy_stops_what_would_still_get_in(watched: Any) -> None:
    """Inserted script, event handler, image, style and HTML strings: the browser itself refuses."""
    # Only this test provokes messages of the browser, which tells of the image before its policy stops it.
    watched.provoked = ("Content Security Policy", "Trusted", "http://127.0.0.1:9/x.png")
    page = watched.open()
    page.evaluate("""() => {
      window.refused = [];
      document.addEventListener('securitypolicyviolation', (e) => window.refused.push(e.effectiveDirective));
      const script = document.createElement('script');
      try { script.textContent = 'window.__pwned = 2'; } catch (error) { window.refused.push('trusted-types'); }
      const image = document.createElement('img');
      image.src = 'http://127.0.0.1:9/x.png';
      const paragraph = document.createElement('p');
      paragraph.setAttribute('style', 'color: red');
      try { paragraph.innerHTML = '<b>x</b>'; } catch (error) { window.refused.push('innerHTML'); }
      document.body.append(script, image, paragraph);
    }""")
    refused: list[str] = []
    for _ in range(100):
        refused = page.evaluate("window.refused")
        if "img-src" in refused:
            break
        page.wait_for_timeout(50)
    assert {"trusted-types", "innerHTML", "img-src", "style-src-attr"} <= set(refused)
    assert page.evaluate("window.__pwned") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_modes(watched: Any, scheme: str) -> None:
    page = watched.open(color_scheme=scheme)
    pairs = page.evaluate(CONTRASTS)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(13, 17, 23)")
    assert len(pairs) > 100
    # WCAG 2.1: 4.5 for text, 3 for marks of plots.
    assert [p for p in pairs if p[0] < (3.0 if p[1].startswith(("c", "plot")) else 4.5)] == []


def test_on_paper_controls_are_gone_and_everything_is_open(watched: Any, tmp_path: Path) -> None:
    page = watched.open(color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator(".filters:visible, nav:visible, button.more:visible").count() == 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    pdf = page.pdf(path=str(tmp_path / "page.pdf"))
    assert pdf[:5] == b"%PDF-" and len(pdf) > 20_000


def test_a_narrow_screen_scrolls_tables_not_the_page(watched: Any) -> None:
    page = watched.open(viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#variants").evaluate("e => e.offsetWidth > e.parentElement.clientWidth")


def test_without_scripts_tables_and_plots_are_there(watched: Any) -> None:
    page = watched.open(java_script_enabled=False)
    assert page.locator("#recovery tbody tr:visible").count() == 4
    assert page.locator("svg.plot[role=img]").count() >= 4
    assert page.locator(".filters:visible").count() == 0


def test_every_plot_has_a_title_and_a_description(watched: Any) -> None:
    page = watched.open()
    for svg in page.locator("svg[role=img]").all():
        title, described = svg.get_attribute("aria-labelledby").split()
        assert page.locator(f"[id='{title}']").text_content()
        assert page.locator(f"[id='{described}']").text_content()
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("key", ["tradeoff", "layers", "provenance"])
def test_links_lead_to_their_section(watched: Any, key: str) -> None:
    page = watched.open()
    page.locator("html.laid-out").wait_for(state="attached")
    page.locator(f"nav a[href='#{key}']").click()
    top, at_end = 0.0, False
    for _ in range(100):
        top = page.locator(f"#{key}").evaluate("e => e.getBoundingClientRect().top")
        at_end = page.evaluate("innerHeight + scrollY >= document.documentElement.scrollHeight - 2")
        if abs(top) < 40 or at_end:
            break
        page.wait_for_timeout(50)
    assert abs(top) < 40 or at_end
