"""Honest programs with their tests: the reference solutions of HumanEval, HumanEval+ and MBPP."""

from __future__ import annotations

import ast
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.evaluate.sandbox import Job, Limits, Problem
from harness.evaluate.sandbox.preflight import canonical_jobs
from harness.evaluate.sandbox.types import MIB

PLUS_FILE = "humaneval_plus/HumanEvalPlus-OriginFmt.jsonl.gz"
MBPP_FILE = "mbpp/mbpp.jsonl"


@dataclass(frozen=True)
class Reference:
    """A set of reference solutions.

    Attributes:
        name: `humaneval`, `humaneval+` or `mbpp`.
        jobs: The solutions with their tests.
        limits: What one of them may use.
        left_out: Problems of the set that cannot be run in this form.
    """

    name: str
    jobs: tuple[Job, ...]
    limits: Limits
    left_out: int = 0


def references(data: Path | None) -> list[Reference]:
    """The sets that are there: HumanEval always, the others where their files lie below `data`.

    Raises:
        ConfigError: A file is damaged.
    """
    found = [Reference("humaneval", tuple(canonical_jobs(full=True)), Limits())]
    if data is not None and (data / PLUS_FILE).is_file():
        # A test of HumanEval+ makes up to a thousand calls and holds megabytes of expected values.
        limits = Limits(wall_seconds=60.0, cpu_seconds=30, memory_bytes=1024 * MIB)
        found.append(Reference("humaneval+", tuple(_plus(data / PLUS_FILE)), limits))
    if data is not None and (data / MBPP_FILE).is_file():
        jobs = list(_mbpp(data / MBPP_FILE))
        kept = tuple(job for job in jobs if job is not None)
        found.append(Reference("mbpp", kept, Limits(), left_out=len(jobs) - len(kept)))
    return found


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.strip())
    except (OSError, EOFError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); copy it again") from None


def _plus(path: Path) -> Iterator[Job]:
    for row in _rows(path):
        problem = Problem(row["task_id"], row["prompt"], row["test"], row["entry_point"])
        yield Job(problem, row["prompt"] + row["canonical_solution"])


def _mbpp(path: Path) -> Iterator[Job | None]:
    """The solutions; None for a test that needs classes of the solution itself, which only share a process here."""
    for row in _rows(path):
        tree = ast.parse(row["code"])
        called = {
            node.func.id
            for node in ast.walk(ast.parse("\n".join(row["test_list"])))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        defined = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        names = called & defined
        if len(names) != 1 or row["test_setup_code"]:
            yield None
            continue
        name = names.pop()
        test = "import math\ndef check(candidate):\n" + "".join(f"    {line.strip()}\n" for line in row["test_list"])
        yield Job(Problem(f"MBPP/{row['task_id']}", "", test, name), row["code"].replace("\r\n", "\n"))
