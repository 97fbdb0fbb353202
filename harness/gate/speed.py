"""The rule `speedup`: a panel's ratio against a bound, never finer than the panel's own noise."""

from __future__ import annotations

from harness.gate.judge import judge
from harness.gate.result import InputError, MissingError, RuleResult, Verdict
from harness.gate_rules import SpeedupRule
from harness.records import SpeedRow, Summary

MAX_NOISE_FLOOR = 0.05
"""Above it a panel did not decide: the baseline differs from itself by more."""
NOT_DECIDED = "not decided"
"""A panel's verdict, and how the reason begins, where it did not come to rest; a ratio may still be shown."""


def panel_rows(rule: SpeedupRule, summary: Summary) -> list[SpeedRow]:
    """The rows that a rule speaks of, the panels' own baselines left out.

    Raises:
        InputError: No panel fits, or a named variant is in none of them.
    """
    panels = [row for row in summary.speed if row.workload == rule.workload and rule.panel in (None, row.panel)]
    panels = [row for row in panels if rule.engine in (None, row.engine) and rule.batch in (None, row.batch)]
    if not panels:
        known = ", ".join(sorted({f"{row.workload} ({row.engine}, {row.panel})" for row in summary.speed})) or "none"
        raise InputError(f"no speed panel fits the rule (workload {rule.workload!r}); the study has: {known}")
    if rule.variants == "all":
        return [row for row in panels if not _is_baseline(row)]
    for name in rule.variants:
        if not any(row.variant == name for row in panels):
            raise InputError(f"variant {name!r} is in no speed panel that fits the rule")
    return [row for row in panels if row.variant in rule.variants]


def place(row: SpeedRow) -> str:
    """Where a row was measured, as results call it: a panel sweeps batch sizes, and may hold several engines."""
    return f"{row.panel}, {row.engine}, batch {row.batch}"


def _is_baseline(row: SpeedRow) -> bool:
    base = row.baseline
    return (row.variant, row.engine, row.dtype) == (base.variant, base.engine, base.dtype)


def undecided(row: SpeedRow) -> str | None:
    """Why the row's panel did not decide, or None if it did."""
    if row.ratio is None or _restless(row):
        return row.reason or NOT_DECIDED
    if row.noise_floor is None:
        return "the panel has no noise floor, so a gain cannot be told from noise"
    if row.noise_floor > MAX_NOISE_FLOOR:
        return f"the panel's noise floor is {100 * row.noise_floor:.1f} %, above {100 * MAX_NOISE_FLOOR:.0f} %"
    return None if row.ci95 is not None else "the ratio has no interval"


def speedup(rule: SpeedupRule, row: SpeedRow) -> RuleResult:
    """Hold one row's ratio against `at_least`; its interval is widened to the noise floor where that is larger."""
    if _is_baseline(row):
        raise InputError(f"{row.variant} is the baseline of panel {row.panel}: its ratio is 1 by definition")
    if row.ratio is None and not _restless(row):
        raise MissingError(f"{row.variant} has no speed in panel {row.panel}: {row.reason}")
    why = undecided(row)
    if why is not None or row.ratio is None or row.ci95 is None or row.noise_floor is None:
        shown = "" if row.ratio is None else f"{row.ratio:.3f}x, but "
        return _result(rule, row, "inconclusive", f"{shown}{why}: measure the panel again on a quieter machine", None)
    low, high = _widened(row.ratio, row.ci95, row.noise_floor)
    verdict = judge(row.ratio, (low, high), rule.at_least)
    message = (
        f"{row.ratio:.3f}x {row.baseline.variant} [{low:.3f}, {high:.3f}] (noise floor {100 * row.noise_floor:.1f} %, "
        f"{row.workload}), at least {rule.at_least:g}x asked"
    )
    doubt = _doubt(row, rule.at_least) if verdict == "fail" else None
    if doubt is not None:
        return _result(rule, row, "inconclusive", f"{message}; {doubt}", (low, high))
    if verdict == "inconclusive":
        message += "; a longer panel (budget_s) on a quieter machine would decide"
    return _result(rule, row, verdict, message, (low, high))


def _restless(row: SpeedRow) -> bool:
    return row.verdict == NOT_DECIDED or (row.reason or "").startswith(NOT_DECIDED)


def _widened(ratio: float, ci95: tuple[float, float], floor: float) -> tuple[float, float]:
    """The interval, or the noise floor around the ratio where that reaches further.

    A ratio is known no better than the baseline against itself, however narrow its own interval came out.
    """
    return min(ci95[0], ratio / (1 + floor)), max(ci95[1], ratio * (1 + floor))


def _doubt(row: SpeedRow, at_least: float) -> str | None:
    """Why a row that falls short is no fail yet: a fail takes a second run, with new processes, that shows it again."""
    again = row.confirmation
    if again is None:
        return "no second run confirms it: run the study again with this rule among its `gates:`"
    if not again.decided or again.ci95 is None:
        return "the second run came to no rest"
    high = _widened(again.ratio, again.ci95, again.noise_floor)[1]
    return None if high < at_least else f"a second run does not confirm it: {again.ratio:.3f}x, up to {high:.3f}x"


def _result(
    rule: SpeedupRule, row: SpeedRow, verdict: Verdict, message: str, ci95: tuple[float, float] | None
) -> RuleResult:
    return RuleResult(
        rule=rule.rule,
        variant=row.variant,
        suite=place(row),
        verdict=verdict,
        message=message,
        against=row.baseline.variant,
        bound=rule.at_least,
        value=row.ratio,
        ci95=ci95,
        n=row.n,
    )
