"""The verb `compare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """What a user may say.

    Attributes:
        suites: only these; empty means all.
        flips: changed items to show a suite.
        allow_different_data: pair by item although data, prompts or template differ.
        markdown: file that the Markdown is appended to.
        as_json: print JSON instead of text.
    """

    suites: tuple[str, ...] = ()
    flips: int = 0
    allow_different_data: bool = False
    markdown: Path | None = None
    as_json: bool = False


def run_compare(a: str, b: str, options: CompareOptions) -> str:
    """Compare what `a` and `b` name, write the Markdown that was asked for, and return what is to be printed.

    Raises:
        ConfigError: As `pair_sides` and `compare_sides`.
        CorruptRecordError: A record is damaged.
    """
    from harness.compare.compute import compare_sides
    from harness.compare.render import as_json, as_markdown, as_text
    from harness.compare.sides import pair_sides

    pairs, notes = pair_sides(a, b)
    comparisons = [
        compare_sides(left, right, suites=options.suites, allow_different=options.allow_different_data)
        for left, right in pairs
    ]
    if options.markdown is not None:
        from harness.report.gate_markdown import append_markdown

        append_markdown(options.markdown, as_markdown(comparisons, notes, flips=options.flips))
    if options.as_json:
        return as_json(comparisons, notes)
    return as_text(comparisons, notes, flips=options.flips)
