"""The rule `same_outputs`: every answer is the same text, and which are not."""

from __future__ import annotations

from harness.gate.pairs import ids, same_answer
from harness.gate.result import RuleResult
from harness.gate.skill import Context, compare_cells
from harness.gate_rules import SameOutputsRule

_SHOWN = 5


def same_outputs(rule: SameOutputsRule, context: Context, variant: str, suite: str) -> RuleResult:
    """Pass if all answers are the same; else fail with the ids of all items that differ, flips of the verdict first."""
    cell = compare_cells(context, variant, suite, rule.to)
    pairs = cell.pairs
    now, base = pairs.scores
    differ = [i for i, (a, b) in enumerate(zip(pairs.now, pairs.base, strict=True)) if not same_answer(a, b)]
    differ.sort(key=lambda i: now[i] == base[i])
    flips = sum(now[i] != base[i] for i in differ)
    n = len(pairs.now)
    items = ids([pairs.now[i] for i in differ])
    message = f"{n - len(differ)} of {n:,} answers are the same{cell.remark}"
    if differ:
        more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
        message += f"; {flips} of the others changed their score: {', '.join(items[:_SHOWN])}{more}"
    return RuleResult(
        rule=rule.rule,
        variant=variant,
        suite=suite,
        verdict="fail" if differ else "pass",
        message=message,
        against=cell.against,
        bound=1.0,
        value=1 - len(differ) / n,
        n=n,
        items=items,
    )
