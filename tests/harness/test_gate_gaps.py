"""Records that lack something: each is an error with its exit code, by itself and against an earlier run."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import SparsebenchError
from harness.gate.command import GateOptions, gate

runs = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("runs.py"))))
Edit = Callable[[dict[str, Any]], Any]
GATES = [{"rule": "no_regression"}, {"rule": "non_inferior", "margin": 0.2}, {"rule": "recovery", "at_least": 0.5}]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = {suite: runs.base_scores(suite, 100) for suite in ("gsm8k", "code")}
    samples = runs.rows_of({"dense": base, "twin": base, "other": base})
    variants = [runs.variant("dense", None), runs.variant("twin"), runs.variant("other")]
    folder = tmp_path_factory.mktemp("gaps") / "good"
    return Path(runs.write_run(folder, samples, runs.summary_of(samples, variants), gates=GATES))


def outcome(run: Path, against: Path | None = None) -> tuple[int, str]:
    try:
        report = gate(run, GateOptions(against=against))
    except SparsebenchError as error:
        return error.exit_code, str(error)
    return report.exit_code, "\n".join([*(r.message for r in report.results if r.verdict != "pass"), *report.notes])


def damaged(good: Path, folder: Path, edit: Edit) -> Path:
    copy = Path(shutil.copytree(good, folder))
    body = json.loads((copy / "summary.json").read_text())
    changed = edit(body)
    (copy / "summary.json").write_text(changed if isinstance(changed, str) else json.dumps(body))
    return copy


def without_suite(body: dict[str, Any]) -> None:
    body["study"]["suites"].remove("code")
    for variant in body["variants"]:
        for table in ("suites", "recovery", "difference"):
            variant[table].pop("code", None)


def infinite(body: dict[str, Any]) -> str:
    body["variants"][1]["suites"]["code"]["se"] = 12345.5
    return json.dumps(body).replace("12345.5", "1e999")


def twin(body: dict[str, Any]) -> Any:
    return body["variants"][1]


def forged(table: str, **changes: Any) -> Edit:
    return lambda body: twin(body)[table]["code"].update(changes)


CASES: dict[str, tuple[Edit, str]] = {
    "a NaN": (lambda body: twin(body)["suites"]["code"].update(value=float("nan")), "NaN is not JSON"),
    "an infinity": (infinite, "finite number"),
    "an older schema": (lambda body: body.update(schema_version=0), "schema_version 0"),
    "cut short": (lambda body: json.dumps(body)[:-20], "is not valid JSON"),
    "one variant of three": (lambda body: body["variants"].pop(1), "lacks variant 'twin'"),
    "all variants": (lambda body: body["variants"].clear(), "lacks variant 'dense'"),
    "a suite of one variant": (lambda body: twin(body)["suites"].pop("code"), "'code' is not in"),
    "a suite of all variants": (without_suite, "lacks suite 'code'"),
    "a baseline": (lambda body: twin(body).update(baseline=None), "compares twin with None"),
    "another baseline": (lambda body: twin(body).update(baseline="other"), "compares twin with other"),
    "more items than planned": (lambda body: twin(body)["suites"]["code"].update(n_total=0), "0 were planned"),
    "no items": (lambda body: twin(body)["suites"]["code"].update(n=0, n_total=0), "summary.json counts 0"),
    "a better recovery": (forged("recovery", value=1.2, ci95=[1.1, 1.3]), "1.000000 by its rows"),
    "a far interval": (forged("recovery", ci95=[1.1, 1.3]), "1.000000 by its rows"),
    "a better difference": (forged("difference", value=0.3, ci95=[0.2, 0.4]), "0.000000 by its rows"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_damaged_summary_never_passes(good: Path, tmp_path: Path, name: str) -> None:
    edit, words = CASES[name]
    run = damaged(good, tmp_path / "run", edit)
    for against in (None, good):
        code, text = outcome(run, against)
        assert code in (2, 3) and words in text, (code, text)


@pytest.mark.parametrize("name", ["a NaN", "one variant of three", "a suite of one variant", "a suite of all variants"])
def test_a_damaged_earlier_run_never_passes(good: Path, tmp_path: Path, name: str) -> None:
    edit, words = CASES[name]
    code, text = outcome(good, damaged(good, tmp_path / "run", edit))
    assert code == 3 and words in text


def test_a_whole_run_passes_and_new_variants_are_named(good: Path, tmp_path: Path) -> None:
    assert outcome(good) == (0, "") and outcome(good, good)[0] == 0
    earlier = damaged(good, tmp_path / "run", lambda body: body["variants"].pop(1))
    (earlier / "study.json").unlink()  # so that it never had the variant
    code, text = outcome(good, earlier)
    assert code == 0 and "not in the earlier run, so not compared with it: variants twin" in text


@pytest.mark.parametrize("which", ["one", "all", "NaN"])
def test_empty_and_broken_rows_never_pass(good: Path, tmp_path: Path, which: str) -> None:
    run = Path(shutil.copytree(good, tmp_path / "run"))
    for path in sorted((run / "records" / "samples").iterdir()):
        if which == "NaN":
            path.write_text(path.read_text().replace('":1.0}', '":NaN}', 1))
        elif which == "all" or path.name == "twin.code.jsonl":
            path.write_text("")
    for now, then in ((run, None), (run, good), (good, run)):
        assert outcome(now, then)[0] == 3
