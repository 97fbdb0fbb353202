"""The gate's comparison of two runs: the same variants and suites, measured earlier and now."""

from __future__ import annotations

import math

from harness.errors import ConfigError, CorruptRecordError
from harness.gate import MissingError, RuleResult, Verdict, describe, require_complete
from harness.records import Summary, VariantSummary
from harness.report.inputs import Samples

RULE = "against"


def compare_runs(
    summary: Summary,
    against: Summary,
    *,
    samples: Samples | None = None,
    against_samples: Samples | None = None,
) -> list[RuleResult]:
    """Hold every variant and suite of the earlier run `against` to the run at hand.

    Fails where the whole 95 % interval of (now - earlier) is below 0. Paired by item where both runs' rows are given,
    else unpaired: the interval is then made from the two scores' own intervals (MOVER) and is wider, which the message
    says. What the earlier run has and this one lacks is an error, as is another version of a suite or its data.
    """
    results: list[RuleResult] = []
    for earlier in against.variants:
        now = summary.variant(earlier.name)
        for suite in against.study.suites:
            try:
                if now is None:
                    raise MissingError(f"variant {earlier.name!r} of the earlier run is missing here")
                results.append(_compare(now, earlier, suite, samples, against_samples))
            except (MissingError, ConfigError, CorruptRecordError) as problem:
                results.append(RuleResult(RULE, earlier.name, suite, "error", None, str(problem)))
    if not results:
        results.append(RuleResult(RULE, "all", None, "error", None, "the earlier run holds no variant or no suite"))
    return results


def _compare(
    now: VariantSummary,
    earlier: VariantSummary,
    suite: str,
    samples: Samples | None,
    against_samples: Samples | None,
) -> RuleResult:
    for variant in (now, earlier):
        require_complete(variant, suite)
    a, b = now.suites[suite], earlier.suites[suite]
    if (a.suite_hash, a.preset, a.metric) != (b.suite_hash, b.preset, b.metric):
        raise MissingError(
            f"{suite} was measured with another version, preset or metric "
            f"({b.suite_hash[:12]}, {b.preset}, {b.metric}; now {a.suite_hash[:12]}, {a.preset}, {a.metric}): "
            "measure both runs with the same one"
        )
    if a.n_total < b.n_total:
        raise MissingError(
            f"{now.name}.{suite} was measured on {a.n_total} items, {b.n_total} in the earlier run: measure as many"
        )
    rows = (samples or {}).get((now.name, suite))
    others = (against_samples or {}).get((earlier.name, suite))
    if rows and others:
        from harness.report.cells import pair

        pairs = pair(rows, others, a.metric)
        estimate = pairs.difference().estimate
        value, ci95, n = estimate.value, estimate.ci95, estimate.n
        how = "paired" + (f", {pairs.left_out} rows without a partner" if pairs.left_out else "")
    else:
        value, ci95, n = None, None, min(a.n, b.n)
        if a.value is not None and b.value is not None and a.ci95 is not None and b.ci95 is not None:
            value, ci95 = unpaired_difference((a.value, a.ci95), (b.value, b.ci95))
        how = "unpaired, samples of both runs are needed to pair"
    if value is None or ci95 is None:
        raise MissingError(f"{suite} of {now.name}: the two runs share no item or a score has no interval")
    verdict: Verdict = "fail" if ci95[1] < 0 else "pass"
    message = f"now - earlier {describe(value, ci95, n)} ({how}), no significant loss allowed"
    return RuleResult(RULE, now.name, suite, verdict, 0.0, message, value, ci95, n)


def unpaired_difference(
    now: tuple[float, tuple[float, float]], earlier: tuple[float, tuple[float, float]]
) -> tuple[float, tuple[float, float]]:
    """Difference of two independent scores, each (value, ci95), with the MOVER interval (Newcombe 1998, method 10)."""
    (a, (a_low, a_high)), (b, (b_low, b_high)) = now, earlier
    value = a - b
    return value, (value - math.hypot(a - a_low, b_high - b), value + math.hypot(a_high - a, b - b_low))
