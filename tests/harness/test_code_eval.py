"""From a model's text to statuses and pass@k."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.engines.base import Completion
from harness.errors import CorruptRecordError, SandboxUnavailable
from harness.evaluate.code import CodeSample, pass_rates, score_completions
from harness.evaluate.sandbox import Job, Limits, Sandbox, Verdict, open_sandbox
from harness.evaluate.verdicts import KnownVerdicts
from sparsify.progress import NullProgress, Progress

DOC = {
    "task_id": "pocket/1",
    "prompt": 'def inc(x):\n    """Return x + 1."""\n',
    "entry_point": "inc",
    "test": "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(-1) == 0\n",
}


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    try:
        return open_sandbox()
    except SandboxUnavailable as error:
        pytest.skip(str(error))


class _Seen:
    def __init__(self) -> None:
        self.calls: list[tuple[float, float]] = []

    def update(self, done: float, total: float, note: str = "") -> None:
        self.calls.append((done, total))


def test_samples_are_extracted_run_and_scored(sandbox: Sandbox) -> None:
    outputs = {
        "a": "    return x + 1\n",
        "b": "```python\ndef inc(x):\n    return x + 1\n```",
        "c": "    return x\n",
        "d": "I do not know.",
        "e": "    return x +\n",
        "f": "    import os\n    os._exit(0)\n",
        "g": "    return x + 1\n",
    }
    seen = _Seen()
    samples = [CodeSample(item_id, DOC, output) for item_id, output in outputs.items()]
    results = score_completions(samples, sandbox=sandbox, progress=seen)
    assert [result.item_id for result in results] == list(outputs)
    assert [result.status for result in results] == [
        "passed",
        "passed",
        "failed_assert",
        "extract_failed",
        "syntax_error",
        "suspicious",
        "passed",
    ]
    assert [result.passed for result in results] == [True, True, False, False, False, False, True]
    assert results[3].program is None
    assert seen.calls[-1] == (6, 6)
    assert score_completions([], sandbox=sandbox) == []


def test_pass_at_k_is_the_unbiased_estimate() -> None:
    assert pass_rates([True, False, False], (1, 2, 3, 4)) == {
        "pass@1": pytest.approx(1 / 3),
        "pass@2": pytest.approx(1 - math.comb(2, 2) / math.comb(3, 2)),
        "pass@3": 1.0,
    }
    assert pass_rates([False] * 10) == {"pass@1": 0.0, "pass@10": 0.0}
    assert pass_rates([True] * 7 + [False] * 43, (10,)) == {
        "pass@10": pytest.approx(1 - math.comb(43, 10) / math.comb(50, 10))
    }
    assert pass_rates([]) == {}


def test_pocket_items_pass_with_their_own_solution(sandbox: Sandbox) -> None:
    from suites.pocket.items import test_items

    draws = test_items("code", 40)
    samples = [CodeSample(str(i), draw.doc, str(draw.response)) for i, draw in enumerate(draws)]
    wrong = [CodeSample(str(i), draw.doc, "    return None\n") for i, draw in enumerate(draws)]
    assert [r for r in score_completions(samples, sandbox=sandbox) if not r.passed] == []
    assert [r for r in score_completions(wrong, sandbox=sandbox) if r.passed] == []


class _Counting(Sandbox):
    """The real sandbox, counting what it is asked to run."""

    def __init__(self, real: Sandbox, limits: Limits | None = None) -> None:
        super().__init__(real.backend, real.info, limits or real.limits, real.workers)
        self.asked = 0

    def run(self, jobs: Sequence[Job], *, progress: Progress | None = None) -> list[Verdict]:
        self.asked += len(jobs)
        return super().run(jobs, progress=progress)


def test_a_program_with_a_verdict_is_not_run_again(sandbox: Sandbox, tmp_path: Path) -> None:
    counting = _Counting(sandbox, Limits(wall_seconds=1.5, cpu_seconds=1))
    outputs = ["    return x + 1\n", "    return x\n", "    while True:\n        pass\n"]
    samples = [CodeSample(str(index), DOC, output) for index, output in enumerate(outputs)]
    first = score_completions(samples, sandbox=counting, known=KnownVerdicts(tmp_path, "a.code"))
    assert counting.asked == 3 and [r.status for r in first] == ["passed", "failed_assert", "timeout"]
    # Another cell, from what is on disk: only the time-out, which may be the machine's fault, is tried anew.
    again = score_completions(samples, sandbox=counting, known=KnownVerdicts(tmp_path, "b.code"))
    assert counting.asked == 4 and [r.status for r in again] == [r.status for r in first]
    # Another problem, test or limit is another verdict.
    other = [CodeSample("0", {**DOC, "test": DOC["test"].replace("== 2", "== 3")}, outputs[0])]
    assert score_completions(other, sandbox=counting, known=KnownVerdicts(tmp_path, "c"))[0].status == "failed_assert"
    wider = _Counting(sandbox, Limits(wall_seconds=2.5, cpu_seconds=1))
    score_completions(samples[:1], sandbox=wider, known=KnownVerdicts(tmp_path, "d"))
    assert wider.asked == 1
    (tmp_path / "a.code.json").write_text("{")
    with pytest.raises(CorruptRecordError, match="is damaged"):
        KnownVerdicts(tmp_path, "e")


class _Answers:
    """An engine that gives the answers it was given."""

    name, context_length = "scripted", 10_000

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers

    def encode(self, text: str | None = None, *, chat: Any = None) -> list[int]:
        return [1]

    def generate_batch(self, requests: Sequence[Any]) -> list[Completion]:
        return [Completion(r.request_id, self.answers[r.request_id], 1, 1, "stop", 0.0) for r in requests]


def test_programs_of_a_cheat_fail_and_the_report_says_so(sandbox: Sandbox, tmp_path: Path) -> None:
    from harness.cells import Cell, plan_suites, read_state, run_cell
    from harness.layout import Layout
    from harness.records import read_samples
    from harness.study import parse_study

    body = {"name": "s", "variants": {"m": {"path": "x"}}, "suites": {"code": {"preset": "pocket", "n": 3}}}
    plan = plan_suites(parse_study(body, where="test"), None)["code"]
    cell = Cell("m", plan, "scripted/float32", Layout(tmp_path))
    honest, cheat, wrong = (item.item_id for item in plan.items())
    solution = {item.item_id: item.doc["canonical_solution"] for item in plan.items()}
    answers = {honest: solution[honest], cheat: "    import os\n    os._exit(0)\n", wrong: "    return None\n"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.cells.model_fingerprint", lambda directory: {"weights": "w"})
        state = run_cell(cell, _Answers(answers), sandbox_refusal=None, progress=NullProgress())
        assert read_state(cell) == state  # what is told is still there when the run is started again
    (event,) = [event for event in state.events if event["kind"] == "suspicious_programs"]
    assert event["where"] == "code" and event["detail"].startswith(
        f"1 of 3 programs did what only a cheat does and count as failed; the first, {cheat}: ends the process"
    )
    assert [row.scores["pass@1"] for row in read_samples(cell.layout.samples("m", "code"))] == [1.0, 0.0, 0.0]
