"""AlpacaEval by a scripted judge: order, draws, weights, what has no verdict, by dataset, resume, bad files."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import ConfigError, EngineError
from harness.judge.alpaca_eval import is_switched
from harness.judge.records import JudgeSummary
from harness.judge.request import JudgeRequest
from harness.judge.run import judge_answers
from harness.judge.session import Judge
from harness.judge.win_rates import published_win_rate

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("judging.py"))))
N = len(kit.INSTRUCTIONS)
RANKING = "alpaca_eval_gpt4"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder: Path = kit.write_data(tmp_path / "data")
    return folder


def judged(data: Path, out: Path, judge: Judge, *answers: Path | str, **options: Any) -> JudgeSummary:
    request = JudgeRequest("alpaca-eval", tuple(map(str, answers)), data, out, mode="pairwise", quiet=True, **options)
    return judge_answers(request, lambda: judge)


def outputs(path: Path, model: str, texts: dict[str, str] | None = None) -> Path:
    found: Path = kit.write_outputs(path, model, texts or {text: f"By {model}, {text}" for text in kit.INSTRUCTIONS})
    return found


def rank_by_worth(messages: Any) -> str:
    one, other = (kit.worth(text) for text in kit.sides(messages))
    first = 1 if one >= other else 2
    return str([{"model": "model_1", "rank": first}, {"model": "model_2", "rank": 3 - first}])


def weigh_by_worth(messages: Any, name: str) -> float:
    one, other = (kit.worth(text) for text in kit.sides(messages))
    return math.log({"m": one, "M": other}[name] / (one + other) * 0.9)


def weighted(**options: Any) -> Judge:
    judge: Judge = kit.weighing(weigh_by_worth, **options)
    return judge


def test_weighted_preferences_do_not_depend_on_the_order_shown(data: Path, tmp_path: Path) -> None:
    mine = outputs(tmp_path / "mine.json", "mine")
    (model,) = judged(data, tmp_path / "out", weighted(), mine).models
    wins = []
    for text in kit.INSTRUCTIONS:
        ours, theirs = kit.worth(f"By mine, {text}"), kit.worth(f"By gpt4_1106_preview: {text}")
        wins.append(ours / (ours + theirs))
    assert model.opponent == "gpt4_1106_preview" and model.overall.statuses == {"judged": N}
    assert model.overall.all.value == pytest.approx(sum(wins) / N)
    assert model.published["win_rate"] == pytest.approx(100 * sum(wins) / N)
    rows = json.loads((tmp_path / "out" / "mine" / "annotations.json").read_text())
    assert [row["preference"] - 1 for row in rows] == pytest.approx(wins)
    assert {row["generator_2"] for row in rows} == {"mine"} and rows[0]["output_1"].startswith("By gpt4_1106")
    assert set(model.by_category) == {"set0", "set1"}


def test_rankings(data: Path, tmp_path: Path) -> None:
    mine = outputs(tmp_path / "mine.json", "mine")
    (model,) = judged(data, tmp_path / "out", kit.scripted(rank_by_worth), mine, template=RANKING).models
    assert model.opponent == "text_davinci_003"
    wins = 0
    for text in kit.INSTRUCTIONS:
        ours, theirs = kit.worth(f"By mine, {text}"), kit.worth(f"By text_davinci_003: {text}")
        wins += ours > theirs or (ours == theirs and is_switched(text))
    assert model.published["n_wins"] == wins and model.overall.all.value == pytest.approx(wins / N)


def test_a_judge_that_prefers_a_place_wins_by_the_draw_of_orders(data: Path, tmp_path: Path) -> None:
    mine = outputs(tmp_path / "mine.json", "mine")
    first = kit.scripted(lambda messages: "[{'model': 'model_1', 'rank': 1}]")
    (model,) = judged(data, tmp_path / "out", first, mine, template=RANKING).models
    assert model.published["n_wins"] == sum(map(is_switched, kit.INSTRUCTIONS))


def test_exchanging_model_and_reference_mirrors_the_win_rate(data: Path, tmp_path: Path) -> None:
    one, other = outputs(tmp_path / "one.json", "one"), outputs(tmp_path / "other.json", "other")
    (ahead,) = judged(data, tmp_path / "a", weighted(), one, reference=str(other)).models
    (behind,) = judged(data, tmp_path / "b", weighted(), other, reference=str(one)).models
    assert ahead.overall.all.value == pytest.approx(1 - float(behind.overall.all.value or 0))


def test_the_reference_against_itself_is_half_without_a_question(data: Path, tmp_path: Path) -> None:
    same = data / "alpaca_eval" / "gpt4_1106_preview_outputs.json"
    judge = weighted(fail_after=0)
    (model,) = judged(data, tmp_path / "out", judge, same).models
    assert model.overall.statuses == {"same_output": N} and model.overall.all.value == 0.5
    assert model.length_controlled is not None and model.length_controlled.win_rate.value == 0.5
    assert model.length_controlled.model == "same_model" and model.published["n_draws"] == N
    (named,) = judged(data, tmp_path / "named", judge, f"copy={same}").models
    assert named.length_controlled is not None and named.length_controlled.win_rate.value == pytest.approx(0.5)


def test_a_judge_that_answers_nonsense_is_counted(data: Path, tmp_path: Path) -> None:
    mine = outputs(tmp_path / "mine.json", "mine")
    (model,) = judged(data, tmp_path / "out", kit.scripted(lambda m: "Both!"), mine, template=RANKING).models
    assert model.overall.statuses == {"unparsable": N} and model.overall.all.value == 0.0
    assert model.overall.judged.value is None and model.published["win_rate"] is None
    assert model.length_controlled is not None and model.length_controlled.win_rate.value is None
    faint = kit.weighing(lambda messages, name: -9.0)
    (model,) = judged(data, tmp_path / "faint", faint, mine).models
    assert model.overall.statuses == {"unparsable": N}
    rows = json.loads((tmp_path / "faint" / "mine" / "annotations.json").read_text())
    assert len(rows) == N and all(row["preference"] is None for row in rows)


def test_a_broken_judge_is_an_error(data: Path, tmp_path: Path) -> None:
    mine = outputs(tmp_path / "mine.json", "mine")
    with pytest.raises(EngineError, match="NaN"):
        judged(data, tmp_path / "out", kit.weighing(lambda messages, name: math.nan), mine)


def test_missing_outputs_count_as_losses_and_the_long_are_told(data: Path, tmp_path: Path) -> None:
    some = {text: "By mine" for text in kit.INSTRUCTIONS[:8]} | {kit.INSTRUCTIONS[0]: "x" * 3000}
    judge = weighted(context=2000)
    (model,) = judged(data, tmp_path / "out", judge, outputs(tmp_path / "mine.json", "mine", some)).models
    assert model.overall.statuses == {"judged": 7, "no_answer": N - 8, "truncated_input": 1}
    assert model.overall.n_planned == N and model.overall.all.n == N and model.overall.judged.n == 7
    total = float(model.overall.judged.value or 0) * 7
    assert model.overall.all.value == pytest.approx(total / N)
    assert len(json.loads((tmp_path / "out" / "mine" / "annotations.json").read_text())) == N


def test_a_judge_that_dies_goes_on_where_it_was(data: Path, tmp_path: Path) -> None:
    mine = outputs(tmp_path / "mine.json", "mine")
    with pytest.raises(EngineError):
        judged(data, tmp_path / "out", weighted(fail_after=7), mine, batch_size=3)
    again = weighted()
    resumed = judged(data, tmp_path / "out", again, mine, batch_size=3)
    assert len(again.engine.asked) == N - 6  # type: ignore[attr-defined]
    assert resumed == judged(data, tmp_path / "whole", weighted(), mine, batch_size=3)


def test_models_are_compared_by_instruction(data: Path, tmp_path: Path) -> None:
    files = [outputs(tmp_path / f"{name}.json", name) for name in ("one", "two")]
    summary = judged(data, tmp_path / "out", weighted(), *files)
    (comparison,) = summary.comparisons
    one, two = (float(model.overall.all.value or 0) for model in summary.models)
    assert comparison.difference.value == pytest.approx(two - one) and comparison.difference.n == N


@pytest.mark.parametrize("preferences", [[2.0], [1.0], [1.5], [None], [2.0] * 9, [1.5] * 9, []])
def test_tiny_sets_have_numbers_or_reasons(preferences: list[float | None]) -> None:
    found = published_win_rate(preferences)
    known = [value for value in preferences if value is not None]
    assert found["n_total"] == len(known)
    assert (found["win_rate"] is None) == (not known)
    assert (found["standard_error"] is None) == (len(known) < 2)


@pytest.mark.parametrize(("n", "reply"), [(1, 1), (1, 2), (N, 1), (N, 2)])
def test_one_instruction_or_one_verdict_only(n: int, reply: int, data: Path, tmp_path: Path) -> None:
    mine = outputs(tmp_path / "mine.json", "mine")

    def always(messages: Any) -> str:
        ours = int(kit.sides(messages)[1].startswith("By mine")) + 1
        return str([{"model": "model_1", "rank": 3 - reply if ours == 1 else reply}])

    (model,) = judged(data, tmp_path / "out", kit.scripted(always), mine, template=RANKING, n=n).models
    assert model.overall.n_planned == n and model.overall.all.value == float(reply == 2)
    assert model.overall.all.ci95 is not None and model.length_controlled is not None
    if n == N:
        value = model.length_controlled.win_rate.value
        assert value is not None and (value > 0.9 if reply == 2 else value < 0.1)
    else:
        assert model.length_controlled.win_rate.value is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "is empty"),
        ([{"instruction": kit.INSTRUCTIONS[0], "output": "a"}] * 2, "has an instruction again"),
        ([{"instruction": "Other?", "output": "a"}], "another set of questions"),
        ([{"instruction": kit.INSTRUCTIONS[0], "output": "a"}, {"instruction": "Other?", "output": "a"}], "1 unknown"),
        ([{"instruction": kit.INSTRUCTIONS[0]}], "output"),
        ({"instruction": kit.INSTRUCTIONS[0]}, "one JSON list"),
    ],
)
def test_bad_output_files(rows: Any, message: str, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(ConfigError, match=message):
        judged(data, tmp_path / "out", weighted(), path)


def test_references_that_are_not_there(data: Path, tmp_path: Path) -> None:
    mine = outputs(tmp_path / "mine.json", "mine")
    with pytest.raises(ConfigError, match="neither a file nor"):
        judged(data, tmp_path / "out", weighted(), mine, reference="gpt9")
    with pytest.raises(ConfigError, match="two of the given"):
        judged(data, tmp_path / "out", weighted(), f"a={mine}", f"a={mine}")
