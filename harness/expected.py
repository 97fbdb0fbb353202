"""The `expected:` of a study: published values that its own are held against, each with source and tolerance.

They decide nothing of what is run and nothing of its results; the study's hash leaves them out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from harness.engine_specs import Strict

if TYPE_CHECKING:
    from suites.registry import Suite

What = Literal["score", "recovery", "speed", "perplexity"]
MEAN = "mean"
"""As `suite`: the mean of the primary metrics of all suites of the study."""

_SCALES: Mapping[str, tuple[str, ...]] = {
    "score": ("percent", "fraction"),
    "recovery": ("percent", "fraction"),
    "speed": ("times",),
    "perplexity": ("perplexity",),
}
_FIELDS: Mapping[str, frozenset[str]] = {
    "score": frozenset({"suite", "preset", "metric"}),
    "recovery": frozenset({"suite", "preset"}),
    "speed": frozenset({"workload", "engine"}),
    "perplexity": frozenset({"text", "context"}),
}
_METRICS: Mapping[str, tuple[str, ...]] = {
    "chat": ("both_turns", "turns", "turn1", "turn2", "answered"),
    "instruct": ("prompt_level_strict", "prompt_level_loose", "inst_level_strict", "inst_level_loose"),
    "gsm8k": ("exact_match_flexible", "exact_match_strict", "extracted"),
    "summarization": ("rouge1", "rouge2", "rougeL", "rougeLsum"),
}


class ExpectedSpec(Strict):
    """One published value."""

    model_config = ConfigDict(allow_inf_nan=False)

    variant: str = Field(min_length=1, description="the variant of the study that the value is published for")
    what: What = Field("score", description="score, recovery (variant / its baseline), speed or perplexity")
    suite: str | None = Field(None, description=f"score, recovery: a suite of the study, or `{MEAN}` over all of them")
    preset: str | None = Field(None, description="score, recovery: the suite's preset, which must be the study's")
    metric: str | None = Field(None, description="score: default, the suite's primary metric")
    workload: Literal["decode", "prefill", "throughput"] | None = Field(None, description="speed: of the panel")
    engine: Literal["torch", "sparse"] | None = Field(None, description="speed: of the row; default: the panel's own")
    text: str | None = Field(None, description="perplexity: as in the study's `perplexity:`")
    context: int | None = Field(None, description="perplexity: tokens of a window")
    value: float = Field(description="as published, in `scale`")
    scale: Literal["percent", "fraction", "times", "perplexity"] = Field(
        description="percent or fraction (score, recovery), times the baseline's speed, or perplexity"
    )
    tolerance: float = Field(ge=0, description="in `scale`: so far off counts as the same value")
    source: str = Field(description="where it is published: paper and table, figure or section; or the card")
    verified: bool = Field(description="whether the value was read in its source; false where it is only reported")
    protocol: str = Field("", description="how the published protocol differs from this study's, in words")

    @field_validator("source")
    @classmethod
    def _sourced(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("say where the value is published: paper and table, figure or section")
        return value

    @model_validator(mode="before")
    @classmethod
    def _has_source(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "source" not in data:
            raise ValueError("no source; say where the value is published: paper and table, figure or section")
        return data

    @model_validator(mode="after")
    def _consistent(self) -> ExpectedSpec:
        for name in sorted(set().union(*_FIELDS.values()) - _FIELDS[self.what]):
            if getattr(self, name) is not None:
                raise ValueError(f"`{name}` says nothing of a {self.what}; remove it")
        if self.scale not in _SCALES[self.what]:
            raise ValueError(f"a {self.what} has scale {' or '.join(_SCALES[self.what])}, not {self.scale}")
        needed = {"score": "suite", "recovery": "suite", "speed": "workload", "perplexity": "text"}[self.what]
        if getattr(self, needed) is None:
            raise ValueError(f"a {self.what} needs `{needed}`")
        if self.what == "perplexity" and self.context is None:
            raise ValueError("a perplexity means nothing without its `context`")
        if self.suite == MEAN and (self.metric or self.preset):
            raise ValueError(
                f"suite {MEAN} is over the primary metrics of the study's presets; remove metric and preset"
            )
        return self

    def label(self) -> str:
        """What the value is of, in words."""
        if self.what == "speed":
            return f"{self.workload} on {self.engine}" if self.engine else str(self.workload)
        if self.what == "perplexity":
            return f"perplexity, {self.text}, context {self.context}"
        named = (
            "mean of the suites"
            if self.suite == MEAN
            else f"{self.suite} ({self.preset})"
            if self.preset
            else self.suite
        )
        return " ".join(part for part in (named, self.metric, "recovery" if self.what == "recovery" else None) if part)


def known_metrics(suite: Suite, preset: str) -> tuple[str, ...]:
    """Names of the metrics that a preset's items get."""
    if suite.kind == "choice":
        return ("acc", "acc_norm")
    if suite.name == "code":
        from harness.evaluate.code import PASS_AT

        return tuple(f"pass@{k}" for k in PASS_AT if k <= suite.preset(preset).samples)
    return _METRICS[suite.name]


def check_expected(
    specs: Collection[ExpectedSpec],
    *,
    variants: Collection[str],
    presets: Mapping[str, str],
    panels: Collection[tuple[str, frozenset[str], frozenset[str] | None]],
    texts: Collection[tuple[str, int]],
) -> None:
    """Refuse a published value of something that the study does not measure.

    Args:
        specs: The study's.
        variants: Names of its variants.
        presets: Preset by suite.
        panels: Workload, engines and variants (None: all) of each speed panel.
        texts: (text, context) of each perplexity.

    Raises:
        ValueError: One is; the message names it and what there is.
    """
    for index, spec in enumerate(specs):
        at = f"expected[{index}]"
        if spec.variant not in variants:
            raise ValueError(f"{at}: variant {spec.variant!r} is not in variants: {', '.join(variants)}")
        if spec.what in ("score", "recovery"):
            _check_suite(at, spec, presets)
        elif spec.what == "speed":
            fits = [
                workload == spec.workload
                and (spec.engine is None or spec.engine in engines)
                and (names is None or spec.variant in names)
                for workload, engines, names in panels
            ]
            if not any(fits):
                raise ValueError(f"{at}: no speed panel of the study measures {spec.variant}, {spec.label()}")
        elif (spec.text, spec.context) not in texts:
            there = "; ".join(f"{text}, context {context}" for text, context in texts) or "none"
            raise ValueError(f"{at}: {spec.label()} is not measured; `perplexity:` has {there}")


def _check_suite(at: str, spec: ExpectedSpec, presets: Mapping[str, str]) -> None:
    from suites.registry import load_suite

    if spec.suite == MEAN and presets:
        return
    if spec.suite not in presets:
        raise ValueError(f"{at}: suite {spec.suite!r} is not in suites: {', '.join(presets) or 'none'}")
    preset = presets[str(spec.suite)]
    if spec.preset not in (None, preset):
        raise ValueError(f"{at}: published for preset {spec.preset!r} of {spec.suite}, the study has {preset!r}")
    known = known_metrics(load_suite(str(spec.suite)), preset)
    if spec.metric is not None and spec.metric not in known:
        raise ValueError(
            f"{at}: {spec.suite} ({preset}) has no metric {spec.metric!r}; choose one of {', '.join(known)}"
        )
