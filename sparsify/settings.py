"""Parts of recipes that several stages share."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """A setting: unknown keys are errors, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Calibration(Strict):
    """Which text the layer inputs are measured on."""

    source: str = Field(
        min_length=1, description="`suite:SKILL/train`, a JSONL or text file, or `hub:NAME[/CONFIG][:SPLIT]`"
    )
    samples: int = Field(128, gt=0, description="rows drawn from the source; of plain text, windows")
    seq: int = Field(512, gt=1, description="rows are cut to this many tokens; windows have exactly so many")
    seed: int = Field(0, description="of the draw")
    holdout: float = Field(0.0, ge=0, lt=1, description="share of the samples kept apart while budgets are chosen")


def nm_of(value: Any) -> tuple[int, int] | None:
    """(N, M) of a pattern as recipes write it, or None where it is `none`.

    Raises:
        ValueError: It is neither.
    """
    if value == "none" or value is None:
        return None
    if not isinstance(value, str):
        # YAML 1.1 reads 2:4 as the base-60 number 124.
        raise ValueError('pattern must be in quotes, as "2:4"')
    n, _, m = value.partition(":")
    if not (n.isdigit() and m.isdigit() and 0 < int(n) < int(m)):
        raise ValueError(f'pattern {value!r} is neither none nor "N:M" with 0 < N < M, such as "2:4"')
    return int(n), int(m)
