"""Two processes under torchrun train what one process trains, and can hand their state to one."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sparsify.masks import load_masks
from sparsify.recipe import parse_recipe
from sparsify.run import MakeOptions, make_variant
from sparsify.train.curves import CURVES

# Makes variants as one of several processes; says how far it is after each step.
PROGRAM = """
import json, sys, time
from pathlib import Path
import torch
import sparsify.train.trainer as trainer
from sparsify.recipe import parse_recipe
from sparsify.run import MakeOptions, join, make_variant
from sparsify.train.launch import crew
torch.set_num_threads(1)
model, teacher, folder, bodies, every, last = sys.argv[1:]
trainer._SAVE_EVERY_S = float(every)
class Say:
    def update(self, done, total, note=""):
        print(done, note, flush=True)
        if done >= float(last):
            time.sleep(600)  # the parent ends it here
with crew("cpu") as leads:
    for name, body in json.loads(bodies).items() if leads else ():
        options = MakeOptions(Path(folder, name + ".store"), "v", "m", teacher_dir=Path(teacher))
        recipe = parse_recipe(body, name="r", where="r")
        make_variant(Path(model), recipe, Path(folder, name), options=options, progress=Say())
    if not leads:
        join("cpu")
"""
VARIATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "muon": {"optimizer": "muon", "muon_lr": 0.01, "losses": {"ce": 1.0}, "teacher": "none"},
    # Batches of one row or two: in some steps one process has nothing but padding.
    "rows": {"batch_tokens": 60, "tokens": 500, "accumulate": 2, "checkpoint_activations": True, "losses": {"kl": 1.0}},
    "lora": {"lora": {"rank": 4, "alpha": 8, "dropout": 0}, "lr": 0.03},
    # Trials of two rates on a dev split, whose best checkpoint every process reads back.
    "select": {"tokens": 1500, "select": {"dev": 0.2, "every": 2, "lr": [1e-5, 3e-3]}},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, make_model: Callable[..., Path]) -> tuple[Path, Path]:
    """A model and its teacher in float32, head tied to the embedding."""
    folder = tmp_path_factory.mktemp("models")
    return make_model(folder / "m", dtype="float32"), make_model(folder / "t", dtype="float32", seed=1)


def recipe(corpus: Path, **changes: object) -> dict[str, Any]:
    """Half of the weights pruned, then ten steps with both losses, a clipped norm and decay."""
    finetune = {
        "data": str(corpus), "tokens": 2200, "batch_tokens": 240, "seq": 64, "lr": 3e-3, "warmup": 2, "clip": 0.5,
        "weight_decay": 0.1, "teacher": "given", "losses": {"ce": 1.0, "squarehead": 1.0, "kl": 0.5},
    }  # fmt: skip
    return {"stages": [{"prune": {"method": "magnitude", "sparsity": 0.5}}, {"finetune": {**finetune, **changes}}]}


def torchrun(
    models: tuple[Path, Path], folder: Path, bodies: dict[str, Any], save_every_s: float, last: float = math.inf
) -> subprocess.Popen[str]:
    program = folder / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen(
        [*command, str(models[0]), str(models[1]), str(folder), json.dumps(bodies), str(save_every_s), str(last)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def alone(models: tuple[Path, Path], body: dict[str, Any], out: Path) -> Path:
    options = MakeOptions(out.with_name(out.name + ".store"), "v", "m", teacher_dir=models[1])
    make_variant(models[0], parse_recipe(body, name="r", where="r"), out, options=options)
    return out


def variations(corpus: Path) -> dict[str, dict[str, Any]]:
    """Recipes by name; that with adapters only where peft is installed."""
    chosen = [name for name in VARIATIONS if name != "lora" or importlib.util.find_spec("peft")]
    found = {name: recipe(corpus, **VARIATIONS[name]) for name in chosen}
    packed = {"mixture": [{"source": str(corpus), "share": 1}], "lr": 3e-3, "clip": 0.5}
    packed |= {"tokens": 2200, "batch_tokens": 192, "seq": 32, "accumulate": 2, "warmup": 2}
    found["pretrain"] = {"stages": [found["plain"]["stages"][0], {"pretrain": packed}]}
    return found


@pytest.fixture(scope="module")
def together(models: tuple[Path, Path], corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what two processes make of all variations."""
    folder = tmp_path_factory.mktemp("together")
    run = torchrun(models, folder, variations(corpus), 60.0)
    _, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors[-3000:]
    return folder


def curves(out: Path) -> list[dict[str, Any]]:
    (path,) = out.with_name(out.name + ".store").glob(f"*/{CURVES}")
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_same_run(one: Path, two: Path, start: Path, tolerance: float = 1e-3) -> None:
    """Equal to rounding: the curves step by step, and the weights relative to how far training moved them."""
    ours, theirs = curves(one), curves(two)
    assert len(ours) == len(theirs) >= 8
    for a, b in zip(ours, theirs, strict=True):
        assert (a["step"], a["tokens"], a["lr"]) == (b["step"], b["tokens"], b["lr"])
        for key, value in {**a["losses"], "norm": a["grad_norm"]}.items():
            assert {**b["losses"], "norm": b["grad_norm"]}[key] == pytest.approx(value, rel=3e-5), (a["step"], key)
        assert b.get("squarehead_blocks", []) == pytest.approx(a.get("squarehead_blocks", []), rel=3e-5)
    before = load_file(start / "model.safetensors")
    left, right = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    assert left.keys() == right.keys()
    moved = sum(float((left[n] - before[n]).square().sum()) for n in left) ** 0.5
    apart = sum(float((left[n] - right[n]).square().sum()) for n in left) ** 0.5
    assert moved > 0.1 and apart < tolerance * moved, (apart, moved)


def assert_masks_hold(out: Path, pruned: Path) -> None:
    masks, weights = load_masks(out), load_file(out / "model.safetensors")
    assert len(masks) == 21 and (out / "masks.safetensors").read_bytes() == (pruned / "masks.safetensors").read_bytes()
    for name, mask in masks.items():
        zeros = weights[name][~mask]
        assert not zeros.any() and not torch.signbit(zeros).any()
        assert (weights[name][mask] != 0).float().mean() > 0.99


@pytest.mark.parametrize("name", [*VARIATIONS, "pretrain"])
def test_two_processes_equal_one(
    name: str, together: Path, models: tuple[Path, Path], corpus: Path, tmp_path: Path
) -> None:
    if name == "lora":
        pytest.importorskip("peft")
    one, two = alone(models, variations(corpus)[name], tmp_path / "one"), together / name
    assert_same_run(one, two, models[0])
    assert_masks_hold(two, one)
    ours, theirs = (json.loads((path / "variant.json").read_text()) for path in (one, two))
    for key in ("corpora", "events", "recipe"):
        assert ours[key] == theirs[key]
    assert ours["stages"][1]["key"] == theirs["stages"][1]["key"]


def test_a_killed_run_of_two_goes_on_with_one(
    together: Path, models: tuple[Path, Path], corpus: Path, tmp_path: Path
) -> None:
    body = recipe(corpus)
    half = 1.4  # of two stages: in the middle of the second
    run = torchrun(models, tmp_path, {"two": body}, 0.0, half)
    assert run.stdout is not None
    for line in run.stdout:
        if float(line.split()[0]) >= half:
            run.send_signal(signal.SIGTERM)
            break
    run.communicate(timeout=60)
    assert list((tmp_path / "two.store").glob("*.work/state.safetensors"))
    two = alone(models, body, tmp_path / "two")
    assert_same_run(together / "plain", two, models[0])
    assert_masks_hold(two, together / "plain")
