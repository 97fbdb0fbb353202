"""`summary.json`: the contract between a run and everything that reads its result.

Scores, recoveries and ratios are fractions (0.87, not 87 %). What is undefined is null, with a `reason` beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from harness.schema.base import Interval
from harness.schema.base import Record as _Record
from harness.schema.base import Valued as _Valued
from harness.schema.distance import DistanceResult
from harness.schema.published import PerplexityRow, PublishedRow

SCHEMA_VERSION = 1


class Metric(_Valued):
    """A metric of a suite beside its primary one."""

    name: str


class GroupValue(_Valued):
    """The primary metric over some of a suite's items."""


class SuiteResult(_Valued):
    """One skill cell: the suite's primary metric over all its items, and what it is made of."""

    preset: str
    suite_hash: str
    metric: str = Field(description="name of the primary metric, whose value this is")
    n_total: int = Field(ge=0, description="items planned; below it, the cell is incomplete")
    n_error: int = Field(ge=0, description="items that failed; they count as 0")
    n_refused: int = Field(0, ge=0, description="items that a content filter refused; they count as 0")
    n_truncated: int = Field(ge=0, description="items whose prompt (counts as 0) or answer was cut")
    n_truncated_input: int = Field(ge=0, description="items whose prompt did not fit; they count as 0")
    n_clusters: int = Field(ge=0, description="groups of related items; equal to n when items are independent")
    margin: float | None = Field(None, gt=0, lt=1, description="the suite's own non-inferiority margin")
    metrics: list[Metric] = Field(description="all other metrics")
    by_difficulty: dict[str, GroupValue] = Field(default_factory=dict, description="'1' (easy) to '4' (hard)")
    seen: GroupValue | None = Field(None, description="items whose template occurs in the pocket training text")
    unseen: GroupValue | None = Field(None, description="items whose template does not")


class RecoveryResult(_Valued):
    """Variant score / baseline score, paired by item; under `mean`, the mean over suites."""

    n_discordant: int = Field(ge=0, description="pairs whose scores differ")
    baseline: str | None = Field(None, description="the variant compared with")
    suites: list[str] | None = Field(None, description="for `mean`: the suites it is the mean of")


class DifferenceResult(_Valued):
    """Variant score - baseline score, paired by item."""

    n_discordant: int = Field(ge=0, description="pairs whose scores differ")
    b01: int = Field(ge=0, description="pairs gained: the variant scores higher")
    b10: int = Field(ge=0, description="pairs lost: the baseline scores higher")
    p_value: float | None = Field(None, description="exact McNemar test; null where scores are not right/wrong")
    p_loss: float | None = Field(None, description="one-sided test of a loss: signs of whole clusters flipped")
    p_loss_holm: float | None = Field(None, description="`p_loss` by Holm's correction over the variant's suites")
    baseline: str | None = Field(None, description="the variant compared with")


class SparsityInfo(_Record):
    """Share of weights that are exactly zero."""

    linears: float | None = Field(description="over the linear layers of the blocks")
    model: float | None = Field(description="over all parameters")
    reason: str | None = None

    @model_validator(mode="after")
    def _null_has_a_reason(self) -> SparsityInfo:
        if (self.linears is None or self.model is None) and not self.reason:
            raise ValueError("an unknown sparsity needs a reason")
        return self


class MaskInfo(_Record):
    """Whether pruned weights were still zero when the variant was finished."""

    tensors: int = Field(ge=1, description="weights that have a mask")
    pruned: int = Field(ge=0, description="places that the masks prune")
    revived: int = Field(ge=0, description="of those, how many do not hold an exact zero")


class Event(_Record):
    """A fall-back or oddity that happened while a variant was made."""

    kind: str
    where: str
    detail: str


class VariantSummary(_Record):
    """One variant: what it is, what it scores, what it keeps of its baseline."""

    name: str
    base: str = Field(description="the model that it was made from")
    baseline: str | None = Field(description="the variant it is compared with; null for a reference")
    recipe: str | None = Field(description="name of the recipe; null for a checkpoint made elsewhere")
    recipe_hash: str | None = None
    sparsity: SparsityInfo
    weight_bits: int | None = Field(description="bits of a stored weight of the linears")
    dtype: str | None = None
    bytes: int | None = Field(description="size of the safetensors files")
    parameters: int | None = None
    weights_sha256: str | None = None
    loaders: list[str] = Field(description="what opens it: transformers, vllm, ...")
    masks: MaskInfo | None = Field(None, description="check of its masks; null where it has none or was not checked")
    reason: str | None = Field(None, description="why weight_bits or bytes is null")
    suites: dict[str, SuiteResult]
    recovery: dict[str, RecoveryResult] = Field(description="by suite, and `mean` over the suites")
    recovery_of_means: RecoveryResult | None = Field(
        None, description="variant's mean score over the suites / the baseline's; under `recovery`, `mean` is the other"
    )
    difference: dict[str, DifferenceResult] = Field(description="by suite")
    distance: DistanceResult | None = Field(
        None, description="distance to its baseline on fixed text; null where the study does not measure it"
    )
    events: list[Event] = Field(default_factory=list)

    @model_validator(mode="after")
    def _null_has_a_reason(self) -> VariantSummary:
        if (self.weight_bits is None or self.bytes is None) and not self.reason:
            raise ValueError("null weight_bits or bytes needs a reason")
        return self


class SpeedBaseline(_Record):
    """What a speed ratio is relative to."""

    variant: str
    engine: str
    dtype: str


class SpeedConfirmation(_Record):
    """The second run, with new processes, that a slowdown or a missed target was measured with."""

    ratio: float
    ci95: Interval | None
    noise_floor: float
    decided: bool = Field(description="whether the machine was quiet enough in it")


class SpeedPacking(_Record):
    """How engine sparse held a variant's weights."""

    isa: str = Field(description="instruction set of the kernels: scalar, avx2, avx512, avx512_bf16 or amx")
    bytes: int = Field(description="of all packed matrices: what a token reads")
    matrices: dict[str, int] = Field(description="how many matrices took which form, such as `sparse i8`")
    memory: Literal["mmap", "copy"] = Field(description="mapped from the file, or copied in huge pages")
    path: Literal["native", "transformers"] = Field(description="what runs the rest of the model")


class SpeedRow(_Record):
    """One variant on one engine in one speed panel."""

    panel: str = Field(description="rows of one panel were measured interleaved, on one host; compare only those")
    workload: str
    engine: str
    variant: str
    dtype: str
    threads: int | None
    batch: int
    context: int
    tokens_per_s: float | None = Field(description="median; holds for the machine in `environment` only")
    baseline: SpeedBaseline
    ratio: float | None = Field(description="speed / baseline speed, ratio of medians: above 1 is faster")
    ci95: Interval | None = None
    noise_floor: float | None = Field(
        None, description="largest |ratio - 1| that the baseline shows against itself in this panel; below it is noise"
    )
    n: int | None = Field(None, description="timed repetitions")
    method: str | None = None
    reason: str | None = None
    verdict: (
        Literal["baseline", "no difference", "faster", "slower", "unconfirmed", "not decided", "not measured"] | None
    ) = Field(None, description="what the panel says; `slower` only after a confirmation run; null in older records")
    p_value: float | None = Field(None, description="Mann-Whitney test of the block medians, two-sided")
    confirmation: SpeedConfirmation | None = None
    attempts: int | None = Field(None, description="runs it took until the machine was quiet enough")
    peak_rss: int | None = Field(None, description="bytes, the most the process held, libraries included")
    peak_device: int | None = Field(None, description="bytes, the most on the accelerator; null on the CPU")
    bytes: int | None = Field(None, description="size of the safetensors files")
    energy_j_per_token: float | Literal["unavailable"] | None = Field(
        None, description="joules of the processor package per token; `unavailable` where no counter can be read"
    )
    packing: SpeedPacking | None = Field(None, description="of engine sparse; null on other engines")

    @model_validator(mode="after")
    def _null_has_a_reason(self) -> SpeedRow:
        if (self.ratio is None or self.tokens_per_s is None) and not self.reason:
            raise ValueError("a null ratio or tokens_per_s needs a reason")
        return self


class Environment(_Record):
    """Where the numbers were made. No host names, user names or paths."""

    python: str
    sparsebench: str
    platform: str
    cpu_model: str | None = None
    cores: int | None = None
    threads: int | None = None
    accelerator: str | None = None
    torch: str | None = None
    transformers: str | None = None
    lm_eval: str | None = None


class StudyInfo(_Record):
    """Which study this is the result of."""

    name: str
    hash: str = Field(description="sha256 of the resolved study")
    suites: list[str]
    seed: int = 0


class Summary(_Record):
    """The whole of `summary.json`."""

    schema_version: Literal[1] = 1
    study: StudyInfo
    environment: Environment
    variants: list[VariantSummary]
    speed: list[SpeedRow]
    perplexity: list[PerplexityRow] = Field(default_factory=list, description="empty where the study measures none")
    published: list[PublishedRow] = Field(
        default_factory=list, description="the study's `expected:` beside its own values; empty where it names none"
    )

    @model_validator(mode="after")
    def _unique_names(self) -> Summary:
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            raise ValueError("variant names repeat")
        return self

    def variant(self, name: str) -> VariantSummary | None:
        """Return the variant called `name`, or None."""
        return next((variant for variant in self.variants if variant.name == name), None)


def json_schema() -> Mapping[str, Any]:
    """Return the JSON Schema of `summary.json`, as it is committed in `summary.schema.json`."""
    schema = Summary.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
