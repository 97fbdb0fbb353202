"""What the tests of slicing share: small models of all families, a recipe, and a maker of variants."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparsify.recipe import Recipe, parse_recipe
from sparsify.run import MakeOptions, make_variant
from sparsify.variant import VariantInfo

write_random = runpy.run_path(str(Path(__file__).with_name("random_model.py")))["write_random"]
CALIBRATION = {"source": "text", "samples": 24, "seq": 24}
COMMON = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ROPE = {**COMMON, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 128}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {**ROPE, "tie_word_embeddings": True}),
    "mistral": ("Mistral", {**ROPE, "sliding_window": 8}),
    "qwen2": ("Qwen2", ROPE),
    "qwen3": ("Qwen3", {**ROPE, "head_dim": 8}),
    "gemma": ("Gemma", {**ROPE, "head_dim": 8, "pad_token_id": 0}),
    "phi": ("Phi", {**ROPE, "partial_rotary_factor": 0.5}),
    "phi3": ("Phi3", {**ROPE, "pad_token_id": 0}),
    "mixtral": ("Mixtral", {**ROPE, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "opt": ("OPT", {**COMMON, "ffn_dim": 48, "max_position_embeddings": 128, "word_embed_proj_dim": 32}),
    "mpt": (
        "Mpt",
        {"vocab_size": 320, "d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 4, "max_seq_len": 64},
    ),
}


def build(family: str, root: Path, tokenizer_from: Path) -> Path:
    return write_random(*FAMILIES[family], root, tokenizer_from)


def recipe(*stages: dict[str, Any], **settings: Any) -> Recipe:
    whole = {"slice": {"fraction": 0.25, "round_to": 4, "calibration": CALIBRATION, **settings}}
    return parse_recipe({"stages": [whole, *stages]}, name="test", where="test")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory, make_corpus: Callable[..., Path]) -> Path:
    return make_corpus(tmp_path_factory.mktemp("text") / "text.jsonl", rows=48)


@pytest.fixture(scope="module")
def sliced(
    model_dir: Path, text: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Path, VariantInfo]]:
    """Makes a variant of a model, once per recipe."""
    root = tmp_path_factory.mktemp("sliced")

    def make(model: Path, wanted: Recipe, name: str) -> tuple[Path, VariantInfo]:
        options = MakeOptions(store=root / "store", name=name, base="tiny", resolve_corpus=lambda _source: text)
        return root / name, make_variant(model, wanted, root / name, options=options)

    return make
