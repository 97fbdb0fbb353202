"""Honest programs with their tests: the reference solutions of HumanEval, HumanEval+ and MBPP."""

from __future__ import annotations

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
from suites.rows import mbpp

PLUS_FILE = "humaneval_plus/HumanEvalPlus-OriginFmt.jsonl.gz"
MBPP_FILE = "mbpp/mbpp.jsonl"


@dataclass(frozen=True)
class Reference:
    """A set of reference solutions.

    Attributes:
        name: `humaneval`, `humaneval+` or `mbpp`.
        jobs: The solutions with their tests.
        limits: What one of them may use.
    """

    name: str
    jobs: tuple[Job, ...]
    limits: Limits


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
        found.append(Reference("mbpp", tuple(_mbpp(data / MBPP_FILE)), Limits()))
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


def _mbpp(path: Path) -> Iterator[Job]:
    """The solutions, with the tests that the suite makes of the rows."""
    for row in _rows(path):
        doc = mbpp(row)
        yield Job(Problem(doc["task_id"], doc["prompt"], doc["test"], doc["entry_point"]), doc["code"])
