"""Numbers of existing judgements: those of our own runs again, odd files, what is missing from them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import ConfigError
from harness.judge.records import JudgeSummary
from harness.judge.request import JudgeRequest
from harness.judge.rescore import rescore
from harness.judge.run import judge_answers

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("judging.py"))))
GRADE = {"question_id": 81, "model": "a", "judge": ["j", "single-v1"], "judgment": "[[7]]", "score": 7, "turn": 1}
GAME = {
    "question_id": 81,
    "model_1": "a",
    "model_2": "b",
    "g1_winner": "model_1",
    "g2_winner": "model_1",
    "judge": ["j", "pair-v2"],
    "turn": 1,
}
NOTE = {
    "instruction": kit.INSTRUCTIONS[0],
    "output_1": "x",
    "generator_1": "r",
    "output_2": "y",
    "generator_2": "m",
    "annotator": "j",
    "preference": 1.25,
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder: Path = kit.write_data(tmp_path / "data")
    return folder


def lines(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path: Path = kit.write_lines(tmp_path / "judgments.jsonl", rows)
    return path


def listed(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(rows))
    return path


def numbers(summary: JudgeSummary) -> list[dict[str, Any]]:
    return [model.model_dump(exclude={"length_controlled"}) for model in summary.models]


@pytest.mark.parametrize("mode", ["single", "pairwise"])
def test_our_own_judgements_give_the_same_numbers(mode: Any, data: Path, tmp_path: Path) -> None:
    files = tuple(str(kit.write_answers(tmp_path / f"{name}.jsonl", name)) for name in ("one", "two", "three"))
    judge = kit.scripted(kit.rate_by_worth if mode == "single" else kit.winner_by_worth)
    request = JudgeRequest("mt-bench", files, data, tmp_path / "out", mode=mode, quiet=True)
    whole = judge_answers(request, lambda: judge)
    (file,) = (tmp_path / "out" / "model_judgment").iterdir()
    again = rescore(file, tmp_path / "again", data_dir=data)
    assert numbers(again) == numbers(whole) and again.comparisons == whole.comparisons
    assert again.mode == mode and again.judge.name == "scripted-judge"
    without = rescore(file, tmp_path / "without")
    assert without.models[0].overall == whole.models[0].overall and without.models[0].by_category == {}
    assert {event.kind for event in without.events} == {"denominators_of_the_file"}


def test_our_own_annotations_give_the_same_numbers(data: Path, tmp_path: Path) -> None:
    texts = {text: "mine " + text * (i % 3 + 1) for i, text in enumerate(kit.INSTRUCTIONS[:-2])}
    mine = kit.write_outputs(tmp_path / "mine.json", "mine", texts)
    sure = {"m": -3.0, "M": -0.1}
    judge = kit.weighing(lambda messages, name: sure[name] if len(messages[-1]["content"]) % 3 else -9.0)
    request = JudgeRequest("alpaca-eval", (str(mine),), data, tmp_path / "out", quiet=True)
    whole = judge_answers(request, lambda: judge)
    again = rescore(tmp_path / "out" / "mine" / "annotations.json", tmp_path / "again", data_dir=data)
    assert whole.models[0].overall.statuses.keys() >= {"no_answer", "unparsable", "judged"}
    assert again.models == whole.models
    assert len((tmp_path / "again" / "verdicts.jsonl").read_text().splitlines()) == len(kit.INSTRUCTIONS)


def test_what_is_missing_from_a_file_stays_in_the_denominator(data: Path, tmp_path: Path) -> None:
    (model,) = rescore(lines(tmp_path, GRADE), tmp_path / "out", data_dir=data).models
    assert model.overall.statuses == {"judged": 1, "no_judgement": 7} and model.overall.judged.value == 7.0
    assert model.overall.all.value == pytest.approx((7 + 7 * 1) / 8)
    (model,) = rescore(lines(tmp_path, GAME), tmp_path / "out", data_dir=data).models
    assert model.overall.statuses == {"judged": 1, "no_judgement": 7} and model.overall.all.value == 1 / 8
    (model,) = rescore(listed(tmp_path, NOTE), tmp_path / "out", data_dir=data).models
    assert model.overall.n_planned == len(kit.INSTRUCTIONS) and model.published["win_rate"] == 25.0


def test_failed_and_odd_grades(tmp_path: Path) -> None:
    rows = [
        {**GRADE, "score": -1, "judgment": "$ERROR$"},
        {**GRADE, "score": -1, "judgment": "hm", "turn": 2},
        {**GRADE, "question_id": 82, "score": 9},
    ]
    summary = rescore(lines(tmp_path, *rows), tmp_path / "out")
    (model,) = summary.models
    assert model.overall.statuses == {"error": 1, "judged": 1, "unparsable": 1}
    assert model.published == {"turn_1": 9.0, "turn_2": None, "average": 9.0}
    assert "1 scores are not what" in next(e.detail for e in summary.events if e.kind == "score_differs")


def test_pairs_are_seen_from_the_model_that_is_not_the_baseline(tmp_path: Path) -> None:
    rows = [
        {**GAME, "model_1": "a", "model_2": "base"},
        {**GAME, "model_1": "base", "model_2": "c", "g1_winner": "model_2", "g2_winner": "model_2"},
        {**GAME, "model_1": "base", "model_2": "c", "turn": 2, "g1_winner": "model_1", "g2_winner": "tie"},
    ]
    a, c = rescore(lines(tmp_path, *rows), tmp_path / "out").models
    assert (a.model, a.opponent, c.opponent) == ("a", "base", "base")
    assert a.pairs is not None and (a.pairs.win, a.overall.n_planned) == (1, 2)
    assert c.pairs is not None and (c.pairs.win, c.pairs.tie, c.pairs.inconsistent) == (1, 1, 1)


def test_old_draws_and_nan(tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    rows = [{**NOTE, "preference": 0}, {**NOTE, "instruction": "b", "preference": 2}, {**NOTE, "instruction": "c"}]
    path.write_text(json.dumps(rows).replace("1.25", "NaN"))
    (model,) = rescore(path, tmp_path / "out").models
    assert model.published["win_rate"] == 75.0 and model.published["n_draws"] == 1
    assert model.overall.statuses == {"judged": 2, "unparsable": 1} and model.overall.all.value == 0.5


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "is empty"),
        ([GRADE, GRADE], "again; keep one row"),
        ([{**GRADE, "question_id": 7}], "another set of questions"),
        ([{**GRADE, "score": None}], "score"),
        ([{**GRADE, "turn": 3}], "turn"),
        ([GRADE, {**GRADE, "turn": 2, "judge": ["k", "single-v1"]}], "several judges"),
        ([GAME, {**GAME, "turn": 2, "model_1": "c", "model_2": "d"}], "no model that plays in every row"),
        ([{**GAME, "g1_winner": "A"}], "a winner is model_1"),
        ([{**GAME, "model_2": "a"}], "with itself"),
        ([GAME, GAME], "again; keep one row"),
        ([{"question_id": 81}], "FastChat's judgements"),
    ],
)
def test_bad_judgement_files(rows: list[dict[str, Any]], message: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        rescore(lines(tmp_path, *rows), tmp_path / "out", data_dir=data)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "is empty"),
        ([NOTE, NOTE], "again; keep one row"),
        ([{**NOTE, "instruction": "Other?"}], "another set of questions"),
        ([{**NOTE, "preference": 3}], "preference"),
        ([{**NOTE, "preference": 0.5}], "neither 0 nor from 1 to 2"),
        ([NOTE, {**NOTE, "instruction": kit.INSTRUCTIONS[1], "annotator": "k"}], "several annotators"),
        ([NOTE, {**NOTE, "instruction": kit.INSTRUCTIONS[1], "generator_1": "k"}], "several references"),
    ],
)
def test_bad_annotation_files(rows: list[dict[str, Any]], message: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        rescore(listed(tmp_path, *rows), tmp_path / "out", data_dir=data)


def test_the_summary_of_another_is_not_overwritten(data: Path, tmp_path: Path) -> None:
    file = lines(tmp_path, GRADE)
    first = rescore(file, tmp_path / "out")
    assert rescore(file, tmp_path / "out") == first
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text('{"schema_version": 1, "variants": []}')
    one = str(kit.write_answers(tmp_path / "one.jsonl", "one"))
    request = JudgeRequest("mt-bench", (one,), data, tmp_path / "judged", quiet=True)
    judge_answers(request, lambda: kit.scripted(kit.rate_by_worth))
    for taken in ("run", "judged", "data"):
        with pytest.raises(ConfigError, match="holds something else"):
            rescore(file, tmp_path / taken)
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == {"schema_version": 1, "variants": []}


def test_files_that_are_not_there_or_cut_short(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        rescore(tmp_path / "none.jsonl", tmp_path / "out")
    path = listed(tmp_path, NOTE)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ConfigError, match="not JSON"):
        rescore(path, tmp_path / "out")
