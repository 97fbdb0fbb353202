"""The recovery report: variant by variant, what was kept, what was lost, where, and at what speed."""

from __future__ import annotations

from harness.records import GroupValue, RecoveryResult, SpeedRow, Summary, VariantSummary
from harness.report.distance import distance_section, methods_of
from harness.report.leaderboard import order
from harness.report.markdown import (
    Notes,
    escape,
    escape_text,
    megabytes,
    percent,
    problems_of,
    table,
    with_interval,
)
from harness.report.methods import explain
from harness.report.metrics import other_metrics
from harness.report.published import perplexity_section, published_section


def recovery_markdown(summary: Summary) -> str:
    """Return `recovery.md`."""
    lines = [
        f"# Recovery: {escape(summary.study.name)}",
        "",
        "Every variant against its baseline on the same items. All values in %, with 95 % intervals in brackets. "
        "*differ*: items whose score changed; *gained* (b01) and *lost* (b10) against the baseline; "
        "*p*: exact McNemar test, items taken alone; *p loss*: one-sided test of a loss that flips the signs of whole "
        "templates, and *Holm*: the same over the suites of the variant. The mean of recoveries weighs suites equally; "
        "the recovery of means weighs them by the baseline's score.",
        "",
    ]
    for variant in order(summary.variants):
        lines += _variant(variant, summary)
    lines += perplexity_section(summary)
    lines += _speed(summary)
    lines += published_section(summary.published)
    lines += _environment(summary)
    return "\n".join(lines)


def _value(group: GroupValue | None) -> str:
    return "—" if group is None or group.value is None else percent(group.value)


def _facts(variant: VariantSummary, notes: Notes) -> str:
    sparsity = variant.sparsity
    if sparsity.linears is None or sparsity.model is None:
        zeros = f"sparsity: {notes.missing(sparsity.reason)}"
    else:
        zeros = f"{percent(sparsity.linears)} % of the linears and {percent(sparsity.model)} % of the model are zero"
    unknown = variant.weight_bits is None
    bits = f"bits: {notes.missing(variant.reason)}" if unknown else f"{variant.weight_bits}-bit linears"
    size = "size: " if variant.bytes is None else ""
    size += megabytes(variant.bytes, notes, variant.reason) + ("" if variant.bytes is None else " MB")
    made = f"recipe {escape(variant.recipe)}" if variant.recipe else "made elsewhere"
    return f"Made from {escape(variant.base)}, {made}; {zeros}; {bits}; {size}."


def _variant(variant: VariantSummary, summary: Summary) -> list[str]:
    notes = Notes()
    against = f" against {escape(variant.baseline)}" if variant.baseline else " (reference)"
    lines = [f"## {escape(variant.name)}{against}", "", _facts(variant, notes), ""]
    lines += _scores(variant, summary, notes) if variant.baseline else _reference_scores(variant, summary, notes)
    lines += other_metrics(variant, summary)
    lines += distance_section(variant)
    lines += _breakdown(variant, summary)
    if notes.texts:
        lines += [*notes.lines(), ""]
    if variant.events:
        lines += ["Events while it was made:", ""]
        lines += [f"- {escape(e.kind)} at {escape(e.where)}: {escape(e.detail)}" for e in variant.events]
        lines.append("")
    return lines


def _counted(variant: VariantSummary, suite: str, notes: Notes) -> str:
    """Print n, with the errors and cuts that it hides."""
    result = variant.suites[suite]
    problems = problems_of(result)
    mark = f" {notes.mark(f'{suite}: {problems}')}" if problems else ""
    return f"{result.n}{mark}"


def _reference_scores(variant: VariantSummary, summary: Summary, notes: Notes) -> list[str]:
    rows = []
    for suite in summary.study.suites:
        result = variant.suites[suite]
        value = notes.missing(result.reason) if result.value is None else with_interval(result.value, result.ci95)
        rows.append([escape(suite), escape(result.metric), value, _counted(variant, suite, notes), result.method])
    return [*table(["suite", "metric", "value", "n", "method"], rows, left=2), ""]


def _scores(variant: VariantSummary, summary: Summary, notes: Notes) -> list[str]:
    reference = summary.variant(variant.baseline or "")
    header = ["suite", "metric", variant.name, variant.baseline or "", "recovery", "difference", "n", "differ"]
    header = [escape(cell) for cell in [*header, "gained", "lost", "p", "p loss", "Holm", "method"]]
    rows = []
    for suite in summary.study.suites:
        result, ratio, diff = variant.suites[suite], variant.recovery[suite], variant.difference[suite]
        base = reference.suites.get(suite) if reference else None
        rows.append(
            [
                escape(suite),
                escape(result.metric),
                notes.missing(result.reason) if result.value is None else percent(result.value),
                "—" if base is None or base.value is None else percent(base.value),
                notes.missing(ratio.reason) if ratio.value is None else with_interval(ratio.value, ratio.ci95),
                "—" if diff.value is None else with_interval(diff.value, diff.ci95, signed=True),
                _counted(variant, suite, notes),
                str(diff.n_discordant),
                str(diff.b01),
                str(diff.b10),
                *("—" if p is None else f"{p:.2g}" for p in (diff.p_value, diff.p_loss, diff.p_loss_holm)),
                ratio.method,
            ]
        )
    mean = variant.recovery["mean"]
    shown = notes.missing(mean.reason) if mean.value is None else with_interval(mean.value, mean.ci95)
    if mean.value is not None and mean.reason:
        shown += f" {notes.mark(mean.reason)}"
    rows.append(_overall("mean of recoveries", shown, mean))
    other = variant.recovery_of_means
    if other is not None:
        shown = notes.missing(other.reason) if other.value is None else with_interval(other.value, other.ci95)
        rows.append(_overall("recovery of means", shown, other))
    return [*table(header, rows, left=2), ""]


def _overall(title: str, shown: str, result: RecoveryResult) -> list[str]:
    counts = [str(result.n), str(result.n_discordant)]
    return [f"**{title}**", "", "", "", shown, "", *counts, *[""] * 5, result.method]


def _breakdown(variant: VariantSummary, summary: Summary) -> list[str]:
    """Table by difficulty and by seen or unseen template: variant / baseline (n)."""
    reference = summary.variant(variant.baseline) if variant.baseline else None
    results = {suite: variant.suites[suite] for suite in summary.study.suites}
    levels = sorted({level for result in results.values() for level in result.by_difficulty})
    has_templates = any(result.seen or result.unseen for result in results.values())
    if not levels and not has_templates:
        return []
    rows = []
    for suite, result in results.items():
        base = reference.suites.get(suite) if reference else None
        pairs = [(result.by_difficulty.get(k), base.by_difficulty.get(k) if base else None) for k in levels]
        if has_templates:
            pairs += [(result.seen, base.seen if base else None), (result.unseen, base.unseen if base else None)]
        cells = []
        for mine, theirs in pairs:
            if mine is None:
                cells.append("—")
            elif reference:
                cells.append(f"{_value(mine)} / {_value(theirs)} (n {mine.n})")
            else:
                cells.append(f"{_value(mine)} (n {mine.n})")
        rows.append([escape(suite), *cells])
    header = ["suite", *(f"difficulty {level}" for level in levels)]
    header += ["seen templates", "unseen templates"] if has_templates else []
    title = "By difficulty (1 easy, 4 hard) and template" + (", variant / baseline:" if reference else ":")
    return [title, "", *table(header, rows), ""]


def _ratio(row: SpeedRow, notes: Notes) -> str:
    if row.ratio is None:
        return notes.missing(row.reason)
    return f"{row.ratio:.3f}" if row.ci95 is None else f"{row.ratio:.3f} [{row.ci95[0]:.3f}, {row.ci95[1]:.3f}]"


def _speed(summary: Summary) -> list[str]:
    if not summary.speed:
        return ["## Speed", "", "Not measured in this study.", ""]
    notes = Notes()
    rows = []
    for row in summary.speed:
        rows.append(
            [
                escape(row.panel),
                escape(row.workload),
                escape(row.engine),
                escape(row.variant),
                escape(row.dtype),
                "—" if row.threads is None else str(row.threads),
                str(row.batch),
                str(row.context),
                "—" if row.tokens_per_s is None else f"{row.tokens_per_s:,.0f}",
                _ratio(row, notes),
                escape(f"{row.baseline.variant}, {row.baseline.engine}, {row.baseline.dtype}"),
                "—" if row.noise_floor is None else f"± {percent(row.noise_floor)} %",
                row.verdict or "—",
            ]
        )
    header = ["panel", "workload", "engine", "variant", "dtype", "threads", "batch", "context", "tokens/s"]
    header += ["ratio", "relative to", "noise floor", "verdict"]
    intro = (
        "Ratio of medians, rows of one panel interleaved on one machine. A ratio within the noise floor of 1 (the "
        "baseline against itself) is no difference. tokens/s holds for the machine below only."
    )
    lines = ["## Speed", "", intro, "", *table(header, rows, left=5), ""]
    return [*lines, *notes.lines(), ""] if notes.texts else lines


def _environment(summary: Summary) -> list[str]:
    known = {key: value for key, value in summary.environment.model_dump().items() if value is not None}
    methods = {r.method for v in summary.variants for r in [*v.suites.values(), *v.recovery.values()]}
    methods |= {d.method for v in summary.variants for d in v.difference.values()}
    methods |= {v.recovery_of_means.method for v in summary.variants if v.recovery_of_means is not None}
    methods |= {m for v in summary.variants if v.distance for t in v.distance.texts for m in methods_of(t)}
    return [
        "## Methods",
        "",
        *(f"- {escape_text(line)}." for line in explain(methods)),
        "",
        "## Environment",
        "",
        *(f"- {key.replace('_', ' ')}: {escape(str(value))}" for key, value in known.items()),
        f"- study hash: {summary.study.hash[:16]}",
        "",
    ]
