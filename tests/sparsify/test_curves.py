"""Curves: what a line holds, cutting back, the picture, TensorBoard."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from sparsify.recipe import parse_recipe
from sparsify.run import MakeOptions, make_variant
from sparsify.train import LossWeights, TrainJob, TrainSettings, train
from sparsify.train.board import BOARD, Board, scalars
from sparsify.train.curves import Curves, read_curves
from sparsify.train.plot import curves_svg
from sparsify.train.schedule import lr_factor

LINE = {
    "step": 3,
    "tokens": 300,
    "lr": 1e-3,
    "losses": {"total": 3.0, "ce": 2.0, "squarehead": 1.0},
    "squarehead_blocks": [0.25, 0.75],
    "sparsity": 0.5,
    "tokens_per_s": 1000.0,
}


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_rate_warms_up_and_falls(schedule: str) -> None:
    chosen = TrainSettings.model_validate({"tokens": 1, "lr": 1.0, "warmup": 10, "schedule": schedule})
    factors = [lr_factor(step, 100, chosen) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert all(a >= b for a, b in zip(factors[9:], factors[10:], strict=False))
    last = {"linear": 1 / 90, "cosine": 3.05e-4, "constant": 1.0}[schedule]
    assert factors[-1] == pytest.approx(last, rel=0.01)
    # Half way through its fall.
    assert factors[55] == pytest.approx(1.0 if schedule == "constant" else 0.5, abs=1e-9)


def test_every_step_has_a_line_of_all_quantities(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    losses = LossWeights(ce=1.0, kl=0.5, squarehead=2.0)
    chosen = TrainSettings(
        tokens=700,
        batch_tokens=120,
        seq=64,
        lr=1e-2,
        warmup=2,
        losses=losses,
        clip=0.5,
        select={"dev": 0.2, "every": 4},
    )  # type: ignore[arg-type]
    job = TrainJob(model_dir, tmp_path / "o", tmp_path / "w", [corpus], teacher_dir=model_dir)
    stats = train(job, chosen)
    lines = read_curves(tmp_path / "o" / "curves.jsonl")
    assert [line["step"] for line in lines] == list(range(1, stats.steps + 1))
    for line in lines:
        parts = line["losses"]
        assert parts["total"] == pytest.approx(parts["ce"] + 0.5 * parts["kl"] + 2.0 * parts["squarehead"], rel=1e-5)
        assert len(line["squarehead_blocks"]) == 3
        assert sum(line["squarehead_blocks"]) == pytest.approx(parts["squarehead"], rel=1e-5, abs=1e-12)
        assert line["grad_norm"] >= 0 and line["tokens_per_s"] > 0 and line["sparsity"] == 0
    assert lines[-1]["tokens"] == stats.tokens and [line["step"] for line in lines if "dev" in line][0] == 4
    assert lines[1]["lr"] == pytest.approx(1e-2)


def test_a_variant_keeps_the_curves_of_each_stage(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    train_once = {"finetune": {"data": "text", "tokens": 300, "batch_tokens": 120}}
    recipe = parse_recipe({"stages": [train_once, train_once]}, name="r", where="t")
    options = MakeOptions(store=tmp_path / "s", name="v", base="tiny", resolve_corpus=lambda _: corpus)
    make_variant(model_dir, recipe, tmp_path / "v", options=options)
    for number in (1, 2):
        assert read_curves(tmp_path / "v" / f"curves-{number}-finetune.jsonl")
        ET.parse(tmp_path / "v" / f"curves-{number}-finetune.svg")


def test_cutting_back_drops_later_lines_and_a_torn_one(tmp_path: Path) -> None:
    curves = Curves(tmp_path / "deep" / "c.jsonl")
    curves.cut(3)  # nothing yet
    for step in range(1, 8):
        curves.add({**LINE, "step": step})
    with curves.path.open("a") as stream:
        stream.write('{"step": 8, "los')
    curves.cut(5)
    assert [line["step"] for line in read_curves(curves.path)] == [1, 2, 3, 4, 5]
    curves.add({**LINE, "step": 6})
    assert len(curves.path.read_text().splitlines()) == 6


def test_the_picture_shows_each_quantity_and_thins_long_runs() -> None:
    lines = [
        {**LINE, "step": step, "lr": 1.0 / step, **({"dev": 1.0} if step % 100 == 0 else {})} for step in range(1, 3001)
    ]
    text = curves_svg(lines, "a < b")
    root = ET.fromstring(text)
    said = [element.text for element in root.iter() if element.tag.endswith("text")]
    for name in (
        "a < b",
        "dev loss (nats)",
        "SquareHead per block (log)",
        "block 1",
        "ce",
        "learning rate",
        "tokens/s",
    ):
        assert name in said
    polylines = [element for element in root.iter() if element.tag.endswith("polyline")]
    assert len(polylines) == 3 + 1 + 2 + 3 and max(len(p.get("points", "").split()) for p in polylines) <= 510
    assert "nan" not in text and curves_svg([], "x") == ""
    ET.fromstring(curves_svg([{**LINE, "step": 1, "losses": {"total": 0.0}}], "one step, zero loss"))


def test_scalars_are_flat() -> None:
    assert scalars(LINE) == {
        "loss/total": 3.0,
        "loss/ce": 2.0,
        "loss/squarehead": 1.0,
        "squarehead/block_00": 0.25,
        "squarehead/block_01": 0.75,
        "tokens": 300,
        "lr": 1e-3,
        "sparsity": 0.5,
        "tokens_per_s": 1000.0,
    }


def test_tensorboard_is_written_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        absent = Board(tmp_path / "absent", 0)
        absent.add(LINE)
        absent.close()
    assert not (tmp_path / "absent").exists()
    pytest.importorskip("tensorboard")
    board = Board(tmp_path / BOARD, 0)
    board.add(LINE)
    board.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / BOARD))
    events.Reload()
    assert set(events.Tags()["scalars"]) == set(scalars(LINE))
    assert json.dumps(events.Scalars("loss/ce")[0].value) == "2.0" and events.Scalars("lr")[0].step == 3
