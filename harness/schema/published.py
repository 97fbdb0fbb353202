"""Published values beside a study's own, and perplexities, as `summary.json` keeps them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from harness.schema.base import Interval, Record

Verdict = Literal["yes", "no", "undecided", "not measured", "not comparable"]


class PerplexityRow(Record):
    """Perplexity of one variant on one text."""

    variant: str
    text: str = Field(description="as the study names it")
    text_sha256: str
    context: int = Field(ge=2, description="tokens of a window; the value depends on it")
    windows: int = Field(ge=1)
    engine: str
    value: float
    ci95: Interval | None = Field(description="over windows, Student's t on the logarithm; null for a single window")
    baseline: str | None = Field(description="the variant that `ratio` is relative to; null for the first one")
    ratio: float | None = Field(description="value / the baseline's, paired by window")
    ratio_ci95: Interval | None = None
    reason: str | None = Field(None, description="why there is no ratio")


class PublishedRow(Record):
    """One published value, what the study found for it, and whether the two agree."""

    variant: str
    what: Literal["score", "recovery", "speed", "perplexity"]
    label: str = Field(description="what was measured, in words")
    suite: str | None = None
    preset: str | None = None
    metric: str | None = None
    workload: str | None = None
    engine: str | None = None
    text: str | None = None
    context: int | None = None
    scale: Literal["percent", "fraction", "times", "perplexity"] = Field(
        description="of published, ours, ci95, difference and tolerance"
    )
    published: float
    tolerance: float = Field(ge=0)
    ours: float | None
    ci95: Interval | None = None
    difference: float | None = Field(description="ours - published; null where the two are not comparable")
    verdict: Verdict = Field(
        description="yes: our whole interval is within the tolerance of the published value; no: none of it is; "
        "undecided: some of it; not comparable: published for another model than the one that was run"
    )
    source: str
    verified: bool = Field(description="whether the published value was read in its source")
    protocol: str = Field("", description="how the published protocol differs from the study's")
    reason: str | None = Field(None, description="why there is no value, no interval or no verdict")

    @model_validator(mode="after")
    def _null_has_a_reason(self) -> PublishedRow:
        if self.ours is None and not self.reason:
            raise ValueError("a value that was not measured needs a reason")
        return self
