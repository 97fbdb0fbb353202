"""One line of a history: what one commit scored and how fast it was, in numbers that can be compared with others'."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from harness.schema.base import Interval, Record

SCHEMA_VERSION = 1
CommitId = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]{0,99}$")]


class SkillPoint(Record):
    """One variant on one suite."""

    variant: str = Field(min_length=1)
    suite: str = Field(min_length=1)
    metric: str
    preset: str
    protocol: str = Field(description="sha256 of all that decides what a score means; another one starts a new series")
    value: float = Field(ge=0, le=1)
    n: int = Field(ge=1)
    se: float | None = Field(ge=0, description="of the score over items; not the noise between commits")
    ci95: Interval | None
    items: str | None = Field(description="key in `item_sets`; null where the run kept no rows")
    scores: str | None = Field(description="packed score of each item, in the order of the item set")

    @model_validator(mode="after")
    def _together(self) -> SkillPoint:
        if (self.items is None) != (self.scores is None):
            raise ValueError("items and scores go together")
        return self


class SpeedPoint(Record):
    """One variant on one engine: speed relative to its panel's baseline."""

    variant: str = Field(min_length=1)
    workload: str = Field(min_length=1)
    engine: str
    dtype: str
    batch: int
    context: int
    protocol: str = Field(description="sha256 of machine, threads and baseline; another one starts a new series")
    ratio: float = Field(gt=0)
    ci95: Interval | None
    noise_floor: float | None = Field(ge=0)
    undecided: str | None = Field(description="why the panel did not decide; such a point is shown, not tested")


class ItemSet(Record):
    """Which items were scored, and which of them belong together."""

    n: int = Field(ge=1)
    clusters: str = Field(description="packed cluster number of each item")


class HistoryRecord(Record):
    """One commit."""

    schema_version: Literal[1] = 1
    commit: CommitId
    time: str = Field(description="of the commit, UTC: 2026-01-31T12:00:00Z")
    study: str
    study_hash: str
    machine: str = Field(description="processor, cores, accelerator; no host name")
    skills: list[SkillPoint]
    speeds: list[SpeedPoint]
    item_sets: dict[str, ItemSet]
    missing: dict[str, str] = Field(description="what has no value, and why")

    @field_validator("time")
    @classmethod
    def _utc(cls, value: str) -> str:
        datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ")
        return value

    @model_validator(mode="after")
    def _whole(self) -> HistoryRecord:
        skills = [(point.variant, point.suite) for point in self.skills]
        speeds = [(p.workload, p.variant, p.engine, p.dtype, p.batch, p.context) for p in self.speeds]
        if len(set(skills)) < len(skills) or len(set(speeds)) < len(speeds):
            raise ValueError("a variant is there twice")
        for point in self.skills:
            known = self.item_sets.get(point.items) if point.items is not None else None
            if point.items is not None and (known is None or known.n != point.n):
                raise ValueError(f"the items of {point.variant}.{point.suite} are not in the record")
        if not skills and not speeds:
            raise ValueError("the record holds neither a score nor a speed")
        return self


def utc(text: str) -> str:
    """An ISO 8601 time with its zone, in UTC to the second. Raises ValueError for another text."""
    from datetime import UTC

    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"the time {text!r} has no zone")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
