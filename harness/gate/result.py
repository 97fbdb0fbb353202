"""What a gate says: one result for each rule on each variant (and suite), and what they come to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["pass", "fail", "inconclusive", "error"]
OnInconclusive = Literal["pass", "fail"]
SCHEMA_VERSION = 1


class MissingError(Exception):
    """The records lack something that a rule needs; it becomes an `error` result with exit code 3."""

    exit_code = 3


class InputError(MissingError):
    """A rule or option of the user's asks for what cannot be; it becomes an `error` result with exit code 2."""

    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleResult:
    """One rule on one variant (and suite).

    Attributes:
        rule: name of the rule.
        variant: the variant it was tried on.
        suite: the suite, `mean`, a workload, or None.
        verdict: what came out.
        message: one line with the numbers.
        against: the variant, or `earlier run`, that it was held against.
        bound: what the value was held against.
        value: the number that was judged.
        ci95: its interval.
        p_value: of a loss, one-sided, after Holm's correction.
        n: items it rests on.
        needed: items in all that would probably decide, for an inconclusive result.
        items: ids of the items that speak against a pass (answers that differ).
        exit_code: 2 (the user's input) or 3 (the records) for an error, else None.
    """

    rule: str
    variant: str
    suite: str | None
    verdict: Verdict
    message: str
    against: str | None = None
    bound: float | None = None
    value: float | None = None
    ci95: tuple[float, float] | None = None
    p_value: float | None = None
    n: int | None = None
    needed: int | None = None
    items: tuple[str, ...] = ()
    exit_code: int | None = None

    @property
    def name(self) -> str:
        """Variant and suite, as messages call the place."""
        return f"{self.variant}.{self.suite}" if self.suite else self.variant


def error_result(rule: str, variant: str, suite: str | None, problem: MissingError) -> RuleResult:
    """Return the result of a rule that could not be tried."""
    return RuleResult(
        rule=rule, variant=variant, suite=suite, verdict="error", message=str(problem), exit_code=problem.exit_code
    )


@dataclass(frozen=True, slots=True)
class GateReport:
    """All results of a gate, and what they come to.

    Attributes:
        results: in the order of the rules.
        on_inconclusive: what an inconclusive result counts as.
        notes: what the reader must know beside the results.
    """

    results: tuple[RuleResult, ...]
    on_inconclusive: OnInconclusive = "fail"
    notes: tuple[str, ...] = ()

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
        """0 pass, 1 a rule failed, 2 the user's input, 3 missing or damaged records."""
        if self.verdict == "error":
            return max((result.exit_code or 0 for result in self.results), default=3)
        if self.verdict == "inconclusive":
            return 1 if self.on_inconclusive == "fail" else 0
        return 1 if self.verdict == "fail" else 0

    @property
    def line(self) -> str:
        """The verdict in one line."""
        parts = [f"{self.count(v)} {v}" for v in ("fail", "inconclusive", "error") if self.count(v)]
        rest = f" ({', '.join(parts)})" if parts else ""
        line = f"gate: {self.verdict.upper()}, {self.count('pass')} of {len(self.results)} checks passed{rest}"
        if self.verdict != "inconclusive":
            return line
        return f"{line}; inconclusive counts as a {self.on_inconclusive} (--on-inconclusive)"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "on_inconclusive": self.on_inconclusive,
            "line": self.line,
            "notes": list(self.notes),
            "results": [asdict(result) for result in self.results],
        }
