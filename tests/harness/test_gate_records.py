"""The gate as a user meets it: records on disk, exit codes, and every way in which records can be broken."""

from __future__ import annotations

import json
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

from harness import cli
from harness.gate.rows import gate_rows, read_parquet
from harness.gate.run_records import open_run
from harness.records import read_samples, samples_to_parquet

runs = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("runs.py"))))
ROOT = Path(__file__).resolve().parents[2]
SUITES = ("gsm8k", "code", "summarization")
GATES = [
    {"rule": "no_regression"},
    {"rule": "recovery", "suites": "mean", "at_least": 0.9},
    {"rule": "same_outputs", "variant": "twin"},
    {"rule": "sparsity", "variant": "twin", "at_least": 0.5},
]


def build(folder: Path, n: int = 120, damage: int = 0, **options: Any) -> Path:
    base = {suite: runs.base_scores(suite, n) for suite in SUITES}
    sparse = {**base, "code": runs.flipped(base["code"], damage)} if damage else base
    samples = runs.rows_of({"dense": base, "twin": sparse})
    twin = runs.variant("twin", sparsity_linears=0.7, sparsity_model=0.6)
    summary = runs.summary_of(samples, [runs.variant("dense", None), twin])
    return Path(runs.write_run(folder, samples, summary, **{"gates": GATES, **options}))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("gate") / "good")


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "copy"))


@dataclass
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["sparsebench", "gate", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as done:
            cli.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Done(int(done.value.code or 0), captured.out, captured.err)

    return call


def refused(done: Done, code: int, words: str) -> None:
    """One line on stderr that holds `words`, nothing that looks like a verdict."""
    assert done.code == code, done
    lines = done.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("sparsebench: ") and words in lines[0], done.err
    assert "gate: PASS" not in done.out


# --- what passes and what fails --------------------------------------------------------------------------------------


def test_a_good_run_and_an_identical_rerun_pass(good: Path, copy: Path, gate: Callable[..., Done]) -> None:
    done = gate(good)
    assert done.code == 0 and done.out.splitlines()[-1] == "gate: PASS, 8 of 8 checks passed"
    for against in (copy, copy / "summary.json"):
        done = gate(good, "--against", against)
        assert done.code == 0 and "gate: PASS, 14 of 14" in done.out
        assert "note:" not in done.out  # both keep their template's hash


def test_a_damaged_variant_fails_and_the_suite_is_named(tmp_path: Path, good: Path, gate: Callable[..., Done]) -> None:
    bad = build(tmp_path / "bad", damage=30)
    report = json.loads(gate(bad, "--json").out)
    failed = {(r["rule"], r["variant"], r["suite"]) for r in report["results"] if r["verdict"] == "fail"}
    assert report["exit_code"] == 1
    assert failed == {("no_regression", "twin", "code"), ("same_outputs", "twin", "code")}
    done = gate(bad, "--against", good)
    assert done.code == 1
    lines = [line for line in done.out.splitlines() if line.startswith("FAIL")]
    assert len(lines) == 3 and all(" code " in line for line in lines)


def test_60_items_are_inconclusive_with_the_n_it_takes(tmp_path: Path, gate: Callable[..., Done]) -> None:
    few = build(tmp_path / "few", n=60, gates=[{"rule": "non_inferior", "suite": "gsm8k", "margin": 0.02}])
    done = gate(few)
    assert done.code == 1
    assert done.out.startswith("INCONCLUSIVE") and "items would decide (there are 60)" in done.out
    assert "inconclusive counts as a fail (--on-inconclusive)" in done.out
    done = gate(few, "--on-inconclusive", "pass")
    assert done.code == 0 and "gate: INCONCLUSIVE" in done.out
    refused(gate(few, "--on-inconclusive", "maybe"), 2, "pass or fail")


def test_rules_of_another_study(copy: Path, tmp_path: Path, gate: Callable[..., Done]) -> None:
    study = tmp_path / "rules.yaml"
    body = {"models": {"p": {"path": "pocket"}}, "variants": {"dense": {"from": "p"}, "twin": {"from": "p"}}}
    study.write_text(json.dumps({**body, "gates": [{"rule": "sparsity", "variant": "twin", "at_least": 0.9}]}))
    assert gate(copy, "--study", study).code == 1
    study.write_text(json.dumps({**body, "gates": [{"rule": "no_regression", "suite": "poetry"}]}))
    done = gate(copy, "--study", study)
    assert done.code == 2 and "the rule names suite 'poetry'" in done.out
    study.write_text(json.dumps({**body, "gates": [{"rule": "no_regression", "margin": 0.1}]}))
    refused(gate(copy, "--study", study), 2, "gates")
    study.write_text(json.dumps(body))
    refused(gate(copy, "--study", study), 2, "nothing to check")


def test_another_template_prompt_or_suite_is_refused_unless_told(
    tmp_path: Path, good: Path, gate: Callable[..., Done]
) -> None:
    other = build(tmp_path / "other", template="template-2")
    done = gate(good, "--against", other)
    assert done.code == 2 and "the chat template differs" in done.out
    done = gate(good, "--against", other, "--allow-different-data")
    assert done.code == 0 and "14 of 14" in done.out
    refused(gate(good, "--allow-different-data"), 2, "--against")


def test_a_committed_parquet_serves_as_well_as_rows(good: Path, copy: Path, gate: Callable[..., Done]) -> None:
    rows = [row for path in sorted((copy / "records" / "samples").iterdir()) for row in read_samples(path)]
    samples_to_parquet(rows, copy / "samples.parquet")
    table, summary = read_parquet(copy / "samples.parquet"), open_run(copy).summary
    for variant, suite in table:
        found = summary.variant(variant)
        assert found is not None
        own = [row for row in rows if (row.variant, row.suite) == (variant, suite)]
        metric = found.suites[suite].metric
        assert table.cell(variant, suite, metric) == gate_rows(own, metric) and own
    assert len(list(table)) == len({(row.variant, row.suite) for row in rows})
    for part in ("records", "journal"):
        shutil.rmtree(copy / part)
    done = gate(copy, "--against", good)
    assert done.code == 0 and "note: the chat template's hash is not in the records" in done.out
    (copy / "samples.parquet").write_bytes((copy / "samples.parquet").read_bytes()[:-100])
    assert gate(copy, "--against", good).code == 3
    (copy / "samples.parquet").unlink()
    done = gate(copy)
    assert done.code == 3 and "the rows of twin.gsm8k are not in" in done.out + done.err


# --- broken records --------------------------------------------------------------------------------------------------


def test_a_truncated_journal_is_refused(copy: Path, gate: Callable[..., Done]) -> None:
    journal = copy / "journal" / "twin.code.jsonl"
    whole = journal.read_bytes()
    for cut in (len(whole) - 1, len(whole) - 30, len(whole) // 2, 0):
        journal.write_bytes(whole[:cut])
        refused(gate(copy), 3, "twin.code.jsonl")
        refused(gate(copy, "--against", copy), 3, "twin.code.jsonl")
    # Cut between two rows: no half row tells of it, the number does.
    journal.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    refused(gate(copy), 3, "119 rows for 120 answers")
    journal.write_bytes(whole)
    assert gate(copy).code == 0


def test_cut_or_missing_rows_are_refused(copy: Path, gate: Callable[..., Done]) -> None:
    samples = copy / "records" / "samples" / "twin.code.jsonl"
    whole = samples.read_bytes()
    for cut in (len(whole) - 1, len(whole) // 2, 0):
        samples.write_bytes(whole[:cut])
        refused(gate(copy), 3, "twin.code.jsonl")
    samples.unlink()
    refused(gate(copy), 3, "is missing")


def test_a_nan_score_is_refused(copy: Path, gate: Callable[..., Done]) -> None:
    samples = copy / "records" / "samples" / "twin.code.jsonl"
    whole = samples.read_text()
    for nan in ("NaN", "Infinity", "1e999", "null", '"NaN"', "1.5"):
        first, rest = whole.split("\n", 1)
        row = first.replace('"pass@1":1.0', f'"pass@1":{nan}').replace('"pass@1":0.0', f'"pass@1":{nan}')
        assert nan in row
        samples.write_text(f"{row}\n{rest}")
        done = gate(copy)
        assert done.code == 3 and "line 1 is damaged" in done.out + done.err, nan
    samples.write_text(whole)
    summary = copy / "summary.json"
    text = summary.read_text()
    summary.write_text(text.replace('"n_error": 0', '"n_error": NaN', 1))
    refused(gate(copy), 3, "NaN is not JSON")
    summary.write_text(text)
    assert gate(copy).code == 0


def test_records_of_another_schema_are_refused(copy: Path, good: Path, gate: Callable[..., Done]) -> None:
    summary = copy / "summary.json"
    data = json.loads(summary.read_text())
    current = data["schema_version"]
    for version in (0, current - 1, "1", None, True, current + 1):
        summary.write_text(json.dumps({**data, "schema_version": version}))
        refused(gate(copy), 3, "schema_version")
        refused(gate(good, "--against", copy), 3, "schema_version")
    del data["schema_version"]
    summary.write_text(json.dumps(data))
    refused(gate(copy), 3, "schema_version")
    shutil.copy(good / "summary.json", summary)
    samples = copy / "records" / "samples" / "twin.code.jsonl"
    samples.write_text(samples.read_text().replace('"schema_version":1', '"schema_version":0'))
    done = gate(copy)
    assert done.code == 3 and "damaged" in done.out + done.err


def test_what_is_not_there_is_refused(copy: Path, tmp_path: Path, gate: Callable[..., Done]) -> None:
    refused(gate(tmp_path / "nowhere"), 2, "does not exist")
    refused(gate(copy, "--against", tmp_path / "nowhere"), 2, "does not exist")
    (copy / "study.json").write_text("{}")
    refused(gate(copy), 2, "--study")
    (copy / "study.json").write_text('{"study": ')
    refused(gate(copy), 3, "damaged")
    (copy / "study.json").unlink()
    refused(gate(copy), 2, "--study")
    assert gate(copy, "--against", copy).code == 0
    (copy / "summary.json").write_text('{"schema_version": 1}')
    refused(gate(copy), 3, "damaged")


# --- speed and outputs -----------------------------------------------------------------------------------------------


def test_the_gate_imports_nothing_heavy(good: Path, copy: Path) -> None:
    code = f"""
import json, sys
sys.argv = ["sparsebench", "gate", {str(good)!r}, "--against", {str(copy)!r}, "--junit", {str(copy / "j.xml")!r}]
from harness.cli import main
try:
    main()
except SystemExit as done:
    assert done.code == 0, done.code
heavy = ("torch", "transformers", "lm_eval", "datasets", "scipy", "pyarrow", "rich.console")
print(json.dumps([name for name in heavy if name in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_all_outputs_say_the_same(tmp_path: Path, gate: Callable[..., Done]) -> None:
    gates = [
        {"rule": "no_regression", "suite": "code"},
        {"rule": "non_inferior", "suite": "gsm8k", "margin": 0.02},
        {"rule": "sparsity", "variant": "nobody", "at_least": 0.5},
        {"rule": "same_outputs", "suite": "code"},
        {"rule": "sparsity", "variant": "twin", "at_least": 0.5},
    ]
    bad = build(tmp_path / "bad", damage=30, gates=gates)
    junit, markdown = tmp_path / "ci" / "gate.xml", tmp_path / "summary.md"
    markdown.write_text("# an earlier step\n")
    done = gate(bad, "--junit", junit, "--markdown", markdown, "--json")
    report = json.loads(done.out)
    expected = ["fail", "inconclusive", "error", "fail", "pass"]
    assert done.code == report["exit_code"] == 2
    assert [r["verdict"] for r in report["results"]] == expected
    root = ElementTree.parse(junit).getroot()
    (suite,) = root.findall("testsuite")
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "5",
        "failures": "3",
        "errors": "1",
        "skipped": "0",
    }
    cases = suite.findall("testcase")
    kinds = [next((child.tag for child in case if child.tag != "system-out"), "pass") for case in cases]
    assert kinds == ["failure", "failure", "error", "failure", "pass"]
    listed = cases[3].find("failure")
    assert listed is not None and len((listed.text or "").splitlines()) == 30
    assert cases[0].get("name") == "twin.code against dense" and cases[0].get("classname") == "gate.no_regression"
    text = markdown.read_text()
    assert text.startswith("# an earlier step\n## Gate: ") and report["line"] in text
    assert text.count("| FAIL") == 2 and text.count("| INCONCLUSIVE") == 1 and "<summary>1 passed</summary>" in text
    skipped = gate(bad, "--junit", junit, "--on-inconclusive", "pass")
    assert skipped.code == 2
    assert ElementTree.parse(junit).getroot()[0].get("skipped") == "1"
    refused(gate(bad, "--markdown", tmp_path / "no" / "where.md"), 3, "cannot write")


def test_names_that_are_markup_stay_text(tmp_path: Path, gate: Callable[..., Done]) -> None:
    from harness.gate import GateReport, RuleResult
    from harness.report.gate_junit import gate_junit
    from harness.report.gate_markdown import gate_markdown
    from harness.report.gate_terminal import gate_text

    evil = "<b>|\x1b[31m\x00\ud800`]]>&\"'\n"
    report = GateReport((RuleResult(rule="sparsity", variant=evil, suite=None, verdict="fail", message=evil),))
    root = ElementTree.fromstring(gate_junit(report, title=evil).encode("utf-8"))
    assert root[0][0].get("name", "").startswith("<b>|[31m`]]>&\"'")
    assert "<b>" not in gate_markdown(report, title=evil) and "\\|" in gate_markdown(report, title=evil)
    assert "\x1b" not in gate_text(report)


def test_an_open_run_reads_rows_only_when_asked(good: Path) -> None:
    run = open_run(good)
    assert not run._cells
    assert len(run.cell("twin", "code").rows) == 120 and list(run._cells) == [("twin", "code")]
