"""The samples that evalplus reads: whole programs."""

from __future__ import annotations

from harness.score.answers import Format, Said
from harness.score.formats.fields import has, identifier, text
from harness.score.formats.human_eval import task_names

EVALPLUS = Format(
    name="evalplus",
    example='{"task_id": "HumanEval/0", "solution": "def ..."}',
    accepts=has("task_id", "solution"),
    read=lambda row: Said((f"task_id={identifier(row, 'task_id')}",), (text(row, "solution"),)),
    names=task_names,
    several=True,
    program=lambda doc, output: output,
)
