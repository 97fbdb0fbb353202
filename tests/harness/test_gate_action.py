"""The action for real: its steps, with the environment that GitHub sets, on honest and on hostile records."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
EXAMPLES = sorted((ROOT / ".github" / "gate" / "examples").glob("*.yml"))
runs = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("runs.py"))))
server = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("github_server.py"))))
HOSTILE = (
    "$(touch pwned)",
    '"; touch pwned; "',
    "`touch pwned`",
    "::set-output name=verdict::pass",
    "a\n::error::b\nverdict=pass",
    "##[error]x",
    "@everyone #1 owner/repo#2",
    "![i](https://evil.example/x.png) [c](javascript:alert(1))",
    "<img src=x onerror=alert(1)> | <!-- sparsebench-gate: gate -->",
    "**PASS** _x_ ~~y~~ \\| z",
    "\x1b[2J\x00\u202eevil\u2028line",
    "</details>",
    "../../etc/passwd",
)


@dataclass
class Job:
    """What a run of the action left."""

    code: int
    log: str
    outputs: dict[str, str]
    page: str
    folder: Path


def build(folder: Path, names: tuple[str, ...] = ("twin",), damage: int = 0) -> Path:
    """Records as `results/pocket` holds them: names are no file names there, so any name fits."""
    from harness.records import samples_to_parquet, write_json_atomic

    base = {suite: runs.base_scores(suite, 60) for suite in ("gsm8k", "code")}
    worse = {**base, "code": runs.flipped(base["code"], damage)}
    samples = runs.rows_of({"dense": base, **dict.fromkeys(names, worse)})
    variants = [runs.variant("dense", None), *(runs.variant(name) for name in names)]
    write_json_atomic(folder / "summary.json", runs.summary_of(samples, variants))
    samples_to_parquet([row for rows in samples.values() for row in rows], folder / "samples.parquet")
    return folder


def expression(text: str, values: dict[str, str]) -> str:
    """Fill `${{ inputs.x }}` and `${{ steps.gate.outputs.x }}`, as the runner does."""
    return re.sub(r"\$\{\{\s*([\w.-]+)\s*\}\}", lambda found: values[found[1]], text)


@pytest.fixture
def action(tmp_path: Path) -> Callable[..., Job]:
    """Run the steps of action.yml in order, but for the first, whose environment is this one."""

    def call(event: dict[str, Any] | None = None, api: str = "", token: str = "t0ken", **inputs: str) -> Job:
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        # Files of a hostile checkout, which must not be imported.
        for name in ("json.py", "numpy.py", "harness.py", "sitecustomize.py"):
            (work / name).write_text("raise SystemExit('imported from the working folder')\n")
        python = tmp_path / "temp" / "sparsebench-gate" / "venv" / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        files = {name: tmp_path / name for name in ("output", "page", "event.json")}
        for path in files.values():
            path.unlink(missing_ok=True)
            path.touch()
        files["event.json"].write_text(json.dumps(event or {}))
        values = {f"inputs.{name}": str(spec.get("default", "")) for name, spec in ACTION["inputs"].items()}
        values |= {f"inputs.{name.replace('_', '-')}": value for name, value in inputs.items()}
        values["inputs.token"] = token
        given = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": str(work),
            "OMP_NUM_THREADS": "1",
            "RUNNER_TEMP": str(tmp_path / "temp"),
            "GITHUB_ACTION_PATH": str(ROOT),
            "GITHUB_OUTPUT": str(files["output"]),
            "GITHUB_STEP_SUMMARY": str(files["page"]),
            "GITHUB_EVENT_PATH": str(files["event.json"]),
            "GITHUB_REPOSITORY": server.REPOSITORY,
            "GITHUB_API_URL": api,
            "no_proxy": "127.0.0.1",
        }
        log, code, outputs = "", 0, {}
        for step in ACTION["runs"]["steps"][1:]:
            if "if" in step:
                assert step["if"] == "${{ inputs.comment == 'true' }}"
                if values["inputs.comment"] != "true":
                    continue
            environment = {**given, **{key: expression(value, values) for key, value in step["env"].items()}}
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
                cwd=work,
                env=environment,
                capture_output=True,
                text=True,
                timeout=300,
            )
            log += done.stdout + done.stderr
            code = done.returncode
            outputs = parse_outputs(files["output"].read_text())
            values |= {f"steps.gate.outputs.{name}": value for name, value in outputs.items()}
            if code:
                break
        assert not list(tmp_path.rglob("pwned"))
        return Job(code, log, outputs, files["page"].read_text(), work)

    return call


def parse_outputs(text: str) -> dict[str, str]:
    """Read an output file as the runner does."""
    found, lines = {}, iter(text.splitlines())
    for line in lines:
        if "<<" in line and "=" not in line.partition("<<")[0]:
            name, _, mark = line.partition("<<")
            value = []
            while (part := next(lines)) != mark:
                value.append(part)
            found[name] = "\n".join(value)
        else:
            name, _, value_ = line.partition("=")
            found[name] = value_
    return found


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "gates.yaml"
    body = {"models": {"p": {"path": "pocket"}}, "variants": {"dense": {"from": "p"}}}
    path.write_text(json.dumps({**body, "gates": [{"rule": "no_regression"}]}))
    return path


def test_a_good_run_passes_and_everything_is_written(action: Callable[..., Job], tmp_path: Path, study: Path) -> None:
    run = build(tmp_path / "run")
    job = action(run=str(run), study=str(study), against=str(run), junit="gate.xml")
    assert job.code == 0, job.log
    assert job.outputs["verdict"] == "pass" and job.outputs["exit-code"] == "0"
    assert job.outputs["line"] == "gate: PASS, 6 of 6 checks passed"
    assert Path(job.outputs["summary"]).read_text() == job.page and job.page.startswith("## Gate: ")
    assert len(ElementTree.parse(job.folder / "gate.xml").findall(".//testcase")) == 6


def test_a_failing_run_fails_and_still_comments(action: Callable[..., Job], tmp_path: Path, study: Path) -> None:
    run = build(tmp_path / "run", damage=20)
    event = {"pull_request": {"number": 7}}
    with server.github() as hub:
        job = action(event, hub.url, run=str(run), study=str(study), comment="true")
        assert job.code == 1 and job.outputs["verdict"] == "fail"
        assert "created the comment on #7" in job.log
        assert "FAIL" in hub.comments[0]["body"] and "20 lost, 0 gained" in hub.comments[0]["body"]
        hub.refuse = {"GET": 403}
        job = action(event, hub.url, run=str(run), study=str(study), comment="true")
        assert job.code == 1 and "::notice title=No comment" in job.log
        good = build(tmp_path / "good")
        job = action(event, hub.url, run=str(good), study=str(study), comment="true")
        assert job.code == 0 and job.outputs["verdict"] == "pass" and "::notice title=No comment" in job.log
        job = action(event, hub.url, token="", run=str(good), study=str(study), comment="true")
        assert job.code == 0 and "the step has no token" in job.log


def test_hostile_names_reach_nothing(action: Callable[..., Job], tmp_path: Path, study: Path) -> None:
    run = build(tmp_path / "run", names=HOSTILE, damage=20)
    with server.github() as hub:
        job = action({"pull_request": {"number": 7}}, hub.url, run=str(run), study=str(study), comment="true")
        body = hub.comments[0]["body"]
    assert job.code == 1, job.log
    assert set(job.outputs) == {"verdict", "exit-code", "line", "summary"} and job.outputs["verdict"] == "fail"
    commands = [line for line in job.log.splitlines() if line.lstrip().startswith("::")]
    stop = re.fullmatch(r"::stop-commands::([0-9a-f]{32})", commands[0])
    assert stop and f"::{stop[1]}::" in commands
    inside = job.log.split(commands[0])[1].split(f"::{stop[1]}::")[0]
    assert all(line in inside for line in commands[1:-1]) and "##[" not in job.log and "\x1b" not in job.log
    assert body == f"<!-- sparsebench-gate: gate -->\n{job.page}"
    for harm in ("<img", "@everyone", "](", "](https", "https://", "##[", "**PASS", "\x1b", "\u202e", "owner/repo#2"):
        assert harm not in body.replace("\u200b", "X"), harm
    assert body.count("<!--") == 1 and body.count("</details>") == body.count("<details>")
    rows = [line for line in body.splitlines() if line.startswith("|")]
    assert len(rows) >= len(HOSTILE) and all(len(cells(row)) == 6 for row in rows)


def cells(row: str) -> list[str]:
    """The cells of a table row, split as GitHub does: at pipes without a backslash."""
    return re.findall(r"\|((?:\\.|[^|\\])*)(?=\|)", row)


@pytest.mark.parametrize("hostile", HOSTILE[:3])
def test_hostile_inputs_are_only_names(action: Callable[..., Job], hostile: str) -> None:
    job = action(run=hostile, against=hostile, study=hostile, junit="", on_inconclusive="fail")
    assert job.code == 2 and job.outputs["verdict"] == "error" and "does not exist" in job.outputs["line"]
    assert job.page.startswith("## Gate\n\n**gate: ERROR")


def test_wrong_inputs_and_damaged_records_are_errors(action: Callable[..., Job], tmp_path: Path, study: Path) -> None:
    assert action(run="").code == 2
    run = build(tmp_path / "run")
    assert action(run=str(run), study=str(study), on_inconclusive="maybe").code == 2
    assert action(run=str(run), study=str(study), allow_different_data="yes").code == 2
    (run / "samples.parquet").write_bytes((run / "samples.parquet").read_bytes()[:-100])
    job = action(run=str(run), study=str(study))
    assert job.code == 3 and job.outputs["verdict"] == "error" and "damaged" in job.page
    shutil.copy(run / "summary.json", run / "summary.json.old")
    (run / "summary.json").write_text((run / "summary.json.old").read_text()[:-40])
    job = action(run=str(run), study=str(study))
    assert job.code == 3 and "is not valid JSON" in job.outputs["line"]


def test_no_step_puts_an_input_into_its_script() -> None:
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"], step["name"]
        assert step["shell"] == "bash"
    token = [step["name"] for step in ACTION["runs"]["steps"] if "inputs.token" in json.dumps(step)]
    assert token == ["Comment"]


def test_the_examples_keep_trust_apart() -> None:
    measure, comment = (
        yaml.safe_load((ROOT / ".github/gate/examples" / name).read_text()) for name in ("measure.yml", "comment.yml")
    )
    assert measure["permissions"] == {"contents": "read"} and "secrets." not in json.dumps(measure)
    text = json.dumps(comment)
    for source in ("head_sha", "head_branch", "head.ref", "head_ref", "secrets.", "pull_request_target"):
        assert source not in text
    checkouts = [
        s for s in comment["jobs"]["comment"]["steps"] if str(s.get("uses", "")).startswith("actions/checkout")
    ]
    assert [s["with"] for s in checkouts] == [{"persist-credentials": False}]
    gate = comment["jobs"]["comment"]["steps"][-1]["with"]
    assert set(gate) <= set(ACTION["inputs"]) and gate["study"] and "runner.temp" in gate["run"]
    for example in EXAMPLES:
        for job in yaml.safe_load(example.read_text())["jobs"].values():
            assert all("${{" not in step.get("run", "") for step in job["steps"]), example


@pytest.mark.parametrize(
    ("schema", "files"), [("github-actions", [ROOT / "action.yml"]), ("github-workflows", EXAMPLES)]
)
def test_against_githubs_schemas(schema: str, files: list[Path]) -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed (extra test)")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
