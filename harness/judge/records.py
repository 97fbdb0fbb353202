"""`summary.json` of a judged set of answers, and the helpers that make its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.schema.summary import DifferenceResult, Event, GroupValue
from harness.stats import Estimate, PairedEstimate

SCHEMA_VERSION = 1
Benchmark = Literal["mt-bench", "alpaca-eval"]
Number = float | int | None


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class JudgedScore(_Record):
    """One score over a group of judgements, with what became of every planned one."""

    n_planned: int = Field(ge=0, description="judgements that the protocol asks for")
    statuses: dict[str, int] = Field(description="what became of them; they add up to n_planned")
    all: GroupValue = Field(description="over all planned: what has no verdict counts as the worst")
    judged: GroupValue = Field(description="over those with a verdict only, as the published tools count")


class PairCounts(_Record):
    """Games of pairwise mode."""

    win: int = Field(ge=0)
    tie: int = Field(ge=0, description="ties, verdicts that disagree between the orders among them")
    loss: int = Field(ge=0)
    inconsistent: int = Field(ge=0, description="games whose two orders gave different verdicts")
    first_wins: int = Field(ge=0, description="verdicts for the answer that was shown first")
    second_wins: int = Field(ge=0, description="verdicts for the answer that was shown second")


class LengthControlled(_Record):
    """The win rate that a model would have were its outputs as long as the reference's (arXiv 2404.04475)."""

    win_rate: GroupValue
    model: Literal["length_controlled_v1", "length_controlled_minimal", "same_model"] = Field(
        description="the package's name of the regression; minimal leaves out the difficulty of instructions"
    )
    weights: dict[str, float] = Field(description="coefficients of the regression")
    penalty_c: float | None = Field(description="inverse strength of its L1 penalty, chosen by cross-validation")
    predicted_se: float | None = Field(description="the package's lc_standard_error, as a fraction: the spread of the "
                                       "predicted preferences, which says nothing of another sample")  # fmt: skip


class ModelResult(_Record):
    """One model: MT-Bench ratings (1 to 10) or win rates (0 to 1)."""

    model: str
    opponent: str | None = Field(description="what it is compared with; null for ratings")
    overall: JudgedScore
    by_turn: dict[str, JudgedScore] = Field(default_factory=dict)
    by_category: dict[str, JudgedScore] = Field(default_factory=dict, description="or by dataset of AlpacaEval")
    pairs: PairCounts | None = None
    length_controlled: LengthControlled | None = None
    published: dict[str, Number] = Field(description="the numbers, names and units of the published tool")
    parsing: dict[str, int] = Field(default_factory=dict, description="how verdicts were found in the judge's words")


class Comparison(_Record):
    """Difference of two models over the same judgements, in the unit of `overall.all`."""

    model: str
    baseline: str
    difference: DifferenceResult


class JudgeInfo(_Record):
    """Who judged, and how it was asked."""

    name: str
    identity: dict[str, Any] = Field(description="hashes of the model, engine and dtype; empty for a file's judge")
    settings: dict[str, Any]


class JudgeSummary(_Record):
    """The result of `sparsebench judge`."""

    schema_version: Literal[1] = 1
    kind: Literal["judge"] = "judge"
    benchmark: Benchmark
    mode: Literal["single", "pairwise"]
    prompt: str | None = Field(description="prompts that the judge was given; null where a file does not say")
    judge: JudgeInfo
    data: dict[str, str] = Field(description="sha256 of every data file that the result depends on")
    models: list[ModelResult]
    comparisons: list[Comparison] = Field(default_factory=list)
    events: list[Event] = Field(default_factory=list)


def group_value(estimate: Estimate, *, scale: float = 1.0) -> GroupValue:
    """An estimate as a record, its numbers times `scale`."""
    reason = estimate.reason
    if reason is None and estimate.ci95 is None:
        reason = "the data give no interval"
    return GroupValue(
        value=_times(estimate.value, scale),
        n=estimate.n,
        se=_times(estimate.se, scale),
        ci95=None if estimate.ci95 is None else (estimate.ci95[0] * scale, estimate.ci95[1] * scale),
        method=estimate.method,
        reason=reason,
    )


def difference(pair: PairedEstimate, baseline: str, *, scale: float = 1.0) -> DifferenceResult:
    """A paired difference as a record, its numbers times `scale`."""
    return DifferenceResult(
        **group_value(pair.estimate, scale=scale).model_dump(),
        n_discordant=pair.n_discordant,
        b01=pair.b01,
        b10=pair.b10,
        p_value=pair.p_value,
        baseline=baseline,
    )


def count(statuses: Iterable[str]) -> dict[str, int]:
    """How often each status occurs, in alphabetical order."""
    found: dict[str, int] = {}
    for status in sorted(statuses):
        found[status] = found.get(status, 0) + 1
    return found


def events_of(found: Iterable[Mapping[str, str]]) -> list[Event]:
    """Events as records."""
    return [Event.model_validate(event) for event in found]


def _times(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale
