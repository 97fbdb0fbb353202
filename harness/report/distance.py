"""The distance of a variant to its baseline, for the recovery report and for `compare`."""

from __future__ import annotations

from collections.abc import Iterator

from harness.distance.render import HEADER, distance_cells
from harness.records import VariantSummary
from harness.report.markdown import escape, percent, table
from harness.schema.distance import DistanceResult, TextDistance


def distance_section(variant: VariantSummary) -> list[str]:
    """A row a text, with the items whose score changed beside it; nothing where it was not measured."""
    found = variant.distance
    if found is None:
        return []
    rows = []
    for text in found.texts:
        flips = variant.difference.get(text.text)
        differ = "—" if flips is None or not flips.n else f"{percent(flips.n_discordant / flips.n)}"
        rows.append([escape(text.text), f"{text.tokens:,}", f"{text.prompts:,}", *distance_cells(text), differ])
    lines = [
        f"Distance to {escape(found.baseline)} on fixed text (reference answers, token by token; greedy continuations "
        f"of at most {found.new_tokens} tokens), with the share of items whose score differs beside it:",
        "",
        *table(["text", "tokens", "prompts", *HEADER, "items that differ %"], rows),
        "",
    ]
    lines += [f"- {escape(t.text)}: {t.left_out} documents do not fit the context" for t in found.texts if t.left_out]
    return [*lines, ""] if any(text.left_out for text in found.texts) else lines


def methods_of(text: TextDistance) -> set[str]:
    """How the intervals of a text were made."""
    return {text.top1.method, text.kl.method, text.never.method, text.first_token.method}


def distance_remarks(found: DistanceResult) -> Iterator[str]:
    """One line a text, for `compare`."""
    for text in found.texts:
        cells = ", ".join(f"{name} {cell}" for name, cell in zip(HEADER, distance_cells(text), strict=True))
        yield f"distance, {text.text}: {cells}"
