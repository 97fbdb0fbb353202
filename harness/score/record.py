"""What scoring a file leaves behind: one verdict an answer, and the summary."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Missing = Literal["error", "wrong", "exclude"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Verdict(_Record):
    """One answer, or one item without an answer (`status` is `missing`)."""

    schema_version: Literal[1] = 1
    item_id: str
    item_hash: str
    name: str = Field(description="how the data set calls the item")
    sample: int | None = Field(description="0-based among the item's answers")
    line: int | None = Field(description="row of the file, counted from 1")
    status: str = Field(description="`scored`, `empty`, `missing`; of code what became of the program")
    detail: str = ""
    scores: dict[str, float | list[float]]


class MetricResult(_Record):
    """A metric with what is needed to believe it."""

    name: str
    value: float | None
    n: int = Field(description="items, or instructions where each counts by itself")
    se: float | None
    ci95: tuple[float, float] | None
    method: str
    reason: str | None = None


class FileInfo(_Record):
    """A file that was read; never its folder."""

    name: str
    sha256: str | None
    expected_sha256: str | None = None
    rows: int


class MissingItems(_Record):
    """Items without an answer."""

    policy: Missing
    n: int
    items: list[str]


class ScoreSummary(_Record):
    """`summary.json` of `sparsebench score`."""

    schema_version: Literal[1] = 1
    kind: Literal["score"] = "score"
    suite: str
    suite_hash: str
    preset: str
    protocol: str
    source: str
    format: str
    file: FileInfo
    data: FileInfo
    n: int = Field(description="items with an answer")
    n_total: int
    n_answers: int
    missing: MissingItems
    statuses: dict[str, int] = Field(description="answers, and items without one, by status")
    primary_metric: str
    metrics: list[MetricResult] = Field(description="under the policy for missing items")
    answered_only: list[MetricResult] = Field(description="over the items with an answer")
    missing_wrong: list[MetricResult] = Field(description="over all items; one without an answer counts 0")
    sandbox: dict[str, Any] | None = None
    events: list[dict[str, str]]
