"""Rows read from the columns of a Parquet file: equal to full rows, and as strict."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import CorruptRecordError
from harness.gate.rows import gate_rows, read_parquet
from harness.records import SampleRow, samples_to_parquet

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def sample(number: int, **changes: Any) -> SampleRow:
    values: dict[str, Any] = {
        "variant": "v",
        "engine": "torch",
        "suite": "instruct",
        "suite_hash": "h",
        "preset": "pocket",
        "seed": 0,
        "item_id": f"item-{number}",
        "item_hash": f"hash-{number}",
        "template": None,
        "difficulty": 1,
        "unseen": False,
        "cluster": "c",
        "prompt_hash": f"p-{number}",
        "outputs": ["yes"],
        "n_in": [3],
        "n_out": [1],
        "finish": ["stop"],
        "status": "ok",
        "error": None,
        "scores": {"other": 0.5, "score": [1.0, 0.0, 1.0]},
    }
    return SampleRow(**{**values, **changes})


ROWS = [
    sample(0),
    sample(1, scores={"score": 0.1}),
    sample(2, scores={"score": [0.1, 0.2, 0.3, 0.7]}),
    sample(3, status="error", error="it broke", scores={}),
    sample(4, status="truncated_input", scores={"score": 1.0}),
    sample(5, suite="chat", outputs=["first", "second"], scores={"score": 1 / 3}),
    sample(6, variant="w", seed=3, scores={"score": [0.25]}),
]


def test_columns_give_the_same_rows_and_scores_to_the_last_bit(tmp_path: Path) -> None:
    samples_to_parquet(ROWS, tmp_path / "s.parquet")
    table = read_parquet(tmp_path / "s.parquet")
    assert list(table) == [("v", "instruct"), ("v", "chat"), ("w", "instruct")]
    for variant, suite in table:
        own = [row for row in ROWS if (row.variant, row.suite) == (variant, suite)]
        assert table.cell(variant, suite, "score") == gate_rows(own, "score")
    assert [row.score for row in table.cell("v", "instruct", "score")][3:] == [0.0, 0.0]
    assert table.cell("nobody", "instruct", "score") == []


def test_a_metric_that_a_row_lacks_is_an_error(tmp_path: Path) -> None:
    samples_to_parquet(ROWS, tmp_path / "s.parquet")
    with pytest.raises(CorruptRecordError, match="item item-1 has no score 'other'"):
        read_parquet(tmp_path / "s.parquet").cell("v", "instruct", "other")
    with pytest.raises(CorruptRecordError, match="no score 'other'"):
        gate_rows(ROWS[:2], "other")


def _values(name: str, value: Any) -> Callable[[Any], Any]:
    def change(table: Any) -> Any:
        place = table.column_names.index(name)
        kept = table.column(name).to_pylist()[1:]
        return table.set_column(place, name, pa.array([value, *kept], type=table.schema.field(name).type))

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_values("scores", [("score", [1.5])]), "outside 0..1"),
        (_values("scores", [("score", [math.nan])]), "outside 0..1"),
        (_values("scores", [("score", [math.inf])]), "outside 0..1"),
        (_values("scores", [("score", [-0.1, 0.2])]), "outside 0..1"),
        (_values("scores", [("score", [None])]), "outside 0..1"),
        (_values("scores", [("score", None)]), "missing"),
        (_values("scores", None), "scores are missing"),
        (_values("status", "fine"), "unknown status 'fine'"),
        (_values("status", "error"), "without a message"),
        (_values("status", None), "unknown status"),
        (_values("schema_version", 2), "schema_version"),
        (_values("schema_version", None), "schema_version"),
        (_values("item_hash", None), "item_hash is missing"),
        (_values("cluster", None), "cluster is missing"),
        (_values("seed", None), "seed is missing"),
        (_values("outputs", None), "outputs are missing"),
        (_values("outputs", [None]), "outputs are missing"),
        (lambda table: table.drop_columns(["prompt_hash"]), "prompt_hash"),
        (lambda table: table.drop_columns(["scores"]), "scores"),
    ],
)
def test_what_a_full_row_refuses_the_columns_refuse(change: Callable[[Any], Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    samples_to_parquet(ROWS, path)
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(CorruptRecordError, match=said) as caught:
        read_parquet(path)
    assert str(path) in str(caught.value) and "fetch it again" in str(caught.value)


def test_several_row_groups_and_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    many = [sample(number, scores={"score": [number / 1000, 1.0]}) for number in range(500)]
    samples_to_parquet(many, path)
    pq.write_table(pq.read_table(path), path, row_group_size=37)
    assert read_parquet(path).cell("v", "instruct", "score") == gate_rows(many, "score")
    samples_to_parquet([], path)
    assert list(read_parquet(path)) == []
    samples_to_parquet([sample(0, status="error", error="x", scores={})], path)
    assert read_parquet(path).cell("v", "instruct", "score")[0].score == 0.0


def test_reading_columns_is_much_cheaper_than_checking_rows(tmp_path: Path) -> None:
    """Counted in Python calls, not in seconds: a row costs no call of pydantic."""
    import cProfile

    many = [sample(number) for number in range(2_000)]
    samples_to_parquet(many, tmp_path / "s.parquet")
    profile = cProfile.Profile(time.process_time)
    profile.enable()
    rows = read_parquet(tmp_path / "s.parquet").cell("v", "instruct", "score")
    profile.disable()
    names = {getattr(entry.code, "co_name", str(entry.code)) for entry in profile.getstats()}
    assert len(rows) == len(many) and "model_validate" not in names
