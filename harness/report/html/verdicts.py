"""The headline: what a variant keeps of its baseline, held against each suite's margin, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.gate.judge import judge, more_items
from harness.gate.margins import DEFAULTS, margin_of, needed_by
from harness.gate.pairs import pair_cells
from harness.gate.result import MissingError, Verdict
from harness.gate_rules import NonInferiorRule
from harness.records import SuiteResult, VariantSummary
from harness.report.html.source import Source

Said = Literal["within", "outside", "undecided", "no verdict"]
Overall = Literal["within margins", "outside a margin", "undecided", "no verdict", "reference"]
_SAID: dict[Verdict, Said] = {"pass": "within", "fail": "outside", "inconclusive": "undecided"}


@dataclass(frozen=True, slots=True)
class SuiteVerdict:
    """One suite of one variant: is the loss against the baseline smaller than the margin?

    Attributes:
        suite: its name.
        said: `within` if the whole interval lies above -margin, `outside` if it lies below, `undecided` if the margin
            lies inside it; `no verdict` where there is no complete comparison.
        margin: loss that is allowed, as a fraction; None where the suite has none.
        origin: where the margin comes from.
        reason: why there is no verdict.
        needed: items in all that would probably decide, where it is undecided and the run has its rows.
        remark: the same in words.
    """

    suite: str
    said: Said
    margin: float | None = None
    origin: str = ""
    reason: str = ""
    needed: int | None = None
    remark: str = ""


@dataclass(frozen=True, slots=True)
class VariantVerdict:
    """All suites of a variant: outside if one is, else no verdict if one has none, else undecided if one is."""

    variant: str
    overall: Overall
    suites: Sequence[SuiteVerdict]
    reason: str = ""

    def on(self, suite: str) -> SuiteVerdict | None:
        """The verdict on one suite."""
        return next((each for each in self.suites if each.suite == suite), None)

    def suites_that_are(self, said: Said) -> list[str]:
        """Names of the suites with this verdict."""
        return [each.suite for each in self.suites if each.said == said]


def judge_variant(source: Source, variant: VariantSummary) -> VariantVerdict:
    """Hold every suite of the study against its margin."""
    suites = source.summary.study.suites
    if variant.baseline is None or variant.baseline == variant.name:
        return VariantVerdict(variant.name, "reference", ())
    missing = ""
    if source.baseline(variant) is None:
        missing = f"its baseline {variant.baseline} is not in the summary"
    verdicts = [_suite(source, variant, suite, missing) for suite in suites]
    said = {verdict.said for verdict in verdicts}
    overall: Overall = "within margins"
    if not verdicts or missing:
        overall = "no verdict"
    elif "outside" in said:
        overall = "outside a margin"
    elif "no verdict" in said:
        overall = "no verdict"
    elif "undecided" in said:
        overall = "undecided"
    reasons = list(dict.fromkeys(verdict.reason for verdict in verdicts if verdict.said == "no verdict"))
    return VariantVerdict(variant.name, overall, tuple(verdicts), missing or "; ".join(reasons))


def _suite(source: Source, variant: VariantSummary, suite: str, missing: str) -> SuiteVerdict:
    result, difference = variant.suites.get(suite), variant.difference.get(suite)
    if missing:
        return SuiteVerdict(suite, "no verdict", reason=missing)
    if result is None or difference is None:
        return SuiteVerdict(suite, "no verdict", reason=f"the summary has no {suite} for it")
    margin, origin = margin_for(source, variant.name, suite, result)
    reason = _incomplete(suite, variant, source)
    if difference.value is None or difference.ci95 is None:
        reason = difference.reason or "no interval is recorded"
    if reason:
        return SuiteVerdict(suite, "no verdict", margin, origin, f"{suite}: {reason}")
    if margin is None:
        return SuiteVerdict(suite, "no verdict", reason=f"{suite}: it has no margin")
    assert difference.value is not None and difference.ci95 is not None
    found = judge(difference.value, difference.ci95, -margin, strictly=True)
    needed, remark = None, ""
    if found == "inconclusive":
        needed, remark = _what_decides(source, variant, suite, difference.value, margin)
    return SuiteVerdict(suite, _SAID[found], margin, origin, needed=needed, remark=remark)


def _what_decides(
    source: Source, variant: VariantSummary, suite: str, value: float, margin: float
) -> tuple[int | None, str]:
    """The gate's own estimate of the items that it takes, as a number and in words; neither without the rows."""
    try:
        # Within one study the plan has made sure that all variants got the same items.
        records = source.records
        base = (records, str(variant.baseline))
        pairs = pair_cells((records, variant.name), base, suite, allow_different=True)
    except MissingError:
        return None, ""
    needed = needed_by(pairs, value, margin)
    return needed, more_items(needed, len(pairs.now))


def _incomplete(suite: str, variant: VariantSummary, source: Source) -> str:
    """Why the comparison is not one of all planned items; empty where it is."""
    baseline = source.baseline(variant)
    for side in (variant, baseline):
        result = side.suites.get(suite) if side is not None else None
        if side is None or result is None:
            return "the baseline has no such suite"
        if result.n < result.n_total:
            return f"{side.name} is incomplete, {result.n} of {result.n_total} items"
    result = variant.suites[suite]
    pairs = variant.difference[suite].n
    return f"only {pairs} of {result.n} items have a partner" if pairs < result.n else ""


def margin_for(source: Source, variant: str, suite: str, result: SuiteResult) -> tuple[float | None, str]:
    """The margin that the gate would take, and where it comes from."""
    for rule in source.rules:
        if isinstance(rule, NonInferiorRule) and _covers(rule, variant, suite) and rule.margin is not None:
            return rule.margin, "rule of the study"
    margin = margin_of(NonInferiorRule(rule="non_inferior"), suite, result.preset, result.margin)
    return margin, "default of the preset" if (suite, result.preset) in DEFAULTS else "the suite's own"


def _covers(rule: NonInferiorRule, variant: str, suite: str) -> bool:
    return (
        rule.to == "baseline"
        and (rule.variants == "all" or variant in rule.variants)
        and (rule.suites == "all" or suite in rule.suites)
    )
