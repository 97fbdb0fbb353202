"""Markdown made by hand: tables that also read well as plain text, and numbers the way the tables print them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.records import RecoveryResult, SuiteResult

_ESCAPES = str.maketrans({"|": "\\|", "\n": " ", "\r": " ", "<": "&lt;", ">": "&gt;", "`": "'"})


def escape(text: str) -> str:
    """Make `text` safe inside a table cell: pipes, line breaks, backticks and HTML brackets."""
    return text.translate(_ESCAPES)


def escape_text(text: str) -> str:
    """Make running text safe: HTML brackets and line breaks; code marks stay."""
    return text.replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ").replace("\r", " ")


_INVISIBLE = "\u200b"
_UNTRUSTED = str.maketrans(
    {
        "&": "&amp;",
        "<": "&lt;",
        ">": "&gt;",
        "`": "'",
        **{mark: "\\" + mark for mark in "\\|*_~"},
        # Mentions and references are looked for in the rendered text: only a character between stops them.
        "@": "@" + _INVISIBLE,
        "#": "#" + _INVISIBLE,
    }
)


def escape_untrusted(text: str, *, most: int = 600) -> str:
    """Make text that a stranger chose safe in Markdown that GitHub shows: it stays text, on one line, cut at `most`.

    Neither HTML nor formatting, links, images, mentions, references to issues, or addresses that become links.
    """
    line = "".join(character if character.isprintable() else " " for character in text)
    cut = line if len(line) <= most else line[:most] + "…"
    safe = cut.translate(_UNTRUSTED).replace("](", "]\\(").replace("][", "]\\[").replace("]:", "]\\:")
    return safe.replace("://", f":{_INVISIBLE}//").replace("www.", f"www{_INVISIBLE}.")


@dataclass(slots=True)
class Notes:
    """Numbered foot notes; the same text keeps the same number."""

    texts: list[str] = field(default_factory=list)

    def mark(self, text: str) -> str:
        """Return the mark for `text`, for example `(1)`."""
        if text not in self.texts:
            self.texts.append(text)
        return f"({self.texts.index(text) + 1})"

    def missing(self, reason: str | None) -> str:
        """Return the cell for a value that does not exist, with the note that says why."""
        return f"— {self.mark(reason or 'not recorded')}"

    def lines(self) -> list[str]:
        """Return the notes as Markdown list items."""
        return [f"- ({number}) {escape(text)}" for number, text in enumerate(self.texts, start=1)]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Return the lines of an aligned table; the first `left` columns are left-aligned, the others right-aligned.

    Cells must be escaped already.
    """
    widths = [max(3, *(len(row[i]) for row in [header, *rows])) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = [("-" * width if i < left else "-" * (width - 1) + ":") for i, width in enumerate(widths)]
    return [line(header), "| " + " | ".join(rule) + " |", *(line(row) for row in rows)]


def replaced(document: str, begin: str, end: str, made: str) -> str:
    """A document in which `made`, which has both lines itself, stands for all from the line `begin` to the line `end`.

    Raises:
        ValueError: It lacks one of the lines.
    """
    before, found, rest = document.partition(begin)
    _, ended, after = rest.partition(end + "\n")
    if not found or not ended:
        raise ValueError(f"the document lacks the lines {begin!r} and {end!r}")
    return before + made + after


def percent(value: float, digits: int = 1) -> str:
    """Print a fraction as a percentage without the sign: 0.8745 -> `87.5`; never `-0.0`."""
    text = f"{100 * value:.{digits}f}"
    return text[1:] if text.startswith("-") and not text.strip("-0.") else text


def with_half_width(value: float, ci95: tuple[float, float] | None) -> str:
    """Print a fraction as `87.5 ± 2.1`, half the width of its interval after the sign."""
    if ci95 is None:
        return percent(value)
    return f"{percent(value)} ± {percent((ci95[1] - ci95[0]) / 2)}"


def with_interval(value: float, ci95: tuple[float, float] | None, *, signed: bool = False) -> str:
    """Print a fraction as `87.5 [85.2, 89.4]`."""
    text = percent(value)
    if signed and value > 0 and text.strip("0."):
        text = "+" + text
    return text if ci95 is None else f"{text} [{percent(ci95[0])}, {percent(ci95[1])}]"


def score_cell(result: SuiteResult | RecoveryResult, notes: Notes) -> str:
    """Return `value ± half-width` in per cent, or the mark of the reason why there is none.

    A value that comes with a reason (an incomplete cell, a mean without all suites) carries its mark too.
    """
    if result.value is None:
        return notes.missing(result.reason)
    text = with_half_width(result.value, result.ci95)
    return f"{text} {notes.mark(result.reason)}" if result.reason else text


def problems_of(result: SuiteResult) -> str:
    """Say which of a cell's items were not answered as planned; empty where all were."""

    def items(n: int, what: str) -> list[str]:
        return [f"{n} {'item' if n == 1 else 'items'} {what}"] if n else []

    cut_answers = result.n_truncated - result.n_truncated_input
    parts = items(result.n_error, "failed (counted as 0)")
    parts += items(result.n_refused, "refused by a content filter (counted as 0)")
    parts += items(result.n_truncated_input, "did not fit the model (counted as 0)")
    parts += items(cut_answers, "with the answer cut at the token limit (scored as it is)")
    return "; ".join(parts)


def megabytes(size: int | None, notes: Notes, reason: str | None) -> str:
    """Print a size in MB (10^6 bytes)."""
    return notes.missing(reason) if size is None else f"{size / 1e6:.1f}"
