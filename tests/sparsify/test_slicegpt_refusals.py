"""The slice stage: what it refuses, and how it says so."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from sparsify.blocks import load_model, load_skeleton
from sparsify.errors import CheckpointError, NumericsError, RecipeError, SparsifyError
from sparsify.recipe import parse_recipe
from sparsify.variant import VariantInfo

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("slicing.py"))))
CALIBRATION, COMMON, ROPE = kit.CALIBRATION, kit.COMMON, kit.ROPE
build, recipe, sliced, text = kit.build, kit.recipe, kit.sliced, kit.text


@pytest.mark.parametrize("fraction", [0, 1, 1.5, -0.1])
def test_a_fraction_that_is_none(fraction: float) -> None:
    with pytest.raises(RecipeError, match=r"fraction must be more than 0 and less than 1, such as 0.25"):
        recipe(fraction=fraction)


def test_a_recipe_that_would_fill_zeros_or_slice_twice() -> None:
    prune = {"prune": {"method": "magnitude", "sparsity": 0.5}}
    cut = {"slice": {"fraction": 0.25, "calibration": CALIBRATION}}
    with pytest.raises(RecipeError, match="move slice before prune"):
        parse_recipe({"stages": [prune, cut]}, name="r", where="r")
    with pytest.raises(RecipeError, match="a model is sliced once"):
        parse_recipe({"stages": [cut, cut]}, name="r", where="r")
    with pytest.raises(RecipeError, match="slice needs calibration"):
        parse_recipe({"stages": [{"slice": {"fraction": 0.25}}]}, name="r", where="r")
    with pytest.raises(RecipeError, match=r"unknown key 'fractoin' in stages\[0\].slice; allowed: basis"):
        parse_recipe({"stages": [{"slice": {"fractoin": 0.25, "calibration": CALIBRATION}}]}, name="r", where="r")


def test_models_that_cannot_be_sliced(
    model_dir: Path, sliced: Callable[..., tuple[Path, VariantInfo]], tmp_path: Path
) -> None:
    cases = {
        "gemma2": ("Gemma2", {**ROPE, "head_dim": 8}, r"a gemma2 model cannot be sliced: it has norms behind"),
        "opt": (
            "OPT",
            {**COMMON, "ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
            r"norms behind its blocks, projected embeddings.*opt-350m",
        ),
        "gpt_neox": ("GPTNeoX", {**COMMON, "intermediate_size": 48}, r"a gpt_neox model cannot be sliced: it is not"),
    }
    for name, (kind, options, message) in cases.items():
        import transformers

        directory = tmp_path / name
        config = getattr(transformers, f"{kind}Config")(**options)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(directory)
        for path in model_dir.glob("*token*"):
            shutil.copy(path, directory)
        with pytest.raises(SparsifyError, match=message):
            sliced(directory, recipe(), f"refused-{name}")
    with pytest.raises(SparsifyError, match="the model is sliced already"):
        sliced(sliced(model_dir, recipe(), "even")[0], recipe(), "twice")
    with pytest.raises(
        SparsifyError, match=r"basis: shared needs a model class that takes any width, as those of llama"
    ):
        sliced(build("opt", tmp_path / "opt-built", model_dir), recipe(basis="shared"), "shared-opt")


def test_pruned_and_quantized_parents(model_dir: Path, sliced: Callable[..., tuple[Path, VariantInfo]]) -> None:
    def made(stage: dict[str, Any], name: str) -> Path:
        return sliced(model_dir, parse_recipe({"stages": [stage]}, name=name, where=name), name)[0]

    with pytest.raises(SparsifyError, match="is pruned, and rotating it would fill its zeros; slice first"):
        sliced(made({"prune": {"method": "magnitude", "sparsity": 0.5}}, "pruned"), recipe(), "from-pruned")
    with pytest.raises(SparsifyError, match="is quantized; slice the unquantized model"):
        sliced(made({"quantize": {"scheme": "w8a8"}}, "int8"), recipe(), "from-int8")


def test_too_little_text_and_too_much_cut(model_dir: Path, sliced: Callable[..., tuple[Path, VariantInfo]]) -> None:
    little = {"source": "text", "samples": 1, "seq": 8}
    with pytest.raises(SparsifyError, match=r"8 calibration tokens do not span a stream of width 32; raise"):
        sliced(model_dir, recipe(calibration=little), "little")
    with pytest.raises(SparsifyError, match=r"slicing 0.95 of a width of 32 leaves less than round_to \(4\)"):
        sliced(model_dir, recipe(fraction=0.95), "much")


def test_weights_that_are_not_finite(
    make_model: Callable[..., Path], sliced: Callable[..., tuple[Path, VariantInfo]], tmp_path: Path
) -> None:
    directory = make_model(tmp_path / "nan")
    model: Any = load_model(directory)
    model.model.layers[1].mlp.down_proj.weight.data[3, 4] = float("nan")
    model.save_pretrained(directory)
    with pytest.raises(NumericsError, match=r"model.layers.1 cut .* saw non-finite values|model.layers.2 cut 0"):
        sliced(directory, recipe(), "nan")


@pytest.mark.parametrize("widths", [None, [24] * 6, [24] * 6 + [40], [0] * 7])
def test_a_damaged_config(
    widths: Any, model_dir: Path, sliced: Callable[..., tuple[Path, VariantInfo]], tmp_path: Path
) -> None:
    shutil.copytree(sliced(model_dir, recipe(), "even")[0], tmp_path / "v")
    path = tmp_path / "v" / "config.json"
    config = json.loads(path.read_text())
    config["slicing"] = {"width": 32, "widths": widths} if widths is not None else {}
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"slicing.*damaged; make the variant again"):
        load_model(tmp_path / "v")
    with pytest.raises(CheckpointError, match=r"slicing.*damaged; make the variant again"):
        load_skeleton(tmp_path / "v")


def test_an_unknown_sliced_family(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "sliced_unheard"}')
    with pytest.raises(SparsifyError, match="a unheard model cannot be sliced"):
        load_skeleton(tmp_path)


def test_norms_without_a_scale_are_named() -> None:
    from sparsify.slicegpt.fold import parts_of_norm

    with pytest.raises(SparsifyError, match="LayerNorm has no scale"):
        parts_of_norm(nn.LayerNorm(4, elementwise_affine=False), 0.0)
