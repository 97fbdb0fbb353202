"""Engine sparse on small random models of every architecture, against the torch engine."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engines import Request
from harness.engines.torch import TorchEngine
from sparsify.recipe import parse_recipe
from sparsify.run import MakeOptions, make_variant

pytest.importorskip("harness.engines.sparse._kernels", reason="the kernels are not built here")
from harness.engines.sparse.engine import SparseEngine  # noqa: E402  (needs the kernels)

build_model = runpy.run_path(str(Path(__file__).parents[2] / "sparsify" / "conftest.py"))["build_model"]
PRUNE = {"prune": {"method": "magnitude", "sparsity": 0.7}}
QUANTIZE = {"w8a8": {"scheme": "w8a8"}, "w4a16": {"scheme": "w4a16", "group_size": 32}}

SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128}
GATED = {**SMALL, "intermediate_size": 96, "num_key_value_heads": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-untied": ("Llama", {**GATED, "tie_word_embeddings": False}),
    "llama-biases": ("Llama", {**GATED, "attention_bias": True, "mlp_bias": True}),
    "mistral": ("Mistral", {**GATED, "sliding_window": 8}),
    "qwen2": ("Qwen2", GATED),
    "qwen3": ("Qwen3", {**GATED, "head_dim": 16}),
    "gemma": ("Gemma", {**GATED, "head_dim": 16}),
    "gemma2": ("Gemma2", {**GATED, "head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16}),
    "opt": ("OPT", {**SMALL, "ffn_dim": 96, "word_embed_proj_dim": 24}),
    "mpt": ("Mpt", {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 128}),
    "mixtral": ("Mixtral", {**GATED, "num_local_experts": 3}),
}


def logits(engine: Any, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        found: Tensor = engine.model(input_ids=ids).logits
    return found


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def build_family(directory: Path, family: str) -> Path:
    import transformers

    build_model(directory)
    vocabulary = json.loads((directory / "config.json").read_text())["vocab_size"]
    kind, options = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**options, vocab_size=vocabulary)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for path, parameter in model.named_parameters():
        gain = 1.0 if "norm" in path and path.endswith("weight") and "gemma" not in family else 0.0
        parameter.data.copy_(0.2 * torch.randn_like(parameter) + gain * (parameter.ndim == 1))
    model.save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)
    return directory


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("families")

    def built(name: str) -> Path:
        return folder / name if (folder / name).is_dir() else build_family(folder / name, name)

    return built


@pytest.mark.parametrize("name", FAMILIES)
def test_every_architecture(name: str, family: Callable[[str], Path]) -> None:
    ours, theirs = SparseEngine.load(family(name)), TorchEngine.load(family(name))
    stream = torch.Generator().manual_seed(0)
    prompts = [torch.randint(4, 250, (n,), generator=stream).tolist() for n in (3, 17, 9)]
    ids = torch.tensor([prompts[1]])
    torch.testing.assert_close(logits(ours, ids), logits(theirs, ids), rtol=1e-4, atol=1e-4)
    batch = [Request(str(i), tuple(prompt), 12) for i, prompt in enumerate(prompts)]
    assert [c.text for c in ours.generate_batch(batch)] == [c.text for c in theirs.generate_batch(batch)]
    pairs = [(prompt[:2], prompt[2:]) for prompt in prompts]
    for (mine, top), (other, also) in zip(ours.loglikelihoods(pairs), theirs.loglikelihoods(pairs), strict=True):
        assert mine == pytest.approx(other, abs=1e-3) and top == also
    told = " ".join(event["detail"] for event in ours.events)
    assert ("stay with torch" in told) == (name == "mixtral")
    assert ("native decoder does not know" in told) == (ours.packing["path"] == "transformers")


@pytest.mark.parametrize("name", ["qwen2", "gemma", "opt", "mpt"])
@pytest.mark.parametrize("stage", ["w8a8", "w4a16"])
def test_quantized_architectures(name: str, stage: str, family: Callable[[str], Path], tmp_path: Path) -> None:
    """The same checkpoint by both engines: the difference is that of rounding, far below that of quantizing."""
    recipe = parse_recipe({"stages": [PRUNE, {"quantize": QUANTIZE[stage]}]}, name="v", where="test")
    make_variant(family(name), recipe, tmp_path / "v", options=MakeOptions(store=tmp_path / "s", name="v", base="t"))
    made = tmp_path / "v"
    ours, theirs = SparseEngine.load(made), TorchEngine.load(made)
    ids = torch.randint(4, 250, (1, 20), generator=torch.Generator().manual_seed(1))
    expected = logits(theirs, ids)
    error = (logits(ours, ids) - expected).square().mean().sqrt()
    assert float(error) < 0.03 * float(expected.std())
