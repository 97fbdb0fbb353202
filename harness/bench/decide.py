"""When a speed panel may say something: the noise floor, the machine's rest, and what counts as a slowdown. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.bench.clock import Ratio, adjust_blocks, speed_ratio
from harness.bench.spec import Verdict

FLOOR_LIMIT = 0.05
BANDWIDTH_LIMIT = 0.10
ALPHA = 0.01
"""Of the Mann-Whitney test; with six blocks the smallest possible p is 0.002."""


@dataclass(frozen=True)
class Comparison:
    """One variant against the baseline in one run of a panel: ratio of medians and Mann-Whitney p."""

    ratio: Ratio
    p_value: float


@dataclass(frozen=True)
class Findings:
    """What one run of a panel came to.

    Attributes:
        floor: The twin's comparison with the baseline; None where the baseline was not measured.
        compared: By process, its comparison with the baseline.
        restless: Why the run decides nothing; empty where it does.
    """

    floor: Comparison | None
    compared: Mapping[str, Comparison]
    restless: tuple[str, ...]

    @property
    def reach(self) -> float:
        """The noise floor as one number, see `floor_of`; infinite where there is none."""
        return float("inf") if self.floor is None else floor_of(self.floor.ratio)


def mann_whitney(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p of the Mann-Whitney U test (scipy; exact for small samples without ties); 1 if all are equal."""
    from scipy.stats import mannwhitneyu

    if len(set(first) | set(second)) == 1:
        return 1.0
    return float(mannwhitneyu(first, second, alternative="two-sided").pvalue)


def compare(baseline: str, medians: Mapping[str, Sequence[float]], *, seed: int) -> dict[str, Comparison]:
    """Compare every other process with the baseline.

    The ratio is of block-adjusted times (`adjust_blocks`). The rank test takes them as they were: adjusting makes the
    processes depend on each other, and would make the test too sure; a common drift only makes it less sure.

    Args:
        baseline: Its process.
        medians: By process, block medians in seconds, the same blocks in all.
        seed: Of the bootstrap.
    """
    adjusted = adjust_blocks(medians)
    return {
        process: Comparison(
            speed_ratio(adjusted[baseline], adjusted[process], seed=seed),
            mann_whitney(medians[baseline], medians[process]),
        )
        for process in medians
        if process != baseline
    }


def floor_of(twin: Ratio) -> float:
    """The largest |ratio - 1| that the twin's ratio and interval reach: below it, everything is noise."""
    return max(abs(value - 1.0) for value in (twin.value, *(twin.ci95 or ())))


def moved(before: float, after: float) -> float:
    """How far the read bandwidth moved, as a fraction of the larger value, so that up and down count alike."""
    return abs(after - before) / max(before, after)


def restlessness(floor: float | None, bandwidth: tuple[float, float] | None) -> tuple[str, ...]:
    """Why a run decides nothing: a noise floor above 5 %, or a read bandwidth (before, after) that moved above 10 %."""
    why = []
    if floor is not None and floor > FLOOR_LIMIT:
        why.append(f"noise floor {100 * floor:.1f} % is above {100 * FLOOR_LIMIT:.0f} %")
    if bandwidth is not None and moved(*bandwidth) > BANDWIDTH_LIMIT:
        why.append(f"read bandwidth moved {100 * moved(*bandwidth):.0f} %, above {100 * BANDWIDTH_LIMIT:.0f} %")
    return tuple(why)


def is_slower(found: Comparison, floor: float) -> bool:
    """Whether the whole interval lies below 1 by more than the noise floor, and the blocks differ (Mann-Whitney)."""
    return found.ratio.ci95 is not None and found.ratio.ci95[1] < 1.0 - floor and found.p_value < ALPHA


def is_faster(found: Comparison, floor: float) -> bool:
    """The mirror image of `is_slower`."""
    return found.ratio.ci95 is not None and found.ratio.ci95[0] > 1.0 + floor and found.p_value < ALPHA


def falls_short(found: Comparison, at_least: float | None) -> bool:
    """Whether the whole interval lies below a ratio that the variant is meant to reach."""
    return at_least is not None and found.ratio.ci95 is not None and found.ratio.ci95[1] < at_least


def needs_confirmation(findings: Findings, at_least: Mapping[str, float]) -> bool:
    """Whether a run decides, and says of some process what must not be reported from one run alone."""
    return not findings.restless and any(
        is_slower(found, findings.reach) or falls_short(found, at_least.get(process))
        for process, found in findings.compared.items()
    )


def verdict_of(
    process: str, first: Findings, confirmation: Findings | None, *, at_least: float | None = None
) -> Verdict:
    """What the panel says of a process; `confirmation` is None where none was run.

    A slowdown, or a ratio below `at_least`, is reported only when a second run, with new processes, shows it again.
    Where the second run never came to rest, or was not allowed, it is neither reported nor dropped.
    """
    found = first.compared.get(process)
    if found is None or first.restless:
        return "not measured" if found is None else "not decided"
    slow, short = is_slower(found, first.reach), falls_short(found, at_least)
    if slow or short:
        again = confirmation.compared.get(process) if confirmation else None
        if confirmation is None or again is None:
            return "unconfirmed"
        if confirmation.restless:
            return "not decided"
        if (slow and not is_slower(again, confirmation.reach)) or (short and not falls_short(again, at_least)):
            return "unconfirmed"
    return "slower" if slow else "faster" if is_faster(found, first.reach) else "no difference"
