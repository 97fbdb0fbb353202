"""The verb `sparsify`: the plan alone, a variant with its picture and packed form, and wrong use."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from sparsify.checkpoint import open_checkpoint
from sparsify.packed import expand_checkpoint

RECIPE = "stages:\n  - prune: {method: magnitude, sparsity: 0.6, allocation: {kind: slope, beta: 0.1}}\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    return path


def test_dry_run_shows_the_plan_and_writes_nothing(recipe: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    result = CliRunner().invoke(app, ["sparsify", "pocket", "--recipe", str(recipe), "--dry-run", "--device", "cuda"])
    assert result.exit_code == 0, result.output
    assert "5 blocks, 2,324,544 parameters, 2,027,520 of them in linears to prune" in result.output
    assert "device memory" in result.output and "host memory" in result.output and "disk" in result.output
    assert sorted(tmp_path.iterdir()) == before


def test_a_variant_says_what_it_used_and_packs(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "v"
    result = CliRunner().invoke(app, ["sparsify", "pocket", "--recipe", str(recipe), "-o", str(out), "--pack"])
    assert result.exit_code == 0, result.output
    assert "60.00 % of the linears zero" in result.output and "0 of them revived" in result.output
    assert "used: " in result.output and "of host memory above the start" in result.output
    assert (out / "linears.svg").read_text().startswith("<svg ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yaml", "v", "v-packed"]
    (tmp_path / "again").mkdir()
    expand_checkpoint(tmp_path / "v-packed", tmp_path / "again")
    assert open_checkpoint(tmp_path / "again").weights_sha256 == open_checkpoint(out).weights_sha256
    assert (
        sum(p.stat().st_size for p in (tmp_path / "v-packed").glob("*.safetensors")) < 0.6 * open_checkpoint(out).bytes
    )


def test_wrong_use(recipe: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    without = runner.invoke(app, ["sparsify", "pocket", "--recipe", str(recipe)])
    assert without.exit_code == 2 and "give the directory of the variant" in without.output
    device = runner.invoke(app, ["sparsify", "pocket", "-r", str(recipe), "-o", str(tmp_path / "v"), "--device", "tpu"])
    assert "--device is cpu or cuda" in str(device.exception)
