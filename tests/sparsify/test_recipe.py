"""Recipes: what they accept, what they say when they do not, and that they hash what matters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sparsify.errors import RecipeError
from sparsify.recipe import builtin_recipes, load_recipe, parse_recipe, recipe_hash
from sparsify.train.settings import LossWeights, TrainSettings

NAMES = {
    "dense",
    "dense-finetuned",
    "sparse50",
    "sparse70",
    "2of4",
    "int8",
    "2of4-int8",
    "sparse70-recovered",
    "sparse70-recovered-int8",
    "sparse-finetuned",
    "sparse-finetuned-int8",
    "sparse70-admm",
    "sparse70-reconstructed",
    "2of4-admm",
    "int4",
    "int8-smooth",
    "sparse50-int4",
    "sparse70-pretrained",
    "foundation70",
    "sparse80-ladder",
    "sparse70-gradual",
    "sparse70-lora",
    "slice25",
    "slice25-recovered",
    "slice25-lora",
    "slice25-int8",
    "slice25-sparse50",
    "slice25-stock",
}
PRUNE = 'prune: {method: sparsegpt, sparsity: 0.5, calibration: {source: "x.jsonl"}}'


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_builtins() -> None:
    assert set(builtin_recipes()) == NAMES
    kinds = {name: [stage.kind for stage in load_recipe(name).stages] for name in NAMES}
    assert kinds["dense"] == []
    assert kinds["dense-finetuned"] == ["finetune"]
    assert kinds["2of4-int8"] == ["prune", "quantize"]
    assert kinds["slice25-recovered"] == ["slice", "finetune"]
    assert kinds["slice25-int8"] == ["slice", "quantize"] and kinds["slice25-sparse50"] == ["slice", "prune"]
    assert kinds["sparse70-recovered-int8"] == ["prune", "finetune", "quantize"]


def test_the_baseline_is_trained_as_the_recovered_ones_are() -> None:
    finetunes = [load_recipe(n).stages[i].finetune for n, i in (("dense-finetuned", 0), ("sparse70-recovered", 1))]
    assert finetunes[0] is not None and finetunes[0] == finetunes[1]
    assert finetunes[0].teacher == "base" and finetunes[0].losses.squarehead == 1.0
    continued = load_recipe("sparse-finetuned")
    assert continued.stages[0].finetune == finetunes[0].model_copy(update={"teacher": "given"})
    assert continued.needs_teacher and not load_recipe("sparse70-recovered").needs_teacher


def test_a_teacher_without_losses_means_the_papers() -> None:
    def stage(**changes: object):  # type: ignore[no-untyped-def]
        return parse_recipe({"stages": [{"finetune": {"data": "a", **changes}}]}, name="t", where="t").stages[0].spec

    assert stage(teacher="base").losses == LossWeights(ce=1.0, kl=0.0, squarehead=1.0)
    assert stage(teacher="base", losses={"kl": 1.0}).losses == LossWeights(ce=1.0, kl=1.0)
    assert stage().losses == LossWeights(ce=1.0)


def test_variants_of_one_recipe_begin_alike() -> None:
    plain, recovered, quantized = (
        load_recipe(name) for name in ("sparse70", "sparse70-recovered", "sparse70-recovered-int8")
    )
    assert recovered.stages[: len(plain.stages)] == plain.stages
    assert quantized.stages[: len(recovered.stages)] == recovered.stages
    assert load_recipe("sparse-finetuned-int8").stages[:1] == load_recipe("sparse-finetuned").stages
    assert load_recipe("sparse50-int4").stages[:1] == load_recipe("sparse50").stages


def test_resolved_has_every_default(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, f"stages:\n  - {PRUNE}\n"))
    assert recipe.name == "mine"
    assert recipe.resolved()["stages"] == [
        {
            "prune": {
                "method": "sparsegpt",
                "sparsity": 0.5,
                "pattern": "none",
                "scope": "block",
                "percdamp": 0.01,
                "block_size": 128,
                "calibration": {"source": "x.jsonl", "samples": 128, "seq": 512, "seed": 0},
                "skip": [],
            }
        }
    ]


def test_hash_ignores_writing_and_sees_values(tmp_path: Path) -> None:
    short = recipe_hash(load_recipe(write(tmp_path, f"description: a\nstages:\n  - {PRUNE}\n")))
    spelled = PRUNE.replace("sparsity: 0.5", "percdamp: 0.01, pattern: none, sparsity: 5e-1")
    assert recipe_hash(load_recipe(write(tmp_path, f"stages:\n  - {spelled}\n"))) == short
    other = PRUNE.replace("0.5", "0.51")
    assert recipe_hash(load_recipe(write(tmp_path, f"stages:\n  - {other}\n"))) != short


def test_the_hashes_of_recorded_recipes_stand() -> None:
    """Settings that a stage got later do not change the hash of a recipe that does not use them."""
    assert recipe_hash(load_recipe("int8")).startswith("044dfd3557e7888835377ac5fbe91f16")
    assert recipe_hash(load_recipe("2of4-int8")).startswith("a2d15d864ac7ae2a946f05733357e4ef")


def test_prune_writes_out_what_is_used() -> None:
    found = load_recipe("sparse70-admm").resolved()["stages"][0]["prune"]
    assert found["refine"] is True and found["calibration"]["holdout"] == 0.25
    assert found["allocation"]["kind"] == "slope" and not {"order", "keep_zeros"} & found.keys()


def test_quantize_writes_out_what_is_used() -> None:
    stages = [load_recipe(name).stages[-1].resolved()["quantize"] for name in ("int8", "int4", "int8-smooth")]
    assert stages[0] == {"scheme": "w8a8", "method": "rtn", "skip": ["lm_head"]}
    assert (stages[1]["group_size"], stages[1]["calibration"]["seed"], "smooth" in stages[1]) == (64, 0, False)
    assert (stages[2]["activations"], stages[2]["smooth"]) == ("static", 0.5)
    assert load_recipe("int4").sources == ("suite:mix/train",)


def test_finetune_gives_the_trainer_its_settings() -> None:
    stage = load_recipe("sparse70-recovered").stages[1].finetune
    assert stage is not None
    settings = stage.settings
    assert type(settings) is TrainSettings
    assert (settings.tokens, settings.batch_tokens, settings.seq, settings.warmup) == (450_000, 4096, 512, 10)


def test_pattern_sets_sparsity(tmp_path: Path) -> None:
    text = 'stages: [{prune: {method: magnitude, pattern: "1:4"}}]'
    prune = load_recipe(write(tmp_path, text)).stages[0].prune
    assert prune is not None and prune.sparsity == 0.75 and prune.nm == (1, 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages: []\nspeed: 3\n", "unknown key 'speed'; allowed: description, name, stages, version"),
        ("stages:\n  - purne: {}\n", "unknown key 'purne' in stages[0]; allowed: finetune, pretrain, prune, quantize"),
        (
            "stages: [{prune: {method: magnitude, sparsty: 0.5}}]",
            "unknown key 'sparsty' in stages[0].prune; allowed: alloc",
        ),
        (
            "stages: [{prune: {method: wanda, sparsity: 0.5, calibration: {source: a, sample: 3}}}]",
            "unknown key 'sample' in stages[0].prune.calibration; allowed: holdout, samples, seed, seq, source",
        ),
        (
            "stages: [{finetune: {data: a, losses: {ce: 1, l2: 1}}}]",
            "unknown key 'l2' in stages[0].finetune.losses; allowed: ce, kl, squarehead",
        ),
        ("stages: [{prune: {method: magic, sparsity: 0.5}}]", "stages.0.prune.method: Input should be"),
        ("stages: [{prune: {method: magnitude, sparsity: 1.0}}]", "sparsity: Input should be less than 1"),
        ("stages: [{prune: {method: magnitude}}]", "sparsity: Field required"),
        ("stages: [{prune: {method: magnitude, pattern: 2:4}}]", 'pattern must be in quotes, as "2:4"'),
        ('stages: [{prune: {method: magnitude, pattern: "4:2"}}]', "0 < N < M"),
        ('stages: [{prune: {method: magnitude, pattern: "2:4", sparsity: 0.7}}]', "contradicts pattern 2:4"),
        ("stages: [{prune: {method: wanda, sparsity: 0.5}}]", "wanda needs calibration"),
        (
            "stages: [{prune: {method: magnitude, sparsity: 0.5, calibration: {source: a}}}]",
            "magnitude uses no calibration",
        ),
        (
            "stages: [{prune: {method: sparsegpt, sparsity: 0.5, scope: matrix, calibration: {source: a}}}]",
            "scope of sparsegpt is block or row",
        ),
        ("stages: [{finetune: {data: a, losses: {squarehead: 1}}}]", "add `teacher: base`"),
        (
            "stages: [{prune: {method: admm, sparsity: 0.5, allocation: {kind: slope}, calibration: {source: a}}}]",
            "a slope is chosen on held-out text; add `holdout: 0.25` to calibration, or give beta",
        ),
        (
            'stages: [{prune: {method: admm, pattern: "2:4", allocation: {kind: owl}, calibration: {source: a}}}]',
            "pattern 2:4 fixes the budget of every linear",
        ),
        (
            "stages: [{prune: {method: magnitude, sparsity: 0.5, allocation: {kind: owl, beta: 0.1}}}]",
            "beta is for kind slope, not owl",
        ),
        (
            "stages: [{prune: {method: magnitude, sparsity: 0.5, allocation: {kind: slope, gamma: 0.1}}}]",
            "unknown key 'gamma' in stages[0].prune.allocation; allowed: beta, file",
        ),
        (
            "stages: [{prune: {method: magnitude, sparsity: 0.5, allocation: {kind: file, file: nowhere.yaml}}}]",
            "allocation file 'nowhere.yaml' cannot be read",
        ),
        ("stages: [{prune: {method: magnitude, sparsity: 0.5, refine: true}}]", "magnitude needs calibration"),
        ("stages: [{quantize: {}}, {prune: {method: magnitude, sparsity: 0.5}}]", "quantize must be the last stage"),
        ("stages: [{quantize: {method: gptq}}]", "gptq needs calibration"),
        ("stages: [{quantize: {smooth: 0.5}}]", "smooth needs calibration"),
        ("stages: [{quantize: {activations: static}}]", "activations: static needs calibration"),
        ("stages: [{quantize: {skip_error: 0.1}}]", "skip_error needs calibration"),
        ("stages: [{quantize: {calibration: {source: a}}}]", "uses no calibration"),
        ("stages: [{quantize: {group_size: 64}}]", "w8a8 has one scale per output channel; remove group_size"),
        ("stages: [{quantize: {scheme: w4a16, group_size: 48}}]", "group_size: Input should be 32, 64 or 128"),
        ("stages: [{quantize: {scheme: w4a16, activations: static}}]", "w4a16 leaves activations in float"),
        ("stages: [{quantize: {scheme: w4a16, smooth: 0.5, calibration: {source: a}}}]", "w4a16 does not do; remove"),
        ("stages: [{quantize: {prune: {sparsity: 0.5}}}]", "prune inside quantize needs method: gptq"),
        ("stages: [{quantize: {method: rtn, percdamp: 0.1}}]", "rtn uses no Hessian; remove percdamp"),
        (
            "stages: [{quantize: {method: gptq, prune: {sparsity: 0.5}, skip_error: 1, calibration: {source: a}}}]",
            "skip_error cannot tell",
        ),
        ("stages: [{quantize: {method: gptq, prune: {pattern: 2:4}}}]", 'pattern must be in quotes, as "2:4"'),
        (
            'stages: [{quantize: {method: gptq, prune: {pattern: "2:4", sparsity: 0.7}, calibration: {source: a}}}]',
            "contradicts pattern 2:4",
        ),
        (
            "stages: [{quantize: {method: gptq, prune: {scope: row}, calibration: {source: a}}}]",
            "unknown key 'scope' in stages[0].quantize.prune; allowed: pattern, sparsity",
        ),
        ("stages: [{quantize: {}, finetune: {data: a}}]", "exactly one of"),
        ("stages: {prune: {}}", "stages must be a list"),
        ("stages: [prune]", "stages[0] must be a mapping"),
        ("- a\n", "a recipe is a mapping"),
        ("", "a recipe is a mapping"),
        ("stages: []\nstages: []\n", "key 'stages' is given twice"),
        ("stages: [", "is not YAML"),
        ("stages: []\nversion: 2\n", "version: Input should be 1"),
    ],
)
def test_wrong_recipes_get_one_clear_line(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert said in message and str(path) in message and "\n" not in message
    assert caught.value.exit_code == 2


def test_unknown_name_lists_the_builtins() -> None:
    with pytest.raises(RecipeError, match="no recipe 'sparse99'.*2of4, 2of4-admm, 2of4-int8, dense"):
        load_recipe("sparse99")


def test_planning_needs_no_torch() -> None:
    code = "import sys, sparsify.run, sparsify.recipe; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
