"""Gate rules as a study writes them, under `gates:`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], Field(min_length=1)]
Selection = Literal["all"] | Names
"""`all`, or names; a study may write one name without a list."""
To = Literal["baseline", "earlier"]
"""What a variant is held against: its baseline in the same study, or itself in the run that `--against` names."""


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


class NonInferiorRule(_Rule):
    """The score is not worse by `margin` or more (a fraction; default: `harness.gate.margins`, else the suite's own).

    Passes only if the lower limit of the paired difference's 95 % interval is above -margin, fails if the upper limit
    is below it, and is inconclusive between.
    """

    rule: Literal["non_inferior"]
    suites: Selection = "all"
    margin: float | None = Field(None, gt=0, lt=1)
    to: To = "baseline"


class NoRegressionRule(_Rule):
    """No significant loss: fails only on a paired loss that is significant after Holm's correction.

    The one-sided tests of all suites of one variant are one family, held at 2.5 %, the side of a 95 % interval. A pass
    is no proof that nothing was lost; `non_inferior` asks for that.
    """

    rule: Literal["no_regression"]
    suites: Selection = "all"
    to: To = "baseline"


class SameOutputsRule(_Rule):
    """Every answer is the same text as the baseline's, or as the earlier run's."""

    rule: Literal["same_outputs"]
    suites: Selection = "all"
    to: To = "baseline"


class SparsityRule(_Rule):
    """At least the share `at_least` of the linears' weights is exactly zero."""

    rule: Literal["sparsity"]
    variants: Selection = Field()
    at_least: float = Field(gt=0, le=1)


class SizeRule(_Rule):
    """The weight files take at most the share `at_most` of the baseline's bytes."""

    rule: Literal["size"]
    variants: Selection = Field()
    at_most: float = Field(gt=0)


class NoRevivedZerosRule(_Rule):
    """Every weight that was pruned is still exactly zero in the finished variant (checked when it was made)."""

    rule: Literal["no_revived_zeros"]
    variants: Names = Field()


class SpeedupRule(_Rule):
    """Speed is at least `at_least` times the panel's baseline.

    `workload`, `engine`, `panel` and `batch` choose the rows; each of them must clear the bound.

    Passes only if the ratio's 95 % interval, widened to the panel's noise floor where that is larger, clears the
    bound; fails only if it is below the bound in the panel's confirmation run, too. A panel that did not decide is
    inconclusive.
    """

    rule: Literal["speedup"]
    workload: Name
    at_least: float = Field(gt=0)
    engine: Name | None = None
    panel: Name | None = None
    batch: int | None = Field(None, gt=0)


SkillRule = RecoveryRule | NonInferiorRule | NoRegressionRule | SameOutputsRule
VariantRule = SparsityRule | SizeRule | NoRevivedZerosRule
GateRule = Annotated[SkillRule | VariantRule | SpeedupRule, Field(discriminator="rule")]
