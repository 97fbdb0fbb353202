"""Records: the committed schema, refusals, atomic writes, Parquet."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

import harness.schema.summary as schema_module
from harness.errors import ConfigError, CorruptRecordError, InfrastructureError
from harness.records import (
    Metric,
    SpeedRow,
    Summary,
    read_samples,
    read_summary,
    samples_to_parquet,
    write_json_atomic,
    write_samples,
    write_text_atomic,
)

synthetic = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("synthetic.py"))))
SCHEMA = Path(schema_module.__file__).with_name("summary.schema.json")


@pytest.fixture(scope="module")
def summary() -> Summary:
    return synthetic.summary()


@pytest.fixture
def saved(tmp_path: Path, summary: Summary) -> Path:
    write_json_atomic(tmp_path / "summary.json", summary)
    return tmp_path / "summary.json"


def edit(path: Path, change: Any) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_committed_schema_is_the_generated_one() -> None:
    assert json.loads(SCHEMA.read_text()) == schema_module.json_schema(), "run `python -m harness.schema`"


def test_summary_obeys_the_schema_and_keeps_the_contract(saved: Path) -> None:
    schema, data = json.loads(SCHEMA.read_text()), json.loads(saved.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(data, schema)
    assert {"schema_version", "study", "environment", "variants", "speed"} <= data.keys()
    variant = data["variants"][1]
    assert {"name", "base", "baseline", "recipe", "sparsity", "weight_bits", "bytes", "loaders"} <= variant.keys()
    assert {"linears", "model"} <= variant["sparsity"].keys()
    cell = variant["suites"]["gsm8k"]
    keys = {"preset", "suite_hash", "metric", "value", "n", "n_total", "n_error", "n_truncated", "se", "ci95", "method"}
    assert keys | {"metrics"} <= cell.keys()
    assert {"value", "ci95", "n", "n_discordant", "method"} <= variant["recovery"]["gsm8k"].keys()
    assert {"value", "ci95", "n", "n_discordant", "method"} <= variant["recovery"]["mean"].keys()
    keys = {"panel", "workload", "engine", "variant", "dtype", "threads", "batch", "context", "tokens_per_s"}
    assert keys | {"baseline", "ratio", "ci95", "noise_floor"} <= data["speed"][0].keys()
    assert data["speed"][0]["baseline"].keys() == {"variant", "engine", "dtype"}
    del data["variants"][0]["suites"]["gsm8k"]["n_total"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema)


def test_round_trip(saved: Path, summary: Summary) -> None:
    assert read_summary(saved) == summary
    assert read_summary(saved.parent) == summary


def test_null_needs_a_reason(summary: Summary) -> None:
    with pytest.raises(ValidationError, match="reason"):
        Metric(name="x", value=None, n=0, method="none")
    row = summary.speed[0].model_dump()
    with pytest.raises(ValidationError, match="reason"):
        SpeedRow.model_validate({**row, "ratio": None})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "not valid JSON"),
        (lambda text: "", "not valid JSON"),
        (lambda text: "[]", "schema_version None"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 7', 1), "schema_version 7"),
        (lambda text: text.replace('"bytes"', '"weight"', 1), "damaged"),
        (lambda text: text.replace('"value": 0.', '"value": NaN, "was": 0.', 1), "NaN is not JSON"),
    ],
)
def test_damaged_summary_is_one_clear_line(saved: Path, damage: Any, message: str) -> None:
    saved.write_text(damage(saved.read_text()))
    with pytest.raises(CorruptRecordError, match=message) as caught:
        read_summary(saved)
    assert caught.value.exit_code == 3
    assert str(saved) in str(caught.value) and "\n" not in str(caught.value)
    assert "again" in str(caught.value) or "version that wrote it" in str(caught.value)


def test_missing_summary_is_the_users_input(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing" / "summary.json"):
        with pytest.raises(ConfigError, match="sparsebench run"):
            read_summary(path)


def test_binary_garbage(saved: Path) -> None:
    saved.write_bytes(b"\xff\xfe\x00garbage")
    with pytest.raises(CorruptRecordError):
        read_summary(saved)


def test_samples_round_trip_and_damage(tmp_path: Path) -> None:
    rows, path = synthetic.cells()["sparse70", "instruct"], tmp_path / "samples" / "a.jsonl"
    write_samples(rows, path)
    assert read_samples(path) == rows
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], lines[4][:30], *lines[5:]]))
    with pytest.raises(CorruptRecordError, match="line 5 is damaged"):
        read_samples(path)
    with pytest.raises(ConfigError):
        read_samples(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": {"m": float("nan")}},
        {"scores": {"m": 1.5}},
        {"scores": {"m": [0.5, -0.1]}},
        {"status": "lost"},
        {"status": "error", "error": None},
        {"schema_version": 2},
        {"surprise": 1},
    ],
)
def test_bad_sample_rows_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        synthetic.row("dense", "gsm8k", 0, 1.0, **changes)


def test_parquet_holds_every_row(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    rows = synthetic.cells()["sparse70", "instruct"]
    samples_to_parquet(rows, tmp_path / "samples.parquet")
    table = pq.read_table(tmp_path / "samples.parquet")
    assert table.num_rows == len(rows)
    assert set(table.column_names) == set(type(rows[0]).model_fields)
    back = table.to_pylist()
    assert [row["item_id"] for row in back] == [row.item_id for row in rows]
    assert dict(back[0]["scores"])["inst_level_strict"] == rows[0].scores["inst_level_strict"]
    assert dict(back[0]["scores"])["prompt_level_strict"] == [rows[0].scores["prompt_level_strict"]]
    samples_to_parquet([], tmp_path / "empty.parquet")
    assert pq.read_table(tmp_path / "empty.parquet").schema.equals(table.schema)


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json_atomic(path, {"x": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json_atomic(path, {"x": float("nan")})
    with pytest.raises(UnicodeEncodeError):
        write_text_atomic(path, "\ud800")
    assert json.loads(path.read_text()) == {"x": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_unwritable_place_is_infrastructure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InfrastructureError, match="cannot write") as caught:
        write_json_atomic(tmp_path / "file" / "a.json", {})
    assert caught.value.exit_code == 3


def test_records_gate_and_reports_import_nothing_heavy() -> None:
    heavy = ("torch", "scipy", "transformers", "lm_eval", "datasets", "pyarrow")
    code = (
        "import sys, harness.records, harness.gate, harness.gate_rules, harness.gate.command\n"
        f"light = [m for m in (*{heavy}, 'numpy', 'rich') if m in sys.modules]\n"
        "import harness.stats, harness.report.summarize, harness.report.leaderboard, harness.report.recovery\n"
        "import harness.report.terminal\n"
        f"print(light, [m for m in (*{heavy}, 'rich') if m in sys.modules])"
    )
    root = str(Path(schema_module.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[] []"
