"""Reads data files row by row and brings the published forms of a benchmark into the one that a suite reads."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from suites.errors import SuiteError
from suites.problems import called, modules

Row = Mapping[str, Any]


def _lines(path: Path, compressed: bool) -> Iterator[tuple[str, Any]]:
    where = str(path)
    try:
        with gzip.open(path, "rb") if compressed else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                where = f"{path}:{number}"
                if line.strip():
                    yield where, json.loads(line.decode("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SuiteError(f"{where}: not a JSON line ({error}); fetch the file again") from None
    except (OSError, EOFError) as error:
        raise SuiteError(f"{where}: cannot be read ({error}); fetch the file again") from None


def _list(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise SuiteError(f"{path}:{error.lineno}: not JSON ({error.msg}); fetch the file again") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: cannot be read ({error}); fetch the file again") from None
    if not isinstance(content, list):
        raise SuiteError(f"{path}: expected one JSON list of rows")
    for index, row in enumerate(content):
        yield f"{path}[{index}]", row


def read_rows(path: Path, form: str) -> Iterator[tuple[str, Any]]:
    """The rows of a data file, each with the place it stands at (`file:line`).

    Args:
        path: The file.
        form: `jsonl`, `jsonl.gz` or `json` (one list).

    Raises:
        SuiteError: The file cannot be read or has a broken line; the message names the place.
    """
    return _list(path) if form == "json" else _lines(path, form == "jsonl.gz")


def _text(row: Row, *names: str) -> str:
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value.strip():
            return value
    raise ValueError(f"field {' or '.join(names)} is missing, empty or not a text")


def _texts(row: Row, name: str) -> list[str]:
    value = row.get(name)
    if isinstance(value, str) or value is None:
        raise ValueError(f"field {name} is missing or not a list of texts")
    texts = [str(part) for part in value]
    if not texts or not all(text.strip() for text in texts):
        raise ValueError(f"field {name} is empty")
    return texts


def gsm8k(row: Row) -> dict[str, Any]:
    """GSM8K: `question`, and `answer` that ends in `#### <number>`."""
    answer = _text(row, "answer")
    if "#### " not in answer:
        raise ValueError("field answer has no '#### <number>'")
    return {"question": _text(row, "question"), "answer": answer}


def code(row: Row) -> dict[str, Any]:
    """HumanEval: its five fields."""
    return {name: _text(row, name) for name in ("task_id", "prompt", "entry_point", "canonical_solution", "test")}


def mbpp(row: Row) -> dict[str, Any]:
    """MBPP (`text`, `test_setup_code`) or its sanitized form (`prompt`, `test_imports`), as a problem with `check`.

    The assertions run word for word, the set-up with them: one that fails must fail the problem, not the whole run. A
    module that they take from the solution's imports is imported for them, because they run apart from it.
    """
    tests, solution = _texts(row, "test_list"), _text(row, "code")
    setup = str(row.get("test_setup_code") or "\n".join(str(line) for line in row.get("test_imports") or ()))
    name = called(solution, tests)
    steps = [part for part in (setup, *(f"import {each}" for each in modules(solution, tests)), *tests) if part.strip()]
    return {
        "task_id": f"Mbpp/{int(row['task_id'])}",
        "text": _text(row, "text", "prompt"),
        "code": solution,
        "test_list": tests,
        "prompt": "",
        "entry_point": name,
        "test": f"_STEPS = {steps!r}\n\ndef check(candidate):\n    for step in _STEPS:\n        "
        "exec(step, globals())\n",
    }


def instruct(row: Row) -> dict[str, Any]:
    """IFEval: the hub's rows carry every keyword with nulls, the original file only those that are set."""
    ids = _texts(row, "instruction_id_list")
    kwargs = [{k: v for k, v in dict(one or {}).items() if v is not None} for one in row.get("kwargs") or []]
    if len(kwargs) != len(ids):
        raise ValueError("fields kwargs and instruction_id_list differ in length")
    doc: dict[str, Any] = {"prompt": _text(row, "prompt"), "instruction_id_list": ids, "kwargs": kwargs}
    return {"key": row["key"], **doc} if "key" in row else doc


def chat(row: Row) -> dict[str, Any]:
    """MT-Bench: `turns` of FastChat's file, or `prompt` of the hub's; references where there are any."""
    turns = _texts(row, "turns" if "turns" in row else "prompt")
    doc = {"turns": turns, "reference": list(row.get("reference") or [])}
    question = row.get("question_id", row.get("prompt_id"))
    named = {"question_id": question, "category": row.get("category")}
    return {**{name: value for name, value in named.items() if value is not None}, **doc}


def summarization(row: Row) -> dict[str, Any]:
    """CNN/DailyMail (`article`, `highlights`), XSum (`document`), DialogSum (`dialogue`, `summary` or `summary1..3`).

    `highlights` is one text, or a list where an article has several references.
    """
    several = [row[name] for name in sorted(row) if name.startswith("summary") and name[7:].isdigit() and row[name]]
    named = (row.get(name) for name in ("highlights", "summary", "summaries"))
    listed: list[Any] = next((value for value in named if isinstance(value, list)), [])
    references = [str(text) for text in listed or several if str(text).strip()]
    if not references:
        references = [_text(row, "highlights", "summary", "summary1")]
    return {
        "article": _text(row, "article", "document", "dialogue"),
        "highlights": references if len(references) > 1 else references[0],
    }


def summaries(row: Row) -> dict[str, Any]:
    """As `summarization`, with the data set's own `id` (DialogSum: `fname`), by which files of predictions go."""
    name = row.get("id", row.get("fname"))
    return {**({} if name is None else {"id": str(name)}), **summarization(row)}


def _gold(value: Any, name: str, choices: int) -> int:
    try:
        index = int(value)
    except (TypeError, ValueError):
        raise ValueError(f"field {name} is missing or not a number (test splits have no labels)") from None
    if not 0 <= index < choices:
        raise ValueError(f"field {name} names none of the {choices} choices")
    return index


def piqa(row: Row) -> dict[str, Any]:
    """PIQA: `goal`, `sol1`, `sol2`, and `label`, 0 or 1."""
    doc: dict[str, Any] = {name: _text(row, name) for name in ("goal", "sol1", "sol2")}
    gold = _gold(row.get("label"), "label", 2)
    return {**doc, "label": gold, "gold": gold}


def winogrande(row: Row) -> dict[str, Any]:
    """WinoGrande: `sentence` with a `_`, `option1`, `option2`, and `answer`, 1 or 2."""
    doc: dict[str, Any] = {name: _text(row, name) for name in ("sentence", "option1", "option2")}
    if "_" not in doc["sentence"]:
        raise ValueError("field sentence has no '_' to be filled")
    answer = str(row.get("answer"))
    if answer not in ("1", "2"):
        raise ValueError("field answer is neither 1 nor 2 (test splits have no labels)")
    return {**doc, "answer": answer, "gold": int(answer) - 1}


def hellaswag(row: Row) -> dict[str, Any]:
    """HellaSwag: `activity_label`, `ctx_a`, `ctx_b` (may be empty), four `endings`, and `label`, 0 to 3."""
    endings = _texts(row, "endings")
    gold = _gold(row.get("label"), "label", len(endings))
    named = {"activity_label": _text(row, "activity_label"), "ctx_a": _text(row, "ctx_a")}
    source = {"source_id": str(row["source_id"])} if row.get("source_id") else {}
    return {
        **named,
        "ctx_b": str(row.get("ctx_b") or ""),
        "endings": endings,
        "label": str(gold),
        **source,
        "gold": gold,
    }


def arc(row: Row) -> dict[str, Any]:
    """ARC: `question` and `choices` (`text`, `label`) as on the hub, or both in `question` as in the original file."""
    question, choices = row.get("question"), row.get("choices")
    if isinstance(question, dict):
        choices, question = question.get("choices"), question.get("stem")
    if isinstance(choices, list):
        choices = {name: [part.get(name) for part in choices] for name in ("text", "label")}
    if not isinstance(choices, Mapping):
        raise ValueError("field choices is missing or has no text and label")
    texts, labels = _texts(choices, "text"), _texts(choices, "label")
    key = _text(row, "answerKey")
    if len(texts) != len(labels) or key not in labels:
        raise ValueError(f"field answerKey: {key!r} is none of the labels {', '.join(labels)}")
    doc = {"question": _text({"question": question}, "question"), "choices": {"text": texts, "label": labels}}
    return {**doc, "answerKey": key, "gold": labels.index(key)}


def mmlu(row: Row) -> dict[str, Any]:
    """MMLU: `question`, `subject`, four `choices`, and `answer`, 0 to 3."""
    choices = [str(choice) for choice in row.get("choices") or ()]
    if len(choices) != 4:
        raise ValueError("field choices is missing or has not four texts")
    gold = _gold(row.get("answer"), "answer", 4)
    asked = {"question": _text(row, "question"), "subject": _text(row, "subject"), "choices": choices}
    return {**asked, "answer": gold, "gold": gold}


NORMALISE: dict[str, Callable[[Row], dict[str, Any]]] = {
    "gsm8k": gsm8k,
    "code": code,
    "mbpp": mbpp,
    "instruct": instruct,
    "chat": chat,
    "summarization": summarization,
    "summaries": summaries,
    "piqa": piqa,
    "winogrande": winogrande,
    "hellaswag": hellaswag,
    "arc_easy": arc,
    "arc_challenge": arc,
    "mmlu": mmlu,
}
"""Per suite: raises ValueError, naming the field, when a row cannot be used."""
