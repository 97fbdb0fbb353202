"""The gate: rules on a summary to pass, fail, inconclusive or error. From records alone; imports no torch, no scipy.

Exit codes: 0 every rule passed; 1 a rule failed or is inconclusive; 3 something that a rule needs is missing. What is
missing never passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.errors import ConfigError
from harness.gate_rules import (
    GateRule,
    NonInferiorRule,
    NoRegressionRule,
    RecoveryRule,
    Selection,
    SparsityRule,
)
from harness.records import Summary, VariantSummary

Verdict = Literal["pass", "fail", "inconclusive", "error"]


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule on one variant (and suite).

    Attributes:
        rule: name of the rule.
        variant: the variant it was tried on.
        suite: the suite, `mean`, or None.
        verdict: what came out.
        bound: what the value was held against.
        message: one line with the numbers, and for an inconclusive one how many items would decide.
        value: the number that was judged.
        ci95: its interval.
        n: items it rests on.
    """

    rule: str
    variant: str
    suite: str | None
    verdict: Verdict
    bound: float | None
    message: str
    value: float | None = None
    ci95: tuple[float, float] | None = None
    n: int | None = None


@dataclass(frozen=True, slots=True)
class GateReport:
    """All results of a gate, and what they come to."""

    results: tuple[RuleResult, ...]

    def count(self, verdict: Verdict) -> int:
        """Return how many results have this verdict."""
        return sum(result.verdict == verdict for result in self.results)

    @property
    def verdict(self) -> Verdict:
        """The worst of the results: error, then fail, then inconclusive, then pass. Without results, error."""
        order: tuple[Verdict, ...] = ("error", "fail", "inconclusive")
        return next((verdict for verdict in order if self.count(verdict)), "pass" if self.results else "error")

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail or inconclusive, 3 error."""
        return {"pass": 0, "fail": 1, "inconclusive": 1, "error": 3}[self.verdict]

    @property
    def line(self) -> str:
        """The verdict in one line."""
        total = len(self.results)
        parts = [f"{self.count(v)} {v}" for v in ("fail", "inconclusive", "error") if self.count(v)]
        rest = f" ({', '.join(parts)})" if parts else ""
        return f"gate: {self.verdict.upper()}, {self.count('pass')} of {total} checks passed{rest}"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        results = [asdict(result) for result in self.results]
        return {"verdict": self.verdict, "exit_code": self.exit_code, "line": self.line, "results": results}


class MissingError(Exception):
    """Something that a rule needs is not in the records; caught by `check`, it becomes an `error` result."""


def items_to_decide(n: int, value: float, ci95: tuple[float, float], bound: float) -> int | None:
    """Return roughly how many items in all would move the interval off `bound`; None if no number would.

    The interval shrinks with the root of n; only the side between the value and the bound counts.
    """
    gap = abs(value - bound)
    half = value - ci95[0] if value > bound else ci95[1] - value
    if gap < 1e-9 or half <= 0:
        return None
    return math.ceil(n * (half / gap) ** 2)


def judge(value: float, ci95: tuple[float, float], bound: float) -> Verdict:
    """Pass if the whole interval is at or above `bound`, fail if it is below, else inconclusive."""
    return "pass" if ci95[0] >= bound else "fail" if ci95[1] < bound else "inconclusive"


def percent(x: float) -> str:
    """Print a fraction in per cent, for messages."""
    return f"{100 * x:.2f} %"


def describe(value: float, ci95: tuple[float, float], n: int) -> str:
    """Print a value, its interval and n, for messages."""
    return f"{percent(value)} [{100 * ci95[0]:.2f}, {100 * ci95[1]:.2f}], n = {n}"


def decided(verdict: Verdict, n: int, value: float, ci95: tuple[float, float], bound: float) -> str:
    """Return the end of a message: empty, or how many items would decide an inconclusive result."""
    if verdict != "inconclusive":
        return ""
    needed = items_to_decide(n, value, ci95, bound)
    if needed is None:
        return "; the value sits on the bound: more items will hardly decide"
    return f"; about {max(needed, n + 1):,} items would decide (there are {n:,})"


def check(summary: Summary, rules: Sequence[GateRule], against: Summary | None = None, **records: Any) -> GateReport:
    """Try every rule on a summary; with `against`, also every variant and suite on an earlier run.

    Args:
        summary: the run to judge.
        rules: the study's `gates`.
        against: another run's summary: no score may be significantly below the one there.
        records: `samples` and `against_samples`, rows by (variant, suite) of both runs; with them the comparison
            is paired by item.

    Raises ConfigError where there is nothing to check.
    """
    if not rules and against is None:
        raise ConfigError("there is nothing to check: add `gates:` to the study, or give --against OTHER/summary.json")
    results: list[RuleResult] = []
    for rule in rules:
        results += _apply(rule, summary)
    if against is not None:
        from harness.gate_against import compare_runs

        results += compare_runs(summary, against, **records)
    return GateReport(tuple(results))


def _names(selection: Selection, every: Sequence[str]) -> Sequence[str]:
    return every if selection == "all" else selection


def _targets(rule: GateRule, summary: Summary) -> Iterator[tuple[str, str | None]]:
    """Yield (variant, suite) pairs that a rule speaks of, whether they exist or not."""
    if isinstance(rule, SparsityRule):
        every = [variant.name for variant in summary.variants]
        yield from ((name, None) for name in _names(rule.variants, every))
        return
    compared = [variant.name for variant in summary.variants if variant.baseline not in (None, variant.name)]
    for name in _names(rule.variants, compared):
        for suite in _names(rule.suites, summary.study.suites):
            yield name, suite


def _apply(rule: GateRule, summary: Summary) -> list[RuleResult]:
    results = []
    for name, suite in _targets(rule, summary):
        try:
            variant = summary.variant(name)
            if variant is None:
                raise MissingError(f"variant {name!r} is not in the summary")
            if suite is not None:
                _require_both(summary, variant, suite)
            results.append(_try(rule, variant, suite))
        except MissingError as missing:
            results.append(RuleResult(rule.rule, name, suite, "error", None, str(missing)))
    if not results:
        message = "the rule applies to nothing in this summary: no variant with a baseline, or no suite"
        results.append(RuleResult(rule.rule, "all", None, "error", None, message))
    return results


def require_complete(variant: VariantSummary, suite: str) -> None:
    """Raise MissingError unless the variant's cell of `suite` exists, has a value and has all its items."""
    result = variant.suites.get(suite)
    if result is None:
        raise MissingError(f"suite {suite!r} is not in the summary for {variant.name}")
    if result.value is None:
        raise MissingError(f"{variant.name}.{suite} has no value: {result.reason}")
    if result.n == 0 or result.n < result.n_total:
        raise MissingError(f"{variant.name}.{suite} is incomplete: {result.n} of {result.n_total} items; run again")


def _require_both(summary: Summary, variant: VariantSummary, suite: str) -> None:
    """Raise MissingError unless the variant's cells and its baseline's are complete; for `mean`, of every suite."""
    baseline = summary.variant(variant.baseline) if variant.baseline else None
    if baseline is None:
        raise MissingError(f"{variant.name} has no baseline in the summary: give it one in the study")
    for name in summary.study.suites if suite == "mean" else [suite]:
        require_complete(variant, name)
        require_complete(baseline, name)


def _try(rule: GateRule, variant: VariantSummary, suite: str | None) -> RuleResult:
    if isinstance(rule, SparsityRule):
        return _sparsity(rule, variant)
    if suite is None:
        raise MissingError("the rule names no suite")
    if isinstance(rule, RecoveryRule):
        return _recovery(rule, variant, suite)
    return _difference(rule, variant, suite)


def _require_all_pairs(variant: VariantSummary, suite: str, n: int) -> None:
    """Raise MissingError where fewer items were paired with the baseline than were measured."""
    measured = sum(cell.n for cell in variant.suites.values()) if suite == "mean" else variant.suites[suite].n
    if n < measured:
        raise MissingError(f"only {n} of {measured} items of {variant.name}.{suite} have a partner in its baseline")


def _sparsity(rule: SparsityRule, variant: VariantSummary) -> RuleResult:
    value = variant.sparsity.linears
    if value is None:
        raise MissingError(f"the sparsity of {variant.name} is unknown: {variant.sparsity.reason}")
    verdict: Verdict = "pass" if value >= rule.at_least else "fail"
    message = f"{percent(value)} of the linears are zero, at least {percent(rule.at_least)} asked"
    return RuleResult(rule.rule, variant.name, None, verdict, rule.at_least, message, value)


def _recovery(rule: RecoveryRule, variant: VariantSummary, suite: str) -> RuleResult:
    found = variant.recovery.get(suite)
    if found is None:
        raise MissingError(f"no recovery for suite {suite!r} of {variant.name}")
    if found.value is None or found.ci95 is None or found.n == 0:
        raise MissingError(f"recovery of {variant.name}.{suite} is undefined: {found.reason}")
    if suite == "mean" and set(found.suites or ()) != set(variant.suites):
        raise MissingError(f"mean recovery of {variant.name} lacks suites: {found.reason}")
    if rule.on == "point":
        verdict: Verdict = "pass" if found.value >= rule.at_least else "fail"
    else:
        verdict = judge(found.value, found.ci95, rule.at_least)
    _require_all_pairs(variant, suite, found.n)
    message = f"recovery {describe(found.value, found.ci95, found.n)}, at least {percent(rule.at_least)} asked"
    message += decided(verdict, found.n, found.value, found.ci95, rule.at_least)
    return RuleResult(rule.rule, variant.name, suite, verdict, rule.at_least, message, found.value, found.ci95, found.n)


def _difference(rule: NonInferiorRule | NoRegressionRule, variant: VariantSummary, suite: str) -> RuleResult:
    found = variant.difference.get(suite)
    if found is None:
        raise MissingError(f"no paired difference for suite {suite!r} of {variant.name}")
    if found.value is None or found.ci95 is None or found.n == 0:
        raise MissingError(f"difference of {variant.name}.{suite} is undefined: {found.reason}")
    _require_all_pairs(variant, suite, found.n)
    text = f"difference {describe(found.value, found.ci95, found.n)}"
    if isinstance(rule, NoRegressionRule):
        verdict: Verdict = "fail" if found.ci95[1] < 0 else "pass"
        message, bound = f"{text}, no significant loss allowed", 0.0
    else:
        margin = rule.margin if rule.margin is not None else variant.suites[suite].margin
        if margin is None:
            raise MissingError(f"suite {suite!r} has no margin of its own: give `margin` in the rule")
        bound = -margin
        verdict = judge(found.value, found.ci95, bound)
        if found.ci95[0] == bound:  # non-inferior means strictly better than -margin
            verdict = "inconclusive"
        message = f"{text}, margin {percent(margin)}{decided(verdict, found.n, found.value, found.ci95, bound)}"
    return RuleResult(rule.rule, variant.name, suite, verdict, bound, message, found.value, found.ci95, found.n)
