"""The HTML report: what it says of a run."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import ConfigError
from harness.gate.check import check
from harness.gate.skill import Context
from harness.records import samples_to_parquet
from harness.report.html import samples as samples_module
from harness.report.html.build import recovery_html
from harness.report.html.layers import averaged
from harness.report.html.source import open_source
from harness.report.html.speeds import fastest, places, verdict_of
from harness.report.page import visible

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("html_run.py"))))
runs = kit.runs
shared = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("html_page.py"))))
Page, block, judged, write = shared.Page, shared.block, shared.judged, shared.write
SCORES, MARGIN, RULES = shared.SCORES, shared.MARGIN, shared.RULES


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("run") / "out")


def test_the_verdict_is_the_gates(run: Path) -> None:
    from harness.gate.command import GateOptions, gate

    source = open_source(run)
    assert judged(source) == {
        "dense": "reference",
        "good": "within margins",
        "bad": "outside a margin",
        "unclear": "undecided",
    }
    words = {"pass": "within margins", "fail": "outside a margin", "inconclusive": "undecided"}
    # `non_inferior` on the variants that have a baseline says the same.
    report = gate(run, GateOptions())
    said = {result.variant: words[result.verdict] for result in report.results if result.verdict in words}
    assert said == {name: verdict for name, verdict in judged(source).items() if name != "dense"}


def test_what_is_undecided_says_what_would_decide_as_the_gate_does(tmp_path: Path) -> None:
    near = {"gsm8k": runs.flipped(runs.base_scores("gsm8k", 400), 41, 25)}
    source = open_source(write(tmp_path / "out", SCORES | {"near": near}))
    tables = Page(recovery_html(source)).tables
    remarks = {row[0]: row[-1] for row in tables["recovery"]}
    results = {result.variant: result for result in check(source.rules, Context(source.records)).results}
    needed = results["near"].needed
    assert needed is not None and needed > 400
    assert remarks["near"] == f"about {needed:,} items would decide (there are 400)"
    assert remarks["unclear"] == "the value sits on the bound: more items will hardly decide"
    for name in ("near", "unclear"):
        assert results[name].message.endswith(remarks[name])
    assert remarks["good"] == remarks["bad"] == ""
    shown = {row[0]: row[3] for row in tables["variants"]}
    assert shown["near"] == f"undecided: gsm8k (about {needed:,} items)"
    assert (shown["unclear"], shown["bad"], shown["good"]) == ("undecided: gsm8k", "outside: gsm8k", "")


def test_the_headline_says_it_in_words_and_the_table_has_every_variant(run: Path) -> None:
    page = Page(recovery_html(open_source(run)))
    said = " ".join(page.sections["verdict"].split())
    assert "within margins 1 of 3 loses less than the margin on every skill: good." in said
    assert "outside a margin 1 of 3 loses more than the margin on some skill: bad." in said
    assert "undecided 1 of 3 is undecided" in said
    assert [row[0] for row in page.tables["variants"][1:]] == ["dense", "good", "unclear", "bad"]
    rows = {row[0]: row for row in page.tables["recovery"][1:]}
    assert rows["bad"][2] == "outside" and rows["bad"][10:12] == ["120", "0"]
    assert rows["good"][10:12] == ["2", "3"] and rows["good"][5] == "5.0"


def test_the_same_records_give_the_same_page(run: Path) -> None:
    assert recovery_html(open_source(run)) == recovery_html(open_source(run))


def test_rows_in_the_page_are_those_of_the_records(run: Path) -> None:
    html = recovery_html(open_source(run))
    index = block(html, "samples_index")
    names = [variant["name"] for variant in index["variants"]]
    assert [variant["baseline"] for variant in index["variants"]] == [None, 0, 0, 0]
    for cell in index["cells"]:
        name = names[cell["variant"]]
        assert cell["score"] == SCORES[name]["gsm8k"]
        answers = block(html, cell["text"])
        assert answers[7] == [f"answer 7, worth {SCORES[name]['gsm8k'][7]}"]
        assert (cell["same"] is None) == (name == "dense")
        if cell["same"]:
            same = [
                "1" if a == b else "0" for a, b in zip(SCORES[name]["gsm8k"], SCORES["dense"]["gsm8k"], strict=True)
            ]
            assert list(cell["same"]) == same


def test_a_run_in_memory_gives_the_page_of_its_folder(tmp_path: Path) -> None:
    from harness.report.html.source import source_of

    folder = write(tmp_path / "out")
    samples = runs.rows_of(SCORES)
    source = open_source(folder)
    assert recovery_html(source_of(source.summary, samples, folder)) == recovery_html(source)


def test_hostile_strings_are_text_everywhere(tmp_path: Path) -> None:
    html = recovery_html(open_source(kit.write_hostile(tmp_path)))
    html.encode("utf-8")
    page = Page(html)
    assert not {"img", "iframe", "object", "base", "form", "link"} & set(page.tags)
    # Two scripts of the page, all others are data.
    assert len(re.findall(r"<script>", html)) == 2
    assert kit.HOSTILE["script"] not in html and "onerror='" not in html
    assert visible(kit.NAME) in [row[0] for row in page.tables["variants"]]
    assert "\u202e" not in html and "\x00" not in html and "\u2028" not in html
    # The line of a million characters is cut; what was cut is said.
    answers = next(block(html, f"answers{i}") for i in (4, 5) if f'id="answers{i}"' in html)
    cut = [out for row in answers for out in row if isinstance(out, list)]
    assert cut and all(len(text) == 20_000 and length == 1_000_000 for text, length in cut)


def test_without_rows_studies_and_folders_the_sections_say_so(tmp_path: Path) -> None:
    folder = write(tmp_path / "out")
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(folder / "summary.json", bare)
    page = Page(recovery_html(open_source(bare)))
    assert "Not here: the rows of dense.gsm8k are not in" in page.sections["samples"]
    assert "Not here: the folders of the variants" in page.sections["layers"] and "Not here" in page.sections["curves"]
    assert "study.json is not beside these records" in page.sections["provenance"]
    assert "Speed was not measured" in page.sections["speed"]
    # Without the study's rule the margin is the gate's default for this preset: said as such.
    assert "gsm8k 7.0 (default of the preset)" in page.sections["skills"]


def test_rows_of_a_parquet_file_serve_as_those_of_a_run(tmp_path: Path) -> None:
    folder = write(tmp_path / "out")
    other = tmp_path / "other"
    other.mkdir()
    for name in ("summary.json", "study.json"):
        shutil.copy(folder / name, other)
    samples_to_parquet([row for rows in runs.rows_of(SCORES).values() for row in rows], other / "samples.parquet")
    one, two = recovery_html(open_source(folder)), recovery_html(open_source(other))
    assert block(one, "samples_index") == block(two, "samples_index")


def test_linears_and_curves_come_from_the_variants_folders(tmp_path: Path) -> None:
    folder = kit.write_hostile(tmp_path)
    html = recovery_html(open_source(folder))
    rows = block(html, "linears_data")
    assert [row[:2] for row in rows] == [["int8", "relative output error (prune)"]] * 6
    assert [row[4:] for row in rows[:2]] == [[0.5, 0.01], [0.5, 0.02]]
    page = Page(html)
    assert "int8: stage 2, finetune" in page.sections["curves"]


def test_text_beyond_the_budget_is_left_out_and_said(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples_module, "BUDGET", 5_000)
    html = recovery_html(open_source(run))
    page = Page(html)
    assert "holds the answers of items whose score changed" in page.sections["samples"]
    index = block(html, "samples_index")
    scores = {index["variants"][cell["variant"]]["name"]: cell for cell in index["cells"]}
    changed = {
        name: {i for i, score in enumerate(cell["score"]) if score != scores["dense"]["score"][i]}
        for name, cell in scores.items()
    }
    assert len(changed["bad"]) == 120 and len(changed["good"]) == 5
    # Of the baseline the answers that any variant changed are there, to be shown beside.
    changed["dense"] = changed["bad"] | changed["good"] | changed["unclear"]
    for name, cell in scores.items():
        assert {i for i, row in enumerate(block(html, cell["text"])) if row is not None} == changed[name]
    # Scores of all items are there at any size.
    assert all(len(cell["score"]) == 400 for cell in index["cells"])
    monkeypatch.setattr(samples_module, "BUDGET", 10)
    assert "it holds no answers" in Page(recovery_html(open_source(run))).sections["samples"]


def test_questions_are_those_of_the_data_that_was_measured(tmp_path: Path) -> None:
    from suites.data import load_items
    from suites.registry import load_suite, suite_hash

    suite = load_suite("gsm8k")
    items = load_items(suite, "pocket", n=5)
    made = {"suite_hash": suite_hash(suite, "pocket")}

    def rows(name: str) -> list[Any]:
        own = [{"item_id": item.item_id, "item_hash": item.item_hash, "difficulty": item.difficulty} for item in items]
        return [runs.row(name, "gsm8k", i, 1.0, **made, **fields) for i, fields in enumerate(own)]

    samples = {("dense", "gsm8k"): rows("dense"), ("q", "gsm8k"): rows("q")}
    summary = runs.summary_of(samples, [runs.variant("dense", None), runs.variant("q")])
    folder = tmp_path / "out"
    folder.mkdir()
    runs.write_run(folder, samples, summary)
    html = recovery_html(open_source(folder))
    asked = block(html, "questions0")
    assert [question[0][0] for question in asked] == [item.doc["question"] for item in items]
    assert asked[0][1] == items[0].doc["answer"]
    assert block(html, "samples_index")["suites"][0]["difficulty"] == [item.difficulty for item in items]
    # Rows of another version of the suite get no questions of this one.
    other = recovery_html(open_source(write(tmp_path / "old")))
    assert "Questions of gsm8k are not shown: measured with another version" in Page(other).sections["samples"]


def test_speed_that_was_not_decided_is_no_speed() -> None:
    row = runs.speed_row
    decided = [
        row("dense", 1.0, ci95=None, reason="baseline"),
        row("a", 1.5),
        row("a", 3.0, verdict="not decided", engine="x"),
    ]
    summary = SimpleNamespace(speed=[*decided, row("b", 1.01), row("c", 0.9), row("d", 2.0, noise_floor=None)])
    (place,) = places(summary)  # type: ignore[arg-type]
    assert fastest(summary, "a", place).said == "1.50× (torch)"  # type: ignore[arg-type]
    assert fastest(summary, "d", place).said == "not decided"  # type: ignore[arg-type]
    assert fastest(summary, "e", place).said == "not measured"  # type: ignore[arg-type]
    assert [verdict_of(each) for each in summary.speed] == [
        "baseline",
        "faster",
        "not decided",
        "no difference",
        "slower",
        "not decided",
    ]


def test_long_curves_are_averaged_and_keep_their_mean() -> None:
    pairs = [(step, float(step % 7)) for step in range(1, 10_001)]
    found = averaged(pairs)
    assert len(found) <= 240 and abs(sum(y for _, y in found) / len(found) - 3.0) < 0.01
    assert averaged(pairs[:100]) == [(float(x), y) for x, y in pairs[:100]]


def test_the_verb_writes_the_page_and_names_what_is_wrong(run: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from harness.cli import app

    target = tmp_path / "deep" / "page.html"
    done = CliRunner().invoke(app, ["report", str(run), "--out", str(target)])
    assert done.exit_code == 0 and str(target) in done.output
    assert target.read_text(encoding="utf-8") == recovery_html(open_source(run))
    wrong = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert isinstance(wrong.exception, ConfigError) and "summary.json does not exist" in str(wrong.exception)


def test_a_run_ends_by_writing_the_page(tmp_path: Path) -> None:
    from harness.report.files import write_reports

    folder = write(tmp_path / "out")
    summary = open_source(folder).summary
    write_reports(summary, runs.rows_of(SCORES), folder)
    assert (folder / "recovery.html").read_text(encoding="utf-8") == recovery_html(open_source(folder))
    assert (folder / "recovery.md").is_file() and (folder / "leaderboard.md").is_file()
