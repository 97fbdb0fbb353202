"""The metrics beside the primary one: strict extraction next to flexible, answers without a number, ROUGE-1/2/L."""

from __future__ import annotations

from harness.records import Metric, Summary, VariantSummary
from harness.report.markdown import escape, percent, table, with_interval

# A share of answers in which something was found reads better as the share in which nothing was.
_FAILURES = {"extracted": "extraction failures"}


def other_metrics(variant: VariantSummary, summary: Summary) -> list[str]:
    """Lines of a table of a variant's further metrics beside its baseline's; none where its suites have only one."""
    reference = summary.variant(variant.baseline) if variant.baseline else None
    rows = []
    for suite in summary.study.suites:
        base = reference.suites.get(suite) if reference else None
        theirs = {metric.name: metric for metric in base.metrics} if base else {}
        for metric in variant.suites[suite].metrics:
            told = [escape(suite), escape(_FAILURES.get(metric.name, metric.name)), _shown(metric)]
            other = theirs.get(metric.name)
            rows.append([*told, *([_shown(other) if other else "—"] if reference else []), str(metric.n)])
    if not rows:
        return []
    header = ["suite", "metric", escape(variant.name), *([escape(variant.baseline or "")] if reference else []), "n"]
    return ["Other metrics:", "", *table(header, rows, left=2), ""]


def _shown(metric: Metric) -> str:
    if metric.value is None:
        return "—"
    if metric.name not in _FAILURES:
        return with_interval(metric.value, metric.ci95) if metric.ci95 else percent(metric.value)
    turned = (1 - metric.ci95[1], 1 - metric.ci95[0]) if metric.ci95 else None
    return with_interval(1 - metric.value, turned) if turned else percent(1 - metric.value)
