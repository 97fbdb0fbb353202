"""Skill cells: rows of one (variant, suite) to scores, and two cells to pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.errors import ConfigError, CorruptRecordError
from harness.records import GroupValue, Metric, SampleRow, SuiteResult
from harness.report.inputs import SuiteMeta
from harness.stats import Estimate, mean_ci, paired_difference, recovery, score_ci, undefined
from harness.stats.estimate import PairedEstimate

DIGITS = 6
"""Decimals kept in the summary: far below any interval, and the same on every machine."""

NOT_RUN = "no rows: the cell has not run"


def rounded(estimate: Estimate) -> dict[str, object]:
    """Return an estimate's fields for a record, rounded to `DIGITS` decimals."""

    def cut(x: float | None) -> float | None:
        return None if x is None else round(x, DIGITS) + 0.0

    ci95 = None if estimate.ci95 is None else (cut(estimate.ci95[0]), cut(estimate.ci95[1]))
    return {
        "value": cut(estimate.value),
        "n": estimate.n,
        "se": cut(estimate.se),
        "ci95": ci95,
        "method": estimate.method,
        "reason": estimate.reason,
    }


def values_of(row: SampleRow, metric: str) -> list[float]:
    """Return a row's scores for `metric`: several for a list metric, [0] for an item that counts as 0, [] if absent."""
    score = row.scores.get(metric)
    if row.counts_as_zero:
        return [0.0] * (len(score) if isinstance(score, list) and score else 1)
    if score is None:
        return []
    return list(score) if isinstance(score, list) else [score]


def primary_score(row: SampleRow, metric: str) -> float:
    """Return the one value of a row's primary metric; CorruptRecordError where it has none."""
    values = values_of(row, metric)
    if not values:
        where = f"{row.variant}.{row.suite}, item {row.item_id}"
        raise CorruptRecordError(f"{where} has no score {metric!r}: score the suite again with `sparsebench run`")
    return sum(values) / len(values)


def _key(row: SampleRow) -> tuple[int, str]:
    return row.seed, row.item_id


def check_rows(rows: Sequence[SampleRow], meta: SuiteMeta, variant: str, suite: str) -> None:
    """Refuse rows that belong elsewhere, repeat, or were made with another version of the suite."""
    seen: set[tuple[int, str]] = set()
    for row in rows:
        if (row.variant, row.suite) != (variant, suite):
            raise CorruptRecordError(
                f"a row of {row.variant}.{row.suite} lies among those of {variant}.{suite}: "
                "delete that samples file and run again"
            )
        if row.suite_hash != meta.suite_hash or row.preset != meta.preset:
            raise ConfigError(
                f"{variant}.{suite}: rows made with suite {row.suite_hash[:12]} preset {row.preset!r}, the study has "
                f"{meta.suite_hash[:12]} preset {meta.preset!r}: run again in a new --out folder"
            )
        if _key(row) in seen:
            raise CorruptRecordError(
                f"{variant}.{suite} has item {row.item_id} twice: delete that samples file and run again"
            )
        seen.add(_key(row))
    if len(rows) > meta.n_total:
        raise CorruptRecordError(
            f"{variant}.{suite} has {len(rows)} rows, {meta.n_total} were planned: run again in a new --out folder"
        )


def refusal(rows: Sequence[SampleRow], refused: str | None) -> str | None:
    """Return why a cell has no value, or None if it has one."""
    if refused:
        return f"refused: {refused}"
    if not rows:
        return NOT_RUN
    refusals = [row for row in rows if row.status == "refused"]
    if len(refusals) == len(rows):
        return f"refused for {len(refusals)} of {len(rows)} items: {refusals[0].error or 'no reason was recorded'}"
    return None


def _group(rows: Sequence[SampleRow], metric: str, keep: Callable[[SampleRow], bool]) -> GroupValue | None:
    kept = [row for row in rows if keep(row)]
    if not kept:
        return None
    estimate = score_ci([primary_score(row, metric) for row in kept], [row.cluster for row in kept])
    return GroupValue.model_validate(rounded(estimate))


def _at(level: int) -> Callable[[SampleRow], bool]:
    return lambda row: row.difficulty == level


def _other_metrics(rows: Sequence[SampleRow], primary: str) -> list[Metric]:
    names = sorted({name for row in rows for name in row.scores} - {primary})
    metrics = []
    for name in names:
        values, clusters, flat = [], [], True
        for row in rows:
            scores = values_of(row, name)
            flat = flat and len(scores) <= 1
            values += scores
            clusters += [row.cluster] * len(scores)
        estimate = score_ci(values, clusters) if flat else mean_ci(values, clusters, bounds=(0.0, 1.0))
        metrics.append(Metric.model_validate({"name": name, **rounded(estimate)}))
    return metrics


def suite_result(rows: Sequence[SampleRow], meta: SuiteMeta, refused: str | None) -> SuiteResult:
    """Aggregate one skill cell; a refused or missing cell has a null value and the reason, never 0."""
    why = refusal(rows, refused)
    counts = {
        "preset": meta.preset,
        "suite_hash": meta.suite_hash,
        "metric": meta.metric,
        "n_total": meta.n_total,
        "margin": meta.margin,
        "n_error": sum(row.status == "error" for row in rows),
        "n_refused": sum(row.status == "refused" for row in rows),
        "n_truncated": sum(row.status in ("truncated_input", "truncated_output") for row in rows),
        "n_truncated_input": sum(row.status == "truncated_input" for row in rows),
        "n_clusters": len({row.cluster for row in rows}),
    }
    if why is not None:
        return SuiteResult.model_validate({**counts, **rounded(undefined(why)), "metrics": []})
    estimate = score_ci([primary_score(row, meta.metric) for row in rows], [row.cluster for row in rows])
    fields = rounded(estimate)
    if len(rows) < meta.n_total:
        fields["reason"] = f"incomplete: {meta.n_total - len(rows)} of {meta.n_total} items have no row"
    levels = sorted({row.difficulty for row in rows if row.difficulty is not None})
    groups = {str(level): _group(rows, meta.metric, _at(level)) for level in levels}
    return SuiteResult.model_validate(
        {
            **counts,
            **fields,
            "metrics": _other_metrics(rows, meta.metric),
            "by_difficulty": groups,
            "seen": _group(rows, meta.metric, lambda row: row.template is not None and not row.unseen),
            "unseen": _group(rows, meta.metric, lambda row: row.template is not None and row.unseen),
        }
    )


@dataclass(frozen=True, slots=True)
class Pairs:
    """Primary scores of the items that two cells share, sorted by (seed, item_id), [n] each."""

    variant: list[float]
    baseline: list[float]
    clusters: list[str]
    left_out: int

    def recovery(self) -> PairedEstimate:
        """Ratio of the means, with its interval."""
        return recovery(self.variant, self.baseline, self.clusters)

    def difference(self) -> PairedEstimate:
        """Difference of the means, with its interval."""
        return paired_difference(self.variant, self.baseline, self.clusters)


def pair(variant: Sequence[SampleRow], baseline: Sequence[SampleRow], metric: str) -> Pairs:
    """Pair two cells by (seed, item_id).

    Raises ConfigError where the suite's hash or an item's text differs: such scores cannot be compared.
    """
    hashes = {row.suite_hash for row in variant} | {row.suite_hash for row in baseline}
    if len(hashes) > 1:
        names = f"{variant[0].variant} and {baseline[0].variant}"
        raise ConfigError(
            f"{variant[0].suite}: {names} were measured with different versions of the suite "
            f"({', '.join(sorted(h[:12] for h in hashes))}): measure both again with the same one"
        )
    other = {_key(row): row for row in baseline}
    # Sorted, so that the seeded bootstrap does not depend on the order in which rows were written.
    pairs = [(row, other[_key(row)]) for row in sorted(variant, key=_key) if _key(row) in other]
    for row, match in pairs:
        if row.item_hash != match.item_hash:
            raise ConfigError(
                f"{row.suite}, item {row.item_id}: {row.variant} and {match.variant} were given different items under "
                "the same id: measure both again with the same data"
            )
    return Pairs(
        variant=[primary_score(row, metric) for row, _ in pairs],
        baseline=[primary_score(row, metric) for _, row in pairs],
        clusters=[row.cluster for row, _ in pairs],
        left_out=len(variant) + len(baseline) - 2 * len(pairs),
    )
