"""Recipes: a short strict YAML file that says which stages turn a dense model into a variant.

Importing this module imports neither torch nor transformers, so that a plan can be made and hashed without them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sparsify.errors import RecipeError
from sparsify.files import sha256_json
from sparsify.train.settings import LossWeights, TrainSettings

_BUILTIN = Path(__file__).with_name("recipes")
_SCOPES = {
    "magnitude": ("matrix", "row", "block"),
    "wanda": ("row", "matrix", "block"),
    "sparsegpt": ("block", "row"),
    "admm": ("matrix", "row", "block"),
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Calibration(_Strict):
    """Which text the layer inputs are measured on."""

    source: str = Field(
        min_length=1, description="`suite:SKILL/train`, a JSONL or text file, or `hub:NAME[/CONFIG][:SPLIT]`"
    )
    samples: int = Field(128, gt=0, description="rows drawn from the source; of plain text, windows")
    seq: int = Field(512, gt=1, description="rows are cut to this many tokens; windows have exactly so many")
    seed: int = Field(0, description="of the draw")
    holdout: float = Field(0.0, ge=0, lt=1, description="share of the samples kept apart while budgets are chosen")


class Allocation(_Strict):
    """How a budget is spread over the linears; the sum is that of `sparsity`, to the weight."""

    kind: Literal["uniform", "owl", "slope", "file"] = "uniform"
    beta: float | None = Field(
        None, ge=-1, le=1, description="slope: rise of sparsity from the middle to the last block; chosen if not given"
    )
    spread: float = Field(0.08, ge=0, lt=0.5, description="owl: half the span of the blocks' sparsities")
    multiple: float = Field(5.0, gt=1, description="owl: a weight is an outlier at this many times the mean score")
    file: str | None = Field(None, description="file: JSON or YAML of {linear or glob: share of zeros}")
    shares: dict[str, float] = Field(default_factory=dict, description="file: what it said; read when the recipe is")

    @model_validator(mode="before")
    @classmethod
    def _read_file(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("kind") != "file" or data.get("shares"):
            return data
        path = Path(str(data.get("file") or ""))
        try:
            shares = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"allocation file {str(path)!r} cannot be read ({' '.join(str(error).split())})") from None
        if not isinstance(shares, Mapping) or not shares:
            raise ValueError(f"allocation file {path} is no mapping of linears to shares of zeros")
        # Its content counts, not its name: the recipe's hash is to follow it.
        return {**data, "shares": dict(shares), "file": path.name}

    @model_validator(mode="after")
    def _consistent(self) -> Allocation:
        if self.kind != "slope" and self.beta is not None:
            raise ValueError(f"beta is for kind slope, not {self.kind}")
        if self.kind != "file" and (self.file or self.shares):
            raise ValueError(f"file is for kind file, not {self.kind}")
        for name, share in self.shares.items():
            if not 0 <= share < 1:
                raise ValueError(f"the share of zeros of {name} must be at least 0 and less than 1, not {share}")
        return self


class PruneStage(_Strict):
    """Zero weights of the linears inside the blocks; the head and the embedding are never pruned."""

    method: Literal["magnitude", "wanda", "sparsegpt", "admm"]
    sparsity: float = Field(ge=0, lt=1, description="share of zeros; follows from `pattern` where that is N:M")
    pattern: str = Field("none", description="`none`, or N:M in quotes: at most N weights of M neighbours stay")
    scope: str = Field("", description="over what weights compete: matrix, row or block (128 columns, all rows)")
    refine: bool = Field(False, description="re-solve the surviving weights on the mask that the method found")
    allocation: Allocation = Allocation()
    keep_zeros: bool = Field(True, description="zeros of earlier pruning stay and are charged to the budget")
    order: Literal["block", "sequential"] = Field(
        "block", description="block: one pass for all linears of a block; sequential: run again after each group"
    )
    percdamp: float = Field(0.01, gt=0, le=1, description="damping of the Hessian relative to its mean diagonal")
    block_size: int = Field(128, gt=0, description="columns per SparseGPT block")
    calibration: Calibration | None = None
    skip: tuple[str, ...] = Field((), description="linears left dense: a name, its dotted ending or a glob")

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        nm = _pattern(data.get("pattern", "none"))
        if nm is not None:
            data.setdefault("sparsity", 1 - nm[0] / nm[1])
        scopes = _SCOPES.get(str(data.get("method")))
        if scopes and not data.get("scope"):
            data["scope"] = scopes[0]
        return data

    @model_validator(mode="after")
    def _consistent(self) -> PruneStage:
        nm = self.nm
        if self.scope not in _SCOPES[self.method]:
            raise ValueError(f"scope of {self.method} is {' or '.join(_SCOPES[self.method])}, not {self.scope}")
        if nm is not None and abs(self.sparsity - (1 - nm[0] / nm[1])) > 1e-6:
            raise ValueError(f"sparsity {self.sparsity} contradicts pattern {self.pattern}; leave sparsity out")
        if nm is not None and self.block_size % nm[1]:
            raise ValueError(f"block_size {self.block_size} is no multiple of {nm[1]}, the M of pattern {self.pattern}")
        needs = self.method != "magnitude" or self.refine or self.allocation.kind in ("owl", "slope")
        needs = needs and not (self.method == "magnitude" and not self.refine and self.allocation.beta is not None)
        if not needs and self.calibration is not None:
            raise ValueError("magnitude uses no calibration; remove it")
        if needs and self.calibration is None:
            raise ValueError(f'{self.method} needs calibration; add `calibration: {{source: "suite:mix/train"}}`')
        if nm is not None and self.allocation.kind != "uniform":
            raise ValueError(f"pattern {self.pattern} fixes the budget of every linear; remove allocation")
        chosen = self.allocation.kind == "slope" and self.allocation.beta is None
        if chosen and self.calibration is not None and not self.calibration.holdout:
            raise ValueError("a slope is chosen on held-out text; add `holdout: 0.25` to calibration, or give beta")
        return self

    @property
    def nm(self) -> tuple[int, int] | None:
        """(N, M) of the pattern, or None where it is unstructured."""
        return _pattern(self.pattern)


class FinetuneStage(TrainSettings):
    """Train the weights that are left; zeros of earlier stages stay zeros."""

    data: tuple[str, ...] = Field(min_length=1, description="corpora: `suite:SKILL/train`, JSONL paths or hub ids")
    teacher: Literal["base", "given", "none"] = Field(
        "none", description="base = the model that the recipe starts from; given = the one named beside the recipe"
    )
    tokens: int = Field(600_000, gt=0, description="real (non-padding) tokens to train on")
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    warmup: int = Field(10, ge=0, description="steps of linear warm-up")

    @field_validator("data", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _teacher_named(self) -> FinetuneStage:
        if self.losses.needs_teacher and self.teacher == "none":
            raise ValueError("losses kl and squarehead need a teacher; add `teacher: base`")
        return self

    @property
    def settings(self) -> TrainSettings:
        """What the trainer needs to know."""
        return TrainSettings(**{name: getattr(self, name) for name in TrainSettings.model_fields})


class QuantizeStage(_Strict):
    """Round the weights of the linears; zeros stay zeros."""

    scheme: Literal["w8a8"] = "w8a8"
    method: Literal["rtn"] = "rtn"
    skip: tuple[str, ...] = Field(("lm_head",), description="linears left as they are; the head always is")


Spec = PruneStage | FinetuneStage | QuantizeStage


class Stage(_Strict):
    """One step of a recipe: exactly one of its fields is set."""

    prune: PruneStage | None = None
    finetune: FinetuneStage | None = None
    quantize: QuantizeStage | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Stage:
        if sum(spec is not None for spec in (self.prune, self.finetune, self.quantize)) != 1:
            raise ValueError("a stage is exactly one of prune, finetune, quantize; start a new list item for the next")
        return self

    @property
    def spec(self) -> Spec:
        """The settings of the stage."""
        spec = self.prune or self.finetune or self.quantize
        assert spec is not None
        return spec

    @property
    def kind(self) -> Literal["prune", "finetune", "quantize"]:
        """What the stage does."""
        return "prune" if self.prune else "finetune" if self.finetune else "quantize"

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the corpora that the stage reads."""
        if self.finetune is not None:
            return self.finetune.data
        return (self.prune.calibration.source,) if self.prune and self.prune.calibration else ()

    def resolved(self) -> dict[str, Any]:
        """The stage as plain JSON with every default written out."""
        return {self.kind: self.spec.model_dump(mode="json")}


class Recipe(_Strict):
    """The stages that turn a model into a variant, in order."""

    name: str = Field(min_length=1)
    version: Literal[1] = 1
    description: str = ""
    stages: tuple[Stage, ...] = ()

    @model_validator(mode="after")
    def _order(self) -> Recipe:
        for stage in self.stages[:-1]:
            if stage.kind == "quantize":
                raise ValueError("quantize must be the last stage; move the stages after it before it")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of all corpora that the recipe reads, each once, in order of use."""
        return tuple(dict.fromkeys(source for stage in self.stages for source in stage.sources))

    @property
    def needs_teacher(self) -> bool:
        """Whether a stage learns from a teacher that is named beside the recipe (`teacher: given`)."""
        return any(stage.finetune is not None and stage.finetune.teacher == "given" for stage in self.stages)

    def resolved(self) -> dict[str, Any]:
        """The recipe as plain JSON with every default written out; the form that is hashed and recorded."""
        return {"version": self.version, "stages": [stage.resolved() for stage in self.stages]}


def recipe_hash(recipe: Recipe) -> str:
    """SHA-256 over the resolved recipe; name and description do not count."""
    return sha256_json(recipe.resolved())


def builtin_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the project."""
    return tuple(sorted(path.stem for path in _BUILTIN.glob("*.yaml")))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Load a built-in recipe by name, or a recipe file.

    Raises:
        RecipeError: No such recipe, or the file is not one; the message names the file, the key and the fix.
    """
    text = str(name_or_path)
    path = _BUILTIN / f"{text}.yaml" if text in builtin_recipes() else Path(name_or_path)
    if not path.is_file():
        raise RecipeError(f"no recipe {text!r}; give a YAML file or one of {', '.join(builtin_recipes())}")
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return parse_recipe(data, name=path.stem, where=str(path))


def parse_recipe(data: Any, *, name: str, where: str) -> Recipe:
    """Validate a recipe that was already read; `where` is what errors call it.

    Raises:
        RecipeError: As `load_recipe`.
    """
    if not isinstance(data, Mapping):
        raise RecipeError(f"{where}: a recipe is a mapping with `stages:`, not {type(data).__name__}")
    _check_keys(data, Recipe, where, "")
    stages = data.get("stages") or []
    if not isinstance(stages, list):
        raise RecipeError(f"{where}: stages must be a list; begin each with `- prune:`, `- finetune:` or `- quantize:`")
    for index, stage in enumerate(stages):
        _check_stage(stage, where, f"stages[{index}]")
    try:
        return Recipe.model_validate({"name": name, **data, "stages": stages})
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{where}: {at + ': ' if at else ''}{message}") from None


def _check_stage(stage: Any, where: str, at: str) -> None:
    # Before pydantic, because its message for an unknown key does not say which keys there are.
    if not isinstance(stage, Mapping):
        raise RecipeError(f"{where}: {at} must be a mapping such as `prune: {{...}}`, not {type(stage).__name__}")
    _check_keys(stage, Stage, where, at)
    kinds: dict[str, type[BaseModel]] = {"prune": PruneStage, "finetune": FinetuneStage, "quantize": QuantizeStage}
    nested: dict[str, type[BaseModel]] = {"calibration": Calibration, "losses": LossWeights, "allocation": Allocation}
    for kind, spec in stage.items():
        if isinstance(spec, Mapping):
            _check_keys(spec, kinds[kind], where, f"{at}.{kind}")
            for key, value in spec.items():
                if key in nested and isinstance(value, Mapping):
                    _check_keys(value, nested[key], where, f"{at}.{kind}.{key}")


def _check_keys(data: Mapping[Any, Any], model: type[BaseModel], where: str, at: str) -> None:
    for key in data:
        if key not in model.model_fields:
            inside = f" in {at}" if at else ""
            allowed = ", ".join(sorted(model.model_fields))
            raise RecipeError(f"{where}: unknown key {key!r}{inside}; allowed: {allowed}")


def _pattern(value: Any) -> tuple[int, int] | None:
    if value == "none" or value is None:
        return None
    if not isinstance(value, str):
        # YAML 1.1 reads 2:4 as the base-60 number 124.
        raise ValueError('pattern must be in quotes, as "2:4"')
    n, _, m = value.partition(":")
    if not (n.isdigit() and m.isdigit() and 0 < int(n) < int(m)):
        raise ValueError(f'pattern {value!r} is neither none nor "N:M" with 0 < N < M, such as "2:4"')
    return int(n), int(m)


class _UniqueKeys(yaml.SafeLoader):  # type: ignore[misc,unused-ignore]
    """A safe loader that refuses a key given twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping, checking its keys."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping
