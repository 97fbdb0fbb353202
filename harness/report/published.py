"""What is published for a study's variants beside what the study found: pure, from the summary alone.

`published_rows` gives the rows that `summary.json` keeps; every report shows those.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from harness.expected import MEAN, ExpectedSpec
from harness.records import SuiteResult, Summary
from harness.report.cells import DIGITS
from harness.report.markdown import Notes, escape, table
from harness.schema.base import Interval
from harness.schema.published import PublishedRow, Verdict

NOT_COMPARABLE = "published for another model than the one that was run"
_Found = tuple[float | None, Interval | None, str | None]
"""Value, 95 % interval, reason; scores and recoveries as fractions."""


def published_rows(expected: Iterable[ExpectedSpec], summary: Summary, *, scaled: bool = False) -> list[PublishedRow]:
    """The study's `expected:` beside its own values, in the study's order.

    Args:
        expected: Of the study.
        summary: Of its run.
        scaled: The study was cut down to another model, so that nothing is judged.
    """
    return [_row(spec, summary, scaled) for spec in expected]


def agreement(value: float, ci95: Interval | None, published: float, tolerance: float) -> Verdict:
    """Whether a value agrees with a published one, by its 95 % interval or, without one, by itself.

    Args:
        value: Ours.
        ci95: Its interval, or None.
        published: What it is held against, in the same scale.
        tolerance: How far off is still the same.
    """
    # Scales are decimal: 0.3 off is within 0.3, whatever binary fractions make of it.
    slack = 1e-9 * max(1.0, abs(published))
    low, high = published - tolerance - slack, published + tolerance + slack
    ours = ci95 or (value, value)
    if low <= ours[0] and ours[1] <= high:
        return "yes"
    return "no" if ours[1] < low or ours[0] > high else "undecided"


def _row(spec: ExpectedSpec, summary: Summary, scaled: bool) -> PublishedRow:
    value, ci95, reason = _found(spec, summary)
    by = 100.0 if spec.scale == "percent" else 1.0
    ours = None if value is None else _cut(by * value)
    interval = None if ci95 is None else (_cut(by * ci95[0]), _cut(by * ci95[1]))
    verdict: Verdict
    if scaled:
        verdict = "not comparable"
        reason = f"{NOT_COMPARABLE}; {reason or 'not measured here'}" if ours is None else NOT_COMPARABLE
    elif ours is None:
        verdict, reason = "not measured", reason or "not in the summary"
    else:
        verdict = agreement(ours, interval, spec.value, spec.tolerance)
    told = {"variant", "what", "suite", "preset", "metric", "workload", "engine", "text", "context"}
    return PublishedRow(
        **spec.model_dump(include=told | {"scale", "tolerance", "source", "verified", "protocol"}),
        label=spec.label(),
        published=spec.value,
        ours=ours,
        ci95=interval,
        difference=None if ours is None or scaled else _cut(ours - spec.value),
        verdict=verdict,
        reason=reason,
    )


def _found(spec: ExpectedSpec, summary: Summary) -> _Found:
    variant = summary.variant(spec.variant)
    if variant is None:
        return None, None, f"the run has no variant {spec.variant}"
    if spec.what == "speed":
        return _speed(spec, summary)
    if spec.what == "perplexity":
        rows = [
            r for r in summary.perplexity if (r.variant, r.text, r.context) == (spec.variant, spec.text, spec.context)
        ]
        return (rows[0].value, rows[0].ci95, None) if rows else (None, None, "perplexity was not measured")
    if spec.what == "recovery":
        ratio = variant.recovery.get(str(spec.suite))
        return (None, None, "the suite was not run") if ratio is None else (ratio.value, ratio.ci95, ratio.reason)
    if spec.suite == MEAN:
        return _mean(variant.suites.values())
    result = variant.suites.get(str(spec.suite))
    if result is None:
        return None, None, "the suite was not run"
    if spec.metric in (None, result.metric):
        return result.value, result.ci95, result.reason
    other = next((metric for metric in result.metrics if metric.name == spec.metric), None)
    if other is None:
        return None, None, result.reason or f"no row has the metric {spec.metric}"
    return other.value, other.ci95, other.reason


def _mean(results: Iterable[SuiteResult]) -> _Found:
    """Mean of the primary metrics; suites are independent, so that half-widths add in squares."""
    found = list(results)
    missing = [result.reason or "no value" for result in found if result.value is None]
    if not found or missing:
        return None, None, f"a suite has no value: {missing[0]}" if missing else "no suite was run"
    value = sum(result.value or 0.0 for result in found) / len(found)
    if any(result.ci95 is None for result in found):
        return value, None, "a suite has no interval"
    below = math.sqrt(sum(((r.value or 0.0) - r.ci95[0]) ** 2 for r in found if r.ci95)) / len(found)
    above = math.sqrt(sum((r.ci95[1] - (r.value or 0.0)) ** 2 for r in found if r.ci95)) / len(found)
    return value, (value - below, value + above), None


def _speed(spec: ExpectedSpec, summary: Summary) -> _Found:
    rows = [row for row in summary.speed if row.variant == spec.variant and row.workload == spec.workload]
    engine = spec.engine or (rows[0].baseline.engine if rows else None)
    row = next((row for row in rows if row.engine == engine), None)
    return (None, None, "no speed panel has such a row") if row is None else (row.ratio, row.ci95, row.reason)


def _cut(value: float) -> float:
    return round(value, DIGITS) + 0.0


# --- Markdown --------------------------------------------------------------------------------------------------------

_UNITS = {"percent": "%", "fraction": "", "times": "x", "perplexity": ""}


def published_section(rows: Sequence[PublishedRow]) -> list[str]:
    """The rows as a section of `recovery.md`; nothing where nothing is published."""
    if not rows:
        return []
    notes = Notes()
    lines = ["## Published values", ""]
    if any(row.verdict == "not comparable" for row in rows):
        lines += [
            "The study was cut down to another model: the published values stand here to be seen, not judged.",
            "",
        ]
    else:
        lines += [
            "*within*: `yes` where our whole 95 % interval is within the tolerance of the published value, `no` where "
            "none of it is, `undecided` where only a part is. A value marked (unverified) was not read in its source.",
            "",
        ]
    body = []
    for row in rows:
        ours = notes.missing(row.reason) if row.ours is None else _number(row.ours, row.ci95)
        if row.ours is not None and row.reason and row.verdict != "not comparable":
            ours += f" {notes.mark(row.reason)}"
        told = f"{row.source}. {row.protocol}" if row.protocol else row.source
        body.append(
            [
                escape(row.variant),
                escape(row.label),
                f"{row.published:g}" + ("" if row.verified else " (unverified)"),
                f"{row.tolerance:g}",
                ours,
                "—" if row.difference is None else f"{row.difference:+.4g}",
                _UNITS[row.scale],
                f"{row.verdict} {notes.mark(told)}",
            ]
        )
    header = ["variant", "of", "published", "±", "ours", "difference", "unit", "within"]
    return [
        *lines,
        *table(header, body, left=2),
        "",
        "Sources, and how their protocols differ from this study's:",
        "",
        *notes.lines(),
        "",
    ]


def _number(value: float, ci95: Interval | None) -> str:
    text = f"{value:.4g}"
    return text if ci95 is None else f"{text} [{ci95[0]:.4g}, {ci95[1]:.4g}]"


def perplexity_section(summary: Summary) -> list[str]:
    """Perplexities as a section of `recovery.md`; nothing where none were measured."""
    if not summary.perplexity:
        return []
    notes = Notes()
    body = []
    for row in summary.perplexity:
        if row.ratio is not None:
            ratio = _number(row.ratio, row.ratio_ci95)
        else:
            ratio = "reference" if row.baseline is None else notes.missing(row.reason)
        where = [escape(row.variant), escape(row.text), str(row.context), str(row.windows)]
        body.append([*where, _number(row.value, row.ci95), ratio])
    header = ["variant", "text", "context", "windows", "perplexity", "times the first variant's"]
    intro = "Windows side by side, intervals over windows, ratios paired by window. The number depends on the context."
    lines = ["## Perplexity", "", intro, "", *table(header, body, left=2), ""]
    return [*lines, *notes.lines(), ""] if notes.texts else lines
