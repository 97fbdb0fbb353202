"""Metrics over items, each with its error and interval."""

from __future__ import annotations

from collections.abc import Mapping

from harness.report.cells import rounded
from harness.score.record import MetricResult
from harness.stats import mean_ci, score_ci

Values = Mapping[str, list[float]]


def estimates(values: Mapping[str, Values], clusters: Mapping[str, str], primary: str) -> list[MetricResult]:
    """The mean of every metric over items, the primary metric first.

    A metric with several values an item (IFEval's instructions) is averaged over all of them, and those of one item
    are taken as related.

    Args:
        values: By item id, each metric's values, 0..1.
        clusters: By item id, its cluster.
        primary: Name of the primary metric.
    """
    names = dict.fromkeys(name for found in values.values() for name in found)
    out = []
    for name in sorted(names, key=lambda metric: metric != primary):
        flat, labels, single = [], [], True
        for item_id, found in values.items():
            flat += found.get(name, [])
            labels += [clusters[item_id]] * len(found.get(name, []))
            single = single and len(found.get(name, [])) <= 1
        estimate = score_ci(flat, labels) if single else mean_ci(flat, labels, bounds=(0.0, 1.0))
        out.append(MetricResult.model_validate({"name": name, **rounded(estimate)}))
    return out
