"""Engine sparse in a speed panel: real processes, its rows and what the record says of the packing."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import pytest

from harness.bench import PanelSpec
from harness.bench.panel import read_panel, run_panel
from harness.models import BUNDLED
from harness.speed import speed_row

kernels = pytest.importorskip("harness.engines.sparse._kernels", reason="the kernels are not built here")
make_variant = runpy.run_path(str(Path(__file__).with_name("test_engine.py")))["make"]


def test_a_panel_of_both_engines(tmp_path: Path) -> None:
    """A quantized variant has no time on torch and one on sparse; the record says how its weights were held."""
    dense = Path(shutil.copytree(BUNDLED["pocket"], tmp_path / "dense"))
    stages = [{"prune": {"method": "magnitude", "sparsity": 0.7}}, {"quantize": {"scheme": "w8a8"}}]
    variants = {"dense": dense, "int8": make_variant(BUNDLED["pocket"], tmp_path / "int8", stages)}
    spec = PanelSpec(
        "decode", "decode", 16, 1, 4, 1, "float32", "dense", 0.5, 7, engines=("sparse",), attempts=1, confirm=False
    )
    rows = {(row.variant, row.engine): row for row in run_panel(spec, variants, out=tmp_path / "out")}
    assert list(rows) == [("dense", "torch"), ("int8", "torch"), ("dense", "sparse"), ("int8", "sparse")]
    assert "emulated" in (rows["int8", "torch"].reason or "") and rows["int8", "torch"].tokens_per_s is None
    assert rows["dense", "torch"].packing is None
    for variant, form in (("dense", "dense f32"), ("int8", "sparse i8")):
        packing = rows[variant, "sparse"].packing
        assert packing is not None and packing["isa"] == kernels.best_isa() and packing["path"] == "native"
        assert packing["matrices"][form] >= 35 and packing["bytes"] > 1e6
        assert (rows[variant, "sparse"].ratio or 0) > 0
        kept = speed_row(rows[variant, "sparse"]).packing
        assert kept is not None and kept.model_dump() == packing
    again = read_panel(spec, variants, out=tmp_path / "out")
    assert again is not None and [row.as_dict() for row in again] == [row.as_dict() for row in rows.values()]
    lines = [json.loads(line) for line in (tmp_path / "out" / "decode.jsonl").read_text().splitlines()]
    process = next(line for line in lines if line.get("process") == "int8@sparse" and line["kind"] == "process")
    assert process["packing"]["memory"] in ("mmap", "copy") and "events" not in process
