"""Settings of low-rank adapters, validated where a recipe enters."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from sparsify.strict import Strict


class LoraSettings(Strict):
    """Train low-rank adapters (Hu et al. 2021, arXiv 2106.09685) instead of the weights, and merge them at the end.

    The defaults of rank, alpha and dropout are those of the recovery fine-tuning of SliceGPT (arXiv 2401.15024,
    appendix), which adapts every linear inside the blocks too.
    """

    rank: int = Field(32, gt=0, description="columns of the up, rows of the down projection")
    alpha: float = Field(10.0, gt=0, description="the product of the two is scaled by alpha / rank")
    dropout: float = Field(0.05, ge=0, lt=1, description="of the adapters' inputs, while training")
    targets: tuple[str, ...] = Field(
        (), description="linears to adapt: a name, its dotted ending or a glob; empty = every linear inside the blocks"
    )
    merge: Literal["masked", "project", "refuse"] = Field(
        "masked",
        description="on pruned weights - masked: the mask is part of the adapter, so that merging loses nothing; "
        "project: plain adapters, whose part on pruned places is thrown away at the end; refuse: stop before training",
    )

    @field_validator("targets", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value
