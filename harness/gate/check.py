"""Tries every rule on a run; whatever is missing becomes an error, never a pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from harness.errors import ConfigError, CorruptRecordError
from harness.gate.outputs import same_outputs
from harness.gate.result import GateReport, InputError, MissingError, OnInconclusive, RuleResult, error_result
from harness.gate.skill import Compared, Context, compare_cells, no_regression, non_inferior, recovery
from harness.gate.speed import panel_rows, place, speedup
from harness.gate.weights import no_revived_zeros, size, sparsity
from harness.gate_rules import (
    GateRule,
    NoRegressionRule,
    NoRevivedZerosRule,
    RecoveryRule,
    SizeRule,
    SkillRule,
    SparsityRule,
    SpeedupRule,
)

_PER_CELL: dict[str, Callable[..., RuleResult]] = {
    "recovery": recovery,
    "non_inferior": non_inferior,
    "same_outputs": same_outputs,
}
_PER_VARIANT: dict[str, Callable[..., RuleResult]] = {
    "sparsity": sparsity,
    "size": size,
    "no_revived_zeros": no_revived_zeros,
}
_TEMPLATE_NOTE = (
    "the chat template's hash is not in the records of both runs: that it is the same was not checked (items and "
    "prompts were)"
)


def check(rules: Sequence[GateRule], context: Context, *, on_inconclusive: OnInconclusive = "fail") -> GateReport:
    """Try every rule; with an earlier run, also `no_regression` of all its variants and suites.

    Raises:
        ConfigError: There is nothing to check.
    """
    everything = list(rules)
    if context.earlier is not None and not any(_guards_earlier(rule) for rule in rules):
        everything.append(NoRegressionRule(rule="no_regression", to="earlier"))
    if not everything:
        raise ConfigError("there is nothing to check: add `gates:` to the study, or give --against DIR")
    results = [result for rule in everything for result in _try(rule, context)]
    notes = [_TEMPLATE_NOTE] if context.earlier is not None and not _has_templates(context) else []
    return GateReport(tuple(results), on_inconclusive, (*notes, *_new_here(context)))


def _new_here(context: Context) -> list[str]:
    """Say what this run has and the earlier one has not: no rule compares it with anything there."""
    if context.earlier is None:
        return []
    now, then = context.run.summary, context.earlier.summary
    variants = [entry.name for entry in now.variants if then.variant(entry.name) is None]
    suites = [suite for suite in now.study.suites if suite not in then.study.suites]
    parts = [f"{kind} {', '.join(names)}" for kind, names in (("variants", variants), ("suites", suites)) if names]
    return [f"not in the earlier run, so not compared with it: {'; '.join(parts)}"] if parts else []


def _guards_earlier(rule: GateRule) -> bool:
    whole = isinstance(rule, NoRegressionRule) and rule.variants == "all" and rule.suites == "all"
    return whole and getattr(rule, "to", None) == "earlier"


def _has_templates(context: Context) -> bool:
    runs = [run for run in (context.run, context.earlier) if run is not None]
    return all(
        run.cell_key(variant.name, suite) is not None
        for run in runs
        for variant in run.summary.variants
        for suite, result in variant.suites.items()
        if result.value is not None
    )


def _try(rule: GateRule, context: Context) -> list[RuleResult]:
    if isinstance(rule, SpeedupRule):
        results = _speed(rule, context)
    elif isinstance(rule, SparsityRule | SizeRule | NoRevivedZerosRule):
        names = _variants(rule, context)
        results = [_guarded(rule, name, None, context, _PER_VARIANT[rule.rule], name) for name in names]
    elif isinstance(rule, NoRegressionRule):
        results = [result for name in _variants(rule, context) for result in _family(rule, context, name)]
    else:
        results = [
            _guarded(rule, name, suite, context, _PER_CELL[rule.rule], name, suite)
            for name in _variants(rule, context)
            for suite in _suites(rule, context)
        ]
    if results:
        return results
    nothing = MissingError("the rule applies to nothing in this run: no variant with a baseline, or no suite")
    return [error_result(rule.rule, "all", None, nothing)]


def _guarded(
    rule: GateRule, variant: str, suite: str | None, context: Context, apply: Callable[..., RuleResult], *where: Any
) -> RuleResult:
    try:
        _known(context, variant, suite, rule)
        return apply(rule, context, *where)
    except MissingError as problem:
        return error_result(rule.rule, variant, suite, problem)
    except (ConfigError, CorruptRecordError) as problem:
        return error_result(rule.rule, variant, suite, MissingError(str(problem)))


def _known(context: Context, variant: str, suite: str | None, rule: GateRule) -> None:
    """Tell a slip in the rule (exit code 2) from a gap in the records (3)."""
    summary = context.run.summary
    earlier = context.earlier.summary if context.earlier is not None else None
    variants = {entry.name for entry in (*summary.variants, *(earlier.variants if earlier else ()))}
    suites = {*summary.study.suites, *(earlier.study.suites if earlier else ())}
    if variant not in variants:
        raise InputError(f"the rule names variant {variant!r}; the run has {', '.join(sorted(variants)) or 'none'}")
    if suite is not None and suite not in suites and not (suite == "mean" and isinstance(rule, RecoveryRule)):
        raise InputError(f"the rule names suite {suite!r}; the run has {', '.join(sorted(suites)) or 'none'}")


def _variants(rule: GateRule, context: Context) -> Iterator[str]:
    """Names that a rule speaks of, whether they exist or not; `all` leaves out references that it cannot compare."""
    if rule.variants != "all":
        yield from rule.variants
    elif getattr(rule, "to", None) == "earlier":
        # What the earlier run had must still be there: a variant that vanished is an error, not a pass.
        source = context.earlier or context.run
        yield from (variant.name for variant in source.summary.variants)
    else:
        every = context.run.summary.variants
        needs_baseline = not isinstance(rule, SparsityRule)
        yield from (v.name for v in every if not needs_baseline or v.baseline not in (None, v.name))


def _suites(rule: SkillRule, context: Context) -> Sequence[str]:
    if rule.suites != "all":
        return rule.suites
    to_earlier = getattr(rule, "to", None) == "earlier"
    return (context.earlier or context.run if to_earlier else context.run).summary.study.suites


def _family(rule: NoRegressionRule, context: Context, variant: str) -> list[RuleResult]:
    """All suites of one variant; those that cannot be compared are errors and leave the family."""
    cells: list[Compared] = []
    errors: dict[str, RuleResult] = {}
    suites = _suites(rule, context)
    for suite in suites:
        try:
            _known(context, variant, suite, rule)
            cells.append(compare_cells(context, variant, suite, rule.to))
        except MissingError as problem:
            errors[suite] = error_result(rule.rule, variant, suite, problem)
        except (ConfigError, CorruptRecordError) as problem:
            errors[suite] = error_result(rule.rule, variant, suite, MissingError(str(problem)))
    tried = {result.suite: result for result in no_regression(rule, cells)} if cells else {}
    return [errors[suite] if suite in errors else tried[suite] for suite in suites]


def _speed(rule: SpeedupRule, context: Context) -> list[RuleResult]:
    try:
        rows = panel_rows(rule, context.run.summary)
    except MissingError as problem:
        name = "all" if rule.variants == "all" else ", ".join(rule.variants)
        return [error_result(rule.rule, name, rule.workload, problem)]
    results = []
    for row in rows:
        try:
            results.append(speedup(rule, row))
        except MissingError as problem:
            results.append(error_result(rule.rule, row.variant, place(row), problem))
    return results
