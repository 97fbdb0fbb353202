"""Studies: one YAML file names the models, variants, suites, speed panels and gate rules of a run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from harness.engine_specs import (
    ENGINE_SPECS,
    AnyEngineSpec,
    EndpointSpec,
    EngineSpec,
    OpenAISpec,
    Strict,
    checked_base_url,
    engine_body,
)
from harness.errors import ConfigError
from harness.expected import ExpectedSpec, check_expected
from harness.gate_rules import GateRule
from suites.registry import ALL_SUITES, SUITES, load_suite

_BUILTIN = Path(__file__).with_name("studies")
EngineName = Literal["torch", "sparse"]
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class ModelSpec(Strict):
    """A model that variants are made from."""

    path: str = Field(min_length=1, description="a bundled model (`pocket`, ...), a directory or a hub id")
    revision: str | None = Field(None, description="commit of a hub model")
    stand_in: str = Field("pocket", description="the bundled model in its place where `--scale pocket` cuts the study")


class VariantSpec(Strict):
    """One variant: made by a recipe, a checkpoint made elsewhere, or a model behind an endpoint."""

    source: str | None = Field(None, alias="from", description="name of one of the study's models")
    recipe: str = Field("dense", description="a built-in recipe, or a recipe file (from the folder in which you run)")
    path: str | None = Field(None, description="a checkpoint made elsewhere: a directory or hub id")
    endpoint: EndpointSpec | None = Field(None, description="a model behind an OpenAI-compatible endpoint")
    baseline: str | None = Field(None, description="the variant it is compared with; default: the first variant")
    teacher: str | None = Field(None, description="the model of the study that a recipe's `teacher: given` is")

    @model_validator(mode="after")
    def _one_origin(self) -> VariantSpec:
        if [self.source, self.path, self.endpoint].count(None) != 2:
            raise ValueError(
                "give either `from` (a model of the study), `path` (a checkpoint made elsewhere) or `endpoint`"
            )
        if self.source is None and "recipe" in self.model_fields_set:
            raise ValueError("a checkpoint or an endpoint takes no recipe; use `from` and `recipe`")
        return self


class SuiteSpec(Strict):
    """One suite of the study."""

    preset: str = Field("pocket", description="one of the suite's presets")
    n: int | None = Field(None, gt=0, description="first n items; default: all, or 300 of the pocket items")


class SpeedSpec(Strict):
    """One speed panel: all its variants, interleaved, on this host."""

    workload: Literal["decode", "prefill", "throughput"] = Field(
        description="tokens one at a time, the reading of a prompt, or batches of whole answers"
    )
    variants: Literal["all"] | tuple[str, ...] = Field("all", description="variants to time")
    engine: EngineName = Field("torch", description="the baseline's engine")
    engines: tuple[EngineName, ...] = Field(
        (), description="other engines that all variants run on as well; rows of one that is not built here say so"
    )
    baseline: str | None = Field(None, description="default: the study's first variant")
    context: int = Field(128, gt=0, description="tokens in the cache (decode) or in the prompt (prefill)")
    batch: int = Field(1, gt=0, description="sequences at a time")
    batches: tuple[Annotated[int, Field(gt=0)], ...] = Field((), description="throughput: batch sizes, ascending")
    new_tokens: int = Field(16, gt=0, description="tokens that one decode measurement times, or throughput generates")
    threads: int = Field(1, gt=0, description="of each process")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of weights not quantized")
    budget_s: float = Field(40.0, gt=0, description="seconds to spend on one run; a restless machine costs repeats")
    attempts: int = Field(3, gt=0, description="runs at most while the machine is too restless to decide")

    @model_validator(mode="after")
    def _batches_of_a_sweep(self) -> SpeedSpec:
        if self.batches and (self.workload != "throughput" or list(self.batches) != sorted(set(self.batches))):
            raise ValueError("`batches` is for workload throughput and ascends, such as [1, 2, 4]")
        if len(set(self.engines)) < len(self.engines):
            raise ValueError("an engine is named twice; name each once")
        if self.engine in self.engines:
            raise ValueError(f"engine {self.engine} is named twice: it is measured anyway, name only others")
        if self.dtype == "float16" and "sparse" in (self.engine, *self.engines):
            raise ValueError("engine sparse knows dtype float32 and bfloat16, not float16")
        return self

    def named(self) -> frozenset[str] | None:
        """The variants that the panel names; None where it has all."""
        return None if self.variants == "all" else frozenset(self.variants)


class DistanceSpec(Strict):
    """Distance of every variant to its baseline on fixed text."""

    suites: Literal["all"] | tuple[str, ...] = Field(
        "all", description="test prompts of these suites of the study, with their reference answers"
    )
    items: int = Field(100, gt=0, description="first items of each suite")
    text: str | None = Field(None, description="also windows of `wikitext2` or of a text file")
    context: int = Field(512, ge=2, description="tokens of a window")
    windows: int | None = Field(50, gt=0, description="the first so many windows; null for all")
    new_tokens: int = Field(64, gt=0, description="length of greedy continuations at most")
    batch_size: int = Field(16, gt=0, description="texts at a time")


class PerplexitySpec(Strict):
    """Perplexity of every variant on one text, by `harness.perplexity`, on engine torch."""

    text: str = Field("wikitext2", description="`wikitext2` (test, raw), `pocket` (bundled), a text file or JSONL")
    context: int = Field(2048, ge=2, description="tokens of a window")
    windows: int | None = Field(None, gt=0, description="the first so many windows; null for all")
    batch: int = Field(1, gt=0, description="windows at a time")


class ScaleSpec(Strict):
    """How a study of a large model was cut down to a bundled one (`harness.scale`)."""

    to: Literal["pocket"] = "pocket"
    tokens: int = Field(40_960, ge=1024, description="tokens of each training stage at most")
    samples: int = Field(32, gt=0, description="calibration rows or windows at most")
    seq: int = Field(256, ge=32, description="tokens of a row or window at most")


class Study(Strict):
    """The unit that a user runs."""

    version: Literal[1] = 1
    name: str = Field(pattern=_NAME, description="default: the file's name without its ending")
    description: str = ""
    models: dict[str, ModelSpec] = Field(default_factory=dict, description="what variants are made from")
    variants: dict[str, VariantSpec] = Field(min_length=1, description="what is compared; the first is the reference")
    suites: dict[str, SuiteSpec] = Field(default_factory=dict, description="skills to measure, of every variant")
    engine: AnyEngineSpec = Field(EngineSpec(), description="what runs the suites")
    speed: tuple[SpeedSpec, ...] = Field((), description="speed panels, measured one after the other")
    distance: DistanceSpec | None = Field(None, description="agreement and KL with the baseline on fixed text")
    perplexity: tuple[PerplexitySpec, ...] = Field((), description="perplexity of the variants, on texts")
    gates: tuple[GateRule, ...] = Field((), description="rules that `sparsebench gate` checks")
    seed: int = Field(0, description="of sampling, where a preset samples")
    expected: tuple[ExpectedSpec, ...] = Field((), description="published values; they decide nothing of the results")
    scale: ScaleSpec | None = Field(None, description="set by `--scale pocket`, never written by hand")

    @field_validator("engine", mode="before")
    @classmethod
    def _engine_by_name(cls, value: Any) -> Any:
        return engine_body(value)

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        import re

        for name, variant in self.variants.items():
            if not re.match(_NAME, name):
                raise ValueError(f"variant name {name!r} is not a folder name; use letters, digits, '-', '_', '.'")
            if variant.source is not None and variant.source not in self.models:
                raise ValueError(f"variant {name}: model {variant.source!r} is not in models: {_list(self.models)}")
            if variant.teacher is not None and variant.teacher not in self.models:
                raise ValueError(f"variant {name}: teacher {variant.teacher!r} is not in models: {_list(self.models)}")
            if variant.baseline is not None and variant.baseline not in self.variants:
                raise ValueError(
                    f"variant {name}: baseline {variant.baseline!r} is not in variants: {_list(self.variants)}"
                )
        self._check_endpoints()
        for name in self.suites:
            if name not in ALL_SUITES:
                raise ValueError(f"unknown suite {name!r}; choose one of {_list(ALL_SUITES)}")
        for index, panel in enumerate(self.speed):
            named = (
                *(() if panel.variants == "all" else panel.variants),
                *([panel.baseline] if panel.baseline else []),
            )
            for name in named:
                if name not in self.variants:
                    raise ValueError(f"speed[{index}]: variant {name!r} is not in variants: {_list(self.variants)}")
        for name in self.distance.suites if self.distance and self.distance.suites != "all" else ():
            if name not in self.suites or name not in SUITES:
                raise ValueError(f"distance: {name!r} is not one of the skills in suites: {_list(self.suites)}")
        if self.distance is not None and not isinstance(self.engine, EngineSpec):
            raise ValueError(f"distance needs all logits, which engine {self.engine.name} does not give; use torch")
        if self.perplexity and isinstance(self.engine, OpenAISpec):
            raise ValueError("perplexity reads all tokens' log-likelihoods, which endpoints do not give; remove it")
        if len({(spec.text, spec.context) for spec in self.perplexity}) < len(self.perplexity):
            raise ValueError("perplexity: a text and context are named twice; name each pair once")
        if self.scale is None:  # a study that was cut down keeps what is published for the whole one
            self._check_expected()
        return self

    def _check_expected(self) -> None:
        check_expected(
            self.expected,
            variants=self.variants,
            presets={name: spec.preset for name, spec in self.suites.items()},
            panels=[(panel.workload, frozenset((panel.engine, *panel.engines)), panel.named()) for panel in self.speed],
            texts=[(spec.text, spec.context) for spec in self.perplexity],
        )

    def _check_endpoints(self) -> None:
        served = [name for name, variant in self.variants.items() if variant.endpoint is not None]
        if not isinstance(self.engine, OpenAISpec):
            if served:
                raise ValueError(f"variant {served[0]} is an endpoint; set `engine: {{name: openai}}`")
            return
        if len(served) < len(self.variants):
            raise ValueError(
                "engine openai runs variants with `endpoint:` only; run the others in a study of their own"
            )
        if self.speed:
            raise ValueError("speed panels time files on this machine; time an endpoint with `sparsebench bench serve`")
        for name in served:
            endpoint = self.variants[name].endpoint
            base_url = (endpoint and endpoint.base_url) or self.engine.base_url
            if base_url is None:
                raise ValueError(f"variant {name}: give `base_url` in its endpoint or in `engine`")
            checked_base_url(base_url)

    @property
    def reference(self) -> str:
        """The first variant: what the others are compared with unless they say otherwise."""
        return next(iter(self.variants))

    def baseline_of(self, name: str) -> str | None:
        """The variant that `name` is compared with; None for the reference."""
        return self.variants[name].baseline or (None if name == self.reference else self.reference)

    def n_of(self, suite: str) -> int | None:
        """How many items of a suite are planned; None is all of them."""
        spec = self.suites[suite]
        if spec.n is None and load_suite(suite).preset(spec.preset).data == "pocket":
            return 300
        return spec.n

    def resolved(self) -> dict[str, Any]:
        """The study with every default written out; the form that is kept beside the results."""
        body = self.model_dump(mode="json", by_alias=True)
        for variant in body["variants"].values():
            if variant["endpoint"] is None:  # so that a study of files is the study that it was
                del variant["endpoint"]
        for model in body["models"].values():
            if model["stand_in"] == "pocket":
                del model["stand_in"]
        for later in ("perplexity", "expected", "scale"):  # and one without these
            if not body[later]:
                del body[later]
        return body

    @property
    def hash(self) -> str:
        """SHA-256 over what decides the results of cells; an endpoint's transport does not."""
        apart = ("description", "gates", "distance", "perplexity", "expected")
        parts = {key: value for key, value in self.resolved().items() if key not in apart}
        parts["models"] = {
            name: {key: value for key, value in model.items() if key != "stand_in"}
            for name, model in parts["models"].items()
        }
        if isinstance(self.engine, OpenAISpec):
            parts["engine"] = {key: v for key, v in parts["engine"].items() if key not in self.engine.transport()}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _list(names: Any) -> str:
    return ", ".join(names)


def builtin_studies() -> tuple[str, ...]:
    """Names of the studies that come with the project."""
    return tuple(sorted(path.stem for path in _BUILTIN.glob("*.yaml")))


def load_study(name_or_path: str) -> Study:
    """Load a built-in study by name, or a study file.

    Raises:
        ConfigError: No such study, or the file is not one; the message names the file, the key and the fix.
    """
    path = _BUILTIN / f"{name_or_path}.yaml" if name_or_path in builtin_studies() else Path(name_or_path)
    if not path.is_file():
        raise ConfigError(f"no study {name_or_path!r}; give a YAML file or one of {_list(builtin_studies())}")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a study is a mapping with `variants:`; see harness/studies/pocket.yaml")
    return parse_study({"name": path.stem, **data}, where=str(path))


def parse_study(data: dict[str, Any], *, where: str) -> Study:
    """Validate a study that was already read; `where` is what errors call it.

    Raises:
        ConfigError: A key or value is wrong.
    """
    try:
        return Study.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        loc = first["loc"]
        if len(loc) > 2 and loc[0] == "engine" and loc[1] in ENGINE_SPECS:  # which of the engine's models was meant
            loc = (loc[0], *loc[2:])
        at = ".".join(str(part) for part in loc)
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = f"unknown key; allowed: {_allowed(first['loc'])}"
        raise ConfigError(f"{where}: {at + ': ' if at else ''}{message}") from None


def _allowed(loc: tuple[int | str, ...]) -> str:
    inside: dict[str, type[BaseModel]] = {
        "models": ModelSpec,
        "variants": VariantSpec,
        "suites": SuiteSpec,
        "speed": SpeedSpec,
        "engine": ENGINE_SPECS.get(str(loc[1]) if len(loc) > 1 else "", EngineSpec),
        "distance": DistanceSpec,
        "perplexity": PerplexitySpec,
        "expected": ExpectedSpec,
        "scale": ScaleSpec,
    }
    model = inside.get(str(loc[0]), Study) if len(loc) > 1 else Study
    return _list(field.alias or name for name, field in model.model_fields.items())
