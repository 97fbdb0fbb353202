"""Shows that memory does not grow with the number of blocks: `python -m sparsify.memory_proof --out memory.json`.

Random models of Llama-2-7B's width are written to disk shard by shard and pruned, each in a process of its own, with
few calibration tokens; the peaks are compared. Beside them stands the plan for the whole model with 128 windows of 2048
tokens on a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sparsify.files import write_json
from sparsify.recipe import Recipe, parse_recipe

WIDTH, INNER, HEADS, VOCABULARY = 4096, 11008, 32, 32000


def write_model(
    root: Path, blocks: int, *, width: int = WIDTH, inner: int = INNER, vocabulary: int = VOCABULARY
) -> None:
    """Write a random bfloat16 Llama with a byte-level tokenizer to `root`, one block in memory at a time."""
    import torch
    from transformers import LlamaConfig

    from sparsify.checkpoint import write_index
    from sparsify.shards import ShardWriter

    root.mkdir(parents=True)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=blocks,
        num_attention_heads=HEADS,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    )
    config.save_pretrained(root)
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)

    names = [f"model-{index:05d}-of-{blocks + 1:05d}.safetensors" for index in range(1, blocks + 2)]
    for index, name in enumerate(names[:-1]):
        with ShardWriter(root / name, metadata={"format": "pt"}) as shard:
            block = f"model.layers.{index}"
            for part in "qkvo":
                shard.add(f"{block}.self_attn.{part}_proj.weight", random(width, width))
            for part, shape in {"gate": (inner, width), "up": (inner, width), "down": (width, inner)}.items():
                shard.add(f"{block}.mlp.{part}_proj.weight", random(*shape))
            for part in ("input", "post_attention"):
                shard.add(f"{block}.{part}_layernorm.weight", torch.ones(width, dtype=torch.bfloat16))
    with ShardWriter(root / names[-1], metadata={"format": "pt"}) as shard:
        shard.add("model.embed_tokens.weight", random(vocabulary, width))
        shard.add("lm_head.weight", random(vocabulary, width))
        shard.add("model.norm.weight", torch.ones(width, dtype=torch.bfloat16))
    write_index(root, names)
    _write_tokenizer(root)


def recipe_of(method: str, samples: int, seq: int, source: str) -> Recipe:
    """A prune stage at 50 %, or a slice stage at 25 %."""
    calibration = {"source": source, "samples": samples, "seq": seq}
    stage: dict[str, Any] = {"prune": {"method": method, "sparsity": 0.5}}
    if method == "slice":
        stage = {"slice": {"fraction": 0.25, "calibration": calibration}}
    elif method != "magnitude":
        stage["prune"]["calibration"] = calibration
    return parse_recipe({"stages": [stage]}, name=method, where="memory proof")


def measure(model: Path, out: Path, method: str, *, samples: int, seq: int) -> dict[str, Any]:
    """Prune or slice `model` in this process and say what it took."""
    import torch

    from sparsify.checkpoint import open_checkpoint
    from sparsify.plan import Machine, plan_stages
    from sparsify.run import MakeOptions, make_variant

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    text = out.parent / "text.txt"
    text.write_text("".join(f"line {n}: {n * n} is the square of {n}\n" for n in range(4 * samples * seq // 20 + 99)))
    recipe = recipe_of(method, samples, seq, str(text))
    (plan,) = plan_stages(model, recipe, Machine("cpu", torch.get_num_threads()))
    info = make_variant(model, recipe, out, options=MakeOptions(out.parent / "store", name="v", base="random"))
    used = info.stages[0]["used"]
    return {
        "method": method,
        "blocks": int(open_checkpoint(model).config["num_hidden_layers"]),
        "weights_bytes": info.bytes,
        "calibration_tokens": info.stages[0].get("calibration_tokens"),
        "peak_host_bytes": used["host_bytes"],
        "planned_host_bytes": plan.host_bytes,
        "seconds": used["seconds"],
        "sparsity": info.sparsity.linears,
        "revived": info.masks.revived if info.masks else None,
    }


def measure_apart(model: Path, out: Path, method: str, *, samples: int, seq: int) -> dict[str, Any]:
    """`measure` in a process of its own: what others left in the heap would be reused unseen, and hide a peak.

    Raises:
        RuntimeError: The process failed; the message ends with its last words.
    """
    command = [sys.executable, "-m", "sparsify.memory_proof", "--samples", str(samples), "--seq", str(seq)]
    command += ["--one", str(model), str(out), method]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pruning {model} failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def full_plan(method: str) -> dict[str, Any]:
    """The plan for Llama-2-7B with 128 windows of 2048 tokens on a GPU."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from sparsify.blocks import find_structure
    from sparsify.plan import Machine, plan_prune
    from sparsify.skeleton import parameters_on_meta

    auto: Any = AutoModelForCausalLM
    with parameters_on_meta():
        model = auto.from_config(
            LlamaConfig(
                vocab_size=VOCABULARY,
                hidden_size=WIDTH,
                intermediate_size=INNER,
                num_hidden_layers=32,
                num_attention_heads=HEADS,
            ),
            dtype=torch.float32,
        )
    stage = recipe_of(method, 128, 2048, "text").stages[0].prune
    assert stage is not None
    stored = 2 * sum(parameter.numel() for parameter in model.parameters())
    plan = plan_prune(model, find_structure(model), stage, Machine("cuda"), stored=stored)
    return {
        "method": method,
        "blocks": plan.blocks,
        "parameters": plan.parameters,
        "calibration_tokens": plan.tokens,
        "planned_device_bytes": plan.device_bytes,
        "planned_host_bytes": plan.host_bytes,
        "planned_disk_bytes": plan.disk_bytes,
        "fits_10_gb_device_and_8_gb_host": plan.device_bytes <= 10e9 and plan.host_bytes <= 8e9,
    }


def main() -> None:
    """Run the proof."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--runs", nargs="+", default=["wanda:2", "wanda:4", "wanda:8"], help="method:blocks")
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--seq", type=int, default=64)
    parser.add_argument("--one", nargs=3, metavar=("MODEL", "OUT", "METHOD"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        model, out, method = arguments.one
        print(json.dumps(measure(Path(model), Path(out), method, samples=arguments.samples, seq=arguments.seq)))
        return
    if arguments.out is None:
        parser.error("--out is missing")
    found: list[dict[str, Any]] = []
    for run in arguments.runs:
        method, _, blocks = run.partition(":")
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_model(root / "model", int(blocks))
            run_of = measure_apart(root / "model", root / "v", method, samples=arguments.samples, seq=arguments.seq)
            found.append(run_of)
            print(found[-1], flush=True)
            _record(arguments.out, found)


def _record(out: Path, found: list[dict[str, Any]]) -> None:
    import torch
    import transformers

    earlier = json.loads(out.read_text(encoding="utf-8"))["runs"] if out.exists() else []
    again = {(run["method"], run["blocks"]) for run in found}
    runs = [run for run in earlier if (run["method"], run["blocks"]) not in again] + found
    runs.sort(key=lambda run: (run["method"], run["blocks"]))
    spread = {}
    for method in sorted({run["method"] for run in runs}):
        peaks = [run["peak_host_bytes"] for run in runs if run["method"] == method]
        spread[method] = round(max(peaks) / min(peaks) - 1, 4)
    out.parent.mkdir(parents=True, exist_ok=True)
    machine = {"system": platform.system(), "machine": platform.machine(), "processors": os.cpu_count()}
    versions = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
    write_json(
        out,
        {
            "what": "peak host memory of pruning random models of Llama-2-7B's width, by number of blocks",
            "shape": {"width": WIDTH, "inner": INNER, "heads": HEADS, "vocabulary": VOCABULARY, "dtype": "bfloat16"},
            "machine": {**machine, **versions, "threads": int(os.environ.get("OMP_NUM_THREADS", "1"))},
            "runs": runs,
            "largest_peak_over_smallest_minus_1": spread,
            "plans_for_the_whole_model": [full_plan(method) for method in ("sparsegpt", "admm", "wanda")],
        },
    )


def _write_tokenizer(root: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate(["<|eos|>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|eos|>").save_pretrained(root)


if __name__ == "__main__":
    main()
