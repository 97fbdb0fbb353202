"""The leaderboard from records on disk: one protocol a column, no mixed weights, nothing silently missing."""

from __future__ import annotations

import csv
import io
import itertools
import json
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.bench.leaderboard.synthetic import Shape, write_set
from harness.errors import ConfigError, CorruptRecordError
from harness.leaderboard.assemble import Leaderboard, Options, assemble
from harness.leaderboard.markdown import leaderboard_markdown
from harness.leaderboard.output import write_all
from harness.leaderboard.tidy import COLUMNS, lines_of
from harness.records import Summary, samples_to_parquet, write_json_atomic

RUNS = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "runs.py")))
FILES = ("leaderboard.md", "leaderboard.csv", "leaderboard.html", "leaderboard.parquet")


def record(
    folder: Path,
    scores: dict[str, dict[str, list[float]]],
    *,
    study: str = "one",
    rows: bool = True,
    speed: tuple[Any, ...] = (),
    variants: dict[str, Any] | None = None,
    host: str = "Example CPU",
    **changes: Any,
) -> Path:
    """A folder like results/pocket: summary.json and samples.parquet."""
    samples = RUNS.rows_of(scores, **changes)
    told = [
        RUNS.variant(name, "dense" if name != "dense" and "dense" in scores else None, **(variants or {}).get(name, {}))
        for name in scores
    ]
    summary: Summary = RUNS.summary_of(samples, told, speed=speed)
    about = summary.study.model_copy(update={"name": study, "hash": study.encode().hex().ljust(64, "0")})
    where = summary.environment.model_copy(update={"cpu_model": host})
    summary = summary.model_copy(update={"study": about, "environment": where})
    write_json_atomic(folder / "summary.json", summary)
    if rows:
        samples_to_parquet([row for key in sorted(samples) for row in samples[key]], folder / "samples.parquet")
    return folder


def scores(n: int = 40, lost: int = 0, suites: tuple[str, ...] = ("gsm8k", "code")) -> dict[str, list[float]]:
    return {suite: RUNS.flipped(RUNS.base_scores(suite, n), lost) for suite in suites}


def board_of(*paths: Path, **options: Any) -> Leaderboard:
    return assemble(list(paths), Options(**options))[0]


def names(found: Leaderboard, board: int = 0) -> list[str]:
    return [f"{row.study}/{row.variant}" for row in found.boards[board].rows]


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_set(tmp_path_factory.mktemp("set"), Shape(variants=20, per_study=6, items=40))


def test_the_same_inputs_in_any_order_give_the_same_bytes(made_up: list[Path], tmp_path: Path) -> None:
    found = []
    for number, order in enumerate((made_up, made_up[::-1], [*made_up[2:], *made_up[:2]])):
        board, files = assemble(order)
        write_all(board, files, tmp_path / str(number), exports=("model-index", "eval-results", "lm-eval"))
        paths = sorted(p for p in (tmp_path / str(number)).rglob("*") if p.is_file())
        found.append({str(p.relative_to(tmp_path / str(number))): p.read_bytes() for p in paths})
    assert found[0] == found[1] == found[2]
    assert set(FILES) <= set(found[0]) and len(found[0]) > 40


def test_a_column_says_of_how_many_clusters_it_is(made_up: list[Path]) -> None:
    text = leaderboard_markdown(board_of(made_up[1]))
    # Forty items, each a cluster of its own: nothing to say; real ones share templates.
    assert "clusters" not in text.split("## How to read it")[0]
    text = leaderboard_markdown(board_of(Path(__file__).parents[3] / "results" / "pocket"))
    assert "items in 593 clusters.\n" in text
    assert "items in 50 clusters: few, so that a rare large loss may show in none.\n" in text
    assert "items in 21 clusters: few, so that a rare large loss may show in none.\n" in text


def test_every_entry_that_was_given_is_in_a_table(made_up: list[Path]) -> None:
    found = board_of(*made_up)
    assert found.rows == 20 and found.left_out == ()
    text = leaderboard_markdown(found)
    for board in found.boards:
        for row in board.rows:
            assert f"| {row.variant} " in text
    # The last study asks gsm8k by another preset: it stands apart, and no other row lost its mean.
    presets = [
        {column.setting("preset") for column in board.columns if column.suite == "gsm8k"} for board in found.boards
    ]
    assert {"pocket"} in presets and {"5shot"} in presets
    assert all(len(p) == 1 for p in presets)


def test_every_number_names_its_record(made_up: list[Path], tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    found, files = assemble(made_up)
    write_all(found, files, tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "leaderboard.csv").read_text(encoding="utf-8"))))
    table = pq.read_table(tmp_path / "leaderboard.parquet")
    assert table.column_names == list(COLUMNS) == list(rows[0])
    assert table.num_rows == len(rows) == len(lines_of(found))
    by_hash = {each.source.sha256: json.loads(each.path.read_text(encoding="utf-8")) for each in files}
    checked = 0
    for row in rows:
        assert row["command"] and row["record_sha256"] in by_hash and json.loads(row["environment"]) is not None
        if row["kind"] == "mean":
            continue
        node: Any = by_hash[row["record_sha256"]]
        for part in filter(None, row["record_pointer"].split("/")):
            node = node[int(part)] if isinstance(node, list) else node[part.replace("~1", "/").replace("~0", "~")]
        value = node if isinstance(node, float | int) else node["ratio"] if row["kind"] == "speed" else node["value"]
        assert value is None if row["value"] == "" else float(row["value"]) == value
        checked += 1
    assert checked > 100


def test_ranks_do_not_order_what_the_items_cannot_tell_apart(tmp_path: Path) -> None:
    base = scores(n=300)
    given = {"dense": base, "twin": base, "nearly": scores(n=300, lost=2), "bad": scores(n=300, lost=120)}
    board = board_of(record(tmp_path / "r", given)).boards[0]
    ranks = {row.variant: board.overall.ranks[row.id] for row in board.rows}
    assert ranks == {"dense": 1, "twin": 1, "nearly": 1, "bad": 4}
    letters = {row.variant: board.overall.letters[row.id] for row in board.rows}
    assert letters == {"dense": "a", "twin": "a", "nearly": "a", "bad": "b"}
    assert all(ranked.n_unpaired == 0 for ranked in board.ranked.values())


def test_studies_with_the_same_items_are_paired_and_others_are_not(tmp_path: Path) -> None:
    one = record(tmp_path / "one", {"dense": scores(n=200)}, study="one")
    two = record(tmp_path / "two", {"dense": scores(n=200, lost=30)}, study="two")
    board = board_of(one, two).boards[0]
    assert [board.ranked[column].n_unpaired for column in board.columns] == [0, 0]
    assert names(board_of(one, two)) == ["one/dense", "two/dense"]
    assert sorted(board.overall.ranks.values()) == [1, 2]
    # The same without rows: the same columns, one unpaired test, and it is said.
    without = record(tmp_path / "three", {"dense": scores(n=200, lost=30)}, study="two", rows=False)
    found = board_of(one, without)
    board = found.boards[0]
    assert len(found.boards) == 1 and [board.ranked[c].n_unpaired for c in board.columns] == [1, 1]
    assert "unpaired: no sample rows lie beside the summary" in leaderboard_markdown(found)


def test_other_items_of_the_same_number_are_another_column(tmp_path: Path) -> None:
    one = record(tmp_path / "one", {"dense": scores(suites=("gsm8k",))}, study="one")
    samples = {"dense": scores(suites=("gsm8k",))}
    two = record(tmp_path / "two", samples, study="two", item_hash="another item")
    assert len(board_of(one, two).boards) == 2
    # A record without rows cannot tell which of the two it belongs to, and stays alone.
    three = record(tmp_path / "three", samples, study="three", rows=False)
    assert len(board_of(one, two, three).boards) == 3


@pytest.mark.parametrize("change", [{"preset": "5shot"}, {"suite_hash": "gsm8k-v2"}])
def test_protocols_are_never_mixed(tmp_path: Path, change: dict[str, str]) -> None:
    one = record(tmp_path / "one", {"dense": scores(suites=("gsm8k",))}, study="one")
    two = record(tmp_path / "two", {"dense": scores(suites=("gsm8k",))}, study="two", **change)
    found = board_of(one, two)
    assert [len(board.rows) for board in found.boards] == [1, 1]
    assert "scores of different boards are not comparable" in leaderboard_markdown(found)
    with pytest.raises(ConfigError, match="gsm8k was measured by 2 protocols"):
        board_of(one, two, strict=True)
    assert len(board_of(one, strict=True).boards) == 1


def test_fewer_items_are_another_protocol(tmp_path: Path) -> None:
    one = record(tmp_path / "one", {"dense": scores(n=40)}, study="one")
    two = record(tmp_path / "two", {"dense": scores(n=30)}, study="two")
    assert len(board_of(one, two).boards) == 2


def test_a_suite_can_be_compared_alone(tmp_path: Path) -> None:
    one = record(tmp_path / "one", {"dense": scores()}, study="one")
    two = record(tmp_path / "two", {"dense": scores(suites=("code",))}, study="two")
    both = board_of(one, two)
    assert names(both) == ["one/dense", "two/dense"]
    assert both.boards[0].overall.unranked[both.boards[0].rows[1].id] == "no mean: gsm8k: not measured"
    alone = board_of(one, two, suites=("code",))
    assert [column.suite for column in alone.boards[0].columns] == ["code"]
    assert ("all", "gsm8k", "left out by --suite") in [(e.source, e.what, e.reason) for e in alone.left_out]
    with pytest.raises(ConfigError, match="no result has the suite 'chat'; they have code, gsm8k"):
        board_of(one, suites=("chat",))


def test_speed_stands_only_beside_the_same_weights(tmp_path: Path) -> None:
    fast = RUNS.speed_row("int8", 2.5)
    weights = {"int8": {"weights_sha256": "f" * 64}}
    one = record(tmp_path / "one", {"dense": scores(), "int8": scores(lost=1)}, study="one", variants=weights)
    two = record(tmp_path / "two", {"int8": scores(suites=())}, study="two", speed=(fast,), variants=weights)
    other = {"int8": {"weights_sha256": "e" * 64}}
    three = record(tmp_path / "three", {"int8": scores(suites=())}, study="three", speed=(fast,), variants=other)
    found = board_of(one, two, three)
    skilled, alone = found.boards
    by_name = {row.variant: row for row in skilled.rows}
    assert [(panel.study, speed.ratio) for panel, speed in by_name["int8"].speeds.items()] == [("two", 2.5)]
    assert by_name["dense"].speeds == {}
    assert [f"{row.study}/{row.variant}" for row in alone.rows] == ["three/int8"] and alone.columns == ()
    assert "speed without skill: three" in leaderboard_markdown(found)
    (folded,) = found.left_out
    assert folded.what == "two/int8" and "one/int8, which has the same weights" in folded.reason


def test_speeds_of_two_hosts_are_two_panels(tmp_path: Path) -> None:
    speed = (RUNS.speed_row("dense", 1.0), RUNS.speed_row("int8", 2.0))
    given = {"dense": scores(), "int8": scores(lost=1)}
    one = record(tmp_path / "one", given, study="s", speed=speed, host="CPU A")
    two = record(tmp_path / "two", given, study="s", speed=speed, host="CPU B")
    text = leaderboard_markdown(board_of(one, two))
    tables = [line for line in text.splitlines() if line.startswith("Speed: ")]
    # Records are ordered by what they hold, the versions of libraries here among it.
    assert sorted(cpu for cpu in ("CPU A", "CPU B") for line in tables if cpu in line) == ["CPU A", "CPU B"]
    assert len(tables) == 2


def test_a_speed_of_no_variant_is_listed(tmp_path: Path) -> None:
    path = record(tmp_path / "one", {"dense": scores()}, speed=(RUNS.speed_row("ghost", 3.0),))
    (gone,) = board_of(path).left_out
    assert gone.what == "speed of ghost (0-decode-c128-b1, torch)" and "nothing says whose speed" in gone.reason


def test_the_same_weights_in_two_studies_are_two_rows_that_say_so(tmp_path: Path) -> None:
    one = record(tmp_path / "one", {"dense": scores()}, study="one")
    two = record(tmp_path / "two", {"dense": scores()}, study="two")
    found = board_of(one, two)
    assert names(found) == ["one/dense", "two/dense"]
    assert "same weights as two/dense" in leaderboard_markdown(found)


def test_a_record_given_twice_is_shown_once_and_said(tmp_path: Path) -> None:
    one = record(tmp_path / "one", {"dense": scores()})
    shutil.copytree(one, tmp_path / "copy")
    found = board_of(one, tmp_path / "copy", one / "summary.json")
    assert names(found) == ["one/dense"]
    (gone,) = found.left_out
    assert "the same record, byte for byte" in gone.reason
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(one / "summary.json", bare)
    assert board_of(bare, one).boards[0].ranked and board_of(bare, one).boards[0].rows[0].cells
    assert all(cell.scores is not None for cell in board_of(bare, one).boards[0].rows[0].cells.values())


def test_labels_of_equal_folders_are_told_apart(tmp_path: Path) -> None:
    one = record(tmp_path / "a" / "run", {"dense": scores()}, study="one")
    two = record(tmp_path / "b" / "run", {"dense": scores(lost=3)}, study="two")
    labels = [source.label for source in board_of(one, two).sources]
    assert all(label.startswith("run@") for label in labels) and len(set(labels)) == 2


def test_a_refused_or_incomplete_cell_has_its_reason_and_no_rank(tmp_path: Path) -> None:
    samples = RUNS.rows_of({"dense": scores(), "other": scores(lost=1)})
    del samples["other", "code"]
    samples["other", "gsm8k"] = samples["other", "gsm8k"][:30]
    told = [RUNS.variant("dense", None), RUNS.variant("other", refused={"code": "no sandbox runs here"})]
    summary = RUNS.summary_of(samples, told, n_total=40)
    write_json_atomic(tmp_path / "summary.json", summary)
    found = board_of(tmp_path)
    assert names(found) == ["made-up/dense", "made-up/other"]
    board = found.boards[0]
    why = board.overall.unranked[board.rows[1].id]
    assert "incomplete: 30 of 40 items" in why and "refused: no sandbox runs here" in why
    text = leaderboard_markdown(found)
    assert "refused: no sandbox runs here" in text and "incomplete: 10 of 40 items have no row" in text


def test_a_missing_baseline_is_told(tmp_path: Path) -> None:
    path = record(tmp_path / "one", {"dense": scores(), "int8": scores(lost=1)})
    data = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    data["variants"] = data["variants"][1:]
    (path / "summary.json").write_text(json.dumps(data), encoding="utf-8")
    assert "its baseline dense is not in this record" in leaderboard_markdown(board_of(path))


def broken(path: Path, how: str) -> None:
    text = (path / "summary.json").read_text(encoding="utf-8")
    if how == "cut short":
        text = text[: len(text) // 2]
    elif how == "older schema":
        text = text.replace('"schema_version": 1', '"schema_version": 0', 1)
    elif how == "NaN":
        text = text.replace('"value": 0.', '"value": NaN, "x": 0.', 1)
    elif how == "unknown field":
        text = text.replace('"study": {', '"study": {"surprise": 1, ', 1)
    (path / "summary.json").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("cut short", "is not valid JSON"),
        ("older schema", "has schema_version 0"),
        ("NaN", "NaN is not JSON"),
        ("unknown field", "is damaged"),
    ],
)
def test_a_damaged_record_stops_or_is_listed(tmp_path: Path, how: str, words: str) -> None:
    good = record(tmp_path / "good", {"dense": scores()}, study="good")
    bad = record(tmp_path / "bad", {"dense": scores(lost=2)}, study="bad")
    broken(bad, how)
    with pytest.raises(CorruptRecordError, match=words):
        board_of(good, bad)
    found = board_of(good, bad, skip_unreadable=True)
    (gone,) = found.left_out
    assert gone.source == "bad" and gone.reason.startswith("unreadable: summary.json") and words in gone.reason
    assert str(tmp_path) not in leaderboard_markdown(found)
    with pytest.raises(ConfigError, match="nothing can be shown"):
        board_of(bad, skip_unreadable=True)


def test_rows_that_contradict_the_summary_are_refused(tmp_path: Path) -> None:
    path = record(tmp_path / "one", {"dense": scores(lost=0)})
    other = record(tmp_path / "two", {"dense": scores(lost=5)})
    shutil.copy(other / "samples.parquet", path / "samples.parquet")
    with pytest.raises(CorruptRecordError, match="by its rows"):
        board_of(path)


def test_folders_without_a_record_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no summary.json and no results_"):
        board_of(tmp_path)
    with pytest.raises(ConfigError, match="does not exist"):
        board_of(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="name at least one result"):
        board_of()


def test_formulas_in_names_are_defused_in_csv(tmp_path: Path) -> None:
    given = {"dense": scores(), "=cmd()|'x'": scores(lost=1), "a|b<i>": scores(lost=1)}
    found, files = assemble([record(tmp_path / "one", given)])
    write_all(found, files, tmp_path / "out")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "leaderboard.csv").read_text(encoding="utf-8"))))
    assert {row["variant"] for row in rows} == {"dense", "'=cmd()|'x'", "a|b<i>"}
    text = (tmp_path / "out" / "leaderboard.md").read_text(encoding="utf-8")
    assert "a\\|b&lt;i&gt;" in text and "a|b<i>" not in text


def test_the_study_of_a_row_can_be_run_again(tmp_path: Path) -> None:
    from harness.study import load_study, parse_study

    body = {
        "name": "one",
        "models": {"p": {"path": "pocket"}},
        "variants": {"dense": {"from": "p"}},
        "suites": {"gsm8k": {"n": 40}},
    }
    study = parse_study(body, where="test")
    path = record(tmp_path / "one", {"dense": scores(suites=("gsm8k",))})
    data = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    data["study"]["hash"] = study.hash
    (path / "summary.json").write_text(json.dumps(data), encoding="utf-8")
    write_json_atomic(path / "study.json", {"hash": study.hash, "study": study.resolved()})
    found, files = assemble([path])
    write_all(found, files, tmp_path / "out")
    words = found.boards[0].rows[0].command.split()
    assert words[:2] == ["sparsebench", "run"] and load_study(str(tmp_path / "out" / words[2])).hash == study.hash
    # A study that names somebody's own paths is not published.
    body["models"] = {"p": {"path": "/home/me/model"}}
    private = parse_study(body, where="test")
    write_json_atomic(path / "study.json", {"hash": study.hash, "study": private.resolved()})
    assert "sparsebench run STUDY --out DIR" in assemble([path])[0].boards[0].rows[0].command


def test_pairs_of_a_board_are_all_tested(made_up: list[Path]) -> None:
    for board in board_of(*made_up).boards:
        for column in board.columns:
            k = len(board.ranked[column].ranks)
            assert board.ranked[column].n_pairs == len(list(itertools.combinations(range(k), 2)))
