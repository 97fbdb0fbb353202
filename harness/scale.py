"""A study of a large model cut down to the bundled pocket model: the same variants and stages, small budgets.

What is kept is the form: which stages follow each other, with which sparsity, losses, teacher and baseline. What is cut
is printed by `changes`. Its numbers say that the protocol runs, nothing of the model that the study is about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from harness.errors import ConfigError
from harness.perplexity import POCKET
from harness.study import ScaleSpec, Study, parse_study
from sparsify.recipe import Recipe, load_recipe, parse_recipe
from suites.registry import SUITES, load_suite

# Pocket items of a skill, of which a scaled study is measured on a few.
ITEMS = 40
_WINDOWS, _CONTEXT = 20, 256
_LR, _BATCH_TOKENS, _RANK = 1e-3, 2048, 8
_SPEED: Mapping[str, Any] = {
    "context": 64,
    "new_tokens": 4,
    "batch": 1,
    "batches": [],
    "threads": 1,
    "dtype": "float32",
    "budget_s": 4.0,
    "attempts": 1,
}
# What can still be asked of a model of another size: that zeros are there, and stayed.
_GATES = frozenset({"sparsity", "no_revived_zeros"})
_TEXTS = ("suite:text/train", "suite:code/train", "suite:mix/train")
_ROWS = {"task:gsm8k": "suite:gsm8k/train"}
_CALIBRATION = "suite:mix/train"
_BLOCKS = 5


def scaled_study(study: Study, scale: ScaleSpec, *, n: int | None = None) -> Study:
    """The study on the pocket model.

    Args:
        study: Of a large model; all its variants are made from its `models:`.
        scale: The budgets.
        n: Items of each suite; `ITEMS` if not given.

    Raises:
        ConfigError: A variant is a checkpoint made elsewhere or an endpoint, which no pocket model can stand for.
    """
    for name, variant in study.variants.items():
        if variant.source is None:
            raise ConfigError(
                f"--scale: variant {name} is not made from a model of the study; there is none to stand in"
            )
    body = study.resolved()
    body["models"] = {name: {"path": model.stand_in} for name, model in study.models.items()}
    body["suites"] = {name: {"preset": "pocket", "n": n or ITEMS} for name in _suites(study)}
    body["engine"] = {"name": "auto", "batch_size": 100}
    body["speed"] = [{**panel, **_SPEED, "engine": "torch"} for panel in body["speed"]]
    body["perplexity"] = [{"text": POCKET, "context": _CONTEXT, "windows": _WINDOWS}] if study.perplexity else []
    body["gates"] = [rule for rule in body["gates"] if rule["rule"] in _GATES]
    body["distance"] = None
    body["scale"] = scale.model_dump(mode="json")
    return parse_study(body, where=f"{study.name} --scale {scale.to}")


def scale_down(
    study: Study, to: str | None, *, tokens: int | None, n: int | None, say: Callable[[str], object] | None
) -> Study:
    """What `--scale` does to a study.

    Args:
        study: The study.
        to: What the option says.
        tokens: Of each training stage at most; None for the default.
        n: Items of each suite; None for the default.
        say: Told of each change.

    Raises:
        ConfigError: The option names nothing that there is, or the study cannot be cut down.
    """
    if to != "pocket":
        raise ConfigError("--scale is pocket" + (f", not {to!r}" if to else "; --scale-tokens needs it"))
    scaled = scaled_study(study, ScaleSpec() if tokens is None else ScaleSpec(tokens=tokens), n=n)
    if say is not None:
        for line in changes(study, scaled):
            say(line)
    return scaled


def recipe_of(study: Study, name: str) -> Recipe:
    """The recipe of a variant that is made from a model, cut down where the study is.

    Raises:
        RecipeError: There is no such recipe.
    """
    recipe = load_recipe(study.variants[name].recipe)
    return recipe if study.scale is None else scaled_recipe(recipe, study.scale)


def scaled_recipe(recipe: Recipe, scale: ScaleSpec) -> Recipe:
    """The same stages with the pocket model's text and the budgets of `scale`."""
    stages = []
    for stage in recipe.stages:
        spec = stage.spec.model_dump(mode="json")
        if stage.training is not None:
            spec = _training(spec, scale)
        if spec.get("calibration"):
            given = {**spec["calibration"], "source": _CALIBRATION}
            given["samples"] = min(given.get("samples", scale.samples), scale.samples)
            given["seq"] = min(given.get("seq", scale.seq), scale.seq)
            spec["calibration"] = given
        if "skip" in spec:
            spec["skip"] = [name for name in spec["skip"] if _there(name)]
        stages.append({stage.kind: spec})
    body = {"version": recipe.version, "description": recipe.description, "stages": stages}
    return parse_recipe(body, name=recipe.name, where=f"{recipe.name}, scaled down")


def _training(spec: dict[str, Any], scale: ScaleSpec) -> dict[str, Any]:
    out = {**spec, "tokens": min(spec["tokens"], scale.tokens), "lr": _LR}
    out["seq"] = min(spec.get("seq", scale.seq), scale.seq)
    out["batch_tokens"] = min(spec.get("batch_tokens", _BATCH_TOKENS), _BATCH_TOKENS, out["tokens"])
    out["warmup"] = min(spec.get("warmup", 10), max(1, out["tokens"] // out["batch_tokens"] // 10))
    for name in ("accumulate", "checkpoint_activations", "precision", "select"):
        out.pop(name, None)
    if "mixture" in spec:
        out["mixture"] = [
            {"source": _TEXTS[index % len(_TEXTS)], "share": source["share"]}
            for index, source in enumerate(spec["mixture"])
        ]
    if "data" in spec:
        out["data"] = list(dict.fromkeys(_ROWS.get(source, _CALIBRATION) for source in spec["data"]))
    if spec.get("lora") is not None:
        out["lora"] = {**spec["lora"], "rank": min(spec["lora"].get("rank", _RANK), _RANK), "targets": []}
    return out


def _there(name: str) -> bool:
    """Whether a linear that a recipe names by its block is one of the pocket model's."""
    found = re.search(r"\.(\d+)\.", name)
    return found is None or int(found.group(1)) < _BLOCKS


def _suites(study: Study) -> Sequence[str]:
    own = [name for name in study.suites if "pocket" in load_suite(name).presets]
    return own or list(SUITES)


def changes(study: Study, scaled: Study) -> Iterator[str]:
    """What was changed, a line each."""
    scale = scaled.scale
    assert scale is not None
    yield f"scaled down to {scale.to}: stages, sparsities, losses, teachers and baselines are the study's, these not:"
    for name, model in study.models.items():
        yield f"  model {name}: {scaled.models[name].path} instead of {model.path}"
    yield (
        f"  training: at most {scale.tokens:,} tokens a stage in batches of {_BATCH_TOKENS:,}, rows of {scale.seq}, "
        f"learning rate {_LR:g}, float32, adapters of rank {_RANK} at most, on the pocket suites' training text"
    )
    yield f"  calibration: at most {scale.samples} rows of {scale.seq} tokens of {_CALIBRATION}"
    dropped = [name for name in study.suites if name not in scaled.suites]
    items = ", ".join(f"{name} ({spec.n})" for name, spec in scaled.suites.items())
    without = f"; {', '.join(dropped)}: no pocket items" if dropped else ""
    yield f"  suites: pocket items of {items}{without}"
    if study.perplexity:
        yield f"  perplexity: {_WINDOWS} windows of {_CONTEXT} tokens of the pocket model's plain text"
    if study.speed:
        yield f"  speed: context {_SPEED['context']}, {_SPEED['budget_s']:.0f} s a panel, one thread, float32"
    left = len(study.gates) - len(scaled.gates)
    if left:
        yield f"  gates: without {left} that ask for skill or speed"
    if study.expected:
        yield f"  published values: {len(study.expected)}, shown but not judged: they are of another model"
