"""The file of a history: what goes in comes out, nothing is lost or doubled, damage is named."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import cli
from harness.errors import ConfigError, CorruptRecordError
from harness.history import store
from harness.history.build import record_of
from harness.history.commits import resolve_commit
from harness.history.pack import pack_codes, pack_scores, unpack_codes, unpack_scores
from harness.history.record import HistoryRecord, SkillPoint

runs = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("runs.py"))))
ROOT = Path(__file__).resolve().parents[2]
TIME = "2026-01-01T00:00:00Z"


def build(folder: Path, damage: int = 0, n: int = 40) -> Path:
    base = {suite: runs.base_scores(suite, n) for suite in ("code", "summarization")}
    samples = runs.rows_of({"dense": base, "twin": {**base, "code": runs.flipped(base["code"], damage)}})
    variants = [runs.variant("dense", None), runs.variant("twin")]
    speed = [runs.speed_row("dense", 1.0), runs.speed_row("twin", 1.5), runs.speed_row("slow", None)]
    return Path(runs.write_run(folder, samples, runs.summary_of(samples, variants, speed=speed)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("history") / "run")


def record(commit: str = "c1", time: str = TIME) -> HistoryRecord:
    point = SkillPoint(
        variant="v", suite="s", metric="m", preset="p", protocol="h", value=0.5, n=2, se=None, ci95=None, items=None,
        scores=None,
    )  # fmt: skip
    return HistoryRecord(
        commit=commit, time=time, study="x", study_hash="h", machine="m", skills=[point], speeds=[], item_sets={},
        missing={},
    )  # fmt: skip


@given(st.lists(st.integers(0, 1), min_size=1, max_size=70) | st.lists(st.floats(0, 1), min_size=1, max_size=70))
def test_scores_and_clusters_come_out_as_they_went_in(values: list[float]) -> None:
    found = unpack_scores(pack_scores(values), len(values))
    assert np.max(np.abs(found - values)) <= (0 if set(values) <= {0, 1} else 0.5 / 65_535 + 1e-12)
    codes = [int(100 * value) for value in values]
    assert unpack_codes(pack_codes(codes), len(codes)).tolist() == codes


@pytest.mark.parametrize("text", ["", "x", "b", "bAAAA", "w" + pack_codes([1])[:-3], pack_scores([1.0] * 9)])
def test_damaged_packs_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="packed"):
        unpack_scores(text, 8)
    with pytest.raises(ValueError, match="between 0 and 1"):
        pack_scores([float("nan")])


def test_a_small_text_never_unpacks_to_a_large_one() -> None:
    bomb = "b" + pack_codes([0] * 5_000_000)
    assert len(bomb) < 60_000
    with pytest.raises(ValueError, match="more items"):
        unpack_scores(bomb, 8)


def test_the_record_of_a_run_holds_its_items(run: Path) -> None:
    found = record_of(run, commit="c1", time=TIME)
    assert [(p.variant, p.suite, p.n) for p in found.skills] == [
        (name, suite, 40) for name in ("dense", "twin") for suite in ("code", "summarization")
    ]
    for point in found.skills:
        scores = unpack_scores(str(point.scores), point.n)
        assert scores.mean() == pytest.approx(point.value, abs=1e-5)
    assert len(found.item_sets) == 2 and len({p.protocol for p in found.skills}) == 2
    assert [(p.variant, p.ratio) for p in found.speeds] == [("twin", 1.5)]  # the baseline is 1 by definition
    assert list(found.missing) == ["decode of slow (torch, batch 1)"]
    assert record_of(run, commit="c1", time=TIME) == found
    bare = record_of(run, commit="c1", time=TIME, with_items=False)
    assert not bare.item_sets and all(point.scores is None for point in bare.skills)


def test_committed_records_serve_as_well() -> None:
    found = record_of(ROOT / "results" / "pocket", commit="c1", time=TIME)
    assert len(found.skills) == 50 and all(point.scores for point in found.skills) and found.speeds


def test_append_replace_and_order(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "history.jsonl"
    assert store.append(file, record("b", "2026-01-02T00:00:00Z")) == store.Appended(1)
    assert store.append(file, record("a", "2026-01-01T00:00:00Z")) == store.Appended(2)
    assert [entry.commit for entry in store.read_history(file)] == ["a", "b"]
    before = file.read_bytes()
    with pytest.raises(ConfigError, match="--replace"):
        store.append(file, record("a"))
    assert file.read_bytes() == before
    moved = record("a", "2026-01-03T00:00:00Z")
    assert store.append(file, moved, replace=True) == store.Appended(2, replaced=True)
    assert [entry.commit for entry in store.read_history(file)] == ["b", "a"]
    assert sorted(os.listdir(file.parent)) == ["history.jsonl"]


def test_a_torn_line_is_reported_and_repaired_only_when_asked(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    store.append(file, record("a"))
    whole = file.read_bytes()
    store.append(file, record("b"))
    both = file.read_bytes()
    for end in range(len(whole) + 1, len(both)):
        file.write_bytes(both[:end])
        with pytest.raises(CorruptRecordError, match="--repair"):
            store.read_history(file)
        if end % 40 and end < len(both) - 1:
            continue  # each cut is seen; each fortieth is repaired
        with pytest.raises(CorruptRecordError, match="cut short"):
            store.append(file, record("c"))
        assert file.read_bytes() == both[:end]
        done = store.append(file, record("c"), repair=True)
        kept = ["a", "b", "c"] if end == len(both) - 1 else ["a", "c"]
        assert [entry.commit for entry in store.read_history(file)] == kept
        assert done.dropped == (0 if end == len(both) - 1 else end - len(whole))


def edited(**changes: Any) -> bytes:
    return json.dumps({**record().model_dump(mode="json"), **changes}).encode() + b"\n"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"nonsense\n", "is no JSON"),
        (b"\n", "is no JSON"),
        (b"[]\n", "schema_version None"),
        (edited(schema_version=0), "schema_version 0, this sparsebench reads 1"),
        (edited(schema_version=2), "schema_version 2"),
        (edited(commit="$(touch pwned)"), "damaged (commit"),
        (edited(commit="../x"), "damaged (commit"),
        (edited(time="yesterday"), "damaged (time"),
        (edited(skills=[]), "neither a score nor a speed"),
        (edited(extra=1), "damaged (extra"),
        (edited(skills=[{**record().skills[0].model_dump(), "value": None}]), "damaged (skills.0.value"),
        (edited() .replace(b"0.5", b"NaN"), "damaged (skills.0.value"),
        (edited().replace(b"0.5", b"1e999"), "damaged (skills.0.value"),
        (edited() + edited(), "commit c1 twice"),
    ],
)  # fmt: skip
def test_damaged_lines_are_named(tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / "history.jsonl"
    file.write_bytes(data)
    for act in (lambda: store.read_history(file), lambda: store.append(file, record("z"))):
        with pytest.raises(CorruptRecordError) as problem:
            act()
        assert words in str(problem.value) and "\n" not in str(problem.value)
    assert file.read_bytes() == data


def test_many_processes_append_and_replace_at_once(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    code = f"""
import runpy, sys
from pathlib import Path
kit = runpy.run_path({str(Path(__file__))!r})
for i in range(8):
    kit["store"].append(Path({str(file)!r}), kit["record"](f"{{sys.argv[1]}}-{{i}}"))
    kit["store"].append(Path({str(file)!r}), kit["record"](f"{{sys.argv[1]}}-{{i // 2}}"), replace=True)
"""
    workers = [subprocess.Popen([sys.executable, "-c", code, str(i)], cwd=ROOT) for i in range(3)]
    assert [worker.wait(timeout=300) for worker in workers] == [0, 0, 0]
    assert {entry.commit for entry in store.read_history(file)} == {f"{w}-{i}" for w in range(3) for i in range(8)}
    assert len(file.read_bytes().splitlines()) == 24


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "history.jsonl"
    store.append(file, record("a"))
    before, write = file.read_bytes(), os.pwrite

    def full(handle: int, data: bytes, at: int) -> int:
        if at > len(before):
            raise OSError(28, "No space left on device")
        return write(handle, data[:100], at)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(CorruptRecordError.__mro__[1], match="No space left"):
        store.append(file, record("b"))
    assert file.read_bytes() == before


def test_the_commit_is_told_by_option_environment_or_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_SHA", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ConfigError, match="--commit"):
        resolve_commit(None, TIME)
    monkeypatch.setenv("GITHUB_SHA", "abc123")
    assert resolve_commit(None, "2026-01-01T02:00:00+02:00").time == TIME
    with pytest.raises(ConfigError, match="--time"):
        resolve_commit(None, None)
    for wrong in ("--upload-pack=x", "a b", "a\nb", "x" * 101):
        with pytest.raises(ConfigError, match="no commit id"):
            resolve_commit(wrong, TIME)
    for wrong in ("2026-01-01", "soon", "2026-01-01T00:00:00"):
        with pytest.raises(ConfigError, match="write it like"):
            resolve_commit("c1", wrong)
    monkeypatch.delenv("GITHUB_SHA")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x", "--date", TIME], check=True)
    found = resolve_commit(None, None)
    assert len(found.id) == 40 and found.time.endswith("Z")


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sparsebench", "history", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as done:
            cli.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return int(done.value.code or 0), captured.out, captured.err

    return call


def test_the_verbs(tmp_path: Path, run: Path, history: Callable[..., tuple[int, str, str]]) -> None:
    file, bad = tmp_path / "history.jsonl", build(tmp_path / "bad", damage=14)
    for day, (name, folder) in enumerate([("a", run), ("b", run), ("c", run), ("d", run), ("e", bad), ("f", bad)], 1):
        when = f"2026-01-{day:02}T00:00:00Z"
        code, out, _ = history("append", file, folder, "--commit", name, "--time", when)
        assert code == 0 and f"holds {day} commits" in out and "without decode of slow" in out
    code, out, _ = history("check", file)
    assert code == 1 and out.startswith("WORSE   twin.code  at e (2026-01-05)")
    assert "-35.0 points" in out and "4 commits before, 2 after" in out and "history: 1 worse" in out
    assert history("check", file, "--last", 1)[0] == 0
    assert history("check", file, "--since", "e")[0] == 0 and history("check", file, "--since", "d")[0] == 1
    assert history("check", file, "--min-change", 0.5)[0] == 0
    assert history("check", file, "--variant", "dense")[0] == 0
    body = json.loads(history("check", file, "--json")[1])
    assert [(s["what"], s["commit"], s["worse"], s["counted"]) for s in body["steps"]] == [("code", "e", True, True)]
    code, out, _ = history("show", file)
    assert code == 0 and "worse at e" in out and "6 commits, 2026-01-01 to 2026-01-06" in out
    assert history("plot", file, "--out", tmp_path / "h.svg")[0] == 0
    for arguments, words in (
        (("check", tmp_path / "none.jsonl"), "is no history"),
        (("check", file, "--since", "zzz"), "0 commits of the history begin so"),
        (("check", file, "--variant", "nobody"), "no variant 'nobody'"),
        (("check", file, "--level", 0), "--level is a chance"),
        (("append", file, tmp_path / "none", "--commit", "x", "--time", TIME), "does not exist"),
        (("append", file, run, "--commit", "a", "--time", TIME), "--replace"),
    ):
        code, out, err = history(*arguments)
        assert code == 2 and words in err and len(err.splitlines()) == 1, (arguments, err)
    file.write_bytes(file.read_bytes()[:-5])
    for verb in (("check", file), ("show", file), ("plot", file, "--out", tmp_path / "x.svg")):
        code, out, err = history(*verb)
        assert code == 3 and "--repair" in err and not out
    code, out, _ = history("append", file, bad, "--commit", "f", "--time", TIME, "--repair")
    assert code == 0 and "were taken away" in out


def test_damaged_runs_are_not_appended(tmp_path: Path, run: Path, history: Callable[..., tuple[int, str, str]]) -> None:
    import shutil

    for i, damage in enumerate(("cut", "gone", "variant", "nan")):
        copy = Path(shutil.copytree(run, tmp_path / damage))
        rows, summary = copy / "records" / "samples" / "twin.code.jsonl", copy / "summary.json"
        if damage == "cut":
            rows.write_bytes(rows.read_bytes()[:-9])
        elif damage == "gone":
            shutil.rmtree(rows.parent)
        elif damage == "variant":
            body = json.loads(summary.read_text())
            del body["variants"][1]
            summary.write_text(json.dumps(body))
        else:
            summary.write_text(summary.read_text().replace('"se": 0', '"se": NaN', 1))
        file = tmp_path / f"{i}.jsonl"
        code, out, err = history("append", file, copy, "--commit", "x", "--time", TIME)
        assert code == 3 and len(err.splitlines()) == 1 and not out, (damage, err)
        assert not file.exists()
