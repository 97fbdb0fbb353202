"""Default margins of `non_inferior`, and whether a planned n can resolve a margin at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.gate.judge import ALPHA, percent
from harness.gate.pairs import RowPairs
from harness.gate_rules import GateRule, NonInferiorRule

POWER = 0.8
FLIP_RATE = 0.10
"""Share of items whose verdict flips that plans assume: more than INT8 shows, about what a good sparse variant does."""


@dataclass(frozen=True, slots=True)
class Default:
    """The default margin of a preset, and what it was worked out for.

    Attributes:
        margin: the smallest round margin that `n` items resolve.
        n: items of the preset.
        flip_rate: mean squared paired difference of a variant that is as good (the flip rate, if right or wrong).
        design_effect: of the paired differences; 1 where items are independent.
    """

    margin: float
    n: int
    flip_rate: float = FLIP_RATE
    design_effect: float = 1.0


# A margin is the loss that the preset's n can rule out: an equal variant with `flip_rate` clears it with 80 % power,
# one that is worse by the margin passes in 2.5 %. Design effects and the spread of ROUGE (mean squared difference of
# about 0.02) are those of the reference run of the pocket study. tests/harness/test_gate_margins.py simulates it.
DEFAULTS: Mapping[tuple[str, str], Default] = {
    ("gsm8k", "5shot"): Default(0.025, 1319),
    ("instruct", "full"): Default(0.04, 541),
    ("code", "full"): Default(0.08, 164),
    ("chat", "pocket"): Default(0.075, 300, design_effect=1.6),
    ("instruct", "pocket"): Default(0.055, 300),
    ("code", "pocket"): Default(0.065, 300, design_effect=1.25),
    ("gsm8k", "pocket"): Default(0.07, 300, design_effect=1.5),
    ("summarization", "pocket"): Default(0.04, 300, flip_rate=0.02, design_effect=1.5),
}


def margin_of(rule: NonInferiorRule, suite: str, preset: str, own: float | None) -> float | None:
    """The margin that holds: the rule's, the preset's default, or the suite's own; None where there is none."""
    if rule.margin is not None:
        return rule.margin
    default = DEFAULTS.get((suite, preset))
    return default.margin if default is not None else own


@dataclass(frozen=True, slots=True)
class PlannedSuite:
    """What planning knows of a suite.

    Attributes:
        preset: its preset.
        n: items of each variant.
        margin: the suite's own margin.
        clusters: cluster label of each item, [n]; None takes the preset's known design effect.
    """

    preset: str
    n: int
    margin: float | None = None
    clusters: Sequence[str] | None = None


def needed_for(suite: str, preset: str, margin: float, design_effect: float | None = None) -> int:
    """Items with which a variant that is as good as its baseline clears `margin` with 80 % power."""
    from harness.stats import required_n

    plan = DEFAULTS.get((suite, preset), Default(margin, 0))
    effect = plan.design_effect if design_effect is None else design_effect
    return required_n(flip_rate=plan.flip_rate, margin=margin, design_effect=effect, alpha=ALPHA, power=POWER)


def needed_by(pairs: RowPairs, value: float, margin: float) -> int | None:
    """Items that decide with 80 % power if the true difference is the observed one; None where it is the margin."""
    import numpy as np

    from harness.stats import required_n
    from harness.stats.adjust import observed_design_effect

    if abs(value + margin) < 1e-9:
        return None
    now, base = pairs.scores
    needed = required_n(
        flip_rate=float(np.mean(np.square(np.subtract(now, base)))),
        margin=margin,
        difference=value,
        design_effect=observed_design_effect(now, base, pairs.clusters),
        alpha=ALPHA,
        power=POWER,
    )
    return max(needed, len(now) + 1)


def resolvable(suite: str, preset: str, n: int, design_effect: float | None = None) -> float:
    """The smallest margin, in steps of 0.1 points, that `n` items resolve; 1.0 where none below it is."""
    steps = (k / 1000 for k in range(1, 1000))
    return next((margin for margin in steps if needed_for(suite, preset, margin, design_effect) <= n), 1.0)


def planning_warnings(rules: Sequence[GateRule], suites: Mapping[str, PlannedSuite]) -> list[str]:
    """Warn of every margin that the planned n cannot resolve, with the n it would take; one line each."""
    return [line for rule in rules if isinstance(rule, NonInferiorRule) for line in _warnings(rule, suites)]


def _warnings(rule: NonInferiorRule, suites: Mapping[str, PlannedSuite]) -> Iterator[str]:
    for name in suites if rule.suites == "all" else rule.suites:
        plan = suites.get(name)
        margin = None if plan is None else margin_of(rule, name, plan.preset, plan.margin)
        if plan is None or margin is None:
            what = "is not in the study" if plan is None else "has no margin: give `margin` in the rule"
            yield f"warning: non_inferior: suite {name!r} {what}"
            continue
        effect = _planned_effect(name, plan)
        needed = needed_for(name, plan.preset, margin, effect)
        if needed > plan.n:
            yield (
                f"warning: non_inferior on {name}: {plan.n:,} items cannot resolve a margin of {percent(margin)}; it "
                f"takes about {needed:,} items, or a margin of {percent(resolvable(name, plan.preset, plan.n, effect))}"
            )


def _planned_effect(name: str, plan: PlannedSuite) -> float | None:
    """Design effect to plan with: what the preset is known to show, else what its clusters let expect."""
    if (name, plan.preset) in DEFAULTS or plan.clusters is None:
        return None
    from harness.stats.adjust import expected_design_effect

    return expected_design_effect(plan.clusters, plan.n)
