"""The HTML report of records that are damaged, old, or not all there: a clear error, or a row that says so."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import ConfigError, CorruptRecordError
from harness.layout import Layout
from harness.records import write_json_atomic
from harness.report.html.build import recovery_html
from harness.report.html.source import Source, open_source

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("html_run.py"))))
shared = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("html_page.py"))))
Page, block, judged, write = shared.Page, shared.block, shared.judged, shared.write
runs, SCORES = shared.runs, shared.SCORES


def edited(folder: Path, change: Any) -> None:
    path = folder / "summary.json"
    body = json.loads(path.read_text())
    change(body)
    path.write_text(json.dumps(body))


def test_a_missing_baseline_gives_no_verdict_and_no_missing_row(tmp_path: Path) -> None:
    folder = write(tmp_path / "out")
    edited(folder, lambda body: body["variants"].pop(0))
    source = open_source(folder)
    assert judged(source) == dict.fromkeys(("good", "bad", "unclear"), "no verdict")
    page = Page(recovery_html(source))
    assert "its baseline dense is not in the summary" in page.sections["verdict"]
    assert "within" not in [row[2] for row in page.tables["recovery"]]
    assert len(page.tables["recovery"]) == 4


def test_a_suite_that_the_summary_lacks_is_a_row_that_says_so(tmp_path: Path) -> None:
    folder = write(tmp_path / "out")

    def drop(body: Any) -> None:
        for table in ("suites", "recovery", "difference"):
            body["variants"][1][table].pop("gsm8k")

    edited(folder, drop)
    source = open_source(folder)
    assert judged(source)["good"] == "no verdict"
    page = Page(recovery_html(source))
    row = next(row for row in page.tables["recovery"] if row[0] == "good")
    assert row[2] == "no verdict" and row[-1] == "not in the summary"


def test_an_incomplete_cell_gives_no_verdict(tmp_path: Path) -> None:
    folder = write(tmp_path / "out", n_total=500)
    assert set(judged(open_source(folder)).values()) == {"reference", "no verdict"}
    assert "400 of 500" in recovery_html(open_source(folder))


@pytest.mark.parametrize("part", ["difference", "recovery"])
def test_a_value_that_is_not_there_is_never_a_pass(tmp_path: Path, part: str) -> None:
    folder = write(tmp_path / "out")
    gone = {"value": None, "ci95": None, "se": None, "reason": "lost on the way"}
    edited(folder, lambda body: body["variants"][1][part]["gsm8k"].update(gone))
    page = Page(recovery_html(open_source(folder)))
    row = next(row for row in page.tables["recovery"] if row[0] == "good")
    assert "lost on the way" in " ".join(row)
    if part == "difference":
        assert judged(open_source(folder))["good"] == "no verdict"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: cut(folder / "summary.json"), "is not valid JSON"),
        (lambda folder: edited(folder, lambda body: body.update(schema_version=0)), "schema_version 0"),
        (lambda folder: edited(folder, lambda body: body.pop("schema_version")), "schema_version None"),
        (
            lambda folder: edited(folder, lambda b: b["variants"][1]["suites"]["gsm8k"].update(value=float("nan"))),
            "NaN is not JSON",
        ),
        (
            lambda folder: edited(folder, lambda b: b["variants"][1]["suites"]["gsm8k"].update(value=0.123)),
            "by its rows",
        ),
        (
            lambda folder: edited(folder, lambda b: b["variants"][1]["suites"]["gsm8k"].update(margin=0)),
            "margin: Input should be greater than 0",
        ),
        (lambda folder: cut(Layout(folder).samples("good", "gsm8k")), "cut short"),
        (lambda folder: Layout(folder).samples("good", "gsm8k").unlink(), "is missing"),
    ],
)
def test_damaged_records_are_one_clear_error(tmp_path: Path, damage: Any, words: str) -> None:
    folder = write(tmp_path / "out")
    damage(folder)
    with pytest.raises(CorruptRecordError, match=words) as caught:
        recovery_html(open_source(folder))
    assert "\n" not in str(caught.value)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        open_source(tmp_path)
    (tmp_path / "x").write_text("{}")
    with pytest.raises(ConfigError, match="is a file"):
        open_source(tmp_path / "x")


@pytest.mark.parametrize("text", ["{", "[]", '{"sparsity": {"per_linear": []}, "stages": 3}'])
def test_a_damaged_variant_json_is_said_and_the_rest_stands(tmp_path: Path, text: str) -> None:
    folder = kit.write_hostile(tmp_path)
    (Layout(folder).variant("int8") / "variant.json").write_text(text)
    page = Page(recovery_html(open_source(folder)))
    assert "variant.json is damaged" in page.sections["layers"]
    assert len(page.tables["variants"]) == 4


def test_a_name_does_not_lead_out_of_the_run(tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    write_json_atomic(outside / "variant.json", {"stages": [], "sparsity": {"per_linear": {"model.layers.0.q": 0.5}}})
    folder = write(tmp_path / "out")
    edited(folder, lambda body: body["variants"][1].update(name="../../secret"))
    assert "../../secret" not in open_source_bare(folder, tmp_path).made


def open_source_bare(folder: Path, tmp_path: Path) -> Source:
    bare = tmp_path / "out2"
    bare.mkdir()
    shutil.copy(folder / "summary.json", bare)
    (bare / "variants").mkdir()
    return open_source(bare)


def test_text_that_no_file_can_hold_is_written_out(tmp_path: Path) -> None:
    from harness.report.html.source import source_of

    folder = write(tmp_path / "out")
    samples = runs.rows_of(SCORES)
    first = samples["bad", "gsm8k"][0]
    samples["bad", "gsm8k"][0] = first.model_copy(update={"outputs": ["\ud800 and \udfff"]})
    for journal in (folder / "journal").iterdir():
        journal.unlink()
    html = recovery_html(source_of(open_source(folder).summary, samples, folder))
    html.encode("utf-8")
    names = [variant["name"] for variant in block(html, "samples_index")["variants"]]
    answers = block(html, f"answers{names.index('bad')}")
    assert answers[0] == ["\u27e8U+D800\u27e9 and \u27e8U+DFFF\u27e9"]


def test_a_name_that_is_no_text_is_a_damaged_record(tmp_path: Path) -> None:
    folder = write(tmp_path / "out")
    path = folder / "summary.json"
    path.write_text(path.read_text().replace('"name": "good"', '"name": "go\\ud800od"'))
    with pytest.raises(CorruptRecordError, match="is damaged"):
        open_source(folder)
