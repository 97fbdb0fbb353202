"""How skill cells are spread over workers."""

from __future__ import annotations

from pathlib import Path

from harness.cells import Cell, plan_suites
from harness.layout import Layout
from harness.study import load_study
from harness.tasks import EvaluateTask, split_last


def tasks(variants: int, root: Path) -> list[EvaluateTask]:
    plans = plan_suites(load_study("pocket"), None)
    layout = Layout(root)
    return [
        EvaluateTask(
            variant=f"v{index}",
            directory=layout.variant(f"v{index}"),
            cells=tuple(Cell(f"v{index}", plan, "torch/float32", layout) for plan in plans.values()),
            dtype="float32",
            threads=1,
            device="cpu",
            sandbox_refusal=None,
        )
        for index in range(variants)
    ]


def test_only_what_is_left_over_is_split_and_no_cell_is_lost(tmp_path: Path) -> None:
    for variants, workers, expected in ((9, 2, 10), (8, 2, 8), (1, 4, 4), (9, 4, 12), (7, 4, 7), (9, 1, 9), (1, 64, 5)):
        given = tasks(variants, tmp_path)
        split = split_last(given, workers)
        assert len(split) == expected, (variants, workers)
        assert sorted(cell.name for task in split for cell in task.cells) == sorted(
            cell.name for task in given for cell in task.cells
        )
        assert all(task.cells for task in split)
        assert all(cell.variant == task.variant for task in split for cell in task.cells)
        assert len({task.name for task in split}) == len(split), "progress tells tasks apart by name"


def test_the_parts_of_a_variant_take_about_equally_long(tmp_path: Path) -> None:
    *whole, first, second = split_last(tasks(9, tmp_path), 2)
    assert [task.name for task in whole] == [f"evaluate v{index}" for index in range(8)]
    assert {task.name for task in (first, second)} == {"evaluate v8 (part 1)", "evaluate v8 (part 2)"}
    work = [
        sum(c.plan.requests() * c.plan.suite.preset(c.plan.preset).max_new_tokens for c in task.cells)
        for task in (first, second)
    ]
    assert max(work) < 0.7 * sum(work)
