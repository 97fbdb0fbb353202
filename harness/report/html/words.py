"""Numbers, verdicts and missing values as the report's sections show them."""

from __future__ import annotations

from harness.records import Summary, VariantSummary
from harness.report.markdown import percent, with_interval
from harness.report.page import Cell, Html, element, joined

SHOWN = 120
"""Rows of a long table that are open at first."""

_KINDS = {
    "within margins": "good",
    "within": "good",
    "outside a margin": "bad",
    "outside": "bad",
    "undecided": "open",
    "no verdict": "open",
    "faster": "good",
    "slower": "bad",
    "not decided": "open",
    "unconfirmed": "open",
}


def badge(said: str) -> Html:
    """A verdict as a word with a colour; the word alone says it too."""
    return element("span", said, attributes={"class": _KINDS.get(said)})


def name_of(text: str) -> Html:
    """A name from a record, kept apart from the direction of the text around it."""
    return element("bdi", text)


def missing(reason: str | None) -> Html:
    """A dash for a value that does not exist, with the reason beside it."""
    return joined(["— ", element("span", f"({reason or 'not recorded'})", attributes={"class": "soft"})])


def percent_cell(
    value: float | None, ci95: tuple[float, float] | None, reason: str | None = None, *, signed: bool = False
) -> Cell:
    """A fraction in per cent with its interval; why there is none where there is none."""
    if value is None:
        return Cell(missing(reason), None, "why")
    shown = with_interval(value, ci95, signed=signed)
    return Cell(joined([shown, " *"]) if reason else shown, value)


def plain_percent(value: float | None) -> Cell:
    """A fraction in per cent."""
    return Cell("—" if value is None else percent(value), value)


def section(identifier: str, title: str, *parts: str | Html | None) -> Html:
    """A section of the report with its heading."""
    heading = element("h2", title, attributes={"id": f"{identifier}-h"})
    inside = joined([heading, *parts], "\n")
    return element("section", inside, attributes={"id": identifier, "aria-labelledby": f"{identifier}-h"})


def paragraph(*parts: str | Html) -> Html:
    """Running text."""
    return element("p", *parts)


def note(*parts: str | Html, warning: bool = False) -> Html:
    """A remark that readers must not miss."""
    return element("p", *parts, attributes={"class": "note warning" if warning else "note"})


def plural(count: int, what: str) -> str:
    """`1 item`, `2 items`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def listed(names: list[str], most: int | None = None) -> Html:
    """Names with commas between them; of more than `most`, so many and how many more there are."""
    shown = joined([name_of(name) for name in names[:most]], ", ")
    return shown if most is None or len(names) <= most else joined([shown, f" and {len(names) - most:,} more"])


def ordered(summary: Summary) -> list[VariantSummary]:
    """References first, then by mean recovery, best first; those without one last."""

    def rank(variant: VariantSummary) -> tuple[int, float, str]:
        mean = variant.recovery.get("mean")
        if variant.baseline is None:
            return 0, 0.0, variant.name
        if mean is None or mean.value is None:
            return 2, 0.0, variant.name
        return 1, -mean.value, variant.name

    return sorted(summary.variants, key=rank)
