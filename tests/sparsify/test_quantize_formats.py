"""Quantized variants as transformers opens them, against forward passes written out by us."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sparsify.blocks import load_model
from sparsify.errors import SparsifyError
from sparsify.quantize.int4 import pack_int4, unpack_int4

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("quantizing.py"))))
make, made, logits, reference, linears_of = kit.make, kit.made, kit.logits, kit.reference, kit.linears_of
GPTQ, STAGES = kit.GPTQ, kit.STAGES


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_model: Callable[..., Path]) -> Path:
    built: Path = kit.build(tmp_path_factory.mktemp("qwen") / "model", make_model)
    return built


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all variants, so that they share the pruned parent."""
    return tmp_path_factory.mktemp("made")


@pytest.mark.parametrize("name", sorted(STAGES))
def test_every_variant_opens_in_transformers_and_computes_what_it_says(
    name: str, root: Path, model: Path, corpus: Path
) -> None:
    pytest.importorskip("compressed_tensors")
    from transformers import AutoModelForCausalLM

    out, _ = made(root, model, corpus, name)
    assert "sparsity_config" not in (out / "config.json").read_text()
    ours = reference(out)
    theirs = AutoModelForCausalLM.from_pretrained(str(out), dtype=torch.float32)
    torch.testing.assert_close(logits(theirs), logits(ours), rtol=1e-4, atol=1e-4)
    native = AutoModelForCausalLM.from_pretrained(str(out))
    assert logits(native).dtype == torch.bfloat16
    for linear in linears_of(out):
        weight = ours.get_parameter(f"{linear}.weight")
        assert torch.equal(theirs.get_parameter(f"{linear}.weight"), weight), "bit for bit"
        if name.startswith("int4"):
            assert torch.equal(native.get_parameter(f"{linear}.weight"), weight.to(torch.bfloat16))
    parent = logits(load_model(model))
    assert float((logits(ours) - parent).abs().max()) > 1e-3


@pytest.mark.parametrize("columns", [8, 32, 33, 70])
def test_packing_is_the_librarys(columns: int) -> None:
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    values = torch.randint(-8, 8, (7, columns), dtype=torch.int8, generator=torch.Generator().manual_seed(columns))
    packed = pack_int4(values)
    assert packed.dtype == torch.int32 and torch.equal(packed, helpers.pack_to_int32(values, 4))
    assert torch.equal(unpack_int4(packed, columns), values)


SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128}
GATED = {**SMALL, "intermediate_size": 96, "num_key_value_heads": 2}


def build_other(directory: Path, make_model: Callable[..., Path], name: str) -> Path:
    """The tiny tokenizer with a model of another structure."""
    import transformers as t

    make_model(directory)
    vocabulary = json.loads((directory / "config.json").read_text())["vocab_size"]
    configs: dict[str, Callable[[], Any]] = {
        "gemma": lambda: t.GemmaConfig(**GATED, head_dim=16, vocab_size=vocabulary),
        "opt": lambda: t.OPTConfig(**SMALL, ffn_dim=96, word_embed_proj_dim=64, vocab_size=vocabulary),
        "mpt": lambda: t.MptConfig(d_model=64, n_heads=4, n_layers=2, max_seq_len=128, vocab_size=vocabulary),
        "mixtral": lambda: t.MixtralConfig(**GATED, num_local_experts=3, vocab_size=vocabulary),
    }
    torch.manual_seed(0)
    model = t.AutoModelForCausalLM.from_config(configs[name]())
    for path, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.data.copy_(0.2 * torch.randn_like(parameter))
        elif name != "gemma" and "norm" in path and path.endswith("weight"):
            parameter.data.copy_(1 + 0.2 * torch.randn_like(parameter))
        else:
            parameter.data.copy_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("name", ["gemma", "opt", "mpt"])
def test_other_structures_open_too(name: str, corpus: Path, tmp_path: Path, make_model: Callable[..., Path]) -> None:
    pytest.importorskip("compressed_tensors")
    from transformers import AutoModelForCausalLM

    parent = build_other(tmp_path / "parent", make_model, name)
    before = logits(load_model(parent))
    for label, stage in (("int8", STAGES["int8-static-gptq"]), ("int4", STAGES["int4-gptq"])):
        out, info = make(tmp_path, parent, corpus, {"quantize": stage}, name=label)
        theirs = logits(AutoModelForCausalLM.from_pretrained(str(out), dtype=torch.float32))
        assert float((theirs - before).square().mean().sqrt()) < 0.5 * float(before.std())
        torch.testing.assert_close(theirs, logits(reference(out)), rtol=1e-4, atol=1e-4)
        assert info.weight_bits == int(label[3]) and not [e for e in info.events if e.kind == "smooth_left_out"]


@pytest.mark.parametrize("stage", [{}, GPTQ])
def test_experts_are_refused_by_name(
    stage: dict[str, Any], corpus: Path, tmp_path: Path, make_model: Callable[..., Path]
) -> None:
    parent = build_other(tmp_path / "parent", make_model, "mixtral")
    with pytest.raises(SparsifyError, match=r"layers.0.block_sparse_moe.experts.0.w1 is one of 18 matrices of experts"):
        make(tmp_path, parent, corpus, {"quantize": stage}, name="v")
