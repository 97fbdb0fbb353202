"""`sparsebench compare`: numbers against hand counts, what the arguments mean, and all outputs."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.compare.command import CompareOptions, run_compare
from harness.compare.compute import compare_sides
from harness.compare.sides import Side, pair_sides
from harness.errors import ConfigError, CorruptRecordError
from harness.gate.run_records import RunRecords

runs = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("runs.py"))))
ROOT = Path(__file__).resolve().parents[2]
N = 100


def build(folder: Path, extra: str = "int8", **options: Any) -> Path:
    base = {suite: runs.base_scores(suite, N) for suite in ("gsm8k", "summarization")}
    sparse = {"gsm8k": runs.flipped(base["gsm8k"], 9, 4), "summarization": base["summarization"]}
    samples = runs.rows_of({"dense": base, "sparse": sparse, extra: base})
    variants = [
        runs.variant("dense", None),
        runs.variant("sparse", bytes=250_000),
        runs.variant(extra, weights_sha256="sha-dense"),
    ]
    speed = [
        runs.speed_row("dense", 1.0, reason="the baseline itself", ci95=None),
        runs.speed_row("sparse", 2.0, half=0.1),
        runs.speed_row(extra, 1.25),
    ]
    return Path(runs.write_run(folder, samples, runs.summary_of(samples, variants, speed=speed), **options))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("compare") / "run")


def compared(a: object, b: object, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run_compare(str(a), str(b), CompareOptions(as_json=True, **options)))
    return found


def one(a: object, b: object, **options: Any) -> dict[str, Any]:
    (comparison,) = compared(a, b, **options)["comparisons"]
    return dict(comparison)


def test_numbers_are_those_of_a_hand_count(run: Path) -> None:
    comparison = one(f"{run}:dense", "sparse")
    gsm8k, rouge = comparison["suites"]
    right = sum(runs.base_scores("gsm8k", N))
    assert gsm8k["n"] == N and (gsm8k["lost"], gsm8k["gained"]) == (9, 4)
    assert gsm8k["difference"]["value"] == pytest.approx(-0.05)
    assert gsm8k["recovery"]["value"] == pytest.approx((right - 5) / right)
    assert gsm8k["same_verdict"] == pytest.approx(0.87) and gsm8k["same_answer"] == pytest.approx(0.87)
    low, high = gsm8k["difference"]["ci95"]
    assert low < -0.05 < high
    from scipy.stats import binomtest

    assert gsm8k["p_value"] == pytest.approx(min(1.0, 2 * binomtest(9, 13, 0.5).pvalue))  # Holm over two suites
    assert rouge["same_answer"] == rouge["same_verdict"] == 1 and rouge["p_value"] == 1
    assert rouge["difference"]["value"] == 0 and rouge["difference"]["ci95"][0] < 0 < rouge["difference"]["ci95"][1]
    assert comparison["mean_recovery"]["value"] == pytest.approx((gsm8k["recovery"]["value"] + 1) / 2)
    assert comparison["bytes"] == [1_000_000, 250_000]


def test_flips_name_the_items_and_show_both_answers(run: Path) -> None:
    gsm8k = one(f"{run}:dense", "sparse")["suites"][0]
    base = runs.base_scores("gsm8k", N)
    now = runs.flipped(base, 9, 4)
    expected = {f"gsm8k/{i:05}" for i in range(N) if base[i] != now[i]}
    assert {flip["item"] for flip in gsm8k["flips"]} == expected
    assert [flip["b"] - flip["a"] for flip in gsm8k["flips"]] == [-1.0] * 9 + [1.0] * 4
    first = gsm8k["flips"][0]
    i = int(first["item"].partition("/")[2])
    assert first["a_outputs"] == [f"answer {i}, worth {base[i]}"] and first["b_outputs"] == [f"answer {i}, worth 0.0"]
    text = run_compare(f"{run}:dense", "sparse", CompareOptions(flips=2))
    assert "gsm8k: 2 of 13 items with another score" in text
    assert f"A   answer {i}, worth 1.0" in text and f"B   answer {i}, worth 0.0" in text
    assert "another score" not in run_compare(f"{run}:dense", "sparse", CompareOptions())


def test_direction(run: Path) -> None:
    there, back = one(f"{run}:dense", "sparse"), one(f"{run}:sparse", "dense")
    assert back["suites"][0]["difference"]["value"] == -there["suites"][0]["difference"]["value"]
    assert (back["suites"][0]["lost"], back["suites"][0]["gained"]) == (4, 9)
    assert (there["a"], there["b"]) == (f"{run}:dense", f"{run}:sparse")


def test_speed_of_one_panel(run: Path) -> None:
    (forward,) = one(f"{run}:dense", "sparse")["speed"]
    assert (forward["ratio"], forward["ci95"]) == (2.0, [1.9, 2.1])
    (back,) = one(f"{run}:sparse", "dense")["speed"]
    assert back["ratio"] == 0.5 and back["ci95"] == pytest.approx([1 / 2.1, 1 / 1.9])
    (neither,) = one(f"{run}:int8", "sparse")["speed"]
    assert neither["ratio"] == pytest.approx(1.6) and neither["ci95"] is None
    assert "no interval" in neither["reason"]
    assert "speed, decode (0-decode-c128-b1, torch, batch 1): B is 2.000x A [1.900, 2.100], noise floor 2.0 %" in (
        run_compare(f"{run}:dense", "sparse", CompareOptions())
    )


def test_what_the_arguments_may_be(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for a, b in (
        (f"{run}:dense", "sparse"),
        (f"{run}:dense", f"{run}:sparse"),
        (f"{run}/summary.json:dense", f"{run}/summary.json:sparse"),
        (f"{run}", "sparse"),  # a variant alone is compared with its baseline
    ):
        assert one(a, b)["suites"][0]["lost"] == 9, (a, b)
    # A folder that happens to bear a variant's name does not hide the variant.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sparse").mkdir()
    assert one(f"{run}:dense", "sparse")["suites"][0]["lost"] == 9


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ("nowhere", "sparse", "is no run"),
        ("{run}:dense", "nobody", "neither a run nor a variant"),
        ("{run}:nobody", "sparse", "which has dense, sparse, int8"),
        ("{run}:dense", "dense", "two variants"),
        ("{run}:dense", "{run}:dense", "same variant"),
        ("{run}", "{run}", "two runs"),
        ("{run}", "dense", "has no baseline"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(run: Path, a: str, b: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run_compare(a.format(run=run), b.format(run=run), CompareOptions())
    with pytest.raises(ConfigError, match="choose one of gsm8k, summarization"):
        run_compare(f"{run}:dense", "sparse", CompareOptions(suites=("poetry",)))


def test_two_runs(run: Path, tmp_path: Path) -> None:
    other = build(tmp_path / "other", extra="int4")
    body = compared(run, other)
    assert [c["b"].rpartition(":")[2] for c in body["comparisons"]] == ["dense", "sparse"]
    assert all(suite["same_answer"] == 1 for c in body["comparisons"] for suite in c["suites"])
    assert all(c["speed"] == [] and any("speeds" in note for note in c["notes"]) for c in body["comparisons"])
    assert all(any("same weights" in note for note in c["notes"]) for c in body["comparisons"])
    assert sorted(note.split(" is only in ")[0] for note in body["notes"]) == ["int4", "int8"]
    assert one(f"{run}:dense", f"{other}:int4")["suites"][0]["difference"]["value"] == 0
    assert one(run, f"{other}:sparse")["a"] == f"{run}:sparse"


def test_two_runs_that_measured_other_things_are_refused(run: Path, tmp_path: Path) -> None:
    other = build(tmp_path / "other", template="template-2")
    with pytest.raises(ConfigError, match="the chat template differs.*--allow-different-data"):
        compared(run, other)
    assert len(compared(run, other, allow_different_data=True)["comparisons"]) == 3


def test_a_refused_suite_is_named_and_the_others_compared(tmp_path: Path) -> None:
    base = {"gsm8k": [1.0] * 30, "code": [1.0] * 30}
    samples = runs.rows_of({"dense": base, "sparse": base})
    variants = [runs.variant("dense", None), runs.variant("sparse", refused={"code": "no sandbox"})]
    run = RunRecords.in_memory(runs.summary_of(samples, variants), samples)
    comparison = compare_sides(Side(run, "dense"), Side(run, "sparse"))
    assert [suite.suite for suite in comparison.suites] == ["gsm8k"]
    assert "no sandbox" in comparison.missing["code"]
    with pytest.raises(ConfigError, match="nothing to compare.*no sandbox"):
        compare_sides(Side(run, "dense"), Side(run, "sparse"), suites=["code"])


def test_a_baseline_of_0_has_no_recovery(tmp_path: Path) -> None:
    samples = runs.rows_of({"dense": {"gsm8k": [0.0] * 30}, "sparse": {"gsm8k": [0.0] * 29 + [1.0]}})
    summary = runs.summary_of(samples, [runs.variant("dense", None), runs.variant("sparse")])
    folder = runs.write_run(tmp_path / "zero", samples, summary)
    comparison = one(f"{folder}:dense", "sparse")
    assert comparison["suites"][0]["recovery"]["value"] is None and comparison["mean_recovery"]["value"] is None
    assert "the baseline scores 0" in run_compare(f"{folder}:dense", "sparse", CompareOptions())


def test_broken_records_are_refused(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    rows = copy / "records" / "samples" / "sparse.gsm8k.jsonl"
    rows.write_bytes(rows.read_bytes()[:-40])
    with pytest.raises(CorruptRecordError, match="cut short"):
        pair_sides(f"{copy}:dense", "sparse")


def test_what_a_model_wrote_cannot_break_the_page(tmp_path: Path) -> None:
    evil = "```\n<script>alert(1)</script>\x1b[2J|x|\nlast" + "y" * 2000
    samples = {
        ("dense", "gsm8k"): [runs.row("dense", "gsm8k", i, 1.0) for i in range(20)],
        ("sparse", "gsm8k"): [
            runs.row("sparse", "gsm8k", i, float(i != 3), outputs=[evil if i == 3 else "ok", "turn 2"])
            for i in range(20)
        ],
    }
    summary = runs.summary_of(samples, [runs.variant("dense", None), runs.variant("sparse")])
    folder = runs.write_run(tmp_path / "evil", samples, summary)
    page = tmp_path / "page.md"
    text = run_compare(f"{folder}:dense", "sparse", CompareOptions(flips=3, markdown=page))
    assert "\x1b" not in text and "B1  ```" in text and "B2  turn 2" in text and "characters)" in text
    lines = page.read_text().splitlines()
    # What the model wrote stands in indented code only, where neither HTML nor a fence means anything.
    assert all(line.startswith("    ") for line in lines if "script" in line or "```" in line)
    assert any("script" in line for line in lines)


def test_the_command_line(run: Path, tmp_path: Path, call: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = call("compare", f"{run}:dense", "sparse", "--flips", "1", "--suite", "gsm8k")
    assert code == 0 and "gsm8k" in out and "summarization" not in out and "1 of 13" in out
    code, out, err = call("compare", f"{run}:dense", "nobody")
    assert code == 2 and out == "" and len(err.splitlines()) == 1
    code, out, err = call("compare", f"{run}:dense", "sparse", "--markdown", tmp_path / "no" / "where.md")
    assert code == 3 and "cannot write" in err
    code, out, _ = call("compare", "--help")
    assert code == 0 and "RUN:VARIANT" in out


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    from harness import cli

    def run_it(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sparsebench", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        captured = capsys.readouterr()
        return int(done.value.code or 0), captured.out, captured.err

    return run_it


def test_compare_imports_no_torch(run: Path) -> None:
    code = f"""
import sys
from harness.compare.command import CompareOptions, run_compare
run_compare({f"{run}:dense"!r}, "sparse", CompareOptions(flips=1))
assert not {{"torch", "transformers", "lm_eval", "pyarrow"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
