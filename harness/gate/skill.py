"""Rules on scores: recovery, non-inferiority, no significant loss. Paired by item, against baseline or earlier run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.gate.judge import ALPHA, describe, items_to_decide, judge, more_items, percent
from harness.gate.margins import margin_of, needed_by
from harness.gate.pairs import CellOf, RowPairs, pair_cells
from harness.gate.result import InputError, MissingError, RuleResult, Verdict
from harness.gate.run_records import TOLERANCE, RunRecords
from harness.gate_rules import NonInferiorRule, NoRegressionRule, RecoveryRule

EARLIER = "earlier run"


@dataclass(frozen=True, slots=True)
class Context:
    """What rules are tried on.

    Attributes:
        run: the run to judge.
        earlier: the run that `to: earlier` means, or None.
        allow_different: pair across runs although data, prompts or template differ.
    """

    run: RunRecords
    earlier: RunRecords | None = None
    allow_different: bool = False


@dataclass(frozen=True, slots=True)
class Compared:
    """One variant's cell with what it is held against, paired."""

    variant: str
    suite: str
    against: str
    in_study: bool
    pairs: RowPairs

    @property
    def remark(self) -> str:
        """What a message must add about the pairing."""
        left_out = f", {self.pairs.left_out} rows without a partner" if self.pairs.left_out else ""
        return left_out if self.in_study else f" (paired with the earlier run{left_out})"


def compare_cells(context: Context, variant: str, suite: str, to: str) -> Compared:
    """Pair a variant's cell with its baseline's, or with its own in the earlier run.

    Raises:
        MissingError, InputError: As `pair_cells`; or there is nothing to hold it against.
    """
    if to == "earlier":
        if context.earlier is None:
            raise InputError("the rule says `to: earlier`: name the earlier run with --against")
        base: CellOf = (context.earlier, variant)
        against, allow = EARLIER, context.allow_different
    else:
        against = baseline_of(context.run, variant)
        # Within one study the plan has made sure that all variants got the same items.
        base, allow = (context.run, against), True
    pairs = pair_cells((context.run, variant), base, suite, allow_different=allow)
    if to == "baseline" and pairs.left_out:
        raise MissingError(
            f"only {len(pairs.now)} items of {variant}.{suite} have a partner in {against}, {pairs.left_out} rows have "
            "none: run the study again"
        )
    return Compared(variant, suite, against, to == "baseline", pairs)


def baseline_of(run: RunRecords, variant: str) -> str:
    """The variant's baseline, which must be in the run.

    Raises:
        InputError: The study gives the variant no baseline.
        MissingError: The baseline is not in the summary.
    """
    found = run.summary.variant(variant)
    if found is None:
        raise MissingError(f"variant {variant!r} is not in {run.where}")
    if found.baseline in (None, variant):
        raise InputError(f"{variant} has no baseline: it is the study's reference; give it one or leave it out")
    if run.summary.variant(str(found.baseline)) is None:
        raise MissingError(f"{found.baseline}, the baseline of {variant}, is not in {run.where}: run the whole study")
    return str(found.baseline)


def recovery(rule: RecoveryRule, context: Context, variant: str, suite: str) -> RuleResult:
    """Hold a recovery of the summary against `at_least`."""
    against = baseline_of(context.run, variant)
    summary = context.run.summary
    entry = summary.variant(variant)
    assert entry is not None
    names = summary.study.suites if suite == "mean" else [suite]
    ratios = [_ratio(compare_cells(context, variant, name, "baseline").pairs) for name in names]
    found = entry.recovery.get(suite)
    if found is None or found.value is None or found.ci95 is None or found.n == 0:
        raise MissingError(
            f"recovery of {variant}.{suite} is undefined: {found.reason if found else 'it is not recorded'}"
        )
    measured = sum(cell.n for cell in entry.suites.values()) if suite == "mean" else entry.suites[suite].n
    if found.n < measured or (suite == "mean" and set(found.suites or ()) != set(summary.study.suites)):
        raise MissingError(f"recovery of {variant}.{suite} leaves out items or suites: {found.reason}")
    _agrees(f"recovery of {variant}.{suite}", found.value, found.ci95, sum(ratios) / len(ratios))
    verdict: Verdict
    if rule.on == "point":
        verdict = "pass" if found.value >= rule.at_least else "fail"
    else:
        verdict = judge(found.value, found.ci95, rule.at_least)
    needed = None
    message = f"recovery {describe(found.value, found.ci95, found.n)}, at least {percent(rule.at_least)} asked"
    if verdict == "inconclusive":
        needed = items_to_decide(found.n, found.value, found.ci95, rule.at_least)
        message += f"; {more_items(needed, found.n)}"
    return RuleResult(
        rule=rule.rule,
        variant=variant,
        suite=suite,
        verdict=verdict,
        message=message,
        against=against,
        bound=rule.at_least,
        value=found.value,
        ci95=found.ci95,
        n=found.n,
        needed=needed,
    )


def _ratio(pairs: RowPairs) -> float:
    now, base = pairs.scores
    return sum(now) / sum(base) if sum(base) else math.nan


def _agrees(what: str, value: float, ci95: tuple[float, float], own: float) -> None:
    """Refuse a number of the summary that its rows do not give, or that lies outside its interval."""
    if not abs(value - own) <= TOLERANCE or not ci95[0] - TOLERANCE <= value <= ci95[1] + TOLERANCE:
        raise MissingError(
            f"{what} is {value} {list(ci95)} in the summary, {own:.6f} by its rows: delete summary.json and run again"
        )


def _difference(context: Context, cell: Compared) -> tuple[float, tuple[float, float]]:
    """The paired difference and its interval: the summary's within the study, computed across runs.

    The summary's own is taken where there is one, because an interval costs a second of imports.
    """
    if cell.in_study:
        entry = context.run.summary.variant(cell.variant)
        found = entry.difference.get(cell.suite) if entry is not None else None
        if found is None or found.value is None or found.ci95 is None or found.n < len(cell.pairs.now):
            reason = found.reason if found is not None else "it is not recorded"
            raise MissingError(f"the difference of {cell.variant}.{cell.suite} is undefined: {reason}")
        now, base = cell.pairs.scores
        own = (sum(now) - sum(base)) / len(now)
        _agrees(f"the difference of {cell.variant}.{cell.suite}", found.value, found.ci95, own)
        return found.value, found.ci95
    from harness.stats import paired_difference

    estimate = paired_difference(*cell.pairs.scores, cell.pairs.clusters).estimate
    if estimate.value is None or estimate.ci95 is None:
        raise MissingError(f"the difference of {cell.variant}.{cell.suite} is undefined: {estimate.reason}")
    return estimate.value, estimate.ci95


def non_inferior(rule: NonInferiorRule, context: Context, variant: str, suite: str) -> RuleResult:
    """Pass only if the lower limit of the paired difference clears -margin; say how many items would decide."""
    cell = compare_cells(context, variant, suite, rule.to)
    measured = context.run.require(variant, suite)
    margin = margin_of(rule, suite, measured.preset, measured.margin)
    if margin is None:
        raise InputError(f"suite {suite!r} has no margin of its own: give `margin` in the rule")
    value, ci95 = _difference(context, cell)
    n, needed = len(cell.pairs.now), None
    verdict = judge(value, ci95, -margin, strictly=True)
    message = f"difference {describe(value, ci95, n)}, margin {percent(margin)}{cell.remark}"
    if verdict == "inconclusive":
        needed = needed_by(cell.pairs, value, margin)
        message += f"; {more_items(needed, n)}"
    return RuleResult(
        rule=rule.rule,
        variant=variant,
        suite=suite,
        verdict=verdict,
        message=message,
        against=cell.against,
        bound=-margin,
        value=value,
        ci95=ci95,
        n=n,
        needed=needed,
    )


def no_regression(rule: NoRegressionRule, cells: Sequence[Compared]) -> list[RuleResult]:
    """Try all suites of one variant as one family: fail where the loss is significant after Holm's correction."""
    from harness.stats import holm, loss_p_value

    def p_value(cell: Compared) -> float:
        now, base = cell.pairs.scores
        # Equal scores need no test; it would cost the import of scipy.
        return 1.0 if now == base else loss_p_value(now, base, cell.pairs.clusters)

    raw = {cell.suite: p_value(cell) for cell in cells}
    adjusted = holm(raw)
    return [_loss(rule, cell, raw[cell.suite], adjusted[cell.suite]) for cell in cells]


def _loss(rule: NoRegressionRule, cell: Compared, raw: float, adjusted: float) -> RuleResult:
    now, base = cell.pairs.scores
    n = len(now)
    value = (sum(now) - sum(base)) / n
    lost = sum(a < b for a, b in zip(now, base, strict=True))
    gained = sum(a > b for a, b in zip(now, base, strict=True))
    verdict: Verdict = "fail" if value < 0 and adjusted <= ALPHA else "pass"
    message = (
        f"difference {describe(value, None, n)}: {lost} lost, {gained} gained, p of a loss {raw:.2g} "
        f"(Holm {adjusted:.2g}), fails at {ALPHA:g}{cell.remark}"
    )
    return RuleResult(
        rule=rule.rule,
        variant=cell.variant,
        suite=cell.suite,
        verdict=verdict,
        message=message,
        against=cell.against,
        bound=0.0,
        value=value,
        p_value=adjusted,
        n=n,
    )
