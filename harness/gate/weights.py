"""Rules on the weights themselves: share of zeros, size on disk, and that pruned weights stayed zero."""

from __future__ import annotations

from harness.gate.judge import percent
from harness.gate.result import MissingError, RuleResult
from harness.gate.skill import Context, baseline_of
from harness.gate_rules import NoRevivedZerosRule, SizeRule, SparsityRule
from harness.records import VariantSummary


def _variant(context: Context, name: str) -> VariantSummary:
    found = context.run.summary.variant(name)
    if found is None:
        raise MissingError(f"variant {name!r} is not in {context.run.where}")
    return found


def sparsity(rule: SparsityRule, context: Context, name: str) -> RuleResult:
    """Hold the share of zero weights among the linears against `at_least`; a count, so without an interval."""
    found = _variant(context, name).sparsity
    if found.linears is None:
        raise MissingError(f"the sparsity of {name} is unknown: {found.reason}")
    return RuleResult(
        rule=rule.rule,
        variant=name,
        suite=None,
        verdict="pass" if found.linears >= rule.at_least else "fail",
        message=f"{percent(found.linears)} of the linears are zero, at least {percent(rule.at_least)} asked",
        bound=rule.at_least,
        value=found.linears,
    )


def size(rule: SizeRule, context: Context, name: str) -> RuleResult:
    """Hold the bytes of the weight files, as a share of the baseline's, against `at_most`."""
    against = baseline_of(context.run, name)
    mine, theirs = _variant(context, name), _variant(context, against)
    for variant in (mine, theirs):
        if not variant.bytes:
            raise MissingError(f"the size of {variant.name} is unknown: {variant.reason or 'no bytes are recorded'}")
    assert mine.bytes is not None and theirs.bytes is not None
    share = mine.bytes / theirs.bytes
    return RuleResult(
        rule=rule.rule,
        variant=name,
        suite=None,
        verdict="pass" if share <= rule.at_most else "fail",
        message=(
            f"{mine.bytes:,} bytes are {percent(share)} of the {theirs.bytes:,} of {against}, at most "
            f"{percent(rule.at_most)} asked"
        ),
        against=against,
        bound=rule.at_most,
        value=share,
    )


def no_revived_zeros(rule: NoRevivedZerosRule, context: Context, name: str) -> RuleResult:
    """Pass if the check at the end of making found every masked weight to be zero; an unchecked variant is an error."""
    masks = _variant(context, name).masks
    if masks is None or masks.pruned < 1:
        raise MissingError(
            f"no mask was checked when {name} was made: make it again with this version, or leave it out of the rule"
        )
    return RuleResult(
        rule=rule.rule,
        variant=name,
        suite=None,
        verdict="pass" if masks.revived == 0 else "fail",
        message=f"{masks.revived:,} of {masks.pruned:,} pruned weights in {masks.tensors} tensors are not zero",
        bound=0.0,
        value=float(masks.revived),
        n=masks.pruned,
    )
