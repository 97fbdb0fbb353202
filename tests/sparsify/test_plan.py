"""The plan before work: what it counts, and that it holds for real runs."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from sparsify.blocks import find_structure, load_skeleton
from sparsify.errors import SparsifyError
from sparsify.memory_proof import full_plan, measure_apart, write_model
from sparsify.plan import Machine, plan_prune, plan_text
from sparsify.recipe import load_recipe, parse_recipe
from sparsify.train.plan import TrainPlan, plan_training
from sparsify.train.settings import TrainSettings
from sparsify.usage import Meter, give_back


def stage(method: str, **changes: object):  # type: ignore[no-untyped-def]
    text = {"source": "x", "samples": 4, "seq": 32}
    spec = {"method": method, "sparsity": 0.5, **({} if method == "magnitude" else {"calibration": text}), **changes}
    return parse_recipe({"stages": [{"prune": spec}]}, name="t", where="t").stages[0].prune


@pytest.mark.parametrize("method", ["sparsegpt", "admm", "wanda"])
def test_llama_2_7b_fits_10_gb_of_device_and_8_gb_of_host_memory(method: str) -> None:
    plan = full_plan(method)
    assert (plan["blocks"], plan["parameters"], plan["calibration_tokens"]) == (32, 6_738_415_616, 128 * 2048)
    assert plan["fits_10_gb_device_and_8_gb_host"]
    # At least a block and the Gram matrix of down_proj in float32 are on the device at once.
    assert 4 * (202_383_360 + 11008**2) < plan["planned_device_bytes"] <= 10e9
    assert plan["planned_host_bytes"] <= 8e9 and plan["planned_disk_bytes"] > 2 * 2 * plan["parameters"]


def test_the_plan_counts_what_the_model_has(model_dir: Path) -> None:
    model = load_skeleton(model_dir)
    plan = plan_prune(model, find_structure(model), stage("sparsegpt"), Machine("cuda"), stored=1000)
    whole = sum(parameter.numel() for parameter in model.parameters())
    linears = 3 * (32 * 32 + 2 * 16 * 32 + 32 * 32 + 3 * 32 * 48)
    assert (plan.blocks, plan.parameters, plan.pruned, plan.tokens) == (3, whole, linears, 128)
    on_cpu = plan_prune(model, find_structure(model), stage("sparsegpt"), Machine("cpu", 2), stored=1000)
    assert on_cpu.device_bytes == 0 < plan.device_bytes and on_cpu.host_bytes > plan.host_bytes
    assert on_cpu.seconds > plan.seconds
    admm = plan_prune(model, find_structure(model), stage("admm", refine=True), Machine("cpu", 2), stored=1000)
    assert admm.seconds > on_cpu.seconds
    skipped = plan_prune(model, find_structure(model), stage("admm", skip=["*.mlp.*"]), Machine(), stored=1)
    assert skipped.pruned < plan.pruned


def test_the_plan_of_adapters_counts_their_weights_alone(model_dir: Path) -> None:
    from sparsify.train.lora_settings import LoraSettings

    def planned(**changes: object) -> TrainPlan:
        settings = TrainSettings.model_validate({"tokens": 1000, "lr": 0.1, "batch_tokens": 100, **changes})
        return plan_training(load_skeleton(model_dir), settings, blocks=3, width=32, stored=1000)

    whole, masked = planned(), planned(lora={"rank": 4, "dropout": 0})
    adapters = 3 * 4 * (2 * 64 + 2 * 48 + 3 * 80)  # rank x (inputs + outputs): q and o, k and v, the MLP
    assert masked.disk_bytes == 2 * 3 * 4 * adapters + 1000 < whole.disk_bytes and masked.bytes < whole.bytes
    plain = planned(lora=LoraSettings(rank=4, targets=("q_proj",), merge="project"))
    assert plain.disk_bytes == 2 * 3 * 4 * 3 * 4 * 64 + 1000
    assert plain.operations < whole.operations < masked.operations < planned(lora={}).operations


def test_the_text_of_the_plan(model_dir: Path, tmp_path: Path) -> None:
    text = plan_text(model_dir, load_recipe("sparse70-recovered-int8"), Machine("cuda"))
    assert "recipe sparse70-recovered-int8: prune > finetune > quantize" in text
    assert "device memory" in text and "65,536 calibration tokens" in text and "450,000 tokens" in text
    assert "taking 3e+13 float32 operations a second" in text
    with pytest.raises(SparsifyError, match="does not exist"):
        plan_text(tmp_path / "nowhere", load_recipe("dense"), Machine())


def test_training_in_bfloat16_is_planned_at_its_own_rate_on_a_gpu_only() -> None:
    whole, half = (TrainSettings(tokens=1, lr=0.1, batch_tokens=1, precision=each) for each in ("float32", "bf16"))
    assert Machine("cuda").training_rate(half) == 5 * Machine("cuda").training_rate(whole)
    assert Machine("cpu", 3).training_rate(half) == Machine("cpu", 3).training_rate(whole) == 3 * 4e10


def test_memory_does_not_grow_with_the_number_of_blocks(tmp_path: Path) -> None:
    """A small copy of the proof at 7B width: six times the blocks, the same peak, which the plan bounds."""
    peaks = []
    for blocks in (2, 12):
        root = tmp_path / str(blocks)
        write_model(root / "model", blocks, width=512, inner=1408, vocabulary=512)
        found = measure_apart(root / "model", root / "v", "wanda", samples=2, seq=32)
        assert found["blocks"] == blocks and found["revived"] == 0
        assert found["sparsity"] == pytest.approx(0.5, abs=0.01)
        assert found["peak_host_bytes"] < 1.2 * found["planned_host_bytes"]
        peaks.append(found["peak_host_bytes"])
    # Ten blocks more are 64 MB as they are stored, and 128 MB in float32; 8 to 25 MB are what the heap keeps in pieces.
    assert peaks[1] < peaks[0] + 40e6


def test_memory_of_slicing_is_bounded_by_its_plan(tmp_path: Path) -> None:
    """Square matrices, a block in float64 and a pass: the plan is no less than the peak, and not twice as much."""
    write_model(tmp_path / "model", 2, width=512, inner=1408, vocabulary=512)
    found = measure_apart(tmp_path / "model", tmp_path / "v", "slice", samples=16, seq=128)
    assert found["peak_host_bytes"] < 1.2 * found["planned_host_bytes"] < 2.4 * found["peak_host_bytes"]


def test_the_meter_sees_a_peak_that_is_gone() -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not let a process start its peak of memory again")
    give_back()
    meter = Meter("cpu")
    with mmap.mmap(-1, 50_000_000) as held:  # not from the heap, which may keep it
        held[::4096] = b"x" * len(held[::4096])
    peak = meter.lap().host_bytes
    assert 40e6 < peak < 80e6
    assert meter.lap().host_bytes < peak
    assert meter.total().host_bytes == pytest.approx(peak, rel=0.01)
