"""What a comparison is made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from harness.schema.distance import DistanceResult

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Flip:
    """One item whose score changed, with both answers (one text a turn)."""

    item: str
    a: float
    b: float
    a_outputs: tuple[str, ...]
    b_outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Estimated:
    """A value with its 95 % interval and method; `reason` says why it is None."""

    value: float | None
    ci95: tuple[float, float] | None
    method: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class SuiteComparison:
    """One suite, B against A on the same items.

    Attributes:
        suite: its name.
        metric: its primary metric.
        n: pairs of items.
        left_out: rows of either side without a partner.
        a: score of A.
        b: score of B.
        difference: B - A.
        recovery: B / A.
        lost: items on which B scores lower.
        gained: items on which B scores higher.
        p_value: two-sided sign-flip test by cluster, after Holm's correction over the suites of this pair.
        same_answer: share of items whose answers are the same text.
        same_verdict: share of items whose scores are equal.
        flips: every item whose score changed: losses first, the largest first.
    """

    suite: str
    metric: str
    n: int
    left_out: int
    a: float
    b: float
    difference: Estimated
    recovery: Estimated
    lost: int
    gained: int
    p_value: float
    same_answer: float
    same_verdict: float
    flips: tuple[Flip, ...]


@dataclass(frozen=True, slots=True)
class SpeedComparison:
    """B's speed over A's in one panel that measured both.

    Attributes:
        place: panel, engine and batch.
        workload: decode, prefill, ...
        ratio: above 1, B is faster; None where there is no speed.
        ci95: None where neither of the two is the panel's baseline.
        noise_floor: of the panel.
        reason: why something is None, or why the panel did not decide.
    """

    place: str
    workload: str
    ratio: float | None
    ci95: tuple[float, float] | None
    noise_floor: float | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One variant against another.

    Attributes:
        a: what is compared with, as the user may name it.
        b: what is judged.
        suites: the suites that both have.
        missing: suite -> why it cannot be compared.
        mean_recovery: plain mean of the suites' recoveries.
        speed: by panel.
        bytes: size of A's and of B's weight files.
        notes: what the reader must know.
        distance: on fixed text, where the run measured it between the two.
    """

    a: str
    b: str
    suites: tuple[SuiteComparison, ...]
    missing: dict[str, str] = field(default_factory=dict)
    mean_recovery: Estimated | None = None
    speed: tuple[SpeedComparison, ...] = ()
    bytes: tuple[int | None, int | None] = (None, None)
    notes: tuple[str, ...] = ()
    distance: DistanceResult | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values."""
        distance = None if self.distance is None else self.distance.model_dump(mode="json")
        return {**asdict(replace(self, distance=None)), "distance": distance}
