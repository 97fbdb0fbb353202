"""The page's shell: escaping, policy, tables, plots."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report.page import (
    Axis,
    Cell,
    Column,
    Guide,
    Html,
    Plot,
    Point,
    Series,
    document,
    element,
    figure,
    joined,
    json_block,
    number_cell,
    packed_block,
    sortable_table,
    visible,
)
from harness.report.page.scale import fitted
from harness.report.pareto import pareto_front

HOSTILE = [
    "</script><script>window.__pwned = 1</script>",
    "<!--",
    "<img src=x onerror=window.__pwned=1>",
    '" onmouseover="window.__pwned=1',
    "' autofocus onfocus='window.__pwned=1",
    "a\u2028b\u2029c",
    "\ud800 lone \udfff",
    "nul \x00 bell \x07",
    "\u202egnp.exe",
    "javascript:window.__pwned=1",
    "${window.__pwned=1} {{7*7}} `x`",
    "</title></style></svg></desc>",
]


class Reader(HTMLParser):
    """Elements with their attributes, and all text."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    reader = read(element("p", text, attributes={"title": text}))
    assert [tag for tag, _ in reader.seen] == ["p"]
    assert "".join(reader.texts) == visible(text) == reader.seen[0][1]["title"]


@given(st.text(st.characters(codec=None)))
def test_any_text_comes_out_as_it_went_in(text: str) -> None:
    html = element("p", text, attributes={"title": text})
    html.encode("utf-8")
    reader = read(html)
    assert [tag for tag, _ in reader.seen] == ["p"]
    # A parser turns carriage returns into newlines; here there are none left.
    assert "".join(reader.texts) == visible(text)


@given(st.text(st.characters(codec=None)))
def test_visible_text_stays_as_it_is_and_can_be_encoded(text: str) -> None:
    once = visible(text)
    once.encode("utf-8")
    assert visible(once) == once
    assert not set(once) & {"\x00", "\u202e", "\u2028", "\ud800", "\r"}


def test_ordinary_text_is_not_touched() -> None:
    assert visible("naïve 漢字 🎉\tmot\nשלום") == "naïve 漢字 🎉\tmot\nשלום"
    assert visible("a\x00b\u202ec\ud800") == "a\u2400b\u27e8U+202E\u27e9c\u27e8U+D800\u27e9"


@pytest.mark.parametrize("attribute", ["onclick", "style", "src", "href", "formaction", "srcdoc"])
def test_attributes_that_run_or_load_are_refused(attribute: str) -> None:
    with pytest.raises(ValueError, match="not allowed"):
        element("a", "x", attributes={attribute: "javascript:alert(1)"})
    assert element("a", "x", attributes={"href": "#top"}) == '<a href="#top">x</a>'


@pytest.mark.parametrize("text", HOSTILE)
def test_blocks_hold_data_and_nothing_ends_them(text: str) -> None:
    plain, packed = json_block("plain", {"x": text}), packed_block("coded", [text])
    inside = re.fullmatch(r'<script type="application/json" id="plain">(.*)</script>', plain)
    assert inside and json.loads(inside[1]) == {"x": text}
    assert not set("<>&") & set(inside[1])
    coded = re.fullmatch(r'<script type="application/gzip" id="coded">([A-Za-z0-9+/=]*)</script>', packed)
    assert coded and json.loads(gzip.decompress(base64.b64decode(coded[1]))) == [text]


def test_blocks_are_the_same_every_time_and_refuse_nan() -> None:
    assert packed_block("a", [1, "x"]) == packed_block("a", [1, "x"])
    with pytest.raises(ValueError, match="JSON"):
        json_block("a", float("nan"))
    with pytest.raises(ValueError, match="id of a data block"):
        json_block('a"><script>', 1)


def test_the_policy_names_exactly_the_scripts_and_styles_of_the_page() -> None:
    html = document("T <b>", joined(["x < y"]), style="p { margin: 0 }", script="let mine = 1;")
    policy = read(html).seen[3][1]["content"] or ""
    assert read(html).seen[3][1]["http-equiv"] == "Content-Security-Policy"
    for name in ("style", "script"):
        contents = re.findall(rf"<{name}>(.*?)</{name}>", html, re.S)
        hashes = [base64.b64encode(hashlib.sha256(c.encode()).digest()).decode() for c in contents]
        assert len(hashes) == 2
        assert f"{name}-src " + " ".join(f"'sha256-{h}'" for h in hashes) in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy and "http" not in policy
    assert "<title>T &lt;b&gt;</title>" in html and "x &lt; y" in html


@pytest.mark.parametrize("bad", ["</script>", "<!-- x", "<SCRIPT>", "</style>"])
def test_scripts_cannot_end_their_element(bad: str) -> None:
    with pytest.raises(ValueError, match="marks"):
        document("t", Html(""), script=f"let x = '{bad}'")


def test_a_page_refers_to_nothing_outside() -> None:
    html = document("t", figure("f", small_plot()))
    for tag, attributes in read(html).seen:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form"}
        assert not {"src", "style"} & attributes.keys()
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")


def test_a_table_has_headings_sort_keys_and_choices() -> None:
    columns = [Column("name"), Column("suite", filter=True), Column("value", kind="number", tip="per cent")]
    rows = [
        ["a", "x", number_cell("10.0", 0.1)],
        [Cell(HOSTILE[0], kind="good"), "y", number_cell("—", None)],
        ["c", "x", number_cell("9.5", 0.095)],
    ]
    reader = read(sortable_table("t1", "Values", columns, rows))
    tags = [tag for tag, _ in reader.seen]
    assert (tags.count("button"), tags.count("option"), tags.count("tr")) == (3, 3, 4)
    assert [a["data-v"] for t, a in reader.seen if t == "td" and "data-v" in a] == ["0.1", "0.095"]
    assert "script" not in tags
    with pytest.raises(ValueError, match="zip"):
        sortable_table("t2", "Short", columns, [["only"]])


def small_plot(**changed: object) -> Plot:
    points = [Point(1, 2, "one", "A", y_range=(1.5, 2.5)), Point(10, 3, "two", "B")]
    values: dict[str, object] = {
        "title": "Title <b>",
        "description": "What there is to see.",
        "x": Axis("x"),
        "y": Axis("y"),
        "series": [Series("first", points, line=True), Series("second", points, solid=False)],
        "guides": [Guide("y", 2.2, "limit"), Guide("x", 0.9, "noise", until=1.1)],
    }
    return Plot(**{**values, **changed})  # type: ignore[arg-type]


def test_a_figure_says_in_words_what_it_is() -> None:
    html = figure("f1", small_plot())
    reader = read(html)
    svg = next(attributes for tag, attributes in reader.seen if tag == "svg")
    assert svg["role"] == "img" and svg["aria-labelledby"] == "f1-t f1-d"
    assert "Title <b>" in reader.texts and "What there is to see." in reader.texts
    assert {"first", "second", "limit", "noise"} <= set(reader.texts)
    # Series differ by shape and dash too, not by colour alone.
    assert "line d0" in html and len({a["d"][-20:] for t, a in reader.seen if a.get("class") == "mark solid"}) == 1


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=6),
    st.booleans(),
)
def test_a_scale_holds_its_values_and_has_rising_ticks(values: list[float], log: bool) -> None:
    scale = fitted(values, (0.0, 100.0), log=log)
    assert all(a < b for a, b in pairwise(scale.ticks)) and len(scale.ticks) >= 2
    for value in values:
        if scale.holds(value):
            assert -1e-6 <= scale.at(value) <= 100 + 1e-6


def test_values_that_have_no_place_are_left_out() -> None:
    points = [Point(float("nan"), 1), Point(0, 1), Point(5, float("inf")), Point(5, 1)]
    html = figure("f", small_plot(series=[Series("s", points)], x=Axis("x", log=True), guides=()))
    assert "nan" not in html and "inf" not in html
    assert html.count("a4 4") == 2  # one mark: two arcs


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_the_pareto_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    def beaten(p: tuple[int, int]) -> bool:
        return any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in points)

    assert sorted(pareto_front(points)) == [i for i, p in enumerate(points) if not beaten(p)]
