"""Recovery skill by skill: a forest plot of means, and a table of every variant on every suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.records import VariantSummary
from harness.report.html.difficulty import by_difficulty
from harness.report.html.source import Source
from harness.report.html.verdicts import VariantVerdict
from harness.report.html.words import SHOWN, badge, name_of, ordered, paragraph, percent_cell, plain_percent, section
from harness.report.markdown import percent, problems_of, with_interval
from harness.report.page import (
    Axis,
    Cell,
    Column,
    Estimate,
    Forest,
    Guide,
    Html,
    Line,
    element,
    forest,
    number_cell,
    sortable_table,
)

_LINES = 60


def skills(source: Source, verdicts: Sequence[VariantVerdict]) -> Html:
    """The section on recovery by skill."""
    by_name = {verdict.variant: verdict for verdict in verdicts}
    compared = [variant for variant in ordered(source.summary) if by_name[variant.name].overall != "reference"]
    return section(
        "skills",
        "Recovery per skill",
        paragraph(
            "Recovery is variant score / baseline score on the same items; difference is variant − baseline in "
            "percentage points. differ: items whose score changed; lost and gained against the baseline. "
            "Loss p: one-sided test of a loss that flips the signs of whole templates or documents, by Holm's "
            "correction over the suites of the variant."
        ),
        _margins(source, compared, by_name),
        _means(compared) if compared else None,
        _table(source, compared, by_name) if compared else None,
        _references(source, by_name),
        by_difficulty(source, compared),
    )


def _margins(source: Source, compared: Sequence[VariantSummary], verdicts: Mapping[str, VariantVerdict]) -> Html | None:
    """One sentence on the margins, and where they come from."""
    said: dict[str, None] = {}
    for suite in source.summary.study.suites:
        for variant in compared:
            found = verdicts[variant.name].on(suite)
            if found is not None and found.margin is not None:
                said[f"{suite} {percent(found.margin)} ({found.origin})"] = None
    return paragraph("Margins in percentage points: ", "; ".join(said), ".") if said else None


def _means(compared: Sequence[VariantSummary]) -> Html:
    lines = []
    for variant in compared[:_LINES]:
        mean = variant.recovery.get("mean")
        value = None if mean is None else mean.value
        shown = "none" if mean is None or value is None else with_interval(value, mean.ci95)
        interval = None if mean is None or mean.ci95 is None else tuple(100 * v for v in mean.ci95)
        lines.append(Line(variant.name, [Estimate(0, None if value is None else 100 * value, interval, shown)]))  # type: ignore[arg-type]
    title = "Mean recovery of each variant, with its 95 % interval"
    if len(compared) > _LINES:
        title += f" (the first {_LINES} of {len(compared)}; all are in the table)"
    described = f"{len(lines)} variants, from {lines[0].name} to {lines[-1].name}; the table below has the numbers."
    axis = Axis("mean recovery, % of the baseline's score")
    return forest(
        "recovery-means", Forest(title, described, axis, ["mean recovery"], lines, [Guide("x", 100.0, "all of it")])
    )


def _table(source: Source, compared: Sequence[VariantSummary], verdicts: Mapping[str, VariantVerdict]) -> Html:
    columns = [
        Column("variant", filter=True),
        Column("skill", filter=True),
        Column("verdict", filter=True, tip="of the difference against the margin"),
        Column("recovery %", kind="number"),
        Column("difference pp", kind="number"),
        Column("margin pp", kind="number", tip="loss that is allowed, and where it comes from"),
        Column("variant %", kind="number"),
        Column("baseline %", kind="number"),
        Column("n", kind="number"),
        Column("differ", kind="number"),
        Column("lost", kind="number"),
        Column("gained", kind="number"),
        Column("loss p", kind="number"),
        Column("remarks"),
    ]
    rows = [
        _row(source, variant, suite, verdicts[variant.name])
        for variant in compared
        for suite in source.summary.study.suites
    ]
    return sortable_table("recovery", "Every variant on every skill", columns, rows, shown=SHOWN)


def _row(source: Source, variant: VariantSummary, suite: str, verdict: VariantVerdict) -> list[Cell | str]:
    found = verdict.on(suite)
    said = found.said if found is not None else "no verdict"
    head: list[Cell | str] = [Cell(name_of(variant.name)), suite, Cell(badge(said))]
    result, ratio, diff = variant.suites.get(suite), variant.recovery.get(suite), variant.difference.get(suite)
    if result is None or ratio is None or diff is None:
        return [*head, *[Cell("—", None)] * 10, "not in the summary"]
    baseline = source.baseline(variant)
    base = baseline.suites.get(suite) if baseline is not None else None
    margin = found.margin if found is not None else None
    tip = {"title": found.origin if found is not None else None}
    shown = element("span", "—" if margin is None else percent(margin), attributes=tip)
    remarks = [
        part
        for part in (
            found.reason if found else "",
            found.remark if found else "",
            ratio.reason or "",
            result.reason or "",
            problems_of(result),
        )
        if part
    ]
    return [
        *head,
        percent_cell(ratio.value, ratio.ci95, ratio.reason),
        percent_cell(diff.value, diff.ci95, diff.reason, signed=True),
        Cell(shown, margin),
        plain_percent(result.value),
        plain_percent(base.value if base is not None else None),
        number_cell(f"{result.n:,}" + (f" of {result.n_total:,}" if result.n < result.n_total else ""), result.n),
        number_cell(f"{diff.n_discordant:,}", diff.n_discordant),
        number_cell(f"{diff.b10:,}", diff.b10),
        number_cell(f"{diff.b01:,}", diff.b01),
        number_cell("—" if diff.p_loss_holm is None else f"{diff.p_loss_holm:.2g}", diff.p_loss_holm),
        "; ".join(dict.fromkeys(remarks)),
    ]


def _references(source: Source, verdicts: Mapping[str, VariantVerdict]) -> Html | None:
    rows: list[list[Cell | str]] = []
    for variant in ordered(source.summary):
        if verdicts[variant.name].overall != "reference":
            continue
        for suite in source.summary.study.suites:
            result = variant.suites.get(suite)
            head: list[Cell | str] = [Cell(name_of(variant.name)), suite]
            if result is None:
                rows.append([*head, "", Cell("—", None), Cell("—", None), "not in the summary"])
                continue
            value = percent_cell(result.value, result.ci95, result.reason)
            rows.append([*head, result.metric, value, number_cell(f"{result.n:,}", result.n), problems_of(result)])
    if not rows:
        return None
    columns = [Column("reference"), Column("skill"), Column("metric"), Column("score %", kind="number")]
    columns += [Column("n", kind="number"), Column("remarks")]
    return sortable_table("references", "Scores of the references", columns, rows, search=False)
