"""What all record types share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

Interval = tuple[float, float]


class Record(BaseModel):
    """A record: no unknown field, never changed, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Valued(Record):
    """A record whose `value` may be null, but then says why."""

    value: float | None
    n: int = Field(ge=0, description="items, or pairs of items, that the value rests on")
    se: float | None = Field(None, description="standard error; null where the data give none")
    ci95: Interval | None = Field(None, description="95 % interval, [low, high]")
    method: str = Field(description="how the interval was made; the reports' footnotes explain each name")
    reason: str | None = Field(None, description="why something here is null, or what the value leaves out")

    @model_validator(mode="after")
    def _null_has_a_reason(self) -> Valued:
        if (self.value is None or self.ci95 is None) and not self.reason:
            raise ValueError("a null value or interval needs a reason")
        return self
