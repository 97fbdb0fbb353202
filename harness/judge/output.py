"""Writes what judging found: judgements in the formats of FastChat and AlpacaEval, verdicts, `summary.json`."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.judge.alpaca_eval import Annotation
from harness.judge.prompts import Mode
from harness.judge.records import JudgeSummary
from harness.records import write_json_atomic, write_text_atomic

SUMMARY = "summary.json"


def judgment_file(out: Path, judge: str, mode: Mode) -> Path:
    """Where MT-Bench's judgements lie: `model_judgment/<judge>_single.jsonl` or `_pair.jsonl`, as FastChat has it."""
    return out / "model_judgment" / f"{file_name(judge)}_{'single' if mode == 'single' else 'pair'}.jsonl"


def write_judgments(out: Path, judge: str, mode: Mode, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write FastChat's `model_judgment` file; rows get the time of writing as their time stamp."""
    now = time.time()
    write_text_atomic(judgment_file(out, judge, mode), _lines({**row, "tstamp": now} for row in rows))


def write_annotations(out: Path, model: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one model's `<model>/annotations.json`, as the package has it."""
    text = json.dumps(list(rows), indent=2, ensure_ascii=True, allow_nan=False)
    write_text_atomic(out / file_name(model) / "annotations.json", text + "\n")


def annotation_verdict(model: str, one: Annotation) -> dict[str, Any]:
    """An annotation as a row of `verdicts.jsonl`."""
    return {
        "model": model,
        "instruction": one.duel.instruction,
        "dataset": one.duel.dataset,
        "status": one.status,
        "preference": one.preference,
        "switched": one.duel.switched,
    }


def write_verdicts(out: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `verdicts.jsonl`: what became of every planned judgement."""
    write_text_atomic(out / "verdicts.jsonl", _lines(rows))


def write_summary(out: Path, summary: JudgeSummary) -> JudgeSummary:
    """Write `summary.json`, last of all, and return it."""
    write_json_atomic(out / SUMMARY, summary)
    return summary


def file_name(name: str) -> str:
    """A name of a model as part of a path: never a path of its own."""
    return re.sub(r"[^A-Za-z0-9._-]", "--", name).lstrip(".") or "model"


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    # ASCII: a lone surrogate in a model's text must not make a row unwritable.
    return "".join(json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n" for row in rows)
