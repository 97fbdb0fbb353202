"""Gate rules as a study writes them, under `gates:`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Selection = Literal["all"] | tuple[Annotated[str, Field(min_length=1)], ...]
"""`all`, or names; a study may write one name without a list."""


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    variants: Selection = "all"

    @model_validator(mode="before")
    @classmethod
    def _singular(cls, data: Any) -> Any:
        """Accept `variant: x` and `suite: x` for `variants: [x]` and `suites: [x]`."""
        if not isinstance(data, dict):
            return data
        fields = dict(data)
        for one, many in (("variant", "variants"), ("suite", "suites")):
            if one in fields and many in cls.model_fields:
                if many in fields:
                    raise ValueError(f"give either {one!r} or {many!r}, not both")
                fields[many] = fields.pop(one)
        for many in ("variants", "suites"):
            if isinstance(fields.get(many), str) and fields[many] != "all":
                fields[many] = [fields[many]]
            if isinstance(fields.get(many), Sequence) and not fields[many]:
                raise ValueError(f"{many!r} is empty: name some, or write 'all'")
        return fields


class RecoveryRule(_Rule):
    """Recovery of at least `at_least` (a fraction: 0.95).

    `on: interval` (default) passes only if the whole 95 % interval clears the bound, fails only if the whole interval
    is below it, and is inconclusive between. `on: point` compares the value alone. The suite `mean` is the mean of
    recoveries; `all` means every suite of the study, without `mean`.
    """

    rule: Literal["recovery"]
    suites: Selection = "all"
    at_least: float = Field(gt=0)
    on: Literal["interval", "point"] = "interval"


class SparsityRule(_Rule):
    """At least the share `at_least` of the linears' weights is exactly zero."""

    rule: Literal["sparsity"]
    variants: Selection = Field()
    at_least: float = Field(gt=0, le=1)


class NonInferiorRule(_Rule):
    """The score is not worse than the baseline's by `margin` or more (a fraction; default: each suite's own margin).

    Passes if the lower limit of the paired difference is above -margin, fails if the upper limit is below it.
    """

    rule: Literal["non_inferior"]
    suites: Selection = "all"
    margin: float | None = Field(None, gt=0, lt=1)


class NoRegressionRule(_Rule):
    """No significant loss: fails only if the whole 95 % interval of the paired difference is below 0."""

    rule: Literal["no_regression"]
    suites: Selection = "all"


GateRule = Annotated[
    RecoveryRule | SparsityRule | NonInferiorRule | NoRegressionRule,
    Field(discriminator="rule"),
]
