"""Text that the papers train and calibrate on, by name: `task:gsm8k`, `task:wikitext2` and others.

Of a benchmark it is its training split as prompt and completion, in the form in which a suite's preset asks; of
WikiText-2 one running text, as published evaluations join it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError

PREFIX = "task:"


@dataclass(frozen=True)
class TaskText:
    """One training set.

    Attributes:
        hub: Id of the data set.
        config: Its configuration, or None.
        split: Its split.
        revision: Its commit; None where it is not known, so that two runs may read other text.
        file: Original file below `--data-dir`, JSON objects, one a line.
        render: A row as (prompt, completion).
        fields: Columns that `render` reads.
    """

    hub: str
    config: str | None
    split: str
    revision: str | None
    file: str
    render: Callable[[Mapping[str, Any]], tuple[str, str]]
    fields: tuple[str, str]


def _gsm8k(row: Mapping[str, Any]) -> tuple[str, str]:
    # The prompt of preset 0shot-finetuned (lm-eval's gsm8k), and the reference solution behind it.
    return f"Question: {row['question']}\nAnswer:", f" {row['answer']}"


def _line(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row["text"]).strip(), ""


# Made into one running text instead of rows.
RUNNING = frozenset({"wikitext2"})
TASKS: Mapping[str, TaskText] = {
    "gsm8k": TaskText(
        "openai/gsm8k",
        "main",
        "train",
        "740312add88f781978c0658806c59bc2815b9866",
        "gsm8k/train.jsonl",
        _gsm8k,
        ("question", "answer"),
    ),
    "wikitext2": TaskText(
        "Salesforce/wikitext",
        "wikitext-2-raw-v1",
        "train",
        "b08601e04326c79dfdd32d625aee71d232d685c3",
        "wikitext2_raw/wiki.train.raw",
        _line,
        ("text", "text"),
    ),
}


def task_rows(name: str, rows: Iterable[Mapping[str, Any]], where: str) -> Iterator[dict[str, str]]:
    """Rows of a training set as the trainer reads them.

    Args:
        name: A key of `TASKS`.
        rows: As the hub has them.
        where: What errors call them.

    Raises:
        ConfigError: A row lacks a field.
    """
    task = TASKS[name]
    for number, row in enumerate(rows, start=1):
        missing = [field for field in task.fields if not isinstance(row.get(field), str)]
        if missing:
            raise ConfigError(f"{where}, row {number} has no text in {missing[0]!r}; it is no row of {task.hub}")
        prompt, completion = task.render(row)
        yield {"prompt": prompt, "completion": completion, "source": f"{PREFIX}{name}"}


def resolve_task(source: str, cache_dir: Path, data_dir: Path | None) -> Path:
    """The file of `task:NAME`, made in `cache_dir` from an original file below `data_dir`, or from the hub.

    JSONL rows of `prompt` and `completion`, or a text file of the non-empty lines, joined by blank lines.

    Raises:
        ConfigError: There is no such task, or its data is neither here nor on the hub.
    """
    from harness.corpus import write_rows
    from harness.records import write_text_atomic

    name = source.removeprefix(PREFIX)
    if name not in TASKS:
        raise ConfigError(f"corpus {source!r} is unknown; there are {', '.join(PREFIX + each for each in TASKS)}")
    running = name in RUNNING
    path = cache_dir / f"task-{name}.{'txt' if running else 'jsonl'}"
    if path.exists():
        return path
    local = data_dir / TASKS[name].file if data_dir is not None else None
    if local is not None and local.is_file():
        rows, where = _lines(local) if running else _read(local), str(local)
    else:
        rows, where = _from_hub(source, TASKS[name]), f"hub {TASKS[name].hub}"
    made = task_rows(name, rows, where)
    if running:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, "\n\n".join(row["prompt"] for row in made if row["prompt"]) + "\n")
    else:
        write_rows(path, made)
    return path


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield {"text": line}


def _read(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                row = json.loads(line)
            except ValueError:
                raise ConfigError(f"{path}:{number} is not JSON; repair or remove the line") from None
            if not isinstance(row, dict):
                raise ConfigError(f"{path}:{number} is not a JSON object; repair or remove the line")
            yield row


def _from_hub(source: str, task: TaskText) -> Iterator[Mapping[str, Any]]:
    hint = f"connect to the hub, or give the original file with --data-dir (as {task.file})"
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        os.environ["HF_DATASETS_OFFLINE"] = "1"
    try:
        import datasets

        rows = datasets.load_dataset(task.hub, task.config, split=task.split, revision=task.revision)
    except ImportError:
        raise ConfigError(f"{source} needs the package datasets; pip install 'sparsebench[run]'") from None
    except Exception as error:  # noqa: BLE001 (datasets raises what its many back ends raise)
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{source} cannot be fetched ({reason}); {hint}") from None
    return iter(rows)
