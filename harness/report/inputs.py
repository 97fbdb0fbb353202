"""What `summarize` is given: the study, its variants and their sample rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.records import Environment, Event, MaskInfo, SampleRow, StudyInfo
from harness.schema.distance import DistanceResult

CellKey = tuple[str, str]
"""(variant, suite)"""
Samples = Mapping[CellKey, Sequence[SampleRow]]


@dataclass(frozen=True, slots=True)
class SuiteMeta:
    """One suite as the study planned it.

    Attributes:
        preset: name of the suite's preset, for example `pocket`.
        suite_hash: hash that every row of the suite must carry.
        metric: the suite's primary metric.
        n_total: items planned for each variant.
        margin: the suite's own non-inferiority margin, or None.
    """

    preset: str
    suite_hash: str
    metric: str
    n_total: int
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class StudyMeta:
    """The study as it was resolved; `suites` in the order in which tables show them."""

    name: str
    hash: str
    suites: Mapping[str, SuiteMeta]
    environment: Environment
    seed: int = 0

    def info(self) -> StudyInfo:
        """Return what the summary says about the study."""
        return StudyInfo(name=self.name, hash=self.hash, suites=list(self.suites), seed=self.seed)


@dataclass(frozen=True, slots=True)
class VariantInput:
    """One variant as `variant.json` describes it, and what it is compared with.

    Attributes:
        name: its name in the study.
        base: the model it was made from (a name or hub id, never a local path).
        baseline: the variant it is compared with; None for a reference.
        recipe: name of its recipe; None for a checkpoint made elsewhere.
        refused: suites that could not run for it, with the reason (for example, no sandbox).
        distance: its distance to the baseline on fixed text, where the study measures it.
    """

    name: str
    base: str
    baseline: str | None
    recipe: str | None = None
    recipe_hash: str | None = None
    sparsity_linears: float | None = None
    sparsity_model: float | None = None
    weight_bits: int | None = None
    dtype: str | None = None
    bytes: int | None = None
    parameters: int | None = None
    weights_sha256: str | None = None
    loaders: tuple[str, ...] = ()
    masks: MaskInfo | None = None
    events: tuple[Event, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    distance: DistanceResult | None = None

    @classmethod
    def from_variant_json(
        cls,
        data: Mapping[str, Any],
        *,
        name: str,
        baseline: str | None,
        refused: Mapping[str, str] | None = None,
    ) -> VariantInput:
        """Read the fields of `variant.json` (schema_version 1); a field that it lacks stays unknown.

        `name` and `baseline` come from the study: the same files may serve under several names.
        """
        recipe, sparsity = data.get("recipe") or {}, data.get("sparsity") or {}
        return cls(
            name=name,
            base=str(data.get("base") or name),
            baseline=baseline,
            recipe=recipe.get("name"),
            recipe_hash=recipe.get("hash"),
            sparsity_linears=sparsity.get("linears"),
            sparsity_model=sparsity.get("model"),
            weight_bits=data.get("weight_bits"),
            dtype=data.get("dtype"),
            bytes=data.get("bytes"),
            parameters=data.get("parameters"),
            weights_sha256=data.get("weights_sha256"),
            loaders=tuple(data.get("loaders") or ()),
            masks=MaskInfo.model_validate(data["masks"]) if data.get("masks") else None,
            events=tuple(
                Event(kind=str(e["kind"]), where=str(e["where"]), detail=str(e["detail"]))
                for e in data.get("events") or ()
            ),
            refused=dict(refused or {}),
        )
