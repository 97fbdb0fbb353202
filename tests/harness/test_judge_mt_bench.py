"""MT-Bench by a scripted judge: ratings, both orders of pairs, what has no verdict, resume, bad answer files."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import ConfigError, CorruptRecordError, EngineError
from harness.judge.records import JudgeSummary
from harness.judge.request import JudgeRequest
from harness.judge.run import judge_answers
from harness.judge.session import Judge

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("judging.py"))))
TURNS = 2 * len(kit.QUESTIONS)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return kit.write_data(tmp_path / "data")


def request(data: Path, out: Path, *answers: Path | str, **options: Any) -> JudgeRequest:
    return JudgeRequest("mt-bench", tuple(map(str, answers)), data, out, quiet=True, **options)


def single(data: Path, out: Path, judge: Judge, *answers: Path | str, **options: Any) -> JudgeSummary:
    return judge_answers(request(data, out, *answers, **options), lambda: judge)


def pairs(data: Path, out: Path, judge: Judge, *answers: Path | str, **options: Any) -> JudgeSummary:
    return judge_answers(request(data, out, *answers, mode="pairwise", **options), lambda: judge)


def test_ratings_by_turn_and_category(data: Path, tmp_path: Path) -> None:
    one = kit.write_answers(tmp_path / "one.jsonl", "one")
    summary = single(data, tmp_path / "out", kit.scripted(kit.rate_by_worth), one)
    (model,) = summary.models
    first = [kit.worth(f"one says {n}") for n in kit.QUESTIONS]
    second = [kit.worth(f"First of {n}?\none says {n}\nThen {n}?\none adds {n}") for n in kit.QUESTIONS]
    assert model.by_turn["1"].all.value == pytest.approx(sum(first) / 4)
    assert model.by_turn["2"].all.value == pytest.approx(sum(second) / 4)
    assert model.overall.all.value == pytest.approx(sum(first + second) / 8)
    assert model.published["average"] == pytest.approx(sum(first + second) / 8)
    assert set(model.by_category) == set(kit.QUESTIONS.values()) and model.by_category["math"].n_planned == 2
    assert model.overall.statuses == {"judged": TURNS} and model.overall.all == model.overall.judged
    assert model.overall.all.method.endswith("-clustered") and model.parsing == {"strict": TURNS}
    rows = kit.read_lines(tmp_path / "out" / "model_judgment" / "scripted-judge_single.jsonl")
    names = {row["question_id"]: row["judge"][1] for row in rows if row["turn"] == 1}
    assert names == {81: "single-v1", 101: "single-math-v1", 111: "single-math-v1", 141: "single-v1"}
    assert all(row["user_prompt"].count("right") > 0 for row in rows if row["question_id"] in (101, 111))
    assert {(row["question_id"], row["turn"]): row["score"] for row in rows}[81, 1] == first[0]


def test_the_system_message_reaches_the_judge(data: Path, tmp_path: Path) -> None:
    judge = kit.scripted(kit.rate_by_worth)
    single(data, tmp_path / "out", judge, kit.write_answers(tmp_path / "one.jsonl", "one"))
    assert all([m["role"] for m in json.loads(text)] == ["system", "user"] for text in judge.engine.asked)


def test_a_judge_that_answers_nonsense_is_counted(data: Path, tmp_path: Path) -> None:
    one = kit.write_answers(tmp_path / "one.jsonl", "one")
    (model,) = single(data, tmp_path / "out", kit.scripted(lambda messages: "so so"), one).models
    assert model.overall.statuses == {"unparsable": TURNS} and model.overall.n_planned == TURNS
    assert model.overall.all.value == 1.0 and model.overall.judged.value is None
    assert model.published == {"turn_1": None, "turn_2": None, "average": None}
    assert all(row["score"] == -1 for row in kit.read_lines(next((tmp_path / "out" / "model_judgment").iterdir())))


def test_ratings_off_the_scale_are_kept_apart(data: Path, tmp_path: Path) -> None:
    one = kit.write_answers(tmp_path / "one.jsonl", "one")
    judge = kit.scripted(lambda messages: "[[100]]" if "First of 81" in messages[-1]["content"] else "[[4]]")
    (model,) = single(data, tmp_path / "out", judge, one).models
    off = model.overall.statuses["out_of_range"]
    assert off == 1 or off == 2
    assert model.overall.judged.value == 4.0 and model.published["average"] == (100 * off + 4 * (TURNS - off)) / TURNS
    assert model.overall.all.value == pytest.approx((1.0 * off + 4 * (TURNS - off)) / TURNS)


def test_missing_answers_stay_in_the_denominator(data: Path, tmp_path: Path) -> None:
    one = kit.write_answers(tmp_path / "one.jsonl", "one", {81: ("a", "b"), 101: ("only one turn",)})
    (model,) = single(data, tmp_path / "out", kit.scripted(lambda messages: "[[10]]"), one).models
    assert model.overall.statuses == {"judged": 3, "no_answer": TURNS - 3}
    assert model.overall.all.value == pytest.approx((3 * 10 + (TURNS - 3)) / TURNS)
    assert model.overall.judged.value == 10.0 and model.overall.judged.n == 3


def test_a_prompt_too_long_for_the_judge_is_counted(data: Path, tmp_path: Path) -> None:
    one = kit.write_answers(tmp_path / "one.jsonl", "one", {81: ("a", "b"), 101: ("x" * 5000, "b")})
    judge = kit.scripted(kit.rate_by_worth, context=5000)
    summary = single(data, tmp_path / "out", judge, one)
    (model,) = summary.models
    assert "2 of 4 prompts" in next(event.detail for event in summary.events if event.kind == "judge_context")
    assert model.overall.statuses == {"judged": 2, "no_answer": 4, "truncated_input": 2}


def test_pairs_do_not_depend_on_which_side_is_named_first(data: Path, tmp_path: Path) -> None:
    files = [kit.write_answers(tmp_path / f"{name}.jsonl", name) for name in ("one", "two")]
    ahead = pairs(data, tmp_path / "out1", kit.scripted(kit.winner_by_worth), *files)
    behind = pairs(data, tmp_path / "out2", kit.scripted(kit.winner_by_worth), *reversed(files))
    (two,), (one,) = ahead.models, behind.models
    assert two.model == "two" and two.opponent == "one" and one.model == "one"
    assert two.pairs is not None and one.pairs is not None
    assert (two.pairs.win, two.pairs.loss, two.pairs.tie) == (one.pairs.loss, one.pairs.win, one.pairs.tie)
    assert two.pairs.win and two.pairs.loss and two.pairs.inconsistent == 0
    assert two.overall.all.value == pytest.approx(1 - float(one.overall.all.value or 0))
    assert two.pairs.first_wins == two.pairs.second_wins == two.pairs.win + two.pairs.loss


def test_a_judge_that_prefers_a_place_gives_ties_only(data: Path, tmp_path: Path) -> None:
    files = [kit.write_answers(tmp_path / f"{name}.jsonl", name) for name in ("one", "two")]
    (model,) = pairs(data, tmp_path / "out", kit.scripted(lambda messages: "[[A]]"), *files).models
    assert model.pairs is not None
    assert (model.pairs.tie, model.pairs.inconsistent, model.pairs.first_wins) == (TURNS, TURNS, 2 * TURNS)
    assert model.overall.all.value == 0.5 and model.published["win_rate_adjusted"] == 0.5


def test_equal_answers_are_ties_and_asked_once(data: Path, tmp_path: Path) -> None:
    same = {number: ("a", "b") for number in kit.QUESTIONS}
    files = [kit.write_answers(tmp_path / f"{name}.jsonl", name, same) for name in ("one", "two")]
    judge = kit.scripted(lambda messages: "[[B]]")
    (model,) = pairs(data, tmp_path / "out", judge, *files).models
    assert model.pairs is not None and model.pairs.tie == TURNS and model.overall.all.value == 0.5
    assert len(judge.engine.asked) == TURNS


def test_half_a_verdict_is_none_and_counts_as_a_loss(data: Path, tmp_path: Path) -> None:
    files = [kit.write_answers(tmp_path / f"{name}.jsonl", name) for name in ("one", "two")]
    judge = kit.scripted(lambda messages: "[[A]]" if "A's Answer]\ntwo" in messages[-1]["content"] else "well")
    (model,) = pairs(data, tmp_path / "out", judge, *files).models
    assert model.overall.statuses == {"unparsable": TURNS} and model.overall.all.value == 0.0
    rows = kit.read_lines(tmp_path / "out" / "model_judgment" / "scripted-judge_pair.jsonl")
    assert {(row["g1_winner"], row["g2_winner"]) for row in rows if row["turn"] == 1} == {("model_1", "error")}


def test_models_are_compared_by_question(data: Path, tmp_path: Path) -> None:
    files = [kit.write_answers(tmp_path / f"{name}.jsonl", name) for name in ("one", "two")]
    summary = single(data, tmp_path / "out", kit.scripted(kit.rate_by_worth), *files)
    (comparison,) = summary.comparisons
    one, two = (float(model.overall.all.value or 0) for model in summary.models)
    assert comparison.difference.value == pytest.approx(two - one) and comparison.difference.n == TURNS
    low, high = comparison.difference.ci95 or (0, 0)
    assert low <= two - one <= high


def test_a_judge_that_dies_goes_on_where_it_was(data: Path, tmp_path: Path) -> None:
    one = kit.write_answers(tmp_path / "one.jsonl", "one")
    with pytest.raises(EngineError, match="the judge died"):
        single(data, tmp_path / "out", kit.scripted(kit.rate_by_worth, fail_after=5), one, batch_size=2)
    assert not (tmp_path / "out" / "summary.json").exists()
    again = kit.scripted(kit.rate_by_worth)
    resumed = single(data, tmp_path / "out", again, one, batch_size=2)
    whole = single(data, tmp_path / "whole", kit.scripted(kit.rate_by_worth), one, batch_size=2)
    assert len(again.engine.asked) == TURNS - 4
    assert resumed == whole
    idle = kit.scripted(kit.rate_by_worth, fail_after=0)
    assert single(data, tmp_path / "out", idle, one, batch_size=2) == whole


def test_equal_prompts_of_two_models_are_asked_once(data: Path, tmp_path: Path) -> None:
    one = kit.write_answers(tmp_path / "one.jsonl", "one")
    single(data, tmp_path / "out", kit.scripted(kit.rate_by_worth), one)
    turns = {number: (f"one says {number}", f"two adds {number}") for number in kit.QUESTIONS}
    two = kit.write_answers(tmp_path / "two.jsonl", "two", turns)
    judge = kit.scripted(kit.rate_by_worth)
    summary = single(data, tmp_path / "out", judge, one, two)
    assert len(judge.engine.asked) == len(kit.QUESTIONS) + TURNS
    assert summary.models[0].by_turn["1"] == summary.models[1].by_turn["1"]


def test_one_folder_holds_one_judge(data: Path, tmp_path: Path) -> None:
    one = kit.write_answers(tmp_path / "one.jsonl", "one")
    single(data, tmp_path / "out", kit.scripted(kit.rate_by_worth), one)
    other = Judge("scripted-judge", kit.ScriptedEngine(kit.rate_by_worth), {"engine": "scripted", "script": "2"})
    with pytest.raises(ConfigError, match="differs in script"):
        single(data, tmp_path / "out", other, one)
    with pytest.raises(ConfigError, match="differs in prompts"):
        pairs(data, tmp_path / "out", kit.scripted(kit.winner_by_worth), one, reference=f"other={one}")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match="holds no judgements"):
        single(data, tmp_path / "mine", kit.scripted(kit.rate_by_worth), one)


def test_one_question_is_enough(data: Path, tmp_path: Path) -> None:
    files = [kit.write_answers(tmp_path / f"{name}.jsonl", name, {81: ("a", name)}) for name in ("one", "two")]
    for text in ("[[10]]", "[[1]]", "none"):
        out = tmp_path / text.strip("[]")
        summary = single(data, out, kit.scripted(lambda messages, text=text: text), *files, n=1)
        assert [model.overall.n_planned for model in summary.models] == [2, 2]
    games = pairs(data, tmp_path / "pairs", kit.scripted(kit.winner_by_worth), *files, n=1)
    assert games.models[0].by_turn["1"].n_planned == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "is empty"),
        ([{"question_id": 81, "choices": [{"turns": ["a"]}]}] * 2, "answers question 81 again"),
        ([{"question_id": 7, "choices": [{"turns": ["a"]}]}], "another set of questions"),
        (
            [{"question_id": 81, "choices": [{"turns": ["a"]}]}, {"question_id": 7, "choices": [{"turns": ["a"]}]}],
            "1 unknown question_ids",
        ),
        ([{"question_id": 81}], "choices"),
        ([{"question_id": 81, "choices": []}], "choices"),
        ([{"question_id": 81, "choices": [{"turns": [5]}]}], "choices.0.turns.0"),
        (
            [
                {"question_id": 81, "model_id": "a", "choices": [{"turns": ["a"]}]},
                {"question_id": 101, "model_id": "b", "choices": [{"turns": ["a"]}]},
            ],
            "several models",
        ),
    ],
)
def test_bad_answer_files(rows: list[dict[str, Any]], message: str, data: Path, tmp_path: Path) -> None:
    path = kit.write_lines(tmp_path / "bad.jsonl", rows)
    with pytest.raises(ConfigError, match=message):
        single(data, tmp_path / "out", kit.scripted(kit.rate_by_worth), path)


def test_files_that_are_cut_short_or_missing(data: Path, tmp_path: Path) -> None:
    path = kit.write_answers(tmp_path / "one.jsonl", "one")
    path.write_text(path.read_text()[:-30])
    with pytest.raises(ConfigError, match=r"one.jsonl:4: not a JSON line"):
        single(data, tmp_path / "out", kit.scripted(kit.rate_by_worth), path)
    with pytest.raises(ConfigError, match="does not exist"):
        single(data, tmp_path / "out", kit.scripted(kit.rate_by_worth), tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match="two of the given are called 'one'"):
        one = kit.write_answers(tmp_path / "a.jsonl", "one")
        single(data, tmp_path / "out", kit.scripted(kit.rate_by_worth), one, one)
    with pytest.raises(ConfigError, match="name a second file"):
        pairs(data, tmp_path / "out", kit.scripted(kit.winner_by_worth), one)


def test_a_data_directory_of_another_version(data: Path, tmp_path: Path) -> None:
    one = kit.write_answers(tmp_path / "one.jsonl", "one")
    summary = single(data, tmp_path / "out", kit.scripted(kit.rate_by_worth), one)
    assert {event.kind for event in summary.events} == {"data_hash_mismatch"} and len(summary.events) == 3
    (data / "mt_bench" / "reference_answer_gpt-4.jsonl").write_text(
        '{"question_id": 101, "choices": [{"turns": []}]}\n'
    )
    with pytest.raises(ConfigError, match="no whole answer to question 101"):
        single(data, tmp_path / "out", kit.scripted(kit.rate_by_worth), one)


def test_a_journal_row_of_another_prompt_is_refused(data: Path, tmp_path: Path) -> None:
    one = kit.write_answers(tmp_path / "one.jsonl", "one")
    single(data, tmp_path / "out", kit.scripted(kit.rate_by_worth), one)
    path = tmp_path / "out" / "journal.jsonl"
    lines = path.read_text().splitlines()
    row = json.loads(lines[1])
    path.write_text("\n".join([lines[0], json.dumps({**row, "prompt_hash": "0" * 64}), *lines[2:]]) + "\n")
    with pytest.raises(CorruptRecordError, match="another prompt"):
        single(data, tmp_path / "out", kit.scripted(kit.rate_by_worth), one)
