"""The papers as studies: they load, dry-run offline from recorded shapes, and cut down to the pocket model."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from harness.dry_run import plan_text, unpinned
from harness.errors import ConfigError
from harness.recorded import recorded_items, recorded_model
from harness.run import RunOptions
from harness.scale import changes, recipe_of, scale_down, scaled_recipe, scaled_study
from harness.study import ScaleSpec, Study, builtin_studies, load_study
from sparsify.plan import Machine, plan_shapes
from sparsify.recipe import load_recipe, paper_recipes, parse_recipe
from suites.registry import load_suite

PAPERS = ("sparse-llama", "sparse-llama-released", "squarehead-mpt", "slicegpt", "slicegpt-opt125m")
POCKET = Path(__file__).resolve().parents[2] / "suites" / "pocket" / "model" / "model.safetensors"
needs_pocket = pytest.mark.skipif(not POCKET.is_file(), reason="the pocket model is not here")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Any attempt to reach another machine fails the test, and no model lies in the hub's cache."""

    def refuse(*args: object, **_: object) -> None:
        raise AssertionError(f"the network was asked: {args}")

    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def few_rows(folder: Path) -> Path:
    """A corpus that is quick to read."""
    import itertools

    from harness.corpus import train_rows, write_rows

    path = folder / "rows.jsonl"
    write_rows(path, itertools.islice(train_rows("gsm8k", seed=1), 80))
    return path


# --- dry runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAPERS)
def test_each_paper_dry_runs_without_the_hub(name: str, tmp_path: Path, no_network: None) -> None:
    study = load_study(name)
    text = plan_text(study, tmp_path / "out", RunOptions(offline=True))
    assert not (tmp_path / "out").exists()
    assert text.startswith(f"study {name}, {len(study.variants)} variants")
    for variant in study.variants:
        assert f"\n  {variant:26} to " in text
    for model in study.models.values():
        shape = recorded_model(model.path)
        assert shape is not None
        assert f"{model.path}, {'commit ' + model.revision if model.revision else 'not pinned'}" in text
        assert f"{shape.parameters:,} parameters from its recorded shape, the hub was not asked" in text
    for suite in study.suites:
        assert f"\n  {suite:14} preset {study.suites[suite].preset:8} " in text
    assert f"published values: {len(study.expected)}" in text
    assert ("a GPU is needed for: making" in text) == (name != "slicegpt-opt125m")


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("meta-llama/Llama-2-7b-hf", 6_738_415_616),
        ("mosaicml/mpt-7b", 6_649_286_656),
        ("microsoft/phi-2", 2_779_683_840),
        ("facebook/opt-6.7b", 6_658_473_984),
        ("facebook/opt-125m", 125_239_296),
        ("neuralmagic/Llama-2-7b-pruned70-retrained", 6_738_415_616),
    ],
)
def test_recorded_shapes_have_the_published_number_of_parameters(model: str, parameters: int) -> None:
    shape = recorded_model(model)
    assert shape is not None and shape.parameters == parameters
    assert sum(p.numel() for p in shape.skeleton().parameters()) == parameters


@pytest.mark.parametrize(
    ("model", "fraction", "parameters"),
    [("facebook/opt-125m", 0.2, 147_250_880), ("microsoft/phi-2", 0.2, 2_391_772_160)],
)
def test_sliced_models_are_planned_as_large_as_the_authors_tests_say(
    model: str, fraction: float, parameters: int
) -> None:
    shape = recorded_model(model)
    assert shape is not None
    recipe = load_recipe(f"papers/slicegpt-wiki-{100 * fraction:.0f}")
    (plan,) = plan_shapes(shape.skeleton(), recipe, Machine(), stored=shape.stored)
    assert f"-> about {parameters:,} parameters" in plan.lines[0]


def test_the_size_of_hub_data_is_recorded_and_cut_to_n() -> None:
    from harness.cells import plan_suites

    study = load_study("slicegpt")
    counts = {name: recorded_items(plan) for name, plan in plan_suites(study, None).items()}
    assert counts == {"piqa": 1838, "winogrande": 1267, "hellaswag": 10042, "arc_easy": 2376, "arc_challenge": 1172}
    few = study.model_copy(update={"suites": {"piqa": study.suites["piqa"].model_copy(update={"n": 7})}})
    assert recorded_items(plan_suites(few, None)["piqa"]) == 7
    assert recorded_items(plan_suites(load_study("pocket"), None)["gsm8k"]) is None


def test_unpinned_models_are_named() -> None:
    assert [line.split()[1] for line in unpinned(load_study("sparse-llama-released"))] == [
        "foundation50",
        "foundation70",
        "teacher",
    ]
    assert not list(unpinned(load_study("slicegpt"))) and not list(unpinned(load_study("pocket")))
    whole = [line.split()[:2] for line in unpinned(load_study("sparse-llama"))]
    assert whole == [
        ["model", "teacher"],
        ["data", "hub:cerebras/SlimPajama-627B"],
        ["data", "hub:codeparrot/codeparrot-clean"],
    ]


# --- what the files say ----------------------------------------------------------------------------------------------


def test_every_paper_recipe_is_used_by_a_study_or_begins_one() -> None:
    used = {variant.recipe for name in PAPERS for variant in load_study(name).variants.values()}
    left = set(paper_recipes()) - used
    assert left == {"papers/sparse-llama-foundation50", "papers/sparse-llama-foundation70"}
    for sparsity in ("50", "70"):
        foundation = load_recipe(f"papers/sparse-llama-foundation{sparsity}").stages
        assert load_recipe(f"papers/sparse-llama-gsm8k-{sparsity}").stages[: len(foundation)] == foundation
    assert set(PAPERS) <= set(builtin_studies())


def test_every_published_value_has_a_source_and_the_unverified_one_is_marked() -> None:
    for name in PAPERS:
        study = load_study(name)
        assert len(study.expected) >= 5
        for spec in study.expected:
            assert spec.source and spec.tolerance > 0, (name, spec)
    doubtful = [spec for name in PAPERS for spec in load_study(name).expected if not spec.verified]
    assert {(spec.variant, spec.value) for spec in doubtful} == {("sparse70-gsm8k", 36.85)}


# --- scaled down -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAPERS)
def test_a_scaled_study_keeps_the_form_and_cuts_the_budgets(name: str) -> None:
    study, scale = load_study(name), ScaleSpec(tokens=2048, samples=4, seq=64)
    scaled = scaled_study(study, scale, n=5)
    assert list(scaled.variants) == list(study.variants) and scaled.hash != study.hash
    assert scaled.expected == study.expected and scaled.name == study.name
    assert {model.path for model in scaled.models.values()} <= {"pocket", "pocket-sparse70"}
    assert {(spec.preset, spec.n) for spec in scaled.suites.values()} == {("pocket", 5)}
    for variant in study.variants:
        assert scaled.baseline_of(variant) == study.baseline_of(variant)
        whole, cut = recipe_of(study, variant), recipe_of(scaled, variant)
        assert [stage.kind for stage in cut.stages] == [stage.kind for stage in whole.stages]
        for before, after in zip(whole.stages, cut.stages, strict=True):
            if after.prune is not None and before.prune is not None:
                assert (after.prune.sparsity, after.prune.method) == (before.prune.sparsity, before.prune.method)
            if after.slice is not None and before.slice is not None:
                assert after.slice.fraction == before.slice.fraction
            if after.training is not None and before.training is not None:
                assert after.training.tokens <= 2048
                assert after.training.losses == before.training.losses
                assert after.training.teacher == before.training.teacher
            assert all(source.startswith("suite:") for source in after.sources)
    told = "\n".join(changes(study, scaled))
    assert "at most 2,048 tokens a stage" in told and "shown but not judged" in told
    # What is kept beside the results is the study that was run: it loads again as the same.
    again = Study.model_validate(json.loads(json.dumps(scaled.resolved())))
    assert again.hash == scaled.hash and again.expected == scaled.expected


def test_scaling_refuses_what_it_cannot_do() -> None:
    study = load_study("slicegpt")
    with pytest.raises(ConfigError, match="--scale is pocket, not 'tiny'"):
        scale_down(study, "tiny", tokens=None, n=None, say=None)
    with pytest.raises(ConfigError, match="--scale-tokens needs it"):
        scale_down(study, None, tokens=2048, n=None, say=None)
    body = study.resolved()
    body["variants"]["mine"] = {"path": "somewhere"}
    with pytest.raises(ConfigError, match="variant mine is not made from a model"):
        scaled_study(Study.model_validate(body), ScaleSpec())


@needs_pocket
def test_the_stages_of_each_paper_run_on_the_pocket_model(tmp_path: Path) -> None:
    """One lineage of each paper, its longest, with a few steps of training: made, held to its zeros, described."""
    from harness.models import model_directory
    from sparsify.run import MakeOptions, make_variant

    scale = ScaleSpec(tokens=1024, samples=16, seq=64)  # a basis of width 192 needs as many tokens
    pocket, rows, made = model_directory("pocket"), few_rows(tmp_path), {}
    for name in ("sparse-llama-gsm8k-70-int8", "squarehead-mpt-60-int8", "slicegpt-alpaca-25-rft"):
        options = MakeOptions(
            store=tmp_path / "stages",
            name=name,
            base="pocket",
            teacher_dir=pocket,
            resolve_corpus=lambda _: rows,
        )
        made[name] = make_variant(
            pocket, scaled_recipe(load_recipe(f"papers/{name}"), scale), tmp_path / name, options=options
        )
    assert made["sparse-llama-gsm8k-70-int8"].sparsity.linears == pytest.approx(0.70, abs=0.01)
    assert made["squarehead-mpt-60-int8"].sparsity.linears == pytest.approx(0.60, abs=0.01)
    for name in ("sparse-llama-gsm8k-70-int8", "squarehead-mpt-60-int8"):
        masks = made[name].masks
        assert masks is not None and masks.revived == 0
        assert made[name].stages[-1]["kind"] == "quantize"
    assert made["squarehead-mpt-60-int8"].weight_bits == 8  # sparse-llama leaves some down_proj as they are
    kinds = [stage["kind"] for stage in made["slicegpt-alpaca-25-rft"].stages]
    assert kinds == ["slice", "pretrain"]


# --- teacher: dense --------------------------------------------------------------------------------------------------


def stages(*kinds: dict[str, Any]) -> dict[str, Any]:
    return {"stages": list(kinds)}


def test_a_dense_teacher_needs_a_cut_behind_it() -> None:
    from sparsify.errors import RecipeError

    prune = {"prune": {"method": "magnitude", "sparsity": 0.5}}
    taught = {"finetune": {"data": "x.jsonl", "teacher": "dense"}}
    recipe = parse_recipe(stages(prune, taught), name="t", where="t")
    assert not recipe.needs_teacher and recipe.stages[1].training is not None
    for wrong in (stages(taught, prune), stages(taught)):
        with pytest.raises(RecipeError, match="`teacher: dense` is the model before pruning"):
            parse_recipe(wrong, name="t", where="t")


@needs_pocket
def test_the_dense_teacher_is_the_model_in_front_of_the_first_cut(tmp_path: Path) -> None:
    from harness.models import model_directory
    from sparsify.checkpoint import open_checkpoint
    from sparsify.run import MakeOptions, make_variant
    from sparsify.store import Store

    tuning = {"data": "suite:gsm8k/train", "tokens": 1024, "batch_tokens": 512, "seq": 64, "warmup": 0}
    body = stages(
        {"finetune": tuning},
        {"prune": {"method": "magnitude", "sparsity": 0.5}},
        {"finetune": {**tuning, "teacher": "dense"}},
    )
    rows = few_rows(tmp_path)
    options = MakeOptions(
        store=tmp_path / "stages",
        name="v",
        base="pocket",
        resolve_corpus=lambda _: rows,
    )
    info = make_variant(
        model_directory("pocket"), parse_recipe(body, name="t", where="t"), tmp_path / "v", options=options
    )
    dense = open_checkpoint(Store(tmp_path / "stages").path(info.stages[0]["key"])).weights_sha256
    record = Store(tmp_path / "stages").find(info.stages[2]["key"])
    assert record is not None and record.result["stats"]["teacher_weights_sha256"] == dense
    assert dense != open_checkpoint(model_directory("pocket")).weights_sha256


def test_presets_of_the_papers_are_what_their_suites_have() -> None:
    for name in PAPERS:
        for suite, spec in load_study(name).suites.items():
            assert load_suite(suite).preset(spec.preset).data == "full"
