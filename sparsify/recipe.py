"""Recipes: a short strict YAML file that says which stages turn a dense model into a variant.

Importing this module imports neither torch nor transformers, so that a plan can be made and hashed without them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from sparsify.errors import RecipeError
from sparsify.files import sha256_json
from sparsify.specs import (
    Allocation,
    Calibration,
    FinetuneStage,
    JointPrune,
    PretrainStage,
    PruneStage,
    QuantizeStage,
    Reconstruct,
    SliceStage,
    Strict,
)
from sparsify.train.lora_settings import LoraSettings
from sparsify.train.settings import Gradual, LossWeights, MixtureSource, Select

_BUILTIN = Path(__file__).with_name("recipes")

Spec = SliceStage | PruneStage | PretrainStage | FinetuneStage | QuantizeStage
Kind = Literal["slice", "prune", "pretrain", "finetune", "quantize"]
CUTTING = ("slice", "prune")
"""The kinds of stages in front of which a model is dense."""


class Stage(Strict):
    """One step of a recipe: exactly one of its fields is set."""

    slice: SliceStage | None = None
    prune: PruneStage | None = None
    pretrain: PretrainStage | None = None
    finetune: FinetuneStage | None = None
    quantize: QuantizeStage | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Stage:
        if sum(spec is not None for spec in (self.slice, self.prune, self.training, self.quantize)) != 1 or (
            self.pretrain is not None and self.finetune is not None
        ):
            raise ValueError(
                "a stage is exactly one of slice, prune, pretrain, finetune, quantize; start a new list item for the "
                "next"
            )
        return self

    @property
    def spec(self) -> Spec:
        """The settings of the stage."""
        spec = self.slice or self.prune or self.training or self.quantize
        assert spec is not None
        return spec

    @property
    def training(self) -> PretrainStage | FinetuneStage | None:
        """The settings of a stage that trains."""
        return self.pretrain or self.finetune

    @property
    def kind(self) -> Kind:
        """What the stage does."""
        if self.training is not None:
            return "pretrain" if self.pretrain else "finetune"
        if self.slice is not None:
            return "slice"
        return "prune" if self.prune else "quantize"

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the corpora that the stage reads."""
        if self.training is not None:
            return self.training.data
        measured = self.slice or self.prune or self.quantize
        return (measured.calibration.source,) if measured and measured.calibration else ()

    def resolved(self) -> dict[str, Any]:
        """The stage as plain JSON with every default written out."""
        return {self.kind: self.spec.model_dump(mode="json")}


class Recipe(Strict):
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
        kinds = [stage.kind for stage in self.stages]
        if "slice" in kinds and "prune" in kinds[: kinds.index("slice")]:
            raise ValueError("slicing rotates every matrix and would fill the zeros; move slice before prune")
        if kinds.count("slice") > 1:
            raise ValueError("a model is sliced once; give one slice stage the whole fraction")
        cut = next((index for index, kind in enumerate(kinds) if kind in CUTTING), len(kinds))
        if any(stage.training is not None and stage.training.teacher == "dense" for stage in self.stages[: cut + 1]):
            raise ValueError("`teacher: dense` is the model before pruning or slicing; put such a stage in front of it")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of all corpora that the recipe reads, each once, in order of use."""
        return tuple(dict.fromkeys(source for stage in self.stages for source in stage.sources))

    @property
    def needs_teacher(self) -> bool:
        """Whether a stage learns from a teacher that is named beside the recipe (`teacher: given`)."""
        return any(stage.training is not None and stage.training.teacher == "given" for stage in self.stages)

    def resolved(self) -> dict[str, Any]:
        """The recipe as plain JSON with every default written out; the form that is hashed and recorded."""
        return {"version": self.version, "stages": [stage.resolved() for stage in self.stages]}


def recipe_hash(recipe: Recipe) -> str:
    """SHA-256 over the resolved recipe; name and description do not count."""
    return sha256_json(recipe.resolved())


def builtin_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the project, without those of the papers."""
    return tuple(sorted(path.stem for path in _BUILTIN.glob("*.yaml")))


def paper_recipes() -> tuple[str, ...]:
    """Names of the recipes that the built-in studies of the papers use, such as `papers/slicegpt-25`."""
    return tuple(sorted(f"papers/{path.stem}" for path in (_BUILTIN / "papers").glob("*.yaml")))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Load a built-in recipe by name, or a recipe file.

    Raises:
        RecipeError: No such recipe, or the file is not one; the message names the file, the key and the fix.
    """
    text = str(name_or_path)
    path = _BUILTIN / f"{text}.yaml" if text in (*builtin_recipes(), *paper_recipes()) else Path(name_or_path)
    if not path.is_file():
        aside = " (a path is from the folder in which you run)" if path.suffix else ""
        raise RecipeError(f"no recipe {text!r}{aside}; give a YAML file or one of {', '.join(builtin_recipes())}")
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
        raise RecipeError(
            f"{where}: stages must be a list; begin each with `- slice:`, `- prune:`, `- pretrain:`, `- finetune:` or "
            "`- quantize:`"
        )
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
    kinds: dict[str, type[BaseModel]] = {
        "slice": SliceStage,
        "prune": PruneStage,
        "pretrain": PretrainStage,
        "finetune": FinetuneStage,
        "quantize": QuantizeStage,
    }
    nested: dict[str, type[BaseModel]] = {
        "calibration": Calibration,
        "losses": LossWeights,
        "allocation": Allocation,
        "reconstruct": Reconstruct,
        "prune": JointPrune,
        "lora": LoraSettings,
        "mixture": MixtureSource,
        "select": Select,
        "gradual": Gradual,
    }
    for kind, spec in stage.items():
        if isinstance(spec, Mapping):
            _check_keys(spec, kinds[kind], where, f"{at}.{kind}")
            for key, value in spec.items():
                for part in value if isinstance(value, list) else (value,):
                    if key in nested and isinstance(part, Mapping):
                        _check_keys(part, nested[key], where, f"{at}.{kind}.{key}")


def _check_keys(data: Mapping[Any, Any], model: type[BaseModel], where: str, at: str) -> None:
    for key in data:
        if key not in model.model_fields:
            inside = f" in {at}" if at else ""
            allowed = ", ".join(sorted(model.model_fields))
            raise RecipeError(f"{where}: unknown key {key!r}{inside}; allowed: {allowed}")


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
