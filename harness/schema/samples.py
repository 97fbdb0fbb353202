"""The row that every measured item leaves behind."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Status = Literal["ok", "truncated_input", "truncated_output", "error", "refused"]
SAMPLE_SCHEMA_VERSION = 1


class SampleRow(BaseModel):
    """One item of one skill cell: what was asked, answered and scored.

    `scores` are on the 0..1 scale; a list (IFEval's instructions) is flattened before averaging. Rows with status
    `error`, `refused` or `truncated_input` count as 0 in every denominator, whatever their `scores` say.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: Literal[1] = 1
    variant: str
    engine: str
    suite: str
    suite_hash: str
    preset: str
    seed: int
    item_id: str
    item_hash: str
    template: str | None
    difficulty: int | None
    unseen: bool
    cluster: str
    prompt_hash: str
    outputs: list[str]
    n_in: list[int | None] = Field(description="prompt tokens by turn; null where a server does not count them")
    n_out: list[int | None] = Field(description="generated tokens by turn; null likewise")
    finish: list[str]
    status: Status
    error: str | None
    scores: dict[str, float | list[float]] = Field(description="metric -> value or values, 0..1")

    @model_validator(mode="after")
    def _scale(self) -> SampleRow:
        for metric, value in self.scores.items():
            if any(not 0.0 <= x <= 1.0 for x in (value if isinstance(value, list) else [value])):
                raise ValueError(f"score {metric!r} lies outside 0..1")
        if self.status == "error" and not self.error:
            raise ValueError("status 'error' needs a message in 'error'")
        return self

    @property
    def counts_as_zero(self) -> bool:
        """True where the item could not be answered, which counts as a wrong answer."""
        return self.status in ("error", "refused", "truncated_input")
