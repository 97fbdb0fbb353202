"""`no_revived_zeros`: from a real pruned variant, through variant.json and the summary, to the verdict."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from harness.gate import Context, RuleResult, RunRecords, check
from harness.gate_rules import GateRule
from harness.report.inputs import VariantInput
from sparsify.checkpoint import MASKS, open_checkpoint
from sparsify.masks import load_masks
from sparsify.recipe import load_recipe
from sparsify.run import MakeOptions, make_variant
from sparsify.variant import check_masks, describe, read_variant, write_variant

runs = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("runs.py"))))
POCKET = Path(__file__).resolve().parents[2] / "suites" / "pocket" / "model"
RULES: TypeAdapter[Any] = TypeAdapter(list[GateRule])
pytestmark = pytest.mark.skipif(not (POCKET / "model.safetensors").is_file(), reason="the pocket model is not here")


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zeros")
    (folder / "half.yaml").write_text("stages:\n  - prune: {method: magnitude, sparsity: 0.5}\n")
    options = MakeOptions(store=folder / "stages", name="half", base="pocket", baseline="dense")
    make_variant(POCKET, load_recipe(str(folder / "half.yaml")), folder / "half", options=options)
    return folder / "half"


def verdict(directory: Path) -> RuleResult:
    """The rule on a run whose summary was made from this variant.json, as a run makes it."""
    info = json.loads((directory / "variant.json").read_text())
    scores = {"gsm8k": [1.0] * 20}
    samples = runs.rows_of({"dense": scores, "half": scores})
    variants = [runs.variant("dense", None), VariantInput.from_variant_json(info, name="half", baseline="dense")]
    run = RunRecords.in_memory(runs.summary_of(samples, variants), samples)
    rules = RULES.validate_python([{"rule": "no_revived_zeros", "variant": "half"}])
    (result,) = check(rules, Context(run)).results
    return result


def test_a_sound_variant_passes(pruned: Path) -> None:
    found = read_variant(pruned).masks
    masks = load_masks(pruned)
    assert found is not None and found.revived == 0 and found.tensors == len(masks)
    assert found.pruned == sum(int((~mask).sum()) for mask in masks.values()) > 100_000
    assert verdict(pruned).verdict == "pass"


def test_revived_weights_are_counted_and_fail(pruned: Path, tmp_path: Path) -> None:
    broken = tmp_path / "half"
    shutil.copytree(pruned, broken)
    name, mask = next(iter(load_masks(pruned).items()))
    (file,) = broken.glob("model*.safetensors")
    with safe_open(file, framework="pt") as stream:
        metadata = stream.metadata()
    tensors = load_file(file)
    places = torch.nonzero(~mask)[:3]
    for row, column in places.tolist():
        tensors[name][row, column] = 0.5
    save_file(tensors, file, metadata=metadata)
    write_variant(describe(broken, name="half", base="pocket", baseline="dense"), broken)
    result = verdict(broken)
    assert result.verdict == "fail" and result.value == 3 and result.message.startswith("3 of ")


def test_without_masks_nothing_was_checked(pruned: Path, tmp_path: Path) -> None:
    bare = tmp_path / "half"
    shutil.copytree(pruned, bare)
    (bare / MASKS).unlink()
    assert check_masks(open_checkpoint(bare)) is None
    write_variant(describe(bare, name="half", base="pocket", baseline="dense"), bare)
    result = verdict(bare)
    assert (result.verdict, result.exit_code) == ("error", 3)
    # A variant.json of before this check says nothing, which is not a pass.
    old = json.loads((pruned / "variant.json").read_text())
    del old["masks"]
    (bare / "variant.json").write_text(json.dumps(old))
    assert verdict(bare).exit_code == 3
