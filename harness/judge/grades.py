"""MT-Bench in numbers: ratings and games by turn and category, with intervals, and as FastChat shows them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from harness.judge.mt_bench import HIGHEST, LOWEST, Game, Grade
from harness.judge.records import (
    Comparison,
    JudgedScore,
    ModelResult,
    Number,
    PairCounts,
    count,
    difference,
    group_value,
)
from harness.stats import mean_ci, paired_difference, score_ci

_POINTS = {"win": 1.0, "tie": 0.5, "loss": 0.0, None: 0.0}
_Row = TypeVar("_Row", Grade, Game)


def summarize_grades(model: str, grades: Sequence[Grade]) -> ModelResult:
    """The ratings of one model; questions are the clusters, as two turns of one are not independent.

    Args:
        model: Its name.
        grades: One for every turn that the protocol asks for.
    """
    found = [grade for grade in grades if grade.status != "no_judgement"]
    return ModelResult(
        model=model,
        opponent=None,
        overall=_rated(grades),
        by_turn={str(turn): _rated(rows) for turn, rows in _split(grades, lambda row: row.turn).items()},
        by_category={name: _rated(rows) for name, rows in _categories(grades).items()},
        published=published_ratings(grades),
        parsing=count([*(g.how for g in found), *("ambiguous" for g in found if g.ambiguous)]),
    )


def summarize_games(model: str, opponent: str, games: Sequence[Game]) -> ModelResult:
    """The games of one model against another: a win counts 1, a tie 0.5, a game without a verdict as a loss."""
    return ModelResult(
        model=model,
        opponent=opponent,
        overall=_played(games),
        by_turn={str(turn): _played(rows) for turn, rows in _split(games, lambda row: row.turn).items()},
        by_category={name: _played(rows) for name, rows in _categories(games).items()},
        pairs=_counts(games),
        published=published_games(games),
        parsing=count("ambiguous" for game in games if game.ambiguous),
    )


def compare_models(by_model: Mapping[str, Sequence[_Row]]) -> list[Comparison]:
    """Every model against the first, by question and turn, over all planned judgements.

    Models that were judged on different turns are compared on those that both have.
    """
    names = list(by_model)
    found = []
    for name in names[1:]:
        base = {(row.question_id, row.turn): row for row in by_model[names[0]]}
        pairs = [
            (row, base[row.question_id, row.turn]) for row in by_model[name] if (row.question_id, row.turn) in base
        ]
        clusters = [str(row.question_id) for row, _ in pairs]
        pair = paired_difference([_unit(row) for row, _ in pairs], [_unit(row) for _, row in pairs], clusters)
        graded = bool(pairs) and isinstance(pairs[0][0], Grade)
        shown = difference(pair, names[0], scale=HIGHEST - LOWEST if graded else 1.0)
        found.append(Comparison(model=name, baseline=names[0], difference=shown))
    return found


def published_ratings(grades: Sequence[Grade]) -> dict[str, Number]:
    """FastChat's `show_result` in single mode: means over all ratings but -1, whatever their range."""

    def mean(rows: Sequence[Grade]) -> float | None:
        scores = [row.score for row in rows if row.score != -1]
        return sum(scores) / len(scores) if scores else None

    turns = {f"turn_{turn}": mean(rows) for turn, rows in _split(grades, lambda row: row.turn).items()}
    return {**turns, "average": mean(grades)}


def published_games(games: Sequence[Game]) -> dict[str, Number]:
    """FastChat's `show_result` against a baseline: games without an error in either order."""
    played = [game.outcome for game in games if game.outcome is not None]
    n, win, tie = len(played), played.count("win"), played.count("tie")
    return {
        "win": win,
        "loss": n - win - tie,
        "tie": tie,
        "win_rate": win / n if n else None,
        "loss_rate": (n - win - tie) / n if n else None,
        "win_rate_adjusted": (win + 0.5 * tie) / n if n else None,
    }


def _rated(grades: Sequence[Grade]) -> JudgedScore:
    bounds = (LOWEST, HIGHEST)
    judged = [grade for grade in grades if grade.status == "judged"]
    return JudgedScore(
        n_planned=len(grades),
        statuses=count(grade.status for grade in grades),
        all=group_value(mean_ci([_score(grade) for grade in grades], _clusters(grades), bounds=bounds)),
        judged=group_value(mean_ci([grade.score for grade in judged], _clusters(judged), bounds=bounds)),
    )


def _played(games: Sequence[Game]) -> JudgedScore:
    judged = [game for game in games if game.outcome is not None]
    return JudgedScore(
        n_planned=len(games),
        statuses=count(game.status for game in games),
        all=group_value(score_ci([_POINTS[game.outcome] for game in games], _clusters(games))),
        judged=group_value(score_ci([_POINTS[game.outcome] for game in judged], _clusters(judged))),
    )


def _counts(games: Sequence[Game]) -> PairCounts:
    judged = [game for game in games if game.outcome is not None]
    outcomes = [game.outcome for game in judged]
    # In the first order the model is shown first, in the second its opponent.
    shown_first = sum((game.winners[0] == "model_1") + (game.winners[1] == "model_2") for game in judged)
    shown_second = sum((game.winners[0] == "model_2") + (game.winners[1] == "model_1") for game in judged)
    return PairCounts(
        win=outcomes.count("win"),
        tie=outcomes.count("tie"),
        loss=outcomes.count("loss"),
        inconsistent=sum(not game.consistent for game in judged),
        first_wins=shown_first,
        second_wins=shown_second,
    )


def _score(grade: Grade) -> float:
    return grade.score if grade.status == "judged" else LOWEST


def _unit(row: Grade | Game) -> float:
    if isinstance(row, Grade):
        return (_score(row) - LOWEST) / (HIGHEST - LOWEST)
    return _POINTS[row.outcome]


def _clusters(rows: Sequence[Grade] | Sequence[Game]) -> list[str]:
    return [str(row.question_id) for row in rows]


def _categories(rows: Sequence[_Row]) -> dict[str, list[_Row]]:
    return _split([row for row in rows if row.category is not None], lambda row: str(row.category))


_Key = TypeVar("_Key", bound=Hashable)


def _split(rows: Sequence[_Row], key: Callable[[_Row], _Key]) -> dict[_Key, list[_Row]]:
    groups: dict[_Key, list[_Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
